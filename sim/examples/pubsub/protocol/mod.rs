//! A small publish and subscribe, for the simulator.
//!
//! Whoever publishes to a topic is told the number of the message once it is stored. Whoever subscribes
//! gets every message of the topic, the oldest first, and after a new connection goes on after the last
//! that it has handled.

mod checks;
mod client;
mod server;
mod wire;

use std::fmt;

use gapless_sim::check::Checker;
use gapless_sim::custom::external::rand::RngExt;
use gapless_sim::custom::{CustomProtocol, Life, Node, Program, Rng, Sides, Wanted, Work};
use gapless_sim::history::History;
use gapless_sim::mutants::Mutant;
use gapless_sim::plan::{Host, Topology};
use serde::{Deserialize, Serialize};

/// The planted bug; see `client.rs`.
const RESUMES_AFTER_RECEIVED: &str = "resumes-after-received";

/// What a client can be told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Wish {
    Subscribe(String),
    Publish { topic: String, count: u32 },
}

/// What can be seen of a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Seen {
    Subscribes { topic: String },
    Publishes { topic: String, key: String },
    Published { topic: String, seq: u64, key: String },
    Handles { topic: String, seq: u64, key: String },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscribes { topic } => write!(f, "subscribes to {topic}"),
            Self::Publishes { topic, key } => write!(f, "publishes {key} to {topic}"),
            Self::Published { topic, seq, key } => {
                write!(f, "has published {key} as {topic} {seq}")
            }
            Self::Handles { topic, seq, key } => write!(f, "handles {topic} {seq}: {key}"),
        }
    }
}

/// The server's options.
#[derive(Debug, Serialize, Deserialize)]
struct ServerOptions {
    /// How many messages are read from the log at once.
    page: u32,
}

/// The clients' options.
#[derive(Debug, Serialize, Deserialize)]
struct ClientOptions {
    /// How long a message is handled.
    handler_ms: u64,
    /// The longest pause before a new connection.
    reconnect_ms: u64,
}

/// The topics of a swarm.
const TOPICS: [&str; 2] = ["news", "sport"];

/// The most messages that one step publishes.
const COUNT_MAX: u32 = 1_000;

/// The protocol.
pub(crate) struct PubSub;

gapless_sim::protocol!(PubSub);

impl CustomProtocol for PubSub {
    fn name(&self) -> &'static str {
        "pubsub"
    }

    fn program(&self) -> Program {
        Program { command: "cargo pubsub", scenarios: "sim/examples/pubsub/scenarios" }
    }

    fn promise(&self) -> &'static str {
        "every subscriber handled every message once, in order"
    }

    fn options(&self) -> Sides {
        let client = ClientOptions { handler_ms: 20, reconnect_ms: 500 };
        Sides::new(&ServerOptions { page: 16 }, &client)
    }

    fn draw_options(&self, rng: &mut Rng) -> Sides {
        let handler_ms = pick(rng, &[0, 5, 50, 200]);
        let client = ClientOptions { handler_ms, reconnect_ms: pick(rng, &[100, 500, 2_000]) };
        Sides::new(&ServerOptions { page: pick(rng, &[2, 16]) }, &client)
    }

    fn server(&self, node: Node) -> Life {
        Box::pin(server::serve(node))
    }

    fn client(&self, node: Node) -> Life {
        Box::pin(client::live(node))
    }

    fn check_work(&self, work: &Work) -> Result<(), String> {
        match (work.at, work.parse()?) {
            (Host::Server | Host::Member(_) | Host::Engine, _) => {
                Err("only clients subscribe and publish".to_owned())
            }
            (_, Wish::Publish { count, .. }) if !(1..=COUNT_MAX).contains(&count) => {
                Err(format!("`count` is between 1 and {COUNT_MAX}"))
            }
            (Host::Client(_), _) => Ok(()),
        }
    }

    fn draw_work(&self, wanted: &Wanted<'_>, rng: &mut Rng) -> Vec<(u64, Work)> {
        let mut work = Vec::new();
        // A process that dies takes its subscriptions with it, so some come later.
        for client in 1..=wanted.topology.clients {
            for _ in 0..4 {
                let wish = Wish::Subscribe(pick(rng, &TOPICS).to_owned());
                let at = rng.random_range(0..wanted.duration_ms / 2);
                work.push((at, Work::new(Host::Client(client), &wish)));
            }
        }
        let mut left = u64::from(wanted.per_minute) * wanted.duration_ms / 60_000;
        while left > 0 {
            let count = pick(rng, &[1, 1, 3, 10]).min(u32::try_from(left).unwrap_or(u32::MAX));
            left -= u64::from(count);
            let client = Host::Client(rng.random_range(1..=wanted.topology.clients));
            let wish = Wish::Publish { topic: pick(rng, &TOPICS).to_owned(), count };
            work.push((rng.random_range(0..wanted.duration_ms), Work::new(client, &wish)));
        }
        work
    }

    fn simpler(&self, work: &Work) -> Vec<Work> {
        match work.parse() {
            Ok(Wish::Publish { topic, count: count @ 2.. }) => {
                let fewer = [1, count / 2, count - 1].into_iter();
                fewer
                    .map(|count| Wish::Publish { topic: topic.clone(), count })
                    .map(|wish| Work::new(work.at, &wish))
                    .collect()
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    fn is_settled(&self, history: &History, topology: &Topology) -> bool {
        checks::owed(history, topology).is_empty()
    }

    fn checkers(&self) -> &'static [Checker] {
        checks::ALL
    }

    fn mutants(&self) -> &'static [Mutant] {
        const MUTANTS: &[Mutant] = &[Mutant::custom(
            RESUMES_AFTER_RECEIVED,
            "goes on after the last message that it has received instead of the last that it has handled",
            "pubsub/swarm",
            "nothing_is_skipped",
        )];
        MUTANTS
    }

    fn critical_marks(&self) -> &'static [&'static str] {
        &["pubsub.stored", "pubsub.resumed"]
    }
}

/// One of a few values.
fn pick<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())]
}
