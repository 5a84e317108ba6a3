//! The client of sessions as a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::net::http;
use gapless::recovery::{BackoffConfig, Entropy, Instant, random_hex_128};
use gapless::session::client::{Client, ClientConfig, Input, Output, Resume, Submission, SubmitError};
use gapless::session::conversation::{self, What};
use gapless::session::in_flight::Command;
use gapless::session::view::View;
use gapless::session::wire::{FrameError, HistoryMessage, SUBPROTOCOL, ServerFrame};
use gapless::session::{CloseCode, ConnectionId, DialFailure, Name, Ticket};
use gapless::storage::{StoreError, Transact};

use super::store::{Rows, Transactions};
use super::{Endpoint, Moment};
use crate::conform::protocol::{Config, DialProblem, Effect, Event, Reset, StoreProblem, feature};
use crate::conform::session::{
    LinkState, NotTaken, PendingInput, Question, QuestionShown, RejectedInput, SessionClientConfig,
    Splice, StatusShown, ViewUpdate,
};
use crate::mutants::{Distorted, SessionClientCore};
use crate::seed::Seed;

pub(super) const FEATURES: &[&str] =
    &[feature::EXTENSION, feature::SOCK_ALIVE, feature::SUSPEND, feature::IN_FLIGHT_REPORTS];

/// Under which the client's name is stored.
const NAME: &str = "name";

/// Under which the inputs in flight are stored, each with a number that tells their order.
const INPUT: &str = "input/";

/// The inputs in flight, as rows.
struct InFlight {
    rows: Rows,
    /// What the transaction that runs is to do.
    told: Arc<Mutex<Vec<Command>>>,
}

fn stored(rows: &Rows) -> Result<Vec<(String, conversation::Input)>, String> {
    let parse = |(key, bytes): (String, Vec<u8>)| {
        let input = serde_json::from_slice(&bytes).map_err(|error| format!("`{key}`: {error}"))?;
        Ok((key, input))
    };
    rows.of(INPUT).into_iter().map(parse).collect()
}

impl Transact<Command> for InFlight {
    fn transact(&mut self, commands: Vec<Command>) -> Result<Vec<()>, StoreError> {
        let mut kept = stored(&self.rows).map_err(StoreError::NotApplied)?;
        for command in &commands {
            match command {
                Command::Keep(input) if kept.iter().any(|(_, it)| it.id == input.id) => {}
                Command::Keep(input) => {
                    let last = kept.last().and_then(|(key, _)| key[INPUT.len()..].parse::<u64>().ok());
                    let key = format!("{INPUT}{:020}", last.unwrap_or(0) + 1);
                    let bytes = serde_json::to_vec(input).expect("an input is always JSON");
                    self.rows.put(key.clone(), bytes);
                    kept.push((key, input.clone()));
                }
                Command::Drop(id) => {
                    kept.extract_if(.., |(_, input)| input.id == *id)
                        .for_each(|(key, _)| self.rows.take_away(&key));
                }
            }
        }
        let replies = vec![(); commands.len()];
        lock(&self.told).extend(commands);
        Ok(replies)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One life of a client.
pub(super) fn begin(reset: &Reset, distorted: Distorted) -> Result<Box<dyn Endpoint>, String> {
    let Config::SessionClient(config) = &reset.config else {
        return Err("the configuration is of another role".to_owned());
    };
    let seed: Seed = reset.seed.parse().map_err(|error| format!("{error}"))?;
    let mut entropy = seed.stream("page", &reset.host, reset.life);
    let rows = Rows::load(&reset.storage)?;
    let name = name(config, &rows, &mut entropy)?;
    let ms = Duration::from_millis;
    let core = ClientConfig {
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
    };
    let in_flight = stored(&rows)?.into_iter().map(|(_, input)| input).collect();
    let told = Arc::<Mutex<Vec<Command>>>::default();
    let store = distorted.in_flight(InFlight { rows: rows.clone(), told: Arc::clone(&told) });
    Ok(Box::new(Life {
        core: distorted.session_client(Client::new(core, distorted.entropy(Box::new(entropy)))),
        config: config.clone(),
        name,
        begun: Begun::Not { in_flight, early: Vec::new(), retry_at: None },
        store: Transactions::new(store, rows.clone()),
        rows,
        told,
        speaks: BTreeMap::new(),
        shown: Arc::default(),
        effects: Vec::new(),
    }))
}

/// What the client calls itself: if nobody says it, it is drawn once, and stored before anybody hears
/// it.
fn name(
    config: &SessionClientConfig,
    rows: &Rows,
    entropy: &mut dyn Entropy,
) -> Result<Name, String> {
    let name = match (&config.client_id, rows.get(NAME)) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => {
            String::from_utf8(name).map_err(|error| format!("`{NAME}`: {error}"))?
        }
        (None, None) => {
            let name = random_hex_128(entropy);
            rows.put(NAME.to_owned(), name.clone().into_bytes());
            name
        }
    };
    Name::parse(&name).map_err(|error| error.to_string())
}

/// How long a client whose name is not stored waits before it tries again.
const NAME_RETRY: Duration = Duration::from_secs(1);

struct Life {
    core: SessionClientCore,
    config: SessionClientConfig,
    name: Name,
    begun: Begun,
    rows: Rows,
    store: Transactions<Command>,
    told: Arc<Mutex<Vec<Command>>>,
    /// Whether the extension is spoken, by connection.
    speaks: BTreeMap<u64, bool>,
    shown: Arc<View>,
    effects: Vec<Effect>,
}

/// Whether the name is durable, so that the client can begin.
enum Begun {
    Not {
        in_flight: Vec<conversation::Input>,
        /// What the user wants meanwhile.
        early: Vec<Event>,
        /// When it is stored again.
        retry_at: Option<Instant>,
    },
    Yes,
}

impl Life {
    fn feed(&mut self, now: Instant, input: Input) {
        self.core.handle(now, input);
        while let Some(output) = self.core.poll() {
            self.perform(output);
        }
        self.commit();
    }

    /// Begins the next transaction, if it is its turn.
    fn commit(&mut self) {
        let Some((id, commit)) = self.store.begin() else { return };
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for command in std::mem::take(&mut *lock(&self.told)) {
            match command {
                Command::Keep(input) => kept.push(input.id.to_string()),
                Command::Drop(id) => dropped.push(id.to_string()),
            }
        }
        self.effects.extend([Effect::StoreInFlight { id, kept, dropped }, commit]);
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
        let name = http::escape(self.name.as_str());
        let mut url = format!("{base}/ws?client_id={name}&since={since}");
        if offer_extension {
            if let Some(epoch) = epoch {
                url += &format!("&epoch={}", http::escape(epoch.as_str()));
            }
            url += &format!("&view={}&attempt={attempt}", http::escape(view));
        }
        url
    }

    fn done(&mut self, now: Instant, id: u64, error: Option<StoreProblem>) {
        for (id, reply) in self.store.done(id, error) {
            self.feed(now, Input::Stored(id, reply));
        }
        // What has come together meanwhile.
        self.commit();
    }

    /// The name is durable.
    fn start(&mut self, now: Instant) {
        let Begun::Not { in_flight, early, .. } = std::mem::replace(&mut self.begun, Begun::Yes) else {
            return;
        };
        self.feed(now, Input::Start { in_flight });
        for event in early {
            self.wanted(now, event);
        }
    }

    /// The user wants something.
    fn wanted(&mut self, now: Instant, event: Event) {
        if let Begun::Not { early, .. } = &mut self.begun {
            return early.push(event);
        }
        let (ticket, what) = match event {
            Event::AppSay { ticket, text, attachments } => {
                let attachments = attachments.into_iter().map(Into::into).collect();
                (ticket, Submission::Message { text, attachments })
            }
            Event::AppAnswer { ticket, text } => (ticket, Submission::Answer { text }),
            _ => return self.feed(now, Input::Reconnect),
        };
        self.feed(now, Input::Submit { ticket: Ticket(ticket), what });
    }
}

impl Endpoint for Life {
    fn event(&mut self, Moment { now, .. }: Moment, event: Event) -> Result<(), String> {
        let input = match event {
            Event::AppConnect => {
                let (_, commit) = self.store.commit();
                match &commit {
                    Effect::StoreCommit { writes, .. } if writes.is_empty() => self.start(now),
                    _ => self.effects.push(commit),
                }
                return Ok(());
            }
            Event::StoreDone { id, error } => {
                match (&mut self.begun, error) {
                    (Begun::Yes, _) => self.done(now, id, error),
                    (Begun::Not { .. }, None) => {
                        self.store.done(id, None);
                        self.start(now);
                    }
                    (Begun::Not { retry_at, .. }, Some(_)) => {
                        *retry_at = Some(now + NAME_RETRY);
                        self.store.done(id, error);
                    }
                }
                return Ok(());
            }
            Event::AppSay { .. } | Event::AppAnswer { .. } | Event::AppReconnect => {
                self.wanted(now, event);
                return Ok(());
            }
            Event::SockOpen { conn, protocol } => {
                let extension = protocol.as_deref() == Some(SUBPROTOCOL);
                self.speaks.insert(conn, extension);
                Input::Opened { conn: ConnectionId(conn), extension }
            }
            Event::SockError { conn, problem, status, message } => {
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
        self.feed(now, input);
        Ok(())
    }

    fn timeout(&mut self, Moment { now, .. }: Moment) {
        let Begun::Not { retry_at, .. } = &mut self.begun else {
            return self.feed(now, Input::Timeout);
        };
        if retry_at.take_if(|at| *at <= now).is_some() {
            self.rows.put(NAME.to_owned(), self.name.to_string().into_bytes());
            let (_, commit) = self.store.commit();
            self.effects.push(commit);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.begun {
            Begun::Not { retry_at, .. } => *retry_at,
            Begun::Yes => self.core.deadline(),
        }
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
        Some(question) => QuestionShown::Open(Question {
            id: question.id.as_ref().map(ToString::to_string),
            text: question.text.clone(),
        }),
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
