//! The storage engine as NATS JetStream has it, from its release 2.9 on.
//!
//! The log is one JetStream stream. Reads go to its leader (`STREAM.MSG.GET`), never to a follower
//! that may lag (`allow_direct` is off). Longer pages and what is followed come by ephemeral
//! consumers, which see committed messages only; a plain subscription would see messages before.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::{
    ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind, PublishErrorKind,
};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DeleteStatus, DiscardPolicy, LastRawMessageError, LastRawMessageErrorKind,
    RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::StreamExt as _;

use super::engine::{Engine, EngineError, Feed, FollowError, PublishFailure, Start, Stored};

/// How a stream of JetStream is reached and made.
#[derive(Clone)]
pub struct JetStreamConfig {
    /// The addresses of servers, as `nats://host:4222`; one that answers is enough. A name and a
    /// password in them are neither printed nor logged.
    pub servers: Vec<String>,
    /// The name of the stream, and what all of its subjects begin with: `gapless`.
    pub stream: String,
    /// On how many servers each message is kept: 3.
    pub replicas: usize,
    /// How many messages of a subject are kept; `None` = all.
    pub messages_per_subject: Option<u64>,
    /// How long an answer may take: 2 s.
    pub timeout: Duration,
    /// How long the servers may take to have a leader at the beginning: 30 s.
    pub start_timeout: Duration,
}

impl JetStreamConfig {
    /// The stream `gapless` at some servers.
    pub fn new(servers: Vec<String>) -> Self {
        Self {
            servers,
            stream: "gapless".to_owned(),
            replicas: 3,
            messages_per_subject: None,
            timeout: Duration::from_secs(2),
            start_timeout: Duration::from_secs(30),
        }
    }
}

impl std::fmt::Debug for JetStreamConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JetStreamConfig")
            .field("servers", &without_userinfo(&self.servers.join(",")))
            .field("stream", &self.stream)
            .field("replicas", &self.replicas)
            .field("messages_per_subject", &self.messages_per_subject)
            .field("timeout", &self.timeout)
            .field("start_timeout", &self.start_timeout)
            .finish()
    }
}

/// JetStream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An address is none, or is refused.
    #[error("cannot connect to {servers}: {problem}")]
    Connect {
        /// The addresses.
        servers: String,
        /// What is wrong.
        problem: String,
    },
    /// The stream is not there and cannot be made.
    #[error("the stream `{stream}` cannot be made: {problem}")]
    Create {
        /// Its name.
        stream: String,
        /// What is wrong.
        problem: String,
    },
    /// The stream is not there, and was not to be made.
    #[error("there is no stream `{stream}`")]
    Missing {
        /// Its name.
        stream: String,
    },
    /// The stream is there and is another than is needed.
    #[error("the stream `{stream}` has another configuration than is needed: {}", problems.join("; "))]
    Configuration {
        /// Its name.
        stream: String,
        /// What differs.
        problems: Vec<String>,
    },
}

/// How long a consumer lives that nobody asks.
const CONSUMER_LIFE: Duration = Duration::from_secs(30);

/// How many messages are read one by one before a consumer is made.
const SINGLE_READS: usize = 4;

/// How often whoever follows hears of the engine.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How many messages may be on their way to whoever follows.
const FEED_MESSAGES: usize = 256;

/// How long the ids of messages are remembered. In a cluster, a leader of 2.9 compares the expected last
/// message with what it has applied, so of two that are on their way at once, both would be stored.
/// An id that names what is expected makes the second one a duplicate where it is applied. What was
/// applied longer ago than this is what the leader compares with.
const IN_FLIGHT: Duration = Duration::from_secs(120);

/// How often it is tried to find a leader at the beginning.
const START_PAUSE: Duration = Duration::from_millis(250);

/// A stream of JetStream.
#[derive(Debug, Clone)]
pub struct JetStream {
    name: String,
    context: Context,
    stream: Stream<()>,
    timeout: Duration,
}

impl JetStream {
    /// Connects, and makes the stream if it is not there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(config: &JetStreamConfig) -> Result<Self, ConnectError> {
        Self::reach(config, true).await
    }

    /// Connects to a stream as it is; neither is it made nor its configuration looked at.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_to_existing(config: &JetStreamConfig) -> Result<Self, ConnectError> {
        Self::reach(config, false).await
    }

    async fn reach(config: &JetStreamConfig, prepared: bool) -> Result<Self, ConnectError> {
        let refused = |problem: String| ConnectError::Connect {
            servers: without_userinfo(&config.servers.join(",")),
            problem,
        };
        let options = async_nats::ConnectOptions::new()
            .name("gapless")
            .connection_timeout(config.timeout)
            .request_timeout(Some(config.timeout))
            .ping_interval(Duration::from_secs(5));
        let client = options.connect(&config.servers).await;
        let client = client.map_err(|error| refused(error.to_string()))?;
        let context =
            ContextBuilder::new().timeout(config.timeout).ack_timeout(config.timeout).build(client);
        let ready = async {
            match prepared {
                true => Self::prepare(&context, config).await,
                false => Self::found(&context, &config.stream).await.map(drop),
            }
        };
        tokio::time::timeout(config.start_timeout, ready)
            .await
            .unwrap_or_else(|_| Err(refused("JetStream has no leader".to_owned())))?;
        let stream = context.get_stream_no_info(&config.stream).await;
        let stream = stream.map_err(|error| refused(error.to_string()))?;
        Ok(Self { name: config.stream.clone(), context, stream, timeout: config.timeout })
    }

    /// The configuration of the stream that is there; asks until somebody leads.
    async fn found(context: &Context, name: &str) -> Result<Config, ConnectError> {
        loop {
            let error = match context.get_stream(name).await {
                Ok(stream) => return Ok(stream.cached_info().config.clone()),
                Err(error) => error,
            };
            let stream = name.to_owned();
            match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    return Err(ConnectError::Missing { stream });
                }
                GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::EmptyName => {
                    return Err(ConnectError::Create { stream, problem: error.to_string() });
                }
                GetStreamErrorKind::Request | GetStreamErrorKind::JetStream(_) => {
                    tracing::info!(%error, "waiting for JetStream");
                    tokio::time::sleep(START_PAUSE).await;
                }
            }
        }
    }

    /// Makes the stream, or checks that which is there.
    async fn prepare(context: &Context, config: &JetStreamConfig) -> Result<(), ConnectError> {
        let wanted = wanted(config);
        loop {
            match Self::found(context, &config.stream).await {
                Ok(found) => return check(config, &wanted, &found),
                Err(ConnectError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            match context.create_stream(wanted.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => match error.kind() {
                    // Another server was first, or nobody leads yet.
                    CreateStreamErrorKind::TimedOut
                    | CreateStreamErrorKind::JetStreamUnavailable
                    | CreateStreamErrorKind::Response => {}
                    CreateStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_NAME_EXIST
                            || error.error_code() == ErrorCode::INSUFFICIENT_RESOURCES
                            || error.code() == 503 => {}
                    _ => {
                        let (stream, problem) = (config.stream.clone(), error.to_string());
                        return Err(ConnectError::Create { stream, problem });
                    }
                },
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// The name of the stream, and what its subjects begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, EngineError> {
        let late = |_| EngineError(format!("no answer within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, answer).await.map_err(late)
    }

    async fn consumer(
        &self,
        filter: &str,
        from: u64,
    ) -> Result<Consumer<pull::Config>, EngineError> {
        let config = pull::Config {
            deliver_policy: match from {
                0 => DeliverPolicy::All,
                start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subject: filter.to_owned(),
            inactive_threshold: CONSUMER_LIFE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        self.within(self.stream.create_consumer(config)).await?.map_err(engine_error)
    }

    /// Deletes one message. JetStream's purge of a subject is not used: a server of 2.9 that was killed
    /// reads the purge in its raft log again, and then forgets the messages of all subjects before it.
    async fn delete(&self, stream_seq: u64) -> Result<(), EngineError> {
        #[derive(serde::Serialize)]
        struct Delete {
            seq: u64,
            /// It is forgotten, and not written over.
            no_erase: bool,
        }
        let subject = format!("STREAM.MSG.DELETE.{}", self.name);
        let delete = Delete { seq: stream_seq, no_erase: true };
        let answer = self.within(self.context.request(subject, &delete)).await?;
        match answer.map_err(engine_error)? {
            Response::Ok(DeleteStatus { success: true }) => Ok(()),
            Response::Ok(DeleteStatus { success: false }) => {
                Err(EngineError("a message is not deleted".to_owned()))
            }
            Response::Err { error } => Err(engine_error(error)),
        }
    }

    /// Adds to a page what a consumer has, which may be less than the leader has.
    async fn consume(
        &self,
        subject: &str,
        page: &mut Vec<Stored>,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), EngineError> {
        let Some(last) = page.last() else { return Ok(()) };
        let consumer = self.consumer(subject, last.stream_seq + 1).await?;
        let mut bytes: usize = page.iter().map(|stored| stored.payload.len()).sum();
        let batch = consumer
            .fetch()
            .max_messages(messages_max - page.len())
            .max_bytes(bytes_max - bytes)
            .messages();
        let mut batch = self.within(batch).await?.map_err(engine_error)?;
        let mut expected = 1;
        while bytes < bytes_max
            && let Ok(Some(Ok(message))) = self.within(batch.next()).await
        {
            let info = message.info().map_err(engine_error)?;
            if info.consumer_sequence != expected {
                break;
            }
            expected += 1;
            // A consumer on a server that lags may begin before.
            if page.last().is_some_and(|last| info.stream_sequence <= last.stream_seq) {
                continue;
            }
            bytes += message.payload.len();
            page.push(Stored {
                stream_seq: info.stream_sequence,
                subject: message.subject.to_string(),
                payload: message.payload.to_vec(),
            });
        }
        if let Err(error) =
            self.within(self.stream.delete_consumer(&consumer.cached_info().name)).await
        {
            tracing::debug!(%error, "a consumer stays until it is idle for long");
        }
        Ok(())
    }
}

/// Addresses of NATS servers, with commas between them, as they may be shown: with `***` for each name
/// and password.
pub fn without_userinfo(servers: &str) -> String {
    let shown = servers.split(',').map(|server| match server.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}{}***@{host}", if scheme.is_empty() { "" } else { "://" })
        }
        None => server.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The configuration of a stream that a log needs.
fn wanted(config: &JetStreamConfig) -> Config {
    let per_subject =
        config.messages_per_subject.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
    Config {
        name: config.stream.clone(),
        subjects: vec![format!("{}.>", config.stream)],
        retention: RetentionPolicy::Limits,
        // What was acknowledged is not dropped to make room.
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_messages_per_subject: per_subject.unwrap_or(-1),
        max_messages: -1,
        max_bytes: -1,
        max_consumers: -1,
        allow_direct: false,
        duplicate_window: IN_FLIGHT,
        description: Some("the event log of gapless".to_owned()),
        ..Config::default()
    }
}

/// What of a stream that is there differs from what is needed.
fn check(config: &JetStreamConfig, wanted: &Config, found: &Config) -> Result<(), ConnectError> {
    let mut problems = Vec::new();
    let mut differs = |is: bool, problem: String| {
        if is {
            problems.push(problem);
        }
    };
    differs(
        !found.subjects.contains(&wanted.subjects[0]),
        format!("it has not the subjects `{}`", wanted.subjects[0]),
    );
    differs(found.retention != wanted.retention, "its retention is not `limits`".to_owned());
    differs(found.discard != wanted.discard, "it does not discard `new` at its limits".to_owned());
    differs(found.storage != wanted.storage, "its storage is not `file`".to_owned());
    differs(!found.max_age.is_zero(), "its messages have a greatest age".to_owned());
    differs(
        found.sealed || found.no_ack || found.deny_delete,
        "it is sealed, acknowledges nothing or denies that messages are deleted".to_owned(),
    );
    differs(
        found.discard_new_per_subject,
        "it refuses what is new on a subject that is full".to_owned(),
    );
    differs(found.mirror.is_some(), "it is a mirror".to_owned());
    differs(
        found.duplicate_window < wanted.duplicate_window,
        format!("it forgets the ids of messages before {IN_FLIGHT:?} have passed"),
    );
    differs(
        found.num_replicas < wanted.num_replicas,
        format!("it has {} replicas, {} are wanted", found.num_replicas, wanted.num_replicas),
    );
    differs(
        found.max_messages_per_subject.max(-1) != wanted.max_messages_per_subject
            && (found.max_messages_per_subject > 0 || wanted.max_messages_per_subject > 0),
        format!(
            "it keeps {} messages of a subject, {} are wanted (-1: all)",
            found.max_messages_per_subject, wanted.max_messages_per_subject
        ),
    );
    match problems.is_empty() {
        true => Ok(()),
        false => Err(ConnectError::Configuration { stream: config.stream.clone(), problems }),
    }
}

impl Engine for JetStream {
    type Feed = JetStreamFeed;

    async fn publish(
        &self,
        subject: &str,
        expected_last: u64,
        payload: Vec<u8>,
    ) -> Result<u64, PublishFailure> {
        let message = PublishMessage::build()
            .payload(payload.into())
            .message_id(format!("{subject}:{expected_last}"))
            .expected_last_subject_sequence(expected_last);
        let sent = self.context.send_publish(subject.to_owned(), message).await;
        let answer = match sent {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        let error = match answer {
            // Another one that expected the same was first; its sequence is what is said here.
            Ok(stored) if stored.duplicate => return Err(PublishFailure::WrongLast),
            Ok(stored) => return Ok(stored.sequence),
            Err(error) => error,
        };
        let refusal = |error: &async_nats::jetstream::context::PublishError| {
            use std::error::Error as _;
            let source = error.source()?.downcast_ref::<async_nats::jetstream::Error>()?;
            Some((source.error_code(), source.to_string()))
        };
        match error.kind() {
            PublishErrorKind::WrongLastSequence => Err(PublishFailure::WrongLast),
            // Nobody took it.
            PublishErrorKind::StreamNotFound
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::MaxPayloadExceeded => {
                Err(PublishFailure::Refused(error.to_string()))
            }
            PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::Other => match refusal(&error) {
                // A message with the same expectation is on its way, or was.
                Some((ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT, _)) => {
                    Err(PublishFailure::WrongLast)
                }
                Some((code, text)) if is_refusal(code, &text) => Err(PublishFailure::Refused(text)),
                _ => Err(PublishFailure::Unknown(error.to_string())),
            },
        }
    }

    async fn last(&self, subject: &str) -> Result<Option<Stored>, EngineError> {
        let get = self.stream.raw_message_builder().last_by_subject(subject).send();
        found(self.within(get).await?)
    }

    async fn next(&self, subject: &str, from: u64) -> Result<Option<Stored>, EngineError> {
        // 0 would be taken for a sequence that is not given.
        let get = self.stream.raw_message_builder().sequence(from.max(1)).next_by_subject(subject);
        found(self.within(get.send()).await?)
    }

    async fn page(
        &self,
        subject: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, EngineError> {
        let (mut page, mut bytes, mut from) = (Vec::new(), 0, from);
        while page.len() < messages_max.min(SINGLE_READS) && bytes < bytes_max {
            let Some(stored) = self.next(subject, from).await? else { return Ok(page) };
            from = stored.stream_seq + 1;
            bytes += stored.payload.len();
            page.push(stored);
        }
        if page.len() < messages_max
            && bytes < bytes_max
            && let Err(error) = self.consume(subject, &mut page, messages_max, bytes_max).await
        {
            tracing::debug!(%error, "a page ends early");
        }
        Ok(page)
    }

    async fn purge_below(&self, subject: &str, stream_seq: u64) -> Result<(), EngineError> {
        let mut from = 1;
        while let Some(stored) = self.next(subject, from).await?
            && stored.stream_seq < stream_seq
        {
            self.delete(stored.stream_seq).await?;
            from = stored.stream_seq + 1;
        }
        Ok(())
    }

    async fn follow(&self, from: Start) -> Result<JetStreamFeed, FollowError> {
        let info = self.within(self.stream.get_info()).await?.map_err(engine_error)?;
        let last = info.state.last_sequence;
        let from = match from {
            Start::New => last + 1,
            Start::After(after) if after > last => return Err(FollowError::WentBack),
            Start::After(after) => after + 1,
        };
        let consumer = self.consumer("", from).await?;
        let messages =
            consumer.stream().max_messages_per_batch(FEED_MESSAGES).heartbeat(HEARTBEAT).messages();
        let messages = self.within(messages).await?.map_err(engine_error)?;
        Ok(JetStreamFeed { messages: Box::pin(messages), from, expected: 1 })
    }
}

/// Whether all nodes refuse a message alike. That a message cannot be stored may also be the trouble
/// of one node, while others store it; only a limit is the same for all.
fn is_refusal(code: ErrorCode, text: &str) -> bool {
    if code == ErrorCode::STREAM_STORE_FAILED {
        return text.contains("maximum");
    }
    [
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
        ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
        ErrorCode::STREAM_SEALED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ]
    .contains(&code)
}

fn found(
    answer: Result<StreamMessage, LastRawMessageError>,
) -> Result<Option<Stored>, EngineError> {
    match answer {
        Ok(message) => Ok(Some(Stored {
            stream_seq: message.sequence,
            subject: message.subject.to_string(),
            payload: message.payload.to_vec(),
        })),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(engine_error(error)),
    }
}

fn engine_error(error: impl std::fmt::Display) -> EngineError {
    EngineError(error.to_string())
}

/// What is stored in a stream, by a consumer.
pub struct JetStreamFeed {
    messages: Pin<Box<pull::Stream>>,
    /// Where it begins; a consumer on a server that lags may begin before.
    from: u64,
    /// The number that the consumer gives to the next message.
    expected: u64,
}

impl Feed for JetStreamFeed {
    async fn next(&mut self) -> Result<Stored, EngineError> {
        loop {
            let message = match self.messages.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(engine_error(error)),
                None => return Err(EngineError("the consumer has ended".to_owned())),
            };
            let info = message.info().map_err(engine_error)?;
            if info.consumer_sequence != self.expected {
                return Err(EngineError("messages of the consumer were lost".to_owned()));
            }
            self.expected += 1;
            if info.stream_sequence >= self.from {
                let stream_seq = info.stream_sequence;
                let (subject, payload) = (message.subject.to_string(), message.payload.to_vec());
                return Ok(Stored { stream_seq, subject, payload });
            }
        }
    }
}
