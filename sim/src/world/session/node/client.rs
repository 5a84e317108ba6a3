//! A foreign client in the place of a client's host, with the same user in front of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gapless::net::http;
use gapless::session::client::Submission;
use gapless::session::conversation::{Input, Role, What};
use gapless::session::view::{Pending, Rejected, View};
use gapless::session::wire::{self, Body, ClientFrame, ServerFrame, Status};
use gapless::session::{CloseCode, Name};
use tokio::sync::{oneshot, watch};

use crate::conform::session::{
    LinkState, NotTaken, PendingInput, Question, QuestionShown, RejectedInput, SessionClientConfig,
    ViewUpdate,
};
use crate::conform::{Config, Effect, Event, StoreProblem, feature};
use crate::history::{Conn, Said, Seen, SessionSeen, ViewChange, digest};
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::link::LinkConnector;
use crate::world::lock;
use crate::world::node::{Attached, Entrance, Outside, Part, Storage, drive, keeps};
use crate::world::record::Recorder;
use crate::world::session::client::{IN_FLIGHT, OPEN_RETRY, Side};
use crate::world::session::link::SessionLink;
use crate::world::session::user::{Handle, Page, Refused};
use crate::world::session::watch::{Viewer, change};
use crate::world::session::{SERVER, token};

/// One life of a foreign client: one page after the other.
pub(in crate::world::session) async fn live(
    side: Side,
    attached: Attached,
    case: String,
) -> turmoil::Result {
    side.boot().await?;
    let storage = match keeps(&attached) {
        true => Some(open(&side.process).await),
        false => None,
    };
    loop {
        side.foreign_page(&attached, &case, storage.clone()).await;
        side.see_load();
    }
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, IN_FLIGHT, "") {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the store cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

impl Side {
    /// One page of a foreign client, until it is loaded again.
    async fn foreign_page(&self, attached: &Attached, case: &str, storage: Option<Storage>) {
        let (process, options) = (&self.process, &self.options);
        let load = self.user.loads();
        if storage.is_none() && load > 1 {
            self.see_store_replaced();
        }
        let front = Front::default();
        let viewer =
            Viewer { client: self.number, user: self.of, life: load, extension: self.extension };
        let reports = storage.is_some() && attached.has(feature::IN_FLIGHT_REPORTS);
        let part = ClientPart::new(viewer, reports, process.recorder.clone(), front.clone());
        let connector = LinkConnector {
            server: SERVER,
            watch: Arc::new(SessionLink),
            link: self.link.clone(),
            process: process.clone(),
        };
        let entrance = Entrance {
            process: process.clone(),
            attached: attached.clone(),
            seat: self.number as usize - 1,
            case: case.to_owned(),
            config: Config::SessionClient(SessionClientConfig {
                base_url: format!("http://{SERVER}"),
                token: token(self.of),
                client_id: self.shared_id(),
                extension: options.extension,
                connect_ms: options.connect_ms,
                ping_every_ms: options.ping_every_ms,
                reconnect_ms: options.reconnect_ms,
                ack_every_ms: options.ack_every_ms,
                ack_timeout_ms: options.ack_timeout_ms,
                in_flight: options.in_flight,
                base_grace_ms: options.base_grace_ms,
                messages: options.messages,
            }),
            connector: Some(Arc::new(connector)),
            storage,
            vault: self.vault.clone(),
            commit: Duration::from_millis(options.commit_ms),
        };
        let page = Page {
            user: self.user.clone(),
            process: process.clone(),
            client: self.number,
            ledger: self.ledger.clone(),
            handle: front,
            answer: Duration::from_millis(options.answer_ms),
        };
        tokio::select! { biased;
            _ = drive(entrance, part) => {}
            () = page.use_it() => {}
        }
    }
}

/// Where the user and a foreign client meet.
#[derive(Clone, Default)]
struct Front(Arc<Mutex<Counter>>);

#[derive(Default)]
struct Counter {
    /// The way to the client, as soon as it has begun.
    outside: Option<Outside>,
    show: watch::Sender<Arc<View>>,
    tickets: u64,
    /// Who waits for an answer, by ticket.
    waiting: BTreeMap<u64, oneshot::Sender<Result<String, Refused>>>,
}

impl Front {
    fn state(&self) -> MutexGuard<'_, Counter> {
        lock(&self.0)
    }

    fn happened(&self, event: Event) {
        if let Some(outside) = &self.state().outside {
            outside.happened(event);
        }
    }

    fn answer(&self, ticket: u64, answer: Result<String, Refused>) {
        if let Some(waiting) = self.state().waiting.remove(&ticket) {
            // A user who has gone away does not hear of it.
            let _ = waiting.send(answer);
        }
    }
}

impl Handle for Front {
    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.state().show.subscribe()
    }

    async fn submit(&self, what: Submission) -> Result<String, Refused> {
        let (answer, submitted) = oneshot::channel();
        let ticket = {
            let mut state = self.state();
            state.tickets += 1;
            let ticket = state.tickets;
            state.waiting.insert(ticket, answer);
            ticket
        };
        self.happened(match what {
            Submission::Message { text, attachments } => {
                let attachments = attachments.into_iter().map(Into::into).collect();
                Event::AppSay { ticket, text, attachments }
            }
            Submission::Answer { text } => Event::AppAnswer { ticket, text },
        });
        submitted.await.unwrap_or_else(|_| {
            Err(Refused { too_many: false, problem: "the client has ended".to_owned() })
        })
    }

    async fn reconnect(&self) {
        self.happened(Event::AppReconnect);
    }
}

/// What can be seen of a foreign client, from its messages and from what it tells its user.
struct ClientPart {
    viewer: Viewer,
    /// Commits say what they keep.
    reports: bool,
    recorder: Recorder,
    front: Front,
    /// What was seen before the client has said what it calls itself.
    early: Option<Vec<SessionSeen>>,
    view: Arc<View>,
    /// What was told of the view; the rest is guessed.
    told: Told,
    /// A history came, and no rows have changed since.
    history: bool,
    /// What the user said and is not answered yet, by ticket.
    said: BTreeMap<u64, (Said, u64)>,
    /// What commits that are not done keep, and what they drop.
    commits: BTreeMap<u64, (Vec<String>, Vec<String>)>,
    /// Inputs that were sent in this life.
    sent: BTreeSet<String>,
    dialed: u64,
}

#[derive(Default)]
struct Told {
    link: bool,
    status: bool,
}

impl ClientPart {
    fn new(viewer: Viewer, reports: bool, recorder: Recorder, front: Front) -> Self {
        Self {
            viewer,
            reports,
            recorder,
            front,
            early: Some(Vec::new()),
            view: Arc::default(),
            told: Told::default(),
            history: false,
            said: BTreeMap::new(),
            commits: BTreeMap::new(),
            sent: BTreeSet::new(),
            dialed: 0,
        }
    }

    fn see(&mut self, what: SessionSeen) {
        match &mut self.early {
            Some(early) => early.push(what),
            None => self.recorder.see(Seen::Session(what)),
        }
    }

    fn conn(&self, number: u64) -> Conn {
        Conn { life: self.viewer.life, number }
    }

    /// The client has said what it calls itself. What it shows first is what earlier lives have left.
    fn see_began(&mut self, name: &str) {
        let Some(early) = self.early.take() else { return };
        let Viewer { client, user, life, extension } = self.viewer;
        let in_flight = early.iter().find_map(|seen| match seen {
            SessionSeen::Shown { change, .. } => change.pending.clone(),
            _ => None,
        });
        let (name, in_flight) = (name.to_owned(), in_flight.unwrap_or_default());
        self.see(SessionSeen::Began { client, user, name, life, extension, in_flight });
        early.into_iter().for_each(|what| self.see(what));
    }

    fn see_dialed(&mut self, conn: u64, url: &str) {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let number = |name| http::query(query, name).and_then(|text| text.parse().ok());
        self.see_began(http::query(query, "client_id").as_deref().unwrap_or_default());
        self.dialed += 1;
        self.see(SessionSeen::Dialed {
            client: self.viewer.client,
            conn: self.conn(conn),
            since: number("since").unwrap_or(0),
            epoch: http::query(query, "epoch"),
            attempt: number("attempt").unwrap_or(self.dialed),
        });
    }

    fn see_sent(&mut self, conn: u64, text: &str) {
        let (client, conn) = (self.viewer.client, self.conn(conn));
        match ClientFrame::parse(text) {
            Ok(
                ClientFrame::UserMessage { id: Some(id), .. }
                | ClientFrame::UserAnswer { id: Some(id), .. },
            ) => {
                let input = id.to_string();
                if !self.reports && self.sent.insert(input.clone()) {
                    self.see(SessionSeen::Kept { client, input: input.clone() });
                }
                self.see(SessionSeen::InputSent { client, conn, input });
            }
            Ok(ClientFrame::Ack { seq, epoch }) => {
                let epoch = epoch.as_ref().map(ToString::to_string);
                self.see(SessionSeen::Acked { client, conn, seq, epoch });
            }
            _ => {}
        }
    }

    /// What the server says, before the client knows.
    fn see_arrived(&mut self, text: &str) {
        let history = text.contains("\"session_history\"")
            && ServerFrame::parse(text)
                .is_ok_and(|frame| frame.seq > 0 && matches!(frame.body, Body::History(_)));
        if history {
            self.history = true;
            self.change(|view| view.loaded = true);
        }
        self.guess_link(LinkState::Live);
    }

    /// How the connection is, for all that is known.
    fn guess_link(&mut self, link: LinkState) {
        if !self.told.link {
            self.change(|view| view.connection = link.into());
        }
    }

    fn lost(&mut self, conn: u64, code: Option<u16>) {
        let (client, conn) = (self.viewer.client, self.conn(conn));
        self.see(SessionSeen::Lost { client, conn, code });
        self.guess_link(match code.map(CloseCode) {
            Some(CloseCode::SUPERSEDED) => LinkState::Superseded,
            _ => LinkState::Waiting,
        });
    }

    fn change(&mut self, how: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view);
        how(&mut view);
        let view = Arc::new(view);
        let seen = change(&self.view, &view, self.history);
        self.view = Arc::clone(&view);
        if seen.rows.is_some() {
            self.history = false;
        }
        if seen != ViewChange::default() {
            self.see(SessionSeen::Shown { client: self.viewer.client, change: seen });
        }
        self.front.state().show.send_replace(view);
    }

    fn update(&mut self, update: ViewUpdate) -> Result<(), String> {
        let ViewUpdate { link, rows, pending, rejected, question, status } = update;
        let pending = pending.map(|it| it.iter().map(self::pending).collect()).transpose()?;
        let rejected: Vec<Rejected> =
            rejected.iter().map(self::rejected).collect::<Result<_, _>>()?;
        let question = question.map(asked).transpose()?;
        self.told.link |= link.is_some();
        self.told.status |= status.is_some();
        let guesses = !self.told.status;
        self.change(|view| {
            if let Some(link) = link {
                view.connection = link.into();
            }
            for splice in rows {
                let at = splice.at.min(view.messages.len());
                let end = at.saturating_add(splice.gone).min(view.messages.len());
                let new = splice.new.into_iter().map(|row| Arc::new(row.into()));
                view.messages.splice(at..end, new);
            }
            if let Some(pending) = pending {
                view.pending = pending;
            }
            view.rejected = rejected;
            if let Some(question) = question {
                view.open_question = question;
            }
            view.status = match (status, &view.open_question) {
                (Some(status), _) => status.into(),
                (None, Some(_)) if guesses => Status::Waiting,
                (None, None) if guesses => Status::Idle,
                (None, _) => view.status,
            };
        });
        Ok(())
    }

    fn taken(&mut self, ticket: u64, id: String) -> Result<(), String> {
        let (what, digest) = self.said.remove(&ticket).ok_or_else(|| nobody(ticket))?;
        let (client, input) = (self.viewer.client, id.clone());
        self.see(SessionSeen::Submitted { client, input, what, digest });
        self.front.answer(ticket, Ok(id));
        Ok(())
    }

    fn not_taken(&mut self, ticket: u64, why: NotTaken, problem: String) -> Result<(), String> {
        self.said.remove(&ticket).ok_or_else(|| nobody(ticket))?;
        self.front.answer(ticket, Err(Refused { too_many: why == NotTaken::TooMany, problem }));
        Ok(())
    }
}

impl Part for ClientPart {
    fn begin(&mut self, outside: &Outside) -> Event {
        self.front.state().outside = Some(outside.clone());
        Event::AppConnect
    }

    fn life(&self) -> Option<u64> {
        Some(self.viewer.life)
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::AppSay { ticket, text, .. } => {
                self.said.insert(*ticket, (Said::Message, digest(Role::User, text)));
            }
            Event::AppAnswer { ticket, text } => {
                let question = self.view.open_question.as_ref();
                let question = question.and_then(|it| it.id.as_ref()).map(ToString::to_string);
                self.said.insert(*ticket, (Said::Answer { question }, digest(Role::User, text)));
            }
            Event::AppReconnect => self.see(SessionSeen::Wanted { client: self.viewer.client }),
            Event::SockMessage { text: Some(text), .. } => self.see_arrived(text),
            Event::SockClose { conn, code } => self.lost(*conn, *code),
            Event::SockError { .. } => self.guess_link(LinkState::Waiting),
            _ => {}
        }
    }

    fn does(&mut self, effect: &Effect) {
        match effect {
            Effect::SockConnect { conn, url, .. } => {
                self.see_dialed(*conn, url);
                self.guess_link(LinkState::Connecting);
            }
            Effect::SockSend { conn, text } => self.see_sent(*conn, text),
            Effect::SockClose { .. } => self.guess_link(LinkState::Waiting),
            _ => {}
        }
    }

    fn committed(&mut self, id: u64, error: Option<StoreProblem>) {
        let Some((kept, dropped)) = self.commits.remove(&id).filter(|_| error.is_none()) else {
            return;
        };
        let client = self.viewer.client;
        for input in kept {
            self.see(SessionSeen::Kept { client, input });
        }
        for input in dropped {
            self.see(SessionSeen::Dropped { client, input });
        }
    }

    fn effect(&mut self, effect: Effect, _: &Outside) -> Result<(), String> {
        match effect {
            Effect::AppView(update) => self.update(*update),
            Effect::AppInput { ticket, id } => self.taken(ticket, id),
            Effect::AppRefused { ticket, problem, message } => {
                self.not_taken(ticket, problem, message)
            }
            Effect::StoreInFlight { id, kept, dropped } if self.reports => {
                self.commits.insert(id, (kept, dropped));
                Ok(())
            }
            other => Err(format!("no client of sessions does {other:?}")),
        }
    }
}

fn nobody(ticket: u64) -> String {
    format!("nobody has said anything with ticket {ticket}, or it is answered")
}

fn name(id: &str) -> Result<Name, String> {
    Name::parse(id).map_err(|error| error.to_string())
}

/// An input of which the view tells no more than its name.
fn input(id: &str, what: What) -> Result<Input, String> {
    Ok(Input { id: name(id)?, what, text: String::new() })
}

fn pending(pending: &PendingInput) -> Result<Pending, String> {
    let what = match pending.answer {
        true => What::Answer { question: None, asked: None },
        false => What::Message { attachments: Vec::new(), after: None },
    };
    Ok(Pending { input: input(&pending.id, what)?, kept: true })
}

fn rejected(rejected: &RejectedInput) -> Result<Rejected, String> {
    let what = What::Message { attachments: Vec::new(), after: None };
    Ok(Rejected { input: input(&rejected.id, what)?, reason: rejected.why() })
}

fn asked(question: QuestionShown) -> Result<Option<wire::Question>, String> {
    match question {
        QuestionShown::Nothing => Ok(None),
        QuestionShown::Open(Question { id, text }) => {
            let id = id.as_deref().map(name).transpose()?;
            Ok(Some(wire::Question { id, text, source: String::new() }))
        }
    }
}
