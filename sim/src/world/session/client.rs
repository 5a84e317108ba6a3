//! A client's host: the production client, with a user in front of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless::recovery::BackoffConfig;
use gapless::session::Name;
use gapless::session::client::{Client, ClientConfig};
use gapless::session::driver::{Target, client as client_task};
use gapless::session::in_flight::{Command, Kept};
use gapless::session::sqlite::SqliteInFlight;

use super::link::SessionLink;
use super::store::{InlineStore, Told};
use super::user::{Page, User};
use super::watch::{Viewer, WatchedClient, WatchedInFlight};
use super::{Ledger, SERVER, token};
use crate::history::{Seen, SessionSeen};
use crate::mutants::Distorted;
use crate::plan::SessionClientOptions;
use crate::trace::Kind;
use crate::world::disk::{VFS_NAME, create_dir};
use crate::world::host::Process;
use crate::world::limits;
use crate::world::link::{Link, LinkConnector};
use crate::world::vault::Vault;

/// What a life of a client is given.
pub(super) struct Side {
    pub(super) process: Process,
    pub(super) number: u32,
    /// The user to whom it belongs.
    pub(super) of: u32,
    pub(super) options: SessionClientOptions,
    /// Whether the server speaks the extension too.
    pub(super) extension: bool,
    pub(super) vault: Vault,
    pub(super) ledger: Ledger,
    pub(super) user: User,
    pub(super) link: Link,
}

/// Where the client keeps what is in flight.
pub(super) const IN_FLIGHT: &str = "/data/session.db";

/// How long a client that cannot open its store waits before it tries again.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(1);

/// One life of a client: one page after the other.
pub(super) async fn live(side: Side, distorted: Distorted) -> turmoil::Result {
    side.boot().await?;
    loop {
        side.page(distorted).await?;
        side.see_load();
    }
}

impl Side {
    /// A life begins, with what is to be in the store.
    pub(super) async fn boot(&self) -> std::io::Result<()> {
        let process = &self.process;
        process.boot().await;
        // Opening the store takes what is in the files for true.
        self.vault.state().unsettled = false;
        self.vault.back_up_if_due(process, IN_FLIGHT)?;
        if self.vault.replace_if_due(process, IN_FLIGHT)?.is_some() {
            gapless::mark!("world.store_replaced");
            self.see_store_replaced();
        }
        Ok(())
    }

    pub(super) fn see_store_replaced(&self) {
        let replaced = SessionSeen::StoreReplaced { client: self.number };
        self.process.recorder.see(Seen::Session(replaced));
    }

    pub(super) fn see_load(&self) {
        gapless::mark!("world.page_loaded_again");
        self.process.record(Kind::Life, "loads its page again");
    }

    /// What a user calls all clients that have one name.
    pub(super) fn shared_id(&self) -> Option<String> {
        self.options.shared_id.then(|| format!("user-{}", self.of))
    }

    /// One page, until it is loaded again: then nothing is left but what is stored.
    async fn page(&self, distorted: Distorted) -> turmoil::Result {
        let (process, options) = (&self.process, &self.options);
        let load = self.user.loads();
        let mut entropy = process.seed.stream("page", process.name, load);
        let (store, mut kept) = self.open(&mut entropy).await?;
        if let Some(name) = self.shared_id() {
            kept.client = Name::parse(&name).expect("a fixed pattern");
        }
        let store = WatchedInFlight::new(store, self.number, process.recorder.clone());
        let store = InlineStore {
            store: Arc::new(Mutex::new(distorted.in_flight(store))),
            process: process.clone(),
            path: IN_FLIGHT,
            vault: self.vault.clone(),
            commit: Duration::from_millis(options.commit_ms),
        };
        let core = Client::new(config(options), distorted.entropy(Box::new(entropy)));
        let viewer =
            Viewer { client: self.number, user: self.of, life: load, extension: self.extension };
        let core = WatchedClient::new(
            distorted.session_client(core),
            viewer,
            &kept.client,
            process.recorder.clone(),
        );
        let connector = LinkConnector {
            server: SERVER.into(),
            watch: Arc::new(SessionLink),
            link: self.link.clone(),
            process: process.clone(),
        };
        let target = Target { limits: limits(), ..Target::new(SERVER, token(self.of)) };
        let (handle, run) = client_task(core, connector, target, store, kept);
        let page = Page {
            user: self.user.clone(),
            process: process.clone(),
            client: self.number,
            ledger: self.ledger.clone(),
            handle,
            answer: Duration::from_millis(options.answer_ms),
        };
        tokio::select! { biased;
            () = run => {}
            () = page.use_it() => {}
        }
        Ok(())
    }

    async fn open(
        &self,
        entropy: &mut rand_chacha::ChaCha12Rng,
    ) -> Result<(SqliteInFlight, Kept), std::io::Error> {
        loop {
            create_dir("/data")?;
            let path = self.process.disk.path(IN_FLIGHT);
            match SqliteInFlight::open(&path, Some(VFS_NAME), entropy) {
                Ok(opened) => return Ok(opened),
                Err(problem) => {
                    self.process.powered().await;
                    let text = format!("the store cannot be opened: {problem}");
                    self.process.record(Kind::Store, text);
                    tokio::time::sleep(OPEN_RETRY).await;
                }
            }
        }
    }
}

fn config(options: &SessionClientOptions) -> ClientConfig {
    let ms = Duration::from_millis;
    ClientConfig {
        extension: options.extension,
        connect_timeout: ms(options.connect_ms),
        ping_every: ms(options.ping_every_ms),
        reconnect: BackoffConfig {
            min: ms(options.reconnect_ms.0),
            max: ms(options.reconnect_ms.1),
            jitter_percent: 25,
        },
        ack_every: ms(options.ack_every_ms),
        ack_timeout: ms(options.ack_timeout_ms),
        in_flight_max: options.in_flight,
        base_grace: ms(options.base_grace_ms),
        messages_max: options.messages,
        ..ClientConfig::default()
    }
}

impl Told for Command {
    fn describe(&self) -> String {
        match self {
            Self::Keep(input) => format!("keep {}", input.id),
            Self::Drop(id) => format!("drop {id}"),
        }
    }

    fn describe_reply((): &()) -> String {
        "done".to_owned()
    }
}
