//! The cores, fed with arbitrary sequences of inputs.
//!
//! Each target is the driver of one core, as the contract of a core allows it to be: every output
//! is carried out, storage answers late, together or not at all, sockets are slow or gone, and the
//! peer says anything. What is asserted are statements about what the core says and asks for.

mod desk;
mod events_client;
mod events_engine;
mod events_server;
mod rig;
mod session_client;
mod session_server;
mod task_agent;
mod task_controller;

pub use self::events_client::events_client;
pub use self::events_engine::events_engine;
pub use self::events_server::events_server;
pub use self::session_client::session_client;
pub use self::session_server::session_server;
pub use self::task_agent::task_agent;
pub use self::task_controller::task_controller;
