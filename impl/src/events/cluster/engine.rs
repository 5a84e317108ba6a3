//! What a shared log asks of its storage engine, and what it counts on.
//!
//! The engine keeps *messages* in one order. Each has a *subject* and gets a *stream sequence*, a
//! number above that of every message before it; those of a subject ascend, with holes. This is what
//! NATS JetStream has as a stream, and no more than its release 2.9 has.
//!
//! What is promised:
//!
//! * **Compare and set.** A message is stored only if the last message of its subject is the
//!   expected one. Two that expect the same are never both stored.
//! * **Durable when acknowledged.** What was acknowledged is kept by any quorum.
//! * **Only committed messages are read**, also by those that follow.
//!
//! What is not promised, and has to be lived with:
//!
//! * An acknowledgement can be lost; a message whose acknowledgement was lost may be stored later,
//!   or never. It can no longer be stored once another one followed the expected one.
//! * A read may miss what was stored last, for as long as a leader that was replaced has not
//!   noticed. A publication that is acknowledged proves that the leader is current.
//! * Whoever follows may be given a message again.
//! * Nothing changes two subjects at once.

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place among all messages.
    pub stream_seq: u64,
    /// Its subject.
    pub subject: String,
    /// Its content.
    pub payload: Vec<u8>,
}

/// A message was not stored, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// Another message is the last of the subject. This one is not stored.
    #[error("another message is the last of its subject")]
    WrongLast,
    /// It is surely not stored, and will not be.
    #[error("the engine refused it: {0}")]
    Refused(String),
    /// It may be stored, or may be stored later.
    #[error("it is not known whether the engine stored it: {0}")]
    Unknown(String),
}

/// The engine did not answer a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine does not answer: {0}")]
pub struct EngineError(pub String);

/// Where to begin to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is stored from now on.
    New,
    /// With what is stored after a stream sequence.
    After(u64),
}

/// Why nothing can be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The engine does not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine has not come as far: what it holds is not what it held.
    #[error("the engine holds less than it has shown before")]
    WentBack,
}

/// A storage engine. See the [module](self) for what it promises.
///
/// A call ends within a time that the engine sets itself.
pub trait Engine: Send + Sync + 'static {
    /// See [`follow`](Engine::follow).
    type Feed: Feed;

    /// Stores a message as the last of its subject, if that one has the stream sequence
    /// `expected_last`; 0 = the subject has no message. Returns the stream sequence that it got.
    fn publish(
        &self,
        subject: &str,
        expected_last: u64,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<u64, PublishFailure>> + Send;

    /// The last message of a subject, as the leader knows it.
    fn last(
        &self,
        subject: &str,
    ) -> impl Future<Output = Result<Option<Stored>, EngineError>> + Send;

    /// The first message of a subject at or after a stream sequence, as the leader knows it.
    fn next(
        &self,
        subject: &str,
        from: u64,
    ) -> impl Future<Output = Result<Option<Stored>, EngineError>> + Send;

    /// Messages of a subject at or after a stream sequence, in their order and without a hole, at
    /// most `messages_max`, and none after that with which `bytes_max` bytes are reached. It may
    /// return fewer than there are, and none only if the leader has none.
    fn page(
        &self,
        subject: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Stored>, EngineError>> + Send;

    /// Forgets the messages of a subject below a stream sequence.
    fn purge_below(
        &self,
        subject: &str,
        stream_seq: u64,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// All messages of all subjects from a point on, in their order and without a hole but for
    /// those that were forgotten.
    fn follow(&self, from: Start) -> impl Future<Output = Result<Self::Feed, FollowError>> + Send;
}

/// The messages that somebody follows.
pub trait Feed: Send + 'static {
    /// The next message; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: the feed has ended, because it would have a hole or because the engine is
    /// away. It is begun again with [`Engine::follow`].
    fn next(&mut self) -> impl Future<Output = Result<Stored, EngineError>> + Send;
}
