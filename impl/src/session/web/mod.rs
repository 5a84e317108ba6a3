//! A page for a browser: a whole client of the extension, without a framework.

/// The page. It takes its token from `token` on its own URL, and connects to `/ws` beside it.
pub const PAGE: &str = include_str!("chat.html");
