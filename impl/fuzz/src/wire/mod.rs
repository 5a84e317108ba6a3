//! The parsers: total, and what they accept is written and read back equal.

mod auth;
mod events;
mod http;
mod session;
mod tasks;

pub use self::auth::tasks_auth;
pub use self::events::events_wire;
pub(crate) use self::events::{
    client_text as events_client_text, server_text as events_server_text,
};
pub use self::http::tasks_http;
pub use self::session::session_wire;
pub(crate) use self::session::{
    client_text as session_client_text, server_text as session_server_text,
};
pub use self::tasks::tasks_wire;
pub(crate) use self::tasks::{
    agent_text as task_agent_text, controller_text as task_controller_text,
};

use crate::source::Source;

/// A text frame: the bytes themselves, or one that is nearly right.
fn text_or(source: &mut Source<'_>, nearly: fn(&mut Source<'_>) -> String) -> String {
    match source.below(4) {
        0 => String::from_utf8_lossy(source.rest()).into_owned(),
        _ => nearly(source),
    }
}
