//! A foreign client in the place of a client's host, with the same application in front of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::SERVER;
use super::client::{DATABASE, Desk, Known, Moods, TABLES, Taken};
use super::publisher::key_of;
use super::server::agent_token;
use super::watch::EventWatch;
use crate::conform::{Config, Effect, Event, EventsClientConfig, feature};
use crate::history::Seen;
use crate::plan::ClientOptions;
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::link::{Link, LinkConnector};
use crate::world::marks;
use crate::world::node::{
    Attached, Entrance, Outside, Part, Storage, decoded, drive, keeps, write,
};
use crate::world::vault::Vault;

/// What a life of a foreign client is given.
pub(super) struct Side {
    pub(super) attached: Attached,
    pub(super) case: String,
    /// Whose stream it follows.
    pub(super) agent: u32,
    pub(super) options: ClientOptions,
    pub(super) link: Link,
    pub(super) moods: Moods,
    pub(super) known: Known,
    pub(super) vault: Vault,
    pub(super) process: Process,
}

/// How long a client whose storage cannot be opened waits before it tries again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// One life of a foreign client.
pub(super) async fn live(side: Side, number: u32) -> turmoil::Result {
    let Side { attached, case, agent, options, link, moods, known, vault, process } = side;
    process.boot().await;
    let storage = match keeps(&attached) {
        true => Some(open(&process).await),
        false => None,
    };
    let desk = Desk { known, process: process.clone(), client: number, moods, options };
    if let Some(storage) = &storage {
        desk.see_applied(&storage.database())?;
    }
    desk.known.is_told_late();
    let marks = attached.has(feature::MARKS);
    let watch = EventWatch { client: number, recorder: process.recorder.clone(), marks: !marks };
    let connector =
        LinkConnector { server: SERVER, watch: Arc::new(watch), link, process: process.clone() };
    let part = ClientPart {
        asynchronous: attached.has(feature::HANDLER_ASYNC),
        desk: desk.clone(),
        storage: storage.clone(),
        marks: !marks,
        given: None,
        gap_told: false,
    };
    let options = &desk.options;
    let entrance = Entrance {
        seat: number as usize - 1,
        case,
        config: Config::EventsClient(EventsClientConfig {
            base_url: format!("http://{SERVER}"),
            token: agent_token(agent),
            extension: options.extension,
            from_beginning: options.from_beginning,
            ping_every_ms: options.ping_every_ms,
            pong_timeout_ms: options.pong_timeout_ms,
            reconnect_ms: options.reconnect_ms,
            queue_events: options.queue_events,
            offers_max: options.offers_max,
        }),
        connector: Some(Arc::new(connector)),
        storage,
        vault,
        commit: Duration::ZERO,
        attached,
        process,
    };
    drive(entrance, part).await
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, DATABASE, TABLES) {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process
                    .record(Kind::Store, format_args!("the database cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

/// The application of a foreign client that runs by itself, as it tells of it.
pub(crate) struct Told(ClientPart);

impl Told {
    pub(crate) fn new(desk: Desk, marks: bool) -> Self {
        let (storage, given) = (None, None);
        Self(ClientPart { desk, storage, asynchronous: false, marks, given, gap_told: false })
    }

    /// The implementation has done something.
    ///
    /// # Errors
    ///
    /// A sentence, if no client that runs by itself does such a thing.
    pub(crate) fn did(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::AppEvent { ticket: Some(_), .. } | Effect::AppOpen { ticket: Some(_) } => {
                Err("it gave a ticket, and nobody answers those of one that runs by itself; its \
                     handlers take the time that `live` names"
                    .to_owned())
            }
            Effect::AppState { text } => {
                self.0.say(text);
                Ok(())
            }
            Effect::Mark { name } => {
                if let Some(mark) = marks::known(&name) {
                    self.0.desk.process.recorder.mark(mark);
                }
                Ok(())
            }
            effect => self.0.effect(effect, &Outside::nowhere()),
        }
    }
}

/// The application of a foreign client.
struct ClientPart {
    desk: Desk,
    /// Where the application stores what it took; `None` if nothing survives the process.
    storage: Option<Storage>,
    /// Handlers take time, and say when they are done.
    asynchronous: bool,
    /// Marks that can be seen from outside are not told by the node.
    marks: bool,
    /// The number that was given to the application last.
    given: Option<u64>,
    /// A gap was declared that no resync has spoken of yet.
    gap_told: bool,
}

/// What the simulator has to know of an event.
#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    agent_seq: Option<u64>,
}

fn sequence_of(event: &str) -> Option<u64> {
    serde_json::from_str::<Numbered>(event).ok()?.agent_seq
}

impl ClientPart {
    fn say(&self, text: String) {
        self.desk.process.record(Kind::App, text);
    }

    /// The handler takes the event now, and keeps nothing over the end of the process.
    fn take(&mut self, event: &str, epoch: Option<&str>) {
        let sequence = sequence_of(event);
        self.joins_below(epoch, sequence);
        self.desk.took(&Taken { text: event, epoch, sequence });
        self.given = sequence.or(self.given);
    }

    /// Who has not said where it joined has joined below the first event that it gives away.
    fn joins_below(&self, epoch: Option<&str>, sequence: Option<u64>) {
        if let Some(before) = sequence.and_then(|sequence| sequence.checked_sub(1)) {
            self.desk.see_joined(epoch, before);
        }
    }

    /// The handler begins to take the event, and says when it is done.
    fn begin(
        &mut self,
        ticket: u64,
        event: String,
        epoch: Option<String>,
        commits: BTreeMap<String, String>,
        outside: &Outside,
    ) -> Result<(), String> {
        let commits = commits.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let commits = decoded(&commits)?;
        if self.storage.is_none() && !commits.is_empty() {
            return Err("it commits with an event, and has announced no storage".to_owned());
        }
        self.given = sequence_of(&event).or(self.given);
        let (desk, storage, outside) = (self.desk.clone(), self.storage.clone(), outside.clone());
        let marks = self.marks;
        tokio::spawn(async move {
            let sequence = sequence_of(&event);
            let mut ok = !desk.handles(sequence).await;
            let taken = Taken { text: &event, epoch: epoch.as_deref(), sequence };
            if ok && let Some(storage) = storage {
                let applied = {
                    let mut database = storage.database();
                    database.transaction().and_then(|transaction| {
                        let applied = desk.apply(&taken, &transaction)?;
                        write(&transaction, &commits)?;
                        transaction.commit()?;
                        Ok(applied)
                    })
                };
                desk.process.powered().await;
                let seen = |applied| desk.see_committed(applied, &storage.database());
                ok = applied.and_then(seen).is_ok();
            } else if ok {
                desk.took(&taken);
            }
            if !ok && marks {
                gapless::mark!("events.handler_failed");
            }
            outside.happened(Event::AppDone { ticket, ok });
        });
        Ok(())
    }
}

impl Part for ClientPart {
    fn first(&mut self) -> Vec<Event> {
        if self.asynchronous {
            return Vec::new();
        }
        let mut moods = self.desk.moods.state();
        let handler = std::mem::take(&mut moods.fail_handler);
        let open_handler = std::mem::take(&mut moods.fail_open_handler);
        [
            (handler > 0).then_some(Event::HandlerFail { times: handler }),
            (open_handler > 0).then_some(Event::OpenHandlerFail { times: open_handler }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn effect(&mut self, effect: Effect, outside: &Outside) -> Result<(), String> {
        let client = self.desk.client;
        match effect {
            Effect::AppEvent { event, epoch, ticket: Some(ticket), commits, .. } => {
                return self.begin(ticket, event, epoch, commits, outside);
            }
            Effect::AppEvent { event, failed: true, .. } => {
                let number = sequence_of(&event).map_or("-".to_owned(), |it| it.to_string());
                self.say(format!("handler fails on {number}"));
                if self.marks {
                    gapless::mark!("events.handler_failed");
                }
            }
            Effect::AppEvent { event, epoch, .. } => self.take(&event, epoch.as_deref()),
            Effect::AppJoined { epoch, sequence } => {
                self.say(format!("joins at {sequence}"));
                self.desk.see_joined(epoch.as_deref(), sequence);
            }
            Effect::AppPosition { epoch, sequence } => {
                let recorder = &self.desk.process.recorder;
                recorder.reached(client, epoch.as_deref(), sequence);
            }
            Effect::AppOpen { ticket } => {
                self.say("connected".to_owned());
                let incarnation = self.desk.process.life;
                self.desk.see(Seen::Connected { client, incarnation });
                let (desk, outside) = (self.desk.clone(), outside.clone());
                if let Some(ticket) = ticket {
                    tokio::spawn(async move {
                        let ok = !desk.opens().await;
                        outside.happened(Event::AppDone { ticket, ok });
                    });
                }
            }
            Effect::AppGap { verdict, lost, epoch, sequence } => {
                self.say(format!("gap: {verdict}, lost {lost:?}, goes on after {sequence}"));
                self.gap_told = true;
                self.desk.see(Seen::Gap { client, verdict, lost, epoch, sequence });
            }
            Effect::AppResynced { replayed, gap_detected } => {
                self.say(format!("resynced: {replayed} replayed, gap {gap_detected}"));
                if gap_detected && !std::mem::take(&mut self.gap_told) {
                    // It says that something is lost, and not what: something up to here.
                    let (verdict, sequence) = ("unknown".to_owned(), self.given.unwrap_or(0));
                    let (lost, epoch) = (Vec::new(), None);
                    self.desk.see(Seen::Gap { client, verdict, lost, epoch, sequence });
                }
                self.desk.see(Seen::Resynced { client, replayed, gap_detected });
            }
            Effect::AppGaveUp { event } => {
                let (sequence, key) = (sequence_of(&event), key_of(&event));
                self.say(format!(
                    "gives up on {} {}",
                    sequence.unwrap_or(0),
                    key.as_deref().unwrap_or("?")
                ));
                self.desk.see(Seen::GaveUp { client, sequence, key });
            }
            other => return Err(format!("no client of events does {other:?}")),
        }
        Ok(())
    }
}
