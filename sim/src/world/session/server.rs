//! The server's host: the production server on turmoil's network and disk, with an application
//! that does what its users say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::net::Tokens;
use gapless::net::http::{self, HttpConfig};
use gapless::recovery::{LivenessConfig, RingLimits};
use gapless::session::conversation::{Command, Loaded, Reply, Verdict};
use gapless::session::driver::{ServerTaskConfig, SessionService, server as server_task};
use gapless::session::server::{Server, ServerConfig, ShowAll};
use gapless::session::sqlite::{ConversationsConfig, SqliteConversations};
use gapless::storage::Transact;
use turmoil::net::TcpListener;

use super::application::Scripted;
use super::store::{InlineStore, Shared, Told};
use super::watch::{WatchedConversations, WatchedServer, conversation_end, principal};
use super::{Ledger, token};
use crate::history::Seen;
use crate::mutants::{Distorted, Settings};
use crate::plan::SessionServerOptions;
use crate::trace::Kind;
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::link::PORT;
use crate::world::traced::TracedListener;
use crate::world::vault::Vault;
use crate::world::{limits, lock};

/// What a life of the server is given.
pub(super) struct Side {
    pub(super) process: Process,
    pub(super) options: SessionServerOptions,
    pub(super) vault: Vault,
    pub(super) ledger: Ledger,
    /// How many users there are.
    pub(super) users: u32,
}

/// Where the conversations are.
pub(super) const CONVERSATIONS: &str = "/data/conversations.db";

/// How long a server that cannot open its store waits before it tries again.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(1);

/// How often it is looked whether there is anything to do.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

fn open(
    process: &Process,
    options: &SessionServerOptions,
    settings: Settings,
) -> Result<SqliteConversations, String> {
    create_dir("/data").map_err(|error| error.to_string())?;
    let config = ConversationsConfig {
        retain_rows: options.retain_rows,
        synchronous: settings.synchronous,
        vfs: Some(VFS_NAME.to_owned()),
    };
    let path = process.disk.path(CONVERSATIONS);
    SqliteConversations::open(&path, &config).map_err(|error| error.to_string())
}

fn config(options: &SessionServerOptions) -> ServerConfig {
    let ms = Duration::from_millis;
    ServerConfig {
        extension: options.extension,
        ring: RingLimits {
            count: options.ring,
            bytes: options.ring_bytes,
            age: Some(ms(options.ring_age_ms)),
        },
        prune_every: ms(options.prune_every_ms),
        idle_max: ms(options.idle_max_ms),
        outboxes_max: options.outboxes,
        liveness: LivenessConfig {
            ping_every: ms(options.ping_every_ms),
            pong_timeout: ms(2 * options.ping_every_ms),
        },
        window_frames: options.window_frames,
        write_stall: ms(options.write_stall_ms),
        history_messages: options.history_messages,
        history_bytes: options.history_bytes,
        queue_max: options.queue,
        inputs_max: options.inputs,
        turns_max: options.turns,
        text_bytes_max: options.text_bytes,
        ..ServerConfig::default()
    }
}

/// One life of the server.
pub(super) async fn serve(side: Side, distorted: Distorted) -> turmoil::Result {
    let Side { process, options, vault, ledger, users } = side;
    process.boot().await;
    // Opening the store takes what is in the files for true.
    vault.state().unsettled = false;
    let store = loop {
        match open(&process, &options, distorted.settings()).and_then(|store| {
            let mut store = WatchedConversations::new(store, process.recorder.clone());
            // A commit whose machine lost power may or may not be in it.
            (1..=users).try_for_each(|user| load(&mut store, user).map(drop))?;
            Ok(store)
        }) {
            Ok(store) => break store,
            Err(problem) => {
                process.powered().await;
                process.record(Kind::Store, format_args!("the store cannot be opened: {problem}"));
                tokio::time::sleep(OPEN_RETRY).await;
            }
        }
    };
    let shared: Shared<Command> = Arc::new(Mutex::new(distorted.conversations(store)));
    let store = InlineStore {
        store: Arc::clone(&shared),
        process: process.clone(),
        path: CONVERSATIONS,
        vault: vault.clone(),
        commit: Duration::from_millis(options.commit_ms),
    };
    let entropy = distorted.entropy(Box::new(process.entropy("server")));
    let core = Server::new(config(&options), Box::new(ShowAll), entropy);
    let core =
        WatchedServer::new(distorted.session_server(core), process.life, process.recorder.clone());
    let application = Scripted { process: process.clone(), ledger: ledger.clone() };
    let (handle, task) =
        server_task(core, store, Arc::new(application), ServerTaskConfig::default());
    let tokens = (1..=users)
        .fold(Tokens::default(), |tokens, user| tokens.publisher(&token(user), &principal(user)));
    let service = SessionService::new(handle, Arc::new(tokens), limits(), options.extension);
    let listener = TracedListener {
        listener: TcpListener::bind(("0.0.0.0", PORT)).await?,
        process: process.clone(),
    };
    let http = HttpConfig { date_header: false, ..HttpConfig::default() };
    let never = std::future::pending();
    tokio::select! { biased;
        () = task => {}
        () = http::serve(listener, service, http, never) => {}
        () = audit(shared, vault, ledger, users) => {}
    }
    Ok(())
}

/// Looks, once the faults are over and whenever something was written, what the conversations are.
async fn audit(store: Shared<Command>, vault: Vault, ledger: Ledger, users: u32) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let newest = Some(vault.state().written);
        if !ledger.state().healed || std::mem::replace(&mut seen, newest) == newest {
            continue;
        }
        for user in 1..=users {
            match load(&mut **lock(&store), user) {
                Ok(loaded) => drop(ledger.state().conversations.insert(user, loaded)),
                Err(_) => seen = None,
            }
        }
    }
}

/// All of a user's conversation.
fn load<T: Transact<Command> + ?Sized>(store: &mut T, user: u32) -> Result<Loaded, String> {
    let command = Command::Load {
        principal: principal(user).into(),
        count_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    let mut replies = store.transact(vec![command]).map_err(|error| error.to_string())?;
    match replies.pop() {
        Some(Reply::Loaded(loaded)) => Ok(loaded),
        _ => Err("the store answers something else".to_owned()),
    }
}

/// Reads what the conversations are at the end of a run.
pub(super) async fn inspect(side: Side) -> turmoil::Result {
    let Side { process, options, users, .. } = side;
    process.boot().await;
    let mut store = open(&process, &options, Settings::default())?;
    for user in 1..=users {
        let loaded = load(&mut store, user)?;
        process.recorder.see(Seen::Session(conversation_end(user, &loaded)));
    }
    Ok(())
}

impl Told for Command {
    fn describe(&self) -> String {
        match self {
            Self::Recover => "what had begun is over".to_owned(),
            Self::Waiting { .. } => "what waits?".to_owned(),
            Self::Load { principal, count_max, .. } => {
                format!("the newest {count_max} of {principal}")
            }
            Self::Input { principal, input, .. } => format!("{principal} says {}", input.id),
            Self::Begin(turn) => format!("{} begins {}", turn.principal, turn.position),
            Self::Say { turn, nth, .. } => {
                format!("{} hears {nth} in {}", turn.principal, turn.position)
            }
            Self::End { turn, ending } => {
                let how = match ending {
                    gapless::session::conversation::Ending::Done => "is done",
                    gapless::session::conversation::Ending::Ask { .. } => "asks",
                    gapless::session::conversation::Ending::Failed(_) => "failed",
                };
                format!("{} of {} {how}", turn.position, turn.principal)
            }
        }
    }

    fn describe_reply(reply: &Reply) -> String {
        match reply {
            Reply::Recovered(count) => format!("{count} interrupted"),
            Reply::Waiting(principals) => format!("{} conversations", principals.len()),
            Reply::Loaded(loaded) => format!(
                "{} rows, {} wait, {}",
                loaded.rows.len(),
                loaded.waiting.len(),
                loaded.question.as_ref().map_or("nothing is asked", |_| "something is asked")
            ),
            Reply::Input(Verdict::Accepted(row)) => format!("row {}", row.position),
            Reply::Input(Verdict::Known { position, .. }) => format!("row {position} already"),
            Reply::Input(Verdict::Rejected(reason)) => reason.as_str().to_owned(),
            Reply::Begun(begun) => if *begun { "begun" } else { "over already" }.to_owned(),
            Reply::Row(row) => format!("row {}", row.position),
            Reply::Ended(row) => {
                row.as_ref().map_or("no row".to_owned(), |row| format!("row {}", row.position))
            }
        }
    }
}
