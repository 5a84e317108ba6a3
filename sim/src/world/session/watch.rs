//! What can be seen of sessions: wrappers around both cores and both stores.
//!
//! A wrapper changes nothing. Those of the cores are outermost, so they see what a mutant does;
//! those of the stores are innermost, so they see what is durable, whatever a mutant says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gapless::Core;
use gapless::recovery::Instant;
use gapless::session::client::{self, Submission};
use gapless::session::conversation::{self, Input, Kind, Loaded, Reply, Role, Row, Verdict, What};
use gapless::session::driver::Hello;
use gapless::session::server;
use gapless::session::view::{Connection, View};
use gapless::session::wire::{Body, ClientFrame, HistoryMessage, Question, ServerFrame};
use gapless::session::{ConnectionId, Ticket, Turn, in_flight};
use gapless::storage::{StoreError, Transact};

use crate::history::{
    Asked, Conn, LinkShown, Numbered, OpenQuestion, RowsShown, Said, Seen, SessionSeen, ShownRow,
    StoredRow, ViewChange, digest,
};
use crate::mutants::{SessionClientCore, SessionServerCore};
use crate::world::record::Recorder;

/// The principal of a user.
pub(crate) fn principal(user: u32) -> String {
    format!("user-{user}")
}

/// The other way round.
pub(crate) fn user_of(principal: &str) -> u32 {
    principal.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whose view it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Viewer {
    /// The client.
    pub(crate) client: u32,
    /// Its user.
    pub(crate) user: u32,
    /// Which life of the client's process.
    pub(crate) life: u64,
    /// Whether the extension is spoken on its connections.
    pub(crate) extension: bool,
}

/// Watches a client's core.
pub(crate) struct WatchedClient {
    core: SessionClientCore,
    viewer: Viewer,
    /// What the client calls itself.
    name: String,
    recorder: Recorder,
    shown: Arc<View>,
    submitted: BTreeMap<Ticket, (Said, u64)>,
    /// Whether the input that is being handled is a history.
    history: bool,
}

impl WatchedClient {
    pub(crate) fn new(
        core: SessionClientCore,
        viewer: Viewer,
        name: &gapless::session::Name,
        recorder: Recorder,
    ) -> Self {
        Self {
            core,
            viewer,
            name: name.to_string(),
            recorder,
            shown: Arc::default(),
            submitted: BTreeMap::new(),
            history: false,
        }
    }

    fn see(&self, what: SessionSeen) {
        self.recorder.see(Seen::Session(what));
    }

    fn conn(&self, conn: ConnectionId) -> Conn {
        Conn { life: self.viewer.life, number: conn.0 }
    }

    fn see_input(&mut self, input: &client::Input) {
        let Viewer { client, user, life, extension } = self.viewer;
        self.history = false;
        match input {
            client::Input::Start { in_flight } => self.see(SessionSeen::Began {
                client,
                user,
                name: self.name.clone(),
                life,
                extension,
                in_flight: in_flight.iter().map(|input| input.id.to_string()).collect(),
            }),
            client::Input::Frame { frame, .. } => {
                self.history = matches!(frame.body, Body::History(_));
            }
            client::Input::Closed { conn, code } => {
                let (conn, code) = (self.conn(*conn), code.map(|code| code.0));
                self.see(SessionSeen::Lost { client, conn, code });
            }
            client::Input::Submit { ticket, what } => {
                let (what, text) = match what {
                    Submission::Message { text, .. } => (Said::Message, text),
                    Submission::Answer { text } => {
                        let question = self.shown.open_question.as_ref();
                        let question = question.and_then(|it| it.id.as_ref());
                        (Said::Answer { question: question.map(ToString::to_string) }, text)
                    }
                };
                self.submitted.insert(*ticket, (what, digest(Role::User, text)));
            }
            client::Input::Reconnect => self.see(SessionSeen::Wanted { client }),
            _ => {}
        }
    }

    fn see_output(&mut self, output: &client::Output) {
        let client = self.viewer.client;
        match output {
            client::Output::Dial { conn, resume, .. } => self.see(SessionSeen::Dialed {
                client,
                conn: self.conn(*conn),
                since: resume.since,
                epoch: resume.epoch.as_ref().map(ToString::to_string),
                attempt: resume.attempt,
            }),
            client::Output::Send { conn, frame } => {
                let conn = self.conn(*conn);
                match frame {
                    ClientFrame::UserMessage { id: Some(id), .. }
                    | ClientFrame::UserAnswer { id: Some(id), .. } => {
                        let input = id.to_string();
                        self.see(SessionSeen::InputSent { client, conn, input });
                    }
                    ClientFrame::Ack { seq, epoch } => {
                        let (seq, epoch) = (*seq, epoch.as_ref().map(ToString::to_string));
                        self.see(SessionSeen::Acked { client, conn, seq, epoch });
                    }
                    _ => {}
                }
            }
            client::Output::Submitted { ticket, result } => {
                let said = self.submitted.remove(ticket);
                if let (Some((what, digest)), Ok(id)) = (said, result) {
                    let input = id.to_string();
                    self.see(SessionSeen::Submitted { client, input, what, digest });
                }
            }
            client::Output::Show(view) => {
                let change = change(&self.shown, view, self.history);
                self.shown = Arc::clone(view);
                if change != ViewChange::default() {
                    self.see(SessionSeen::Shown { client, change });
                }
            }
            client::Output::Close { .. } | client::Output::Store(..) => {}
        }
    }
}

impl Core for WatchedClient {
    type Input = client::Input;
    type Output = client::Output;

    fn handle(&mut self, now: Instant, input: client::Input) {
        self.see_input(&input);
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<client::Output> {
        let output = self.core.poll()?;
        self.see_output(&output);
        Some(output)
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}

/// In what two views differ. `history` says whether a history came.
pub(super) fn change(before: &View, after: &View, history: bool) -> ViewChange {
    let ids = |view: &View| -> Vec<String> {
        view.pending.iter().map(|pending| pending.input.id.to_string()).collect()
    };
    let asked = |question: Option<&Question>| match question {
        Some(question) => Asked::Open(open_question(question)),
        None => Asked::Nothing,
    };
    let link = |view: &View| match view.connection {
        Connection::Connecting => LinkShown::Connecting,
        Connection::CatchingUp => LinkShown::CatchingUp,
        Connection::Live => LinkShown::Live,
        Connection::Waiting { .. } => LinkShown::Waiting,
        Connection::Superseded => LinkShown::Superseded,
        Connection::Stopped => LinkShown::Stopped,
    };
    let (pending, question) = (ids(after), asked(after.open_question.as_ref()));
    let rejected = after.rejected.iter().filter(|it| !before.rejected.contains(it));
    ViewChange {
        history,
        link: Some(link(after)).filter(|it| *it != link(before)),
        rows: rows_shown(&before.messages, &after.messages),
        pending: Some(pending).filter(|it| *it != ids(before)),
        rejected: rejected.map(|it| (it.input.id.to_string(), it.reason)).collect(),
        question: Some(question).filter(|it| *it != asked(before.open_question.as_ref())),
        status: Some(after.status).filter(|it| *it != before.status),
    }
}

fn rows_shown(before: &[Arc<HistoryMessage>], after: &[Arc<HistoryMessage>]) -> Option<RowsShown> {
    let is_same = |pair: (&Arc<HistoryMessage>, &Arc<HistoryMessage>)| {
        Arc::ptr_eq(pair.0, pair.1) || shown_row(pair.0) == shown_row(pair.1)
    };
    let follows = |gone: usize| {
        let stay = &before[gone..];
        stay.len() <= after.len() && stay.iter().zip(after).all(is_same)
    };
    let shown = |rows: &[Arc<HistoryMessage>]| rows.iter().map(|row| shown_row(row)).collect();
    let gone = match before {
        [] => Some(0),
        _ => (0..before.len()).find(|gone| follows(*gone)),
    };
    let Some(gone) = gone else { return Some(RowsShown::Replaced(shown(after))) };
    let new = shown(&after[before.len() - gone..]);
    (gone > 0 || !new.is_empty()).then_some(RowsShown::Moved { gone, new })
}

fn shown_row(message: &HistoryMessage) -> ShownRow {
    ShownRow { position: message.position, digest: digest(message.role, &message.text) }
}

fn open_question(question: &Question) -> OpenQuestion {
    OpenQuestion {
        id: question.id.as_ref().map(ToString::to_string),
        digest: digest(Role::Assistant, &question.text),
    }
}

/// Sees what a life of a server does on its connections.
pub(super) struct ServerEye {
    /// Which life of the server's process.
    life: u64,
    recorder: Recorder,
    /// Connections on which the status was not sent yet.
    fresh: BTreeSet<u64>,
}

impl ServerEye {
    pub(super) fn new(life: u64, recorder: Recorder) -> Self {
        Self { life, recorder, fresh: BTreeSet::new() }
    }

    pub(super) fn see(&self, what: SessionSeen) {
        self.recorder.see(Seen::Session(what));
    }

    fn conn(&self, number: u64) -> Conn {
        Conn { life: self.life, number }
    }

    pub(super) fn connected(&mut self, conn: u64, hello: &Hello) {
        self.fresh.insert(conn);
        self.see(SessionSeen::Connected {
            conn: self.conn(conn),
            user: user_of(&hello.identity.principal),
            name: hello.identity.client.to_string(),
            extension: hello.extension,
            since: hello.since,
            epoch: hello.epoch.as_ref().map(ToString::to_string),
            attempt: hello.attempt.as_ref().map(|it| (it.view.clone(), it.number)),
        });
    }

    pub(super) fn heard(&self, conn: u64, frame: &ClientFrame) {
        if let ClientFrame::Ack { seq, epoch } = frame {
            let (seq, epoch) = (*seq, epoch.as_ref().map(ToString::to_string));
            self.see(SessionSeen::AckCame { conn: self.conn(conn), seq, epoch });
        }
    }

    pub(super) fn left(&mut self, conn: u64, code: Option<u16>) {
        self.fresh.remove(&conn);
        self.see(SessionSeen::Left { conn: self.conn(conn), code });
    }

    pub(super) fn sent(&mut self, connection: u64, frame: &ServerFrame) {
        let conn = self.conn(connection);
        match &frame.body {
            Body::Begin(begin) => self.see(SessionSeen::Verdict {
                conn,
                epoch: begin.epoch.to_string(),
                verdict: begin.verdict,
                from: begin.from,
                to: begin.to,
            }),
            Body::Status(status) if frame.seq == 0 && self.fresh.remove(&connection) => {
                self.see(SessionSeen::Greeted { conn, status: *status });
            }
            body if frame.seq > 0 => {
                self.see(SessionSeen::Sent { conn, seq: frame.seq, what: numbered(body) });
            }
            _ => {}
        }
    }
}

/// Watches a server's core.
pub(crate) struct WatchedServer {
    core: SessionServerCore,
    eye: ServerEye,
}

impl WatchedServer {
    /// `life` is that of the server's process.
    pub(crate) fn new(core: SessionServerCore, life: u64, recorder: Recorder) -> Self {
        Self { core, eye: ServerEye::new(life, recorder) }
    }

    fn see_input(&mut self, input: &server::Input) {
        match input {
            server::Input::Connected { conn, identity, extension, since, epoch, attempt } => {
                let hello = Hello {
                    identity: identity.clone(),
                    extension: *extension,
                    since: *since,
                    epoch: epoch.clone(),
                    attempt: attempt.clone(),
                };
                self.eye.connected(conn.0, &hello);
            }
            server::Input::Frame { conn, frame } => self.eye.heard(conn.0, frame),
            server::Input::Disconnected { conn } => self.eye.left(conn.0, None),
            _ => {}
        }
    }

    fn see_output(&mut self, output: &server::Output) {
        match output {
            server::Output::Send { conn, frame } => self.eye.sent(conn.0, frame),
            server::Output::Close { conn, code, .. } => self.eye.left(conn.0, Some(code.0)),
            server::Output::Run(work) => {
                let (user, position) = named(&work.turn);
                self.eye.see(SessionSeen::Ran { user, position });
            }
            server::Output::Store(..) | server::Output::Heard { .. } => {}
        }
    }
}

impl Core for WatchedServer {
    type Input = server::Input;
    type Output = server::Output;

    fn handle(&mut self, now: Instant, input: server::Input) {
        self.see_input(&input);
        self.core.handle(now, input);
    }

    fn poll(&mut self) -> Option<server::Output> {
        let output = self.core.poll()?;
        self.see_output(&output);
        Some(output)
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }
}

/// What a numbered frame says.
fn numbered(body: &Body) -> Numbered {
    let row = |position: Option<u64>, role: Role, text: &str| ShownRow {
        position,
        digest: digest(role, text),
    };
    match body {
        Body::History(history) => Numbered::History {
            rows: history.messages.iter().map(shown_row).collect(),
            truncated: history.truncated,
            question: history.open_question.as_ref().map(open_question),
        },
        Body::Assistant(said) => Numbered::Row(row(said.position, Role::Assistant, &said.text)),
        Body::Question { question, position } => Numbered::Question {
            row: row(*position, Role::Assistant, &question.text),
            question: question.id.as_ref().map(ToString::to_string),
        },
        Body::UserMessage { position, text, .. } | Body::UserAnswer { position, text, .. } => {
            Numbered::Row(row(Some(*position), Role::User, text))
        }
        Body::MessageAck { id, position } => {
            Numbered::Accepted { input: id.to_string(), position: *position }
        }
        Body::AnswerAck { id, position, .. } => {
            Numbered::Accepted { input: id.to_string(), position: Some(*position) }
        }
        Body::MessageRejected { id, reason } => {
            let input = id.as_ref().map(ToString::to_string);
            Numbered::Rejected { input, reason: *reason }
        }
        Body::AnswerRejected { id, reason, .. } => {
            Numbered::Rejected { input: Some(id.to_string()), reason: *reason }
        }
        Body::Begin(_)
        | Body::Status(_)
        | Body::Notice(_)
        | Body::Thinking
        | Body::Unknown { .. }
        | Body::Ping { .. } => Numbered::Notice,
    }
}

fn named(turn: &Turn) -> (u32, u64) {
    (user_of(&turn.principal), turn.position)
}

/// Watches the store of a client.
pub(crate) struct WatchedInFlight<T> {
    store: T,
    client: u32,
    recorder: Recorder,
}

impl<T: Transact<in_flight::Command>> WatchedInFlight<T> {
    pub(crate) fn new(store: T, client: u32, recorder: Recorder) -> Self {
        Self { store, client, recorder }
    }
}

impl<T: Transact<in_flight::Command>> Transact<in_flight::Command> for WatchedInFlight<T> {
    fn transact(&mut self, commands: Vec<in_flight::Command>) -> Result<Vec<()>, StoreError> {
        let asked = commands.clone();
        let replies = self.store.transact(commands)?;
        let client = self.client;
        for command in asked {
            self.recorder.see(Seen::Session(match command {
                in_flight::Command::Keep(input) => {
                    SessionSeen::Kept { client, input: input.id.to_string() }
                }
                in_flight::Command::Drop(id) => {
                    SessionSeen::Dropped { client, input: id.to_string() }
                }
            }));
        }
        Ok(replies)
    }
}

/// Watches the store of a server.
pub(crate) struct WatchedConversations<T> {
    store: T,
    recorder: Recorder,
    /// Rows that were seen in this life of the server.
    rows: BTreeSet<(u32, u64)>,
}

impl<T: Transact<conversation::Command>> WatchedConversations<T> {
    pub(crate) fn new(store: T, recorder: Recorder) -> Self {
        Self { store, recorder, rows: BTreeSet::new() }
    }

    fn see(&self, what: SessionSeen) {
        self.recorder.see(Seen::Session(what));
    }

    fn see_row(&mut self, user: u32, row: StoredRow) {
        if self.rows.insert((user, row.position)) {
            self.see(SessionSeen::Durable { user, row });
        }
    }

    /// It may have been done.
    fn see_doubt(&self, command: &conversation::Command) {
        use conversation::Command;
        if let Command::Begin(turn) | Command::End { turn, .. } = command {
            let (user, position) = named(turn);
            self.see(SessionSeen::Doubted { user, position });
        }
    }

    /// What a reply says of the store.
    fn see_reply(&mut self, command: &conversation::Command, reply: &Reply) {
        use conversation::Command;
        match (command, reply) {
            (Command::Load { principal, .. }, Reply::Loaded(loaded)) => {
                for row in loaded.rows.iter().chain(&loaded.waiting) {
                    self.see_row(user_of(principal), stored_row(row));
                }
            }
            (Command::Input { principal, input, .. }, Reply::Input(verdict)) => {
                let user = user_of(principal);
                match verdict {
                    Verdict::Accepted(row) => self.see_row(user, stored_row(row)),
                    Verdict::Known { position, question } => {
                        let question = question.as_ref().map(ToString::to_string);
                        self.see_row(user, known_row(*position, input, question));
                    }
                    Verdict::Rejected(reason) => {
                        let (input, reason) = (input.id.to_string(), *reason);
                        self.see(SessionSeen::Refused { user, input, reason });
                    }
                }
            }
            (Command::Begin(turn), Reply::Begun(true)) => {
                let (user, position) = named(turn);
                self.see(SessionSeen::Begun { user, position });
            }
            (Command::Say { turn, .. }, Reply::Row(row)) => {
                self.see_row(user_of(&turn.principal), stored_row(row));
            }
            (Command::End { turn, .. }, Reply::Ended(row)) => {
                let (user, position) = named(turn);
                if let Some(row) = row {
                    self.see_row(user, stored_row(row));
                }
                self.see(SessionSeen::Over { user, position });
            }
            _ => {}
        }
    }
}

impl<T: Transact<conversation::Command>> Transact<conversation::Command>
    for WatchedConversations<T>
{
    fn transact(&mut self, commands: Vec<conversation::Command>) -> Result<Vec<Reply>, StoreError> {
        let asked = commands.clone();
        let result = self.store.transact(commands);
        match &result {
            Ok(replies) => {
                for (command, reply) in asked.iter().zip(replies) {
                    self.see_reply(command, reply);
                }
            }
            Err(StoreError::Unknown(_)) => asked.iter().for_each(|command| self.see_doubt(command)),
            Err(StoreError::NotApplied(_)) => {}
        }
        result
    }
}

fn stored_row(row: &Row) -> StoredRow {
    StoredRow {
        position: row.position,
        kind: row.kind,
        digest: digest(row.role, &row.text),
        input: row.input.as_ref().map(ToString::to_string),
        question: row.question.as_ref().map(ToString::to_string),
    }
}

/// The row of an input that was accepted before.
fn known_row(position: u64, input: &Input, question: Option<String>) -> StoredRow {
    StoredRow {
        position,
        kind: match input.what {
            What::Message { .. } => Kind::Message,
            What::Answer { .. } => Kind::Answer,
        },
        digest: digest(Role::User, &input.text),
        input: Some(input.id.to_string()),
        question,
    }
}

/// What a conversation is at the end of a run: `loaded` has all rows.
pub(crate) fn conversation_end(user: u32, loaded: &Loaded) -> SessionSeen {
    SessionSeen::ConversationEnd {
        user,
        rows: loaded.rows.iter().map(stored_row).collect(),
        question: loaded.question.as_ref().map(open_question),
        waiting: loaded.waiting.iter().map(|row| row.position).collect(),
    }
}

#[cfg(test)]
mod tests {
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
    fn rows_are_shown_as_what_is_new() {
        let shown = |texts: &[&str]| rows(texts).iter().map(|row| shown_row(row)).collect();
        let change = |before: &[&str], after: &[&str]| rows_shown(&rows(before), &rows(after));
        let moved = |gone, new: &[&str]| Some(RowsShown::Moved { gone, new: shown(new) });
        assert_eq!(change(&["a"], &["a"]), None);
        assert_eq!(change(&[], &["a", "b"]), moved(0, &["a", "b"]));
        assert_eq!(change(&["a", "b"], &["a", "b", "c"]), moved(0, &["c"]));
        assert_eq!(change(&["a", "b"], &["b", "c"]), moved(1, &["c"]));
        assert_eq!(change(&["a", "b"], &["b"]), moved(1, &[]));
        let replaced = |new: &[&str]| Some(RowsShown::Replaced(shown(new)));
        assert_eq!(change(&["a", "b"], &["a", "c"]), replaced(&["a", "c"]));
        assert_eq!(change(&["a"], &[]), replaced(&[]));
    }
}
