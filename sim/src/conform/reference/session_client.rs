//! The client of sessions as a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gapless::net::http;
use gapless::recovery::{BackoffConfig, Instant};
use gapless::session::client::{
    Client, ClientConfig, Input, Output, Resume, Submission, SubmitError,
};
use gapless::session::conversation::What;
use gapless::session::in_flight::{Command, Kept};
use gapless::session::sqlite::SqliteInFlight;
use gapless::session::view::View;
use gapless::session::wire::{FrameError, HistoryMessage, SUBPROTOCOL, ServerFrame};
use gapless::session::{CloseCode, ConnectionId, DialFailure, Name, StoreId, Ticket};
use gapless::storage::{StoreError, Transact};

use super::store::{Answer, NodeStore, Step};
use super::{Endpoint, Moment};
use crate::conform::protocol::{Config, DialProblem, Effect, Event, Reset, feature};
use crate::conform::session::{
    LinkState, NotTaken, PendingInput, QuestionShown, RejectedInput, SessionClientConfig, Splice,
    StatusShown, ViewUpdate,
};
use crate::mutants::{Distorted, SessionClientCore};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] =
    &[feature::EXTENSION, feature::SOCK_ALIVE, feature::SUSPEND, feature::IN_FLIGHT_REPORTS];

/// The database's pages are stored as `in_flight/NUMBER`.
const PAGES: &str = "in_flight";

/// How long a client whose name is not stored waits before it tries again.
const NAME_RETRY: Duration = Duration::from_secs(1);

/// The store, and what of it is told to the simulator.
struct Told {
    store: SqliteInFlight,
    commands: Shared<Vec<Command>>,
}

type Shared<T> = Arc<Mutex<T>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transact<Command> for Told {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<()>, StoreError> {
        let replies = self.store.transact(commands.clone())?;
        lock(&self.commands).extend(commands);
        Ok(replies)
    }
}

/// One life of a client.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::SessionClient(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let mut entropy = seed.stream("store", &reset.host, reset.life);
    let (kept, commands) = (Shared::default(), Shared::default());
    let store = {
        let (kept, commands) = (Arc::clone(&kept), Arc::clone(&commands));
        NodeStore::open(
            PAGES,
            &reset.storage,
            Box::new(move |path, _| {
                let opened = SqliteInFlight::open(path, None, &mut entropy);
                let (store, found) = opened.map_err(|error| error.to_string())?;
                *lock(&kept) = Some(found);
                let store = Told { store, commands: Arc::clone(&commands) };
                Ok(distorted.in_flight(store))
            }),
        )?
    };
    let core = Client::new(
        client_config(config),
        distorted.entropy(Box::new(seed.stream("page", &reset.host, reset.life))),
    );
    Ok(Box::new(Life {
        core: distorted.session_client(core),
        config: config.clone(),
        name: None,
        is_new: reset.storage.is_empty(),
        early: Vec::new(),
        retry_at: None,
        store,
        kept,
        commands,
        speaks: BTreeMap::new(),
        shown: Arc::default(),
        effects: Vec::new(),
    }))
}

fn client_config(config: &SessionClientConfig) -> ClientConfig {
    let ms = Duration::from_millis;
    ClientConfig {
        extension: config.extension,
        connect_timeout: ms(config.connect_ms),
        ping_every: ms(config.ping_every_ms),
        reconnect: BackoffConfig {
            min: ms(config.reconnect_ms.0),
            max: ms(config.reconnect_ms.1),
            jitter_percent: 25,
        },
        ack_every: ms(config.ack_every_ms),
        ack_timeout: ms(config.ack_timeout_ms),
        in_flight_max: config.in_flight,
        base_grace: ms(config.base_grace_ms),
        messages_max: config.messages,
        ..ClientConfig::default()
    }
}

struct Life {
    core: SessionClientCore,
    config: SessionClientConfig,
    /// What the client calls itself, as soon as that is durable: before, it has not begun.
    name: Option<Name>,
    /// Nothing is stored yet, so the name is not either.
    is_new: bool,
    /// What the user wants before the client has begun.
    early: Vec<Event>,
    /// When the name is stored again.
    retry_at: Option<Instant>,
    store: NodeStore<Command>,
    /// What the store had when it was opened.
    kept: Shared<Option<Kept>>,
    /// What the store did in the transaction that runs.
    commands: Shared<Vec<Command>>,
    /// Whether the extension is spoken, by connection.
    speaks: BTreeMap<u64, bool>,
    shown: Arc<View>,
    effects: Vec<Effect>,
}

impl Life {
    fn feed(&mut self, now: Instant, input: Input) -> Result<(), String> {
        self.core.handle(now, input);
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
        self.step(now)
    }

    /// What the store is to do next.
    fn step(&mut self, now: Instant) -> Result<(), String> {
        match self.store.next()? {
            None => Ok(()),
            Some(Step::Commits(commit)) => {
                self.report(&commit);
                self.effects.push(commit);
                Ok(())
            }
            Some(Step::Answered(answers)) => {
                lock(&self.commands).clear();
                self.answered(now, answers)
            }
        }
    }

    /// What a commit means.
    fn report(&mut self, commit: &Effect) {
        let Effect::StoreCommit { id, .. } = commit else { return };
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for command in std::mem::take(&mut *lock(&self.commands)) {
            match command {
                Command::Keep(input) => kept.push(input.id.to_string()),
                Command::Drop(id) => dropped.push(id.to_string()),
            }
        }
        self.effects.push(Effect::StoreInFlight { id: *id, kept, dropped });
    }

    fn answered(&mut self, now: Instant, answers: Vec<Answer<Command>>) -> Result<(), String> {
        for Answer { id, result, .. } in answers {
            match (&self.name, result) {
                (Some(_), result) => self.feed(now, Input::Stored(id, result))?,
                (None, Ok(())) => self.start(now)?,
                (None, Err(_)) => self.retry_at = Some(now + NAME_RETRY),
            }
        }
        self.step(now)
    }

    /// Stores the name. That nothing is to be dropped is as good a reason as any.
    fn store_name(&mut self, now: Instant) -> Result<(), String> {
        let nothing = Name::parse("nothing").expect("a fixed pattern");
        self.store.push(StoreId(0), Command::Drop(nothing));
        self.step(now)
    }

    /// The name is durable.
    fn start(&mut self, now: Instant) -> Result<(), String> {
        let Some(Kept { client, in_flight }) = lock(&self.kept).take() else { return Ok(()) };
        let name = self.config.client_id.as_deref().map(Name::parse).transpose();
        self.name = Some(name.map_err(|error| error.to_string())?.unwrap_or(client));
        self.feed(now, Input::Start { in_flight })?;
        for event in std::mem::take(&mut self.early) {
            self.wants(now, event)?;
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) {
        let effect = match output {
            Output::Dial { conn, offer_extension, resume } => Effect::SockConnect {
                conn: conn.0,
                url: self.url(offer_extension, &resume),
                headers: vec![(
                    "authorization".to_owned(),
                    format!("Bearer {}", self.config.token),
                )],
                protocols: offer_extension.then(|| SUBPROTOCOL.to_owned()).into_iter().collect(),
            },
            Output::Send { conn, frame } => {
                let extension = self.speaks.get(&conn.0).copied().unwrap_or(false);
                Effect::SockSend { conn: conn.0, text: frame.to_text(extension) }
            }
            Output::Close { conn, code, reason } => {
                self.speaks.remove(&conn.0);
                Effect::SockClose { conn: conn.0, code: Some(code.0), reason: reason.to_owned() }
            }
            Output::Store(id, command) => return self.store.push(id, command),
            Output::Submitted { ticket: Ticket(ticket), result: Ok(id) } => {
                Effect::AppInput { ticket, id: id.to_string() }
            }
            Output::Submitted { ticket: Ticket(ticket), result: Err(error) } => {
                let problem = match &error {
                    SubmitError::TooManyInFlight => NotTaken::TooMany,
                    SubmitError::TooLarge { .. } => NotTaken::TooLarge,
                    SubmitError::NoQuestion => NotTaken::NoQuestion,
                    SubmitError::Stopped => NotTaken::Stopped,
                };
                Effect::AppRefused { ticket, problem, message: error.to_string() }
            }
            Output::Show(view) => {
                let update = update(&self.shown, &view);
                self.shown = view;
                if update == ViewUpdate::default() {
                    return;
                }
                Effect::AppView(Box::new(update))
            }
        };
        self.effects.push(effect);
    }

    fn url(&self, offer_extension: bool, resume: &Resume) -> String {
        let base = self.config.base_url.replacen("http", "ws", 1);
        let Resume { since, epoch, view, attempt } = resume;
        let name = http::escape(self.name.as_ref().map_or("", Name::as_str));
        let mut url = format!("{base}/ws?client_id={name}&since={since}");
        if offer_extension {
            if let Some(epoch) = epoch {
                url += &format!("&epoch={}", http::escape(epoch.as_str()));
            }
            url += &format!("&view={}&attempt={attempt}", http::escape(view));
        }
        url
    }

    /// The user wants something.
    fn wants(&mut self, now: Instant, event: Event) -> Result<(), String> {
        if self.name.is_none() {
            self.early.push(event);
            return Ok(());
        }
        let (ticket, what) = match event {
            Event::AppSay { ticket, text, attachments } => {
                let attachments = attachments.into_iter().map(Into::into).collect();
                (ticket, Submission::Message { text, attachments })
            }
            Event::AppAnswer { ticket, text } => (ticket, Submission::Answer { text }),
            _ => return self.feed(now, Input::Reconnect),
        };
        self.feed(now, Input::Submit { ticket: Ticket(ticket), what })
    }
}

impl Endpoint for Life {
    fn event(&mut self, Moment { now, .. }: Moment, event: Event) -> Result<(), String> {
        let input = match event {
            Event::AppConnect if self.is_new => return self.store_name(now),
            Event::AppConnect => return self.start(now),
            Event::StoreDone { id, error } => {
                let answers = self.store.done(id, error)?;
                return self.answered(now, answers);
            }
            Event::AppSay { .. } | Event::AppAnswer { .. } | Event::AppReconnect => {
                return self.wants(now, event);
            }
            Event::SockOpen { conn, protocol } => {
                let extension = protocol.as_deref() == Some(SUBPROTOCOL);
                self.speaks.insert(conn, extension);
                Input::Opened { conn: ConnectionId(conn), extension }
            }
            Event::SockError { conn, problem, status, message, .. } => {
                let failure = match (problem, status) {
                    (DialProblem::Subprotocol, _) => DialFailure::ExtensionRefused,
                    (DialProblem::Status, Some(status)) => DialFailure::Status(status),
                    (DialProblem::Status | DialProblem::Network, _) => DialFailure::Other(message),
                };
                Input::DialFailed { conn: ConnectionId(conn), failure }
            }
            Event::SockMessage { conn, text: Some(text), .. } => {
                let conn = ConnectionId(conn);
                match ServerFrame::parse(&text) {
                    Ok(frame) => Input::Frame { conn, frame },
                    Err(error) => Input::Malformed { conn, error },
                }
            }
            Event::SockMessage { conn, text: None, .. } => {
                let error = FrameError::NotAnObject("a binary frame".to_owned());
                Input::Malformed { conn: ConnectionId(conn), error }
            }
            Event::SockAlive { conn } => Input::Alive { conn: ConnectionId(conn) },
            Event::SockClose { conn, code } => {
                self.speaks.remove(&conn);
                Input::Closed { conn: ConnectionId(conn), code: code.map(CloseCode) }
            }
            other => return Err(format!("no client of sessions knows {other:?}")),
        };
        self.feed(now, input)
    }

    fn timeout(&mut self, Moment { now, .. }: Moment) {
        let done = match self.retry_at.take_if(|at| *at <= now) {
            Some(_) => self.store_name(now),
            None if self.name.is_some() => self.feed(now, Input::Timeout),
            None => Ok(()),
        };
        // Nothing fails in memory.
        done.expect("SQLite works in memory");
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry_at.or_else(|| self.core.deadline())
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

/// What has changed in what the user sees.
fn update(before: &View, after: &View) -> ViewUpdate {
    let pending = |view: &View| -> Vec<PendingInput> {
        let inputs = view.pending.iter().map(|pending| &pending.input);
        let pending = inputs.map(|input| PendingInput {
            id: input.id.to_string(),
            answer: matches!(input.what, What::Answer { .. }),
        });
        pending.collect()
    };
    let question = |view: &View| match &view.open_question {
        None => QuestionShown::Nothing,
        Some(question) => QuestionShown::Open(question.into()),
    };
    let rejected = after.rejected.iter().filter(|it| !before.rejected.contains(it));
    let link = |view: &View| LinkState::from(&view.connection);
    ViewUpdate {
        link: Some(link(after)).filter(|it| *it != link(before)),
        rows: splices(&before.messages, &after.messages),
        pending: Some(pending(after)).filter(|it| *it != pending(before)),
        rejected: rejected.map(|it| RejectedInput::new(it.input.id.as_str(), it.reason)).collect(),
        question: Some(question(after)).filter(|it| *it != question(before)),
        status: Some(after.status).filter(|it| *it != before.status).map(StatusShown::from),
    }
}

/// How the rows have changed: the oldest leave, and then something changes at one place.
fn splices(before: &[Arc<HistoryMessage>], after: &[Arc<HistoryMessage>]) -> Vec<Splice> {
    let is_same = |pair: &(&Arc<HistoryMessage>, &Arc<HistoryMessage>)| {
        Arc::ptr_eq(pair.0, pair.1) || pair.0 == pair.1
    };
    let left = (0..before.len()).find(|gone| {
        let stay = &before[*gone..];
        stay.len() <= after.len() && stay.iter().zip(after).all(|pair| is_same(&pair))
    });
    let left = left.unwrap_or(0);
    let before = &before[left..];
    let head = before.iter().zip(after).take_while(is_same).count();
    let (gone, new) = (&before[head..], &after[head..]);
    let tail = gone.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
    let (gone, new) = (gone.len() - tail, &new[..new.len() - tail]);
    let new = new.iter().map(|row| (&**row).into()).collect();
    let splices = [Splice { at: 0, gone: left, new: Vec::new() }, Splice { at: head, gone, new }];
    splices.into_iter().filter(|splice| splice.gone > 0 || !splice.new.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use gapless::session::conversation::Role;

    use super::*;

    fn rows(texts: &[&str]) -> Vec<Arc<HistoryMessage>> {
        let row = |text: &&str| HistoryMessage {
            role: Role::User,
            text: (*text).to_owned(),
            position: None,
            kind: None,
            input: None,
            question: None,
            attachments: vec![],
        };
        texts.iter().map(row).map(Arc::new).collect()
    }

    #[test]
    fn splices_lead_from_one_list_of_rows_to_the_other() {
        for (before, after, count) in [
            (&[][..], &["a"][..], 1),
            (&["a", "b"], &["a", "b"], 0),
            (&["a", "b"], &["a", "b", "c"], 1),
            (&["a", "b"], &["b", "c"], 2),
            (&["a", "b"], &["b"], 1),
            (&["a", "c"], &["a", "b", "c"], 1),
            (&["a", "b", "c"], &["x", "y"], 1),
            (&["a"], &[], 1),
        ] {
            let splices = splices(&rows(before), &rows(after));
            assert_eq!(splices.len(), count, "{before:?} {after:?}");
            let mut shown: Vec<String> = before.iter().map(ToString::to_string).collect();
            for Splice { at, gone, new } in splices {
                shown.splice(at..at + gone, new.into_iter().map(|row| row.text));
            }
            assert_eq!(shown, after, "{before:?} {after:?}");
        }
    }
}
