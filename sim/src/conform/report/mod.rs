//! What is written of results for others than whoever runs the command. Each report is a pure
//! function of [`Results`](super::summary::Results), which can be read again from their JSON lines.

mod html;
mod junit;
mod markdown;
mod matrix;

pub use self::html::html;
pub use self::junit::junit;
pub use self::markdown::{markdown, matrix as markdown_matrix};
