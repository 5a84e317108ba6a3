//! A foreign server in the place of the server's host, with the same application behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::net::http;
use gapless::session::conversation::{Ending, Loaded, Row, Saying};
use gapless::session::driver::{Hello, Stopped};
use gapless::session::wire::{
    self, Body, ClientFrame, CursorVerdict, Notice, SUBPROTOCOL, ServerFrame,
};
use gapless::session::{CloseCode, ConnectionId, Identity, Name};
use tokio::sync::oneshot;

use crate::conform::session::{Held, Question, RowHeld, SessionServerConfig, TurnEnding, Usage};
use crate::conform::{Config, Effect, Event, StoreProblem, feature};
use crate::history::{SessionSeen, StoredRow, digest};
use crate::trace::Kind;
use crate::world::host::Process;
use crate::world::lock;
use crate::world::node::{Attached, Entrance, Outside, Part, Storage, drive, keeps};
use crate::world::session::application::{Voice, take};
use crate::world::session::server::{CONVERSATIONS, LOOK_EVERY, OPEN_RETRY, Side};
use crate::world::session::watch::{ServerEye, conversation_end, principal, user_of};
use crate::world::session::{Ledger, token};

/// One life of a foreign server.
pub(in crate::world::session) async fn serve(
    side: Side,
    attached: Attached,
    case: String,
) -> turmoil::Result {
    enter(side, attached, case, false).await
}

/// Reads what the conversations are at the end of a run, if the server tells.
pub(in crate::world::session) async fn inspect(
    side: Side,
    attached: Attached,
    case: String,
) -> turmoil::Result {
    match keeps(&attached) && attached.has(feature::CONVERSATION_REPORTS) {
        true => enter(side, attached, case, true).await,
        false => Ok(()),
    }
}

async fn enter(side: Side, attached: Attached, case: String, inspects: bool) -> turmoil::Result {
    let Side { process, options, vault, ledger, users } = side;
    process.boot().await;
    // Opening the store takes what is in the files for true.
    vault.state().unsettled = false;
    let storage = match keeps(&attached) {
        true => Some(open(&process).await),
        false => None,
    };
    let outside = Arc::<Mutex<Option<Outside>>>::default();
    let part = ServerPart {
        inspects,
        users,
        marks: !attached.has(feature::MARKS),
        reports: attached.has(feature::CONVERSATION_REPORTS),
        process: process.clone(),
        ledger: ledger.clone(),
        eye: ServerEye::new(process.life, process.recorder.clone()),
        outside: Arc::clone(&outside),
        asking: BTreeMap::new(),
        greeted: BTreeMap::new(),
        identities: BTreeSet::new(),
        told: BTreeMap::new(),
        commits: BTreeMap::new(),
        rows: BTreeSet::new(),
        unheard: Arc::default(),
    };
    let entrance = Entrance {
        seat: 0,
        case,
        config: Config::SessionServer(Box::new(SessionServerConfig {
            users: (1..=users).map(|user| (principal(user), token(user))).collect(),
            extension: options.extension,
            ring: options.ring,
            ring_bytes: options.ring_bytes,
            ring_age_ms: options.ring_age_ms,
            prune_every_ms: options.prune_every_ms,
            idle_max_ms: options.idle_max_ms,
            outboxes: options.outboxes,
            ping_every_ms: options.ping_every_ms,
            window_frames: options.window_frames,
            write_stall_ms: options.write_stall_ms,
            history_messages: options.history_messages,
            history_bytes: options.history_bytes,
            queue: options.queue,
            inputs: options.inputs,
            turns: options.turns,
            text_bytes: options.text_bytes,
            retain_rows: options.retain_rows,
        })),
        connector: None,
        storage,
        vault,
        commit: Duration::from_millis(options.commit_ms),
        attached: attached.clone(),
        process,
    };
    let looks = attached.has(feature::CONVERSATION_REPORTS) && !inspects;
    tokio::select! { biased;
        done = drive(entrance, part) => done,
        () = audit(outside, ledger, users), if looks => Ok(()),
    }
}

async fn open(process: &Process) -> Storage {
    loop {
        match Storage::open(process, CONVERSATIONS, "") {
            Ok(storage) => return storage,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the store cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    }
}

/// Asks, once the faults are over, what the conversations are.
async fn audit(outside: Arc<Mutex<Option<Outside>>>, ledger: Ledger, users: u32) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(outside) = lock(&outside).as_ref().filter(|_| ledger.state().healed) {
            outside.happened(look(users));
        }
    }
}

fn look(users: u32) -> Event {
    Event::SessionLook { principals: (1..=users).map(principal).collect() }
}

/// What can be seen of a foreign server, from its messages and from what it tells; and the
/// application behind it.
struct ServerPart {
    /// The run is over: it is only asked what it holds.
    inspects: bool,
    users: u32,
    /// The server says of nothing by itself where it is.
    marks: bool,
    /// It says what its store holds.
    reports: bool,
    process: Process,
    ledger: Ledger,
    eye: ServerEye,
    outside: Arc<Mutex<Option<Outside>>>,
    /// Who wants a connection: the path and query, and the headers.
    asking: BTreeMap<u64, (String, Vec<(String, String)>)>,
    /// Connections on which neither a verdict nor a frame with a number was sent yet.
    greeted: BTreeMap<u64, Greeting>,
    /// Who was connected in this life.
    identities: BTreeSet<Identity>,
    /// What the next message of a connection is in the words of the extension.
    told: BTreeMap<u64, String>,
    /// What commits that are not done mean.
    commits: BTreeMap<u64, Vec<Held>>,
    /// Rows that were seen in this life.
    rows: BTreeSet<(u32, u64)>,
    /// What was said in turns and is not heard yet.
    unheard: Unheard,
}

/// How a client came.
struct Greeting {
    /// It has something, of an outbox of this life.
    known: bool,
}

type Unheard = Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>;

impl ServerPart {
    fn connected(&mut self, conn: u64, protocol: Option<&str>) {
        let Some((target, headers)) = self.asking.remove(&conn) else { return };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let bearer = headers.iter().find(|(name, _)| name == "authorization");
        let bearer = bearer.and_then(|(_, value)| value.split_once(' '));
        let bearer = bearer.map(|(_, token)| token.trim().to_owned());
        let Some(own) = bearer.or_else(|| http::query(query, "token")) else { return };
        let Some(user) = (1..=self.users).find(|user| token(*user) == own) else { return };
        let Ok(client) = Hello::client(query, ConnectionId(conn)) else { return };
        let identity = Identity { principal: principal(user).into(), client };
        let hello = Hello::parse(identity, protocol == Some(SUBPROTOCOL), query);
        let is_known = !self.identities.insert(hello.identity.clone());
        self.greeted.insert(conn, Greeting { known: is_known && hello.since > 0 });
        self.eye.connected(conn, &hello);
    }

    fn sent(&mut self, conn: u64, text: &str) {
        let told = self.told.remove(&conn);
        let Ok(frame) = ServerFrame::parse(told.as_deref().unwrap_or(text)) else { return };
        if self.marks {
            self.see_marks(conn, &frame);
        }
        self.eye.sent(conn, &frame);
    }

    /// Where a server is that does not say it.
    fn see_marks(&mut self, conn: u64, frame: &ServerFrame) {
        match &frame.body {
            Body::Begin(begin) => {
                self.greeted.remove(&conn);
                mark_verdict(begin.verdict);
                if !begin.verdict.is_history() && begin.to >= begin.from {
                    gapless::mark!("session.replay");
                }
            }
            // The base contract has no verdict.
            body if frame.seq > 0 => match (self.greeted.remove(&conn), body) {
                (Some(Greeting { known: false }), Body::History(_)) => {
                    gapless::mark!("session.verdict_unknown");
                }
                (None, _) | (_, Body::History(_)) => {}
                (Some(_), _) => {
                    gapless::mark!("session.replay");
                    gapless::mark!("session.verdict_replay");
                }
            },
            _ => {}
        }
    }

    fn hold(&mut self, held: Held) {
        let seen = match held {
            Held::Row { principal, row } => {
                let user = user_of(&principal);
                match self.rows.insert((user, row.id)) {
                    true => SessionSeen::Durable { user, row: stored(&row) },
                    false => return,
                }
            }
            Held::Refused { principal, input } => SessionSeen::Refused {
                user: user_of(&principal),
                reason: input.why(),
                input: input.id,
            },
            Held::Begun { principal, position } => {
                SessionSeen::Begun { user: user_of(&principal), position }
            }
            Held::Over { principal, position } => {
                SessionSeen::Over { user: user_of(&principal), position }
            }
        };
        self.eye.see(seen);
    }

    fn holds(
        &mut self,
        principal: &str,
        rows: &[RowHeld],
        question: Option<Question>,
        waiting: &[u64],
    ) -> Result<(), String> {
        let rows: Vec<Row> = rows.iter().map(row).collect::<Result<_, _>>()?;
        let waiting = rows.iter().filter(|row| waiting.contains(&row.position)).cloned();
        let question = question.map(|Question { id, text }| {
            let id = id.as_deref().map(name).transpose()?;
            Ok::<_, String>(wire::Question { id, text, source: String::new() })
        });
        let loaded = Loaded {
            truncated: rows.first().is_some_and(|row| row.position > 1),
            question: question.transpose()?,
            waiting: waiting.collect(),
            rows,
        };
        let user = user_of(principal);
        match self.inspects {
            true => self.eye.see(conversation_end(user, &loaded)),
            false => {
                self.ledger.state().conversations.insert(user, loaded);
            }
        }
        Ok(())
    }

    /// The application takes a turn.
    fn turn(&mut self, ticket: u64, turn: (u32, u64), text: String, outside: &Outside) {
        let (user, position) = turn;
        self.eye.see(SessionSeen::Ran { user, position });
        let (process, ledger) = (self.process.clone(), self.ledger.clone());
        let (outside, unheard) = (outside.clone(), Arc::clone(&self.unheard));
        tokio::spawn(async move {
            let voice = TurnVoice { ticket, outside: outside.clone(), unheard };
            let ending = match take(&process, &ledger, turn, &text, voice).await {
                Ending::Done => TurnEnding::Done,
                Ending::Failed(text) => TurnEnding::Failed(text),
                Ending::Ask { question, text, source } => {
                    TurnEnding::Ask { question: question.to_string(), text, source }
                }
            };
            outside.happened(Event::TurnEnd { ticket, ending });
        });
    }
}

/// Speaks for a turn of a foreign server.
struct TurnVoice {
    ticket: u64,
    outside: Outside,
    unheard: Unheard,
}

impl Voice for TurnVoice {
    async fn say(&mut self, saying: Saying) -> Result<(), Stopped> {
        let Saying { text, model, usage } = saying;
        let usage = usage.map(|wire::Usage { input, output }| Usage { input, output });
        let (heard, hears) = oneshot::channel();
        lock(&self.unheard).insert(self.ticket, heard);
        self.outside.happened(Event::TurnSay { ticket: self.ticket, text, model, usage });
        hears.await.map_err(|_| Stopped)
    }

    async fn progress(&mut self, notice: Notice) -> Result<(), Stopped> {
        let fields = serde_json::from_str(notice.fields.get()).map_err(|_| Stopped)?;
        let kind = notice.kind;
        self.outside.happened(Event::TurnProgress { ticket: self.ticket, kind, fields });
        Ok(())
    }
}

impl Part for ServerPart {
    fn begin(&mut self, outside: &Outside) -> Event {
        *lock(&self.outside) = Some(outside.clone());
        match self.inspects {
            true => look(self.users),
            false => {
                if !self.reports {
                    self.ledger.state().blind = true;
                    self.eye.see(SessionSeen::Blind);
                }
                Event::AppConnect
            }
        }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::SockRequest { conn, target, headers } => {
                self.asking.insert(*conn, (target.clone(), headers.clone()));
            }
            Event::SockOpen { conn, protocol } => self.connected(*conn, protocol.as_deref()),
            Event::SockMessage { conn, text: Some(text), .. } => {
                if let Ok(frame) = ClientFrame::parse(text) {
                    self.eye.heard(*conn, &frame);
                }
            }
            Event::SockClose { conn, .. } if self.asking.remove(conn).is_none() => {
                self.eye.left(*conn, None);
            }
            _ => {}
        }
    }

    fn does(&mut self, effect: &Effect) {
        match effect {
            Effect::SockSend { conn, text } => self.sent(*conn, text),
            Effect::SockClose { conn, code, .. } => {
                if self.marks && *code == Some(CloseCode::SUPERSEDED.0) {
                    gapless::mark!("session.superseded");
                }
                self.eye.left(*conn, Some(code.unwrap_or(1000)));
            }
            Effect::SockRefuse { conn, .. } => {
                self.asking.remove(conn);
            }
            _ => {}
        }
    }

    fn committed(&mut self, id: u64, error: Option<StoreProblem>) {
        for held in self.commits.remove(&id).unwrap_or_default() {
            match (error, held) {
                (None, held) => self.hold(held),
                // It may have been done.
                (
                    Some(StoreProblem::Unknown),
                    Held::Begun { principal, position } | Held::Over { principal, position },
                ) => {
                    let user = user_of(&principal);
                    self.eye.see(SessionSeen::Doubted { user, position });
                }
                (Some(_), _) => {}
            }
        }
    }

    fn effect(&mut self, effect: Effect, outside: &Outside) -> Result<(), String> {
        match effect {
            Effect::AppTurn { ticket, principal, position, text } => {
                self.turn(ticket, (user_of(&principal), position), text, outside);
            }
            Effect::TurnHeard { ticket } => {
                let heard = lock(&self.unheard).remove(&ticket);
                let heard = heard.ok_or_else(|| format!("nothing was said in turn {ticket}"))?;
                // A turn that no longer waits for it goes on without it.
                let _ = heard.send(());
            }
            Effect::StoreConversations { id: Some(id), held } if self.reports => {
                self.commits.insert(id, held);
            }
            Effect::StoreConversations { id: None, held } if self.reports => {
                held.into_iter().for_each(|held| self.hold(held));
            }
            Effect::SessionFrame { conn, text } if self.reports => {
                self.told.insert(conn, text);
            }
            Effect::SessionHolds { principal, rows, question, waiting } => {
                self.holds(&principal, &rows, question, &waiting)?;
            }
            other => return Err(format!("no server of sessions does {other:?}")),
        }
        Ok(())
    }
}

fn mark_verdict(verdict: CursorVerdict) {
    match verdict {
        CursorVerdict::UpToDate => gapless::mark!("session.verdict_up_to_date"),
        CursorVerdict::Replay => gapless::mark!("session.verdict_replay"),
        CursorVerdict::TooOld => gapless::mark!("session.verdict_too_old"),
        CursorVerdict::Ahead => gapless::mark!("session.verdict_ahead"),
        CursorVerdict::OtherEpoch => gapless::mark!("session.verdict_other_epoch"),
        CursorVerdict::Unknown => gapless::mark!("session.verdict_unknown"),
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

fn stored(row: &RowHeld) -> StoredRow {
    StoredRow {
        position: row.id,
        kind: row.kind.into(),
        digest: digest(row.role.into(), &row.text),
        input: row.input_id.clone(),
        question: row.question_id.clone(),
    }
}

/// A row, of which no more is told than what can be judged.
fn row(row: &RowHeld) -> Result<Row, String> {
    Ok(Row {
        position: row.id,
        role: row.role.into(),
        kind: row.kind.into(),
        text: row.text.clone(),
        input: row.input_id.as_deref().map(name).transpose()?,
        question: row.question_id.as_deref().map(name).transpose()?,
        attachments: Vec::new(),
        source: None,
        model: String::new(),
        usage: None,
    })
}
