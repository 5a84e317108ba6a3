//! A server's side of the engine: what production code asks, over turmoil's network.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use gapless::events::cluster::engine::{
    Engine, EngineError, Feed, FollowError, PublishFailure, Start, Stored,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, timeout};
use turmoil::net::TcpStream;

use super::lines::Lines;
use super::log::Message;
use super::pinned::Pinned;
use super::wire::{Answer, FollowFrom, Request, ToEngine, ToServer};
use crate::mutants::Settings;
use crate::plan::{Host, Protocol};
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::link::PORT;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The pause before another connection is tried.
const RECONNECT: Duration = Duration::from_millis(200);

/// The engine, as a server asks it.
#[derive(Clone)]
pub(crate) struct Remote {
    asks: mpsc::UnboundedSender<Ask>,
    settings: Settings,
    /// What the log looks like to a server that is not fenced.
    pinned: Option<Pinned>,
}

/// Something that a server asks.
struct Ask {
    request: Request,
    /// Set when the question has left; until then it is surely not answered.
    sent: Arc<AtomicBool>,
    answer: oneshot::Sender<Answer>,
    /// Where to tell what is followed.
    feed: Option<mpsc::UnboundedSender<Message>>,
}

/// Why there is no answer.
enum Silence {
    /// The question never left.
    NotAsked,
    NoAnswer,
}

impl Remote {
    /// What a server asks, and the line on which it does.
    pub(crate) fn new(process: Process, settings: Settings) -> (Self, Line) {
        let (asks, asked) = mpsc::unbounded_channel();
        let pinned = settings.unfenced.then(Pinned::default);
        (Self { asks, settings, pinned }, Line { process, asked })
    }

    async fn ask(
        &self,
        request: Request,
        feed: Option<mpsc::UnboundedSender<Message>>,
    ) -> Result<Answer, Silence> {
        let (answer, answered) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let ask = Ask { request, sent: Arc::clone(&sent), answer, feed };
        // A line that is gone drops what it is asked.
        let _ = self.asks.send(ask);
        match timeout(ANSWER_MAX, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) if sent.load(Ordering::Relaxed) => Err(Silence::NoAnswer),
            Ok(Err(_)) | Err(_) => Err(Silence::NotAsked),
        }
    }

    async fn read(&self, request: Request) -> Result<Answer, EngineError> {
        match self.ask(request, None).await {
            Ok(Answer::Unavailable(problem)) => Err(EngineError(problem)),
            Ok(answer) => Ok(answer),
            Err(Silence::NotAsked) => Err(EngineError("there is no connection".to_owned())),
            Err(Silence::NoAnswer) => Err(EngineError("no answer came".to_owned())),
        }
    }

    async fn read_one(&self, request: Request) -> Result<Option<Stored>, EngineError> {
        let subject = match &request {
            Request::Last { subject } => Arc::clone(subject),
            _ => Arc::from(""),
        };
        let message = match self.read(request).await? {
            Answer::Message(message) => message,
            other => return Err(EngineError(format!("it answers {other:?}"))),
        };
        let pinned = self.pinned.as_ref();
        let message = message.or_else(|| pinned.and_then(|pinned| pinned.first(&subject)));
        Ok(message.map(|message| stored(pinned, message)))
    }
}

fn stored(pinned: Option<&Pinned>, message: Message) -> Stored {
    let message = match pinned {
        Some(pinned) => pinned.shows(message),
        None => message,
    };
    Stored {
        stream_seq: message.stream_seq,
        subject: message.subject.to_string(),
        payload: message.payload.as_bytes().to_vec(),
    }
}

impl Engine for Remote {
    type Feed = Followed;

    async fn publish(
        &self,
        subject: &str,
        expected_last: u64,
        payload: Vec<u8>,
    ) -> Result<u64, PublishFailure> {
        let Ok(payload) = String::from_utf8(payload) else {
            return Err(PublishFailure::Refused("it is no text".to_owned()));
        };
        // A server that counts by itself has nothing to compare with.
        let expected_last = (!self.settings.counts_alone).then_some(expected_last);
        let (subject, payload) = (subject.into(), payload.into());
        match self.ask(Request::Publish { subject, expected_last, payload }, None).await {
            Ok(Answer::Stored(stream_seq)) => Ok(stream_seq),
            Ok(Answer::WrongLast) => Err(PublishFailure::WrongLast),
            Ok(Answer::Refused(problem) | Answer::Unavailable(problem)) => {
                Err(PublishFailure::Refused(problem))
            }
            Ok(other) => Err(PublishFailure::Unknown(format!("it answers {other:?}"))),
            Err(Silence::NotAsked) => {
                Err(PublishFailure::Refused("there is no connection".to_owned()))
            }
            Err(Silence::NoAnswer) => Err(PublishFailure::Unknown("no answer came".to_owned())),
        }
    }

    async fn last(&self, subject: &str) -> Result<Option<Stored>, EngineError> {
        self.read_one(Request::Last { subject: subject.into() }).await
    }

    async fn next(&self, subject: &str, from: u64) -> Result<Option<Stored>, EngineError> {
        self.read_one(Request::Next { subject: subject.into(), from }).await
    }

    async fn page(
        &self,
        subject: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, EngineError> {
        let subject = subject.into();
        match self.read(Request::Page { subject, from, messages_max, bytes_max }).await? {
            Answer::Page(page) => {
                let shown = page.into_iter().map(|message| stored(self.pinned.as_ref(), message));
                Ok(shown.collect())
            }
            other => Err(EngineError(format!("it answers {other:?}"))),
        }
    }

    async fn purge_below(&self, subject: &str, stream_seq: u64) -> Result<(), EngineError> {
        let request = Request::Purge { subject: subject.into(), below: stream_seq };
        self.read(request).await.map(|_| ())
    }

    async fn follow(&self, start: Start) -> Result<Followed, FollowError> {
        let (feed, messages) = mpsc::unbounded_channel();
        let from = match start {
            Start::New => FollowFrom::New,
            Start::After(after) => FollowFrom::After(after),
        };
        let request = Request::Follow { from, uncommitted: self.settings.reads_uncommitted };
        let answer = match self.ask(request, Some(feed)).await {
            Ok(Answer::Unavailable(problem)) => return Err(EngineError(problem).into()),
            Ok(answer) => answer,
            Err(_) => return Err(EngineError("no answer came".to_owned()).into()),
        };
        match (answer, start) {
            (Answer::Follows { last }, Start::After(after)) if last < after => {
                Err(FollowError::WentBack)
            }
            (Answer::Follows { .. }, _) => Ok(Followed { messages, pinned: self.pinned.clone() }),
            (other, _) => Err(EngineError(format!("it answers {other:?}")).into()),
        }
    }
}

/// What is followed, until its place is lost.
pub(crate) struct Followed {
    messages: mpsc::UnboundedReceiver<Message>,
    pinned: Option<Pinned>,
}

impl Feed for Followed {
    async fn next(&mut self) -> Result<Stored, EngineError> {
        match self.messages.recv().await {
            Some(message) => Ok(stored(self.pinned.as_ref(), message)),
            None => Err(EngineError("the place was lost".to_owned())),
        }
    }
}

/// The line of one life of a server to the engine: one connection after the other.
pub(crate) struct Line {
    process: Process,
    asked: mpsc::UnboundedReceiver<Ask>,
}

impl Line {
    /// Keeps a connection as long as the server lives.
    pub(crate) async fn run(mut self) {
        let engine = Host::Engine.name(Protocol::Events);
        loop {
            let connecting = timeout(CONNECT_MAX, TcpStream::connect((engine, PORT)));
            match self.refusing(connecting).await {
                Ok(Ok(stream)) => {
                    self.process.record(Kind::Life, "connected to the engine");
                    self.talk(stream).await;
                    self.process.record(Kind::Life, "the connection to the engine ends");
                }
                Ok(Err(_)) | Err(_) => {
                    self.process.record(Kind::Life, "the engine does not answer");
                }
            }
            self.refusing(tokio::time::sleep(RECONNECT)).await;
        }
    }

    /// Waits for something without a connection: what is asked meanwhile is not kept for the next one,
    /// because the engine may be another one by then.
    async fn refusing<F: Future>(&mut self, what: F) -> F::Output {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! { biased;
                done = &mut what => return done,
                Some(_refused) = self.asked.recv() => {}
            }
        }
    }

    async fn talk(&mut self, stream: TcpStream) {
        let lines = Lines::new(stream, self.process.recorder.now_ms());
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let process = self.process.clone();
        let mut talk = Talk {
            process,
            lines,
            asked: 0,
            answers: BTreeMap::new(),
            feeds: BTreeMap::new(),
            timer,
        };
        loop {
            tokio::select! { biased;
                ask = self.asked.recv() => match ask {
                    Some(ask) => talk.ask(ask),
                    None => return,
                },
                _ended = std::future::poll_fn(|cx| talk.poll(cx)) => return,
            }
        }
    }
}

/// A connection to the engine.
struct Talk {
    process: Process,
    lines: Lines,
    asked: u64,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    feeds: BTreeMap<u64, mpsc::UnboundedSender<Message>>,
    timer: Pin<Box<Sleep>>,
}

impl Talk {
    fn ask(&mut self, ask: Ask) {
        // Nobody waits for it any more.
        if ask.answer.is_closed() {
            return;
        }
        ask.sent.store(true, Ordering::Relaxed);
        self.asked += 1;
        let (id, request) = (self.asked, ask.request);
        self.answers.insert(id, ask.answer);
        if let Some(feed) = ask.feed {
            self.feeds.insert(id, feed);
        }
        let now_ms = self.process.recorder.now_ms();
        self.lines.say(now_ms, &ToEngine::Request { id, request });
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let now_ms = self.process.recorder.now_ms();
            while let Poll::Ready(line) = self.lines.poll_line(cx, now_ms) {
                self.hear(now_ms, line?);
            }
            if self.lines.silent_ms() <= now_ms {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if self.lines.ping_ms() <= now_ms {
                self.lines.say(now_ms, &ToEngine::Ping);
            }
            self.lines.write(cx)?;
            self.answers.retain(|_, answer| !answer.is_closed());
            let due_ms = self.lines.ping_ms().min(self.lines.silent_ms());
            let wait = Duration::from_millis(due_ms.saturating_sub(now_ms).max(1));
            // Tokio's clock on a host is turmoil's, which is virtual and the same for each run of a seed.
            self.timer.as_mut().reset(tokio::time::Instant::now() + wait);
            std::task::ready!(Future::poll(self.timer.as_mut(), cx));
        }
    }

    fn hear(&mut self, now_ms: u64, line: ToServer) {
        match line {
            ToServer::Answer { id, answer } => {
                if let Some(waiting) = self.answers.remove(&id) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(answer);
                }
            }
            ToServer::Follow { id, message } => {
                if let Some(feed) = self.feeds.get(&id)
                    && feed.send(message).is_err()
                {
                    self.feeds.remove(&id);
                    self.lines.say(now_ms, &ToEngine::Unfollow { id });
                }
            }
            ToServer::FollowEnds { id } => {
                self.feeds.remove(&id);
            }
            ToServer::Ping => {}
        }
    }
}
