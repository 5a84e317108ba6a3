//! The controller's side of the task protocol, without I/O.

pub mod record;
#[cfg(feature = "sqlite")]
pub mod sqlite;
