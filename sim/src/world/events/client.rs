//! A client's host: the production client, with an application that writes what it gets to a
//! database of its own, event and cursor in one transaction.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::database::{Medium, Transaction, open_connection};
use gapless::events::client::{Client, ClientConfig, Notice, Offer, Position, StartAt};
use gapless::events::driver::{
    Application, CursorStore, Handled, Handler, HandlerError, OpenHandler, Target,
    client as client_task,
};
use gapless::events::sqlite::SqliteCursor;
use gapless::net::{BoxFuture, Connector, WallClock};
use gapless::recovery::{BackoffConfig, Epoch, LivenessConfig};
use rusqlite::Connection;

use super::SERVER;
use super::publisher::key_of;
use super::server::agent_token;
use super::watch::EventWatch;
use crate::chain::Digest;
use crate::history::{Chain, Seen};
use crate::mutants::Distorted;
use crate::plan::{ClientOptions, Topology};
use crate::trace::Kind;
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::limits;
use crate::world::link::{Link, LinkConnector};
use crate::world::record::Recorder;

/// What is wrong with the application of one client. Shared by the world and the application.
#[derive(Clone, Default)]
pub(crate) struct Moods(Arc<Mutex<MoodState>>);

#[derive(Default)]
pub(crate) struct MoodState {
    /// How many more times the handler fails.
    pub(crate) fail_handler: u32,
    /// How many more times the open handler fails.
    pub(crate) fail_open_handler: u32,
    /// How long each event takes; `None` = as the options say.
    pub(crate) handler: Option<Duration>,
    /// An event was received and is not applied yet.
    handling: bool,
}

impl Moods {
    pub(crate) fn state(&self) -> MutexGuard<'_, MoodState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn heal(&self) {
        let handling = self.state().handling;
        *self.state() = MoodState { handling, ..MoodState::default() };
    }

    /// The process is gone; whether an event was being handled.
    pub(crate) fn end_handling(&self) -> bool {
        std::mem::take(&mut self.state().handling)
    }
}

/// What the world knows of a client's database over the lives of the client's process.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<Mutex<KnownState>>);

#[derive(Default)]
struct KnownState {
    joined: bool,
    /// The newest row of `applied` that is in the history.
    applied: i64,
    /// What the application took since it was last told that something is missing, in which epoch.
    chain: Option<(Option<String>, Chain)>,
    /// It was told just now: one of the next this many events may skip some.
    told: u32,
    /// It may be told of what is missing after it was given what follows: a run of events ends
    /// wherever numbers do not follow each other.
    told_late: bool,
    /// Who it is, and whose stream it follows.
    client: u32,
    agent: u32,
}

impl KnownState {
    fn extend(
        &mut self,
        recorder: &Recorder,
        epoch: &Option<String>,
        sequence: u64,
        digest: Digest,
    ) {
        // Of a log that has gone back some events are known under another number.
        let may_skip = self.told > 0 || recorder.branch() > 0 || self.told_late;
        self.told = self.told.saturating_sub(1);
        let branch = |epoch: &Option<String>| recorder.branch_of(epoch.as_deref());
        if let Some((of, chain)) = &self.chain
            && (branch(of) != branch(epoch) || (may_skip && chain.to + 1 != sequence))
        {
            self.end_chain(recorder);
        }
        match &mut self.chain {
            Some((of, chain)) => {
                chain.extend(sequence, digest);
                of.clone_from(epoch);
            }
            chain => *chain = Some((epoch.clone(), Chain::begin(sequence, digest))),
        }
    }

    fn end_chain(&mut self, recorder: &Recorder) {
        if let Some((epoch, chain)) = self.chain.take() {
            recorder.see_chain(self.client, self.agent, epoch.as_deref(), chain);
        }
    }
}

impl Known {
    /// Of a client and the stream that it follows.
    pub(crate) fn new(client: u32, agent: u32) -> Self {
        Self(Arc::new(Mutex::new(KnownState { client, agent, ..KnownState::default() })))
    }

    /// From now on it may be told late of what is missing, as the base contract does.
    pub(super) fn is_told_late(&self) {
        self.state().told_late = true;
    }

    /// The application was told that something is missing: after the event that it is at work on,
    /// if there is one.
    fn told(&self) {
        self.state().told = 2;
    }

    /// Writes down what the application took since it was last told that something is missing.
    pub(crate) fn end_chain(&self, recorder: &Recorder) {
        self.state().end_chain(recorder);
    }

    fn state(&self) -> MutexGuard<'_, KnownState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a client that cannot open its database waits before it tries again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// Where the application's database is.
pub(super) const DATABASE: &str = "/data/app.db";

/// What the application keeps: the events that it has taken.
pub(super) const TABLES: &str = "CREATE TABLE IF NOT EXISTS applied (
    nth INTEGER PRIMARY KEY,
    epoch TEXT, sequence INTEGER, key TEXT, digest INTEGER NOT NULL) STRICT";

fn open_database(process: &Process) -> rusqlite::Result<(Connection, SqliteCursor)> {
    open_database_at(&process.disk.path(DATABASE), Some(VFS_NAME))
}

/// Opens the application's database in a file.
pub(crate) fn open_database_at(
    path: &Path,
    vfs: Option<&str>,
) -> rusqlite::Result<(Connection, SqliteCursor)> {
    let medium = Medium { vfs, page_bytes: Some(super::PAGE_BYTES), ..Medium::default() };
    let database = open_connection(path, medium)?;
    database.execute_batch(TABLES)?;
    let cursor = SqliteCursor::create(&database, "events")?;
    Ok((database, cursor))
}

/// What the options say to a client.
pub(crate) fn configuration(options: &ClientOptions) -> ClientConfig {
    let reconnect = BackoffConfig {
        min: Duration::from_millis(options.reconnect_ms.0),
        max: Duration::from_millis(options.reconnect_ms.1),
        ..ClientConfig::default().reconnect
    };
    ClientConfig {
        extension: options.extension,
        start: if options.from_beginning { StartAt::Beginning } else { StartAt::Live },
        liveness: LivenessConfig {
            ping_every: Duration::from_millis(options.ping_every_ms),
            pong_timeout: Duration::from_millis(options.pong_timeout_ms),
        },
        reconnect,
        queue_events: options.queue_events,
        offers_max: options.offers_max,
        ..ClientConfig::default()
    }
}

/// One life of a client.
#[expect(clippy::too_many_arguments, reason = "each is one thing that the world gives a client")]
pub(crate) async fn live(
    process: Process,
    number: u32,
    topology: &Topology,
    options: &ClientOptions,
    distorted: Distorted,
    link: Link,
    moods: Moods,
    known: Known,
) -> turmoil::Result {
    let agent = topology.agent_of(number);
    process.boot().await;
    create_dir("/data")?;
    let (database, cursor) = loop {
        match open_database(&process) {
            Ok(opened) => break opened,
            Err(error) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the database cannot be opened: {error}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    };
    let desk =
        Desk { known, process: process.clone(), client: number, moods, options: options.clone() };
    let watch =
        Arc::new(EventWatch { client: number, recorder: process.recorder.clone(), marks: false });
    let connector = LinkConnector { server: SERVER, watch, link, process: process.clone() };
    let wall = Arc::new(process.clock.clone());
    let config = configuration(options);
    follow(desk, config, agent, (database, cursor), distorted, connector, SERVER, wall).await?;
    Ok(())
}

/// Lets a client follow the stream of an agent.
///
/// # Errors
///
/// A sentence, if the cursor cannot be read.
#[expect(clippy::too_many_arguments, reason = "each is one thing that a client is given")]
pub(crate) async fn follow(
    desk: Desk,
    config: ClientConfig,
    agent: u32,
    (database, cursor): (Connection, SqliteCursor),
    distorted: Distorted,
    connector: impl Connector,
    host: &str,
    wall: Arc<dyn WallClock>,
) -> Result<(), String> {
    let entropy = desk.process.entropy("client");
    let app = App { desk, database: Arc::new(Mutex::new(database)), cursor };
    let core = distorted.client(Client::new(config, Box::new(entropy)));
    let notices = app.clone();
    let application = Application {
        handlers: vec![Box::new(app.clone())],
        open_handlers: vec![Box::new(app.clone())],
        cursor: Box::new(app),
        notices: Box::new(move |notice| notices.desk.notice(notice)),
    };
    let target = Target { limits: limits(), ..Target::new(host, agent_token(agent)) };
    let (_handle, run) = client_task(core, connector, target, wall, application);
    run.await
}

/// An event that an application takes.
pub(super) struct Taken<'a> {
    /// The event, as the application gets it.
    pub(super) text: &'a str,
    pub(super) epoch: Option<&'a str>,
    pub(super) sequence: Option<u64>,
}

/// A row of the application's database: an event that it has taken.
pub(super) struct Applied {
    nth: i64,
    epoch: Option<String>,
    sequence: Option<u64>,
    key: Option<String>,
    digest: Digest,
}

/// An application: how it is getting on, and what of that can be seen.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) known: Known,
    pub(crate) process: Process,
    pub(crate) client: u32,
    pub(crate) moods: Moods,
    pub(crate) options: ClientOptions,
}

impl Desk {
    /// Spends the time that the handler takes for an event; whether it then fails.
    pub(super) async fn handles(&self, sequence: Option<u64>) -> bool {
        let (fails, takes) = {
            let mut moods = self.moods.state();
            moods.handling = true;
            let fails = moods.fail_handler > 0;
            moods.fail_handler = moods.fail_handler.saturating_sub(1);
            let usual = Duration::from_millis(self.options.handler_ms);
            (fails, moods.handler.unwrap_or(usual))
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        self.process.pause.clone().apply(std::future::ready(())).await;
        self.moods.state().handling = false;
        if fails {
            let number = sequence.map_or("-".to_owned(), |it| it.to_string());
            self.process.record(Kind::App, format_args!("handler fails on {number}"));
        }
        fails
    }

    /// Spends the time that the open handlers take; whether they then fail.
    pub(super) async fn opens(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(self.options.open_handler_ms)).await;
        let fails = {
            let mut moods = self.moods.state();
            let fails = moods.fail_open_handler > 0;
            moods.fail_open_handler = moods.fail_open_handler.saturating_sub(1);
            fails
        };
        if fails {
            self.process.record(Kind::App, "open handler fails");
        }
        fails
    }

    /// Writes down what was just committed.
    pub(super) fn see_committed(
        &self,
        applied: Applied,
        database: &Connection,
    ) -> rusqlite::Result<()> {
        let mut known = self.known.state();
        if applied.nth == known.applied + 1 {
            self.see_taken(&mut known, applied);
            return Ok(());
        }
        drop(known);
        // One of those before was in doubt.
        self.see_applied(database)
    }

    /// Writes down what the database holds and the history does not, as that which a process had
    /// applied whose machine lost power before it knew.
    pub(super) fn see_applied(&self, database: &Connection) -> rusqlite::Result<()> {
        let mut known = self.known.state();
        let mut statement = database.prepare_cached(
            "SELECT nth, epoch, sequence, key, digest FROM applied WHERE nth > ?1 ORDER BY nth",
        )?;
        let mut rows = statement.query([known.applied])?;
        while let Some(row) = rows.next()? {
            let applied = Applied {
                nth: row.get(0)?,
                epoch: row.get(1)?,
                sequence: row.get(2)?,
                key: row.get(3)?,
                digest: Digest::from_i64(row.get(4)?),
            };
            self.see_taken(&mut known, applied);
        }
        Ok(())
    }

    fn see_taken(&self, known: &mut KnownState, applied: Applied) {
        let Applied { nth, epoch, sequence, key, digest } = applied;
        known.applied = nth;
        if let Some(sequence) = sequence {
            known.extend(&self.process.recorder, &epoch, sequence, digest);
        }
        let name = key.as_deref().unwrap_or("?");
        match sequence {
            Some(number) => self.process.record(Kind::App, format_args!("applies {number} {name}")),
            None => self.process.record(Kind::App, format_args!("applies - {name}")),
        }
        let (client, incarnation) = (self.client, self.process.life);
        self.process.recorder.see(Seen::Delivered { client, incarnation, epoch, sequence, key });
    }

    /// The event's effect, in a transaction.
    pub(super) fn apply(
        &self,
        taken: &Taken<'_>,
        transaction: &Connection,
    ) -> rusqlite::Result<Applied> {
        let Taken { text, epoch, sequence } = *taken;
        let key = key_of(text);
        let digest = self.digest(key.as_deref(), text);
        transaction
            .prepare_cached(
                "INSERT INTO applied (epoch, sequence, key, digest) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(rusqlite::params![epoch, sequence, key, digest.to_i64()])?;
        let (nth, epoch) = (transaction.last_insert_rowid(), epoch.map(str::to_owned));
        Ok(Applied { nth, epoch, sequence, key, digest })
    }

    fn digest(&self, key: Option<&str>, text: &str) -> Digest {
        self.process.recorder.digest_of(self.known.state().agent, key, text)
    }

    /// The application has taken an event, and keeps nothing over its end.
    pub(super) fn took(&self, taken: &Taken<'_>) {
        let Taken { text, epoch, sequence } = *taken;
        let key = key_of(text);
        let digest = self.digest(key.as_deref(), text);
        let mut known = self.known.state();
        let (nth, epoch) = (known.applied, epoch.map(str::to_owned));
        self.see_taken(&mut known, Applied { nth, epoch, sequence, key, digest });
    }

    /// The client has its first cursor.
    pub(super) fn see_joined(&self, epoch: Option<&str>, sequence: u64) {
        let mut known = self.known.state();
        if !known.joined {
            known.joined = true;
            let epoch = epoch.map(str::to_owned);
            self.process.recorder.see(Seen::Joined { client: self.client, epoch, sequence });
        }
    }

    /// The client tells the application something that can be seen.
    pub(super) fn see(&self, seen: Seen) {
        if let Seen::Gap { .. } | Seen::GaveUp { .. } = seen {
            self.known.told();
        }
        self.process.recorder.see(seen);
    }

    fn notice(&self, notice: Notice) {
        let client = self.client;
        let (text, seen) = match notice {
            Notice::Opened { .. } => {
                let incarnation = self.process.life;
                ("connected".to_owned(), Some(Seen::Connected { client, incarnation }))
            }
            Notice::Joined { position } => (format!("joins at {}", position.sequence), None),
            Notice::Disconnected { reason, retry_in } => {
                (format!("disconnected: {reason}; again in {} ms", retry_in.as_millis()), None)
            }
            Notice::Gap { verdict, lost, position } => {
                let ranges: Vec<String> = lost.iter().map(ToString::to_string).collect();
                let ranges =
                    if ranges.is_empty() { "unknown".to_owned() } else { ranges.join(", ") };
                let text = format!(
                    "gap: {}, lost {ranges}, goes on after {}",
                    verdict.as_str(),
                    position.sequence
                );
                let seen = Seen::Gap {
                    client,
                    verdict: verdict.as_str().to_owned(),
                    lost: lost.iter().map(|range| (range.from, range.to)).collect(),
                    epoch: position.epoch.as_ref().map(Epoch::to_string),
                    sequence: position.sequence,
                };
                (text, Some(seen))
            }
            Notice::Resynced { replayed, gap_detected } => (
                format!("resynced: {replayed} replayed, gap {gap_detected}"),
                Some(Seen::Resynced { client, replayed, gap_detected }),
            ),
            Notice::GaveUp { event, .. } => {
                let (sequence, key) = (event.sequence(), key_of(event.text()));
                let text = format!(
                    "gives up on {} {}",
                    sequence.unwrap_or(0),
                    key.as_deref().unwrap_or("?")
                );
                (text, Some(Seen::GaveUp { client, sequence, key }))
            }
            Notice::Ignored { error } => (format!("ignores a frame: {error}"), None),
            Notice::CursorNotStored { error } => (format!("cursor not stored: {error}"), None),
        };
        self.process.record(Kind::App, text);
        if let Some(seen) = seen {
            self.see(seen);
        }
    }
}

#[derive(Clone)]
struct App {
    desk: Desk,
    database: Arc<Mutex<Connection>>,
    cursor: SqliteCursor,
}

impl App {
    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event's effect and the position, in one transaction.
    fn apply(&self, offer: &Offer) -> rusqlite::Result<Applied> {
        let epoch = offer.position.as_ref().and_then(|position| position.epoch.as_ref());
        let taken = Taken {
            text: offer.event.text(),
            epoch: epoch.map(Epoch::as_str),
            sequence: offer.event.sequence(),
        };
        let database = self.database();
        let transaction = Transaction::begin(&database, false)?;
        let applied = self.desk.apply(&taken, &transaction)?;
        if let Some(position) = &offer.position {
            self.cursor.store(&transaction, position)?;
        }
        transaction.commit()?;
        Ok(applied)
    }

    fn see_joined(&self, position: &Position) {
        self.desk.see_joined(position.epoch.as_ref().map(Epoch::as_str), position.sequence);
    }
}

impl Handler for App {
    fn handle<'a>(&'a mut self, offer: &'a Offer) -> BoxFuture<'a, Result<Handled, HandlerError>> {
        Box::pin(async move {
            if self.desk.handles(offer.event.sequence()).await {
                return Err(HandlerError("the handler was told to fail".to_owned()));
            }
            let applied = self.apply(offer);
            self.desk.process.powered().await;
            match applied.and_then(|applied| self.desk.see_committed(applied, &self.database())) {
                Ok(()) if offer.position.is_some() => Ok(Handled::Stored),
                Ok(()) => Ok(Handled::Done),
                Err(error) => Err(HandlerError(error.to_string())),
            }
        })
    }
}

impl OpenHandler for App {
    fn opened(&mut self) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(async move {
            match self.desk.opens().await {
                true => Err(HandlerError("the open handler was told to fail".to_owned())),
                false => Ok(()),
            }
        })
    }
}

impl CursorStore for App {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Position>, String>> {
        Box::pin(async move {
            let loaded = self.cursor.load(&self.database()).map_err(|error| error.to_string())?;
            if let Some(position) = &loaded {
                let text = format!("cursor is {}", position.sequence);
                self.desk.process.record(Kind::Store, text);
                self.see_joined(position);
            }
            self.desk.see_applied(&self.database()).map_err(|error| error.to_string())?;
            Ok(loaded)
        })
    }

    fn save(&mut self, position: Position) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let saved = self.cursor.store(&self.database(), &position);
            let process = &self.desk.process;
            process.powered().await;
            saved.map_err(|error| error.to_string())?;
            process.record(Kind::Store, format_args!("cursor := {}", position.sequence));
            let epoch = position.epoch.as_ref().map(Epoch::as_str);
            process.recorder.reached(self.desk.client, epoch, position.sequence);
            self.see_joined(&position);
            Ok(())
        })
    }
}
