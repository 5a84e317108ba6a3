//! What the type system has to say about the drivers.
#![cfg(feature = "net")]

use std::sync::Arc;

use gapless::events::client::{Client, ClientConfig};
use gapless::events::driver::{
    Application, Handled, ServerTaskConfig, Target, client, handler_fn, server,
};
use gapless::events::log::{Command, Reply};
use gapless::events::server::{Server, ServerConfig};
use gapless::net::{SystemClock, TcpConnector, Tokens};
use gapless::storage::{Store, StoreError};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// A log that nobody asks.
struct NoLog;

impl Store<Command> for NoLog {
    async fn run(&mut self, _: Vec<Command>) -> Result<Vec<Reply>, StoreError> {
        Err(StoreError::NotApplied("there is no log".to_owned()))
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn drivers_can_be_spawned_on_any_runtime() {
    let entropy = || Box::new(ChaCha12Rng::seed_from_u64(1));
    let wall = Arc::new(SystemClock);
    let core = Server::new(ServerConfig::default(), entropy());
    let (handle, task) = server(core, NoLog, wall.clone(), ServerTaskConfig::default());
    drop((is_send(handle), is_send(task)));
    let core = Client::new(ClientConfig::default(), entropy());
    let application = Application::new(handler_fn(|_| Ok(Handled::Done)));
    let target = Target::new("localhost", "token");
    let (handle, run) = client(core, TcpConnector::new("localhost:1"), target, wall, application);
    drop((is_send(handle), is_send(run)));
}

#[test]
fn tokens_are_not_printed() {
    let target = Target::new("localhost", "a-secret");
    assert!(!format!("{target:?}").contains("a-secret"));
    let tokens = Tokens::default().publisher("a-secret", "somebody");
    let text = format!("{tokens:?}");
    assert!(text.contains("somebody") && !text.contains("a-secret"), "{text}");
}
