//! The stores of sessions on the simulation's own thread, with the virtual time that a disk would
//! take.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::storage::{Store, StoreCommand, StoreError, Transact};

use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::lock;
use crate::world::vault::Vault;

/// A store, for its core and for whoever looks into it.
pub(super) type Shared<C> = Arc<Mutex<Box<dyn Transact<C>>>>;

/// A command of a store, as a trace tells it.
pub(super) trait Told: StoreCommand {
    fn describe(&self) -> String;
    fn describe_reply(reply: &Self::Reply) -> String;
}

/// A store on the simulation's own thread.
pub(super) struct InlineStore<C: StoreCommand> {
    pub(super) store: Shared<C>,
    pub(super) process: Process,
    /// Where it is.
    pub(super) path: &'static str,
    pub(super) vault: Vault,
    pub(super) commit: Duration,
}

impl<C: Told> Store<C> for InlineStore<C>
where
    C::Reply: Sync,
{
    async fn run(&mut self, commands: Vec<C>) -> Result<Vec<C::Reply>, StoreError> {
        let wanted: Vec<String> = commands.iter().map(C::describe).collect();
        let writes = commands.iter().any(|command| !command.is_read_only());
        let result = lock(&self.store).transact(commands);
        if writes {
            self.vault.state().written += 1;
            self.vault.state().unsettled = matches!(result, Err(StoreError::Unknown(_)));
            if let Err(error) = self.vault.back_up_if_due(&self.process, self.path) {
                self.process
                    .record(Kind::Store, format_args!("the store cannot be copied: {error}"));
            }
        }
        let outcome = match &result {
            Ok(replies) => replies.iter().map(C::describe_reply).collect::<Vec<_>>(),
            Err(error) => vec![error.to_string()],
        };
        let text = format!("store: {} = {}", wanted.join(", "), outcome.join(", "));
        self.process.record(Kind::Store, text);
        self.process.powered().await;
        let committed = writes && result.is_ok();
        if committed {
            gapless::mark!("world.committed");
        }
        self.vault.state().committed = committed;
        let slow = self.vault.state().slow;
        tokio::time::sleep(slow.unwrap_or(self.commit)).await;
        self.vault.state().committed = false;
        result
    }
}
