//! Conversations, and what a client has in flight, on SQLite.

use std::path::Path;

use super::conversation;
use super::in_flight;
use crate::database::{OpenError, Synchronous};
use crate::recovery::Entropy;
use crate::storage::{StoreError, Transact};

/// How a [`SqliteConversations`] is opened.
#[derive(Debug, Clone)]
pub struct ConversationsConfig {
    /// How many rows of a conversation are kept, and as long their ids: 100,000.
    pub retain_rows: u64,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// The SQLite VFS to use; `None` = the operating system's.
    pub vfs: Option<String>,
}

impl Default for ConversationsConfig {
    fn default() -> Self {
        Self { retain_rows: 100_000, synchronous: Synchronous::Full, vfs: None }
    }
}

/// The conversations of a server.
#[derive(Debug)]
pub struct SqliteConversations {}

impl SqliteConversations {
    /// Opens a database, or makes a new one if there is no file.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was written.
    pub fn open(path: &Path, config: &ConversationsConfig) -> Result<Self, OpenError> {
        let _ = (path, config);
        todo!()
    }
}

impl Transact<conversation::Command> for SqliteConversations {
    fn transact(
        &mut self,
        _commands: Vec<conversation::Command>,
    ) -> Result<Vec<conversation::Reply>, StoreError> {
        todo!()
    }
}

/// What a client has in flight, and its id.
#[derive(Debug)]
pub struct SqliteInFlight {}

impl SqliteInFlight {
    /// Opens a database, or makes a new one, with a client id of its own, if there is no file.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was written. A client that shares the file with another one cannot
    /// be opened: two views have two client ids [SE-8e].
    pub fn open(
        path: &Path,
        vfs: Option<&str>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, in_flight::Kept), OpenError> {
        let _ = (path, vfs, entropy);
        todo!()
    }
}

impl Transact<in_flight::Command> for SqliteInFlight {
    fn transact(&mut self, _commands: Vec<in_flight::Command>) -> Result<Vec<()>, StoreError> {
        todo!()
    }
}
