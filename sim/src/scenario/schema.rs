//! The file format as a page: `docs/scenarios.md`.
//!
//! Nothing is written twice. Which keys a table has, and what may stand there, is what the reader
//! asks for; what a key means is the comment of the field that it becomes; what it is without the
//! file saying so is read from what a file without it becomes. So the page cannot say anything else
//! than the program does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::examples::{EXAMPLES, Example, Tried, WORLDS};
use super::reader::{Asked, Problems, Table, document};
use super::step::FAULTS;
use super::{Scenario, duration_text, read};
use crate::plan::{Action, Fault, Options, Protocol};

/// The comments of these are what keys mean.
const SOURCES: [&str; 6] = [
    include_str!("../plan/mod.rs"),
    include_str!("../plan/fault.rs"),
    include_str!("../plan/engine.rs"),
    include_str!("../plan/options.rs"),
    include_str!("../plan/work.rs"),
    include_str!("mod.rs"),
];

const INTRODUCTION: &str = include_str!("introduction.md");

/// Files that ask for every key.
const PROBES: [(Protocol, &str, &str); 3] = [
    (Protocol::Events, "events", "[server]\n[client]\n[[step]]\non = {}\npublish = {}\n"),
    (Protocol::Tasks, "tasks", "[controller]\n[agent]\n[[step]]\non = {}\nsubmit = {}\n"),
    (Protocol::Session, "session", "[server]\n[client]\n[[step]]\non = {}\nsay = {}\n"),
];

/// Keys that are called otherwise than the field that they become.
const FIELDS: [(&str, &str, &str, &str); 25] = [
    ("", "protocol", "Scenario", "options"),
    ("", "step", "Scenario", "steps"),
    ("topology", "users", "Topology", "agents"),
    ("client", "start", "ClientOptions", "from_beginning"),
    ("publish", "to", "Publish", "agent"),
    ("submit", "to", "Submit", "agent"),
    ("submit", "write-every", "Script", "every_ms"),
    ("say", "at", "Say", "client"),
    ("say", "replies", "TurnScript", "say"),
    ("say", "reply-bytes", "TurnScript", "bytes"),
    ("swarm", "faults", "Swarm", "groups"),
    ("swarm", "users", "Swarm", "agents"),
    ("swarm", "events-per-minute", "Swarm", "work_per_minute"),
    ("swarm", "tasks-per-minute", "Swarm", "work_per_minute"),
    ("swarm", "messages-per-minute", "Swarm", "work_per_minute"),
    ("step", "at", "When", "At"),
    ("step", "on", "When", "Mark"),
    ("latency", "to", "Fault::Latency", "latency_ms"),
    ("inject", "to", "Fault::Inject", "to_server"),
    ("disk-error", "of", "Fault::DiskError", "sync"),
    ("disk-error", "times", "Fault::DiskError", "count"),
    ("clock-step", "by", "Fault::ClockStep", "by_ms"),
    ("clock-step", "back", "Fault::ClockStep", "by_ms"),
    ("clock-drift", "slow", "Fault::ClockDrift", "ppm"),
    ("isolate", "how", "EngineFault::Isolate", "held"),
];

/// Where a key is to be looked up.
struct Place<'a> {
    /// The table, or the kind of the fault.
    table: &'a str,
    /// The types whose fields its keys become.
    types: Vec<String>,
}

/// The page.
pub fn reference() -> String {
    let comments = comments();
    let mut page = INTRODUCTION.to_owned();
    let asked: Vec<(Protocol, &str, Vec<Asked>)> = PROBES
        .iter()
        .map(|(protocol, name, rest)| {
            let text =
                format!("protocol = \"{name}\"\n[topology]\norder = []\n[swarm]\n[frozen]\n{rest}");
            (*protocol, *name, asked(&text))
        })
        .collect();
    let table = |page: &mut String, nth: usize, title: &str, name: &str, text: &str| {
        let (protocol, _, asked) = &asked[nth];
        let keys: Vec<&Asked> = asked.iter().filter(|key| key.table == name).collect();
        let place = Place { table: name, types: types(name, *protocol) };
        *page += &format!("\n## {title}\n\n{text}\n\n");
        *page += &rows(&keys, &place, &defaults(name, *protocol), &comments);
    };
    table(
        &mut page,
        0,
        "The file",
        "",
        "Before the first `[table]`. Tasks have `[controller]` and `[agent]` instead of `[server]` and `[client]`.",
    );
    table(
        &mut page,
        0,
        "`[topology]`",
        "topology",
        "Tasks have no `clients`: each agent is a host. Sessions have `users` instead of `agents`.",
    );
    table(
        &mut page,
        0,
        "`[[step]]`",
        "step",
        "A step has one of `at` and `on`, and one thing that happens: in events `publish`, in tasks `submit`, `cancel` and `retry`, in sessions `say`, `refresh` and `reconnect`, in each of them `fault`.",
    );
    table(
        &mut page,
        0,
        "`on = { … }`",
        "on",
        "Marks are places in the code that matter; `cargo sim show` prints those that a run reaches.",
    );
    table(&mut page, 0, "`publish = { … }`", "publish", "Events.");
    table(&mut page, 1, "`submit = { … }`", "submit", "Tasks.");
    table(&mut page, 2, "`say = { … }`", "say", "Sessions.");
    table(&mut page, 0, "`[server]` of events", "server", "What the server is configured with.");
    table(&mut page, 0, "`[client]` of events", "client", "What all clients are configured with.");
    table(
        &mut page,
        1,
        "`[controller]` of tasks",
        "controller",
        "What the controller is configured with.",
    );
    table(&mut page, 1, "`[agent]` of tasks", "agent", "What all agents are configured with.");
    table(&mut page, 2, "`[server]` of sessions", "server", "What the server is configured with.");
    table(
        &mut page,
        2,
        "`[client]` of sessions",
        "client",
        "What all clients are configured with, and the users in front of them.",
    );
    table(
        &mut page,
        0,
        "`[swarm]`",
        "swarm",
        "What a seed adds. It draws the options as well, so a swarm has no tables for them. Tasks have `tasks-per-minute` and no `clients`; sessions have `users` and `messages-per-minute`.",
    );
    table(&mut page, 0, "`[frozen]`", "frozen", "`cargo sim freeze` writes it.");
    page += "\n## Faults\n\n`fault = { KIND = \"WHO\", … }`. Each example is a step of one of these worlds, and a test runs it there.\n";
    for (name, world) in WORLDS {
        let _ = write!(page, "\nOf {name}:\n\n```toml\n{world}```\n");
    }
    for kind in FAULTS {
        page += &fault(kind, &comments);
    }
    page
}

/// The part about a kind of fault.
fn fault(kind: &str, comments: &BTreeMap<(String, String), String>) -> String {
    let Some(example) = EXAMPLES.iter().find(|example| example.kind == kind) else {
        return format!("\n### `{kind}`\n\nThere is no example.\n");
    };
    let Ok(Tried { fault, scenario }) = example.scenario() else {
        return format!("\n### `{kind}`\n\nIts example is wrong.\n");
    };
    let (of, variant) = match &fault {
        Fault::Engine(fault) => ("EngineFault", variant(fault)),
        fault => ("Fault", variant(fault)),
    };
    let says = comments.get(&(of.to_owned(), variant.clone())).cloned().unwrap_or_default();
    let protocols: Vec<&str> = PROBES
        .iter()
        .filter(|(protocol, ..)| Action::Fault(fault.clone()).is_of(*protocol))
        .map(|(_, name, _)| *name)
        .collect();
    let mut text = format!("\n### `{kind}`\n\n{says} In {}.\n\n", protocols.join(", "));
    // Only the fault itself, not what has to happen before it.
    let asked = asked(&Example { before: "", ..*example }.text());
    let keys: Vec<&Asked> = asked.iter().filter(|key| key.table == "fault").collect();
    let place = Place { table: kind, types: vec![format!("{of}::{variant}")] };
    text += &rows(&keys, &place, &example.defaults(&keys), comments);
    let _ = write!(text, "\n```toml\n# {}\n{}```\n", scenario.title, example.step());
    text
}

/// The name of a variant, as it stands in the source.
fn variant(fault: &impl serde::Serialize) -> String {
    match json(fault) {
        Value::Object(object) => object.keys().next().map(|name| camel(name)).unwrap_or_default(),
        Value::String(name) => camel(&name),
        _ => String::new(),
    }
}

/// A table of keys.
fn rows(
    keys: &[&Asked],
    place: &Place<'_>,
    defaults: &BTreeMap<String, Value>,
    comments: &BTreeMap<(String, String), String>,
) -> String {
    let mut text = "| key | value | without it | meaning |\n|---|---|---|---|\n".to_owned();
    for Asked { key, form, required, .. } in keys {
        let found = place.find(key, comments);
        let (field, says) = match &found {
            Some((field, says)) => (field.as_str(), says.as_str()),
            None => ("", sentence(place.table, key)),
        };
        let without = match (required, defaults.get(field)) {
            (true, _) => "has to be there".to_owned(),
            (false, Some(value)) => shown(field, value),
            (false, None) => String::new(),
        };
        let _ = writeln!(text, "| `{key}` | {form} | {without} | {says} |");
    }
    text
}

impl Place<'_> {
    /// The field that a key becomes, and its comment.
    fn find(
        &self,
        key: &str,
        comments: &BTreeMap<(String, String), String>,
    ) -> Option<(String, String)> {
        let comment = |of: &str, field: &str| {
            comments
                .get(&(of.to_owned(), field.to_owned()))
                .map(|says| (field.to_owned(), says.clone()))
        };
        let named =
            |(table, name, ..): &&(&str, &str, &str, &str)| *table == self.table && *name == key;
        if let Some((.., of, field)) = FIELDS.iter().find(named)
            && (self.types.iter().any(|one| one == of) || *of == "When")
        {
            return comment(of, field);
        }
        // Whom a fault hits stands behind its kind.
        if key == self.table {
            let hits = |field| self.types.iter().find_map(|of| comment(of, field));
            return ["client", "host", "agent"].into_iter().find_map(hits);
        }
        let name = key.replace('-', "_");
        let forms = [
            name.clone(),
            format!("{name}_ms"),
            format!("{name}_max"),
            format!("{name}_max_ms"),
            camel(&name),
        ];
        forms.iter().find_map(|field| self.types.iter().find_map(|of| comment(of, field)))
    }
}

/// What is said of keys that become no field.
fn sentence(table: &str, key: &str) -> &'static str {
    match (table, key) {
        ("", "server") => "The options of the server.",
        ("", "client") => "The options of the clients.",
        ("", "controller") => "The options of the controller.",
        ("", "agent") => "The options of the agents.",
        (
            "election" | "lose-ack" | "late-write" | "double-write" | "full",
            "election" | "lose-ack" | "late-write" | "double-write" | "full",
        ) => "The engine.",
        _ => "",
    }
}

/// The types whose fields the keys of a table become.
fn types(table: &str, protocol: Protocol) -> Vec<String> {
    let names: &[&str] = match (table, protocol) {
        ("", _) => &["Scenario"],
        ("topology", _) => &["Topology"],
        ("swarm", _) => &["Swarm"],
        ("frozen", _) => &["Frozen"],
        ("step", _) => &["Action"],
        ("on", _) => &["When::Mark"],
        ("publish", _) => &["Publish"],
        ("submit", _) => &["Submit", "Script"],
        ("say", _) => &["Say", "TurnScript"],
        ("controller", _) => &["ControllerOptions"],
        ("agent", _) => &["AgentOptions"],
        ("server", Protocol::Session) => &["SessionServerOptions"],
        ("client", Protocol::Session) => &["SessionClientOptions"],
        ("server", _) => &["ServerOptions"],
        ("client", _) => &["ClientOptions"],
        _ => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What the fields of a table are if the file says nothing, as far as that can be seen.
fn defaults(table: &str, protocol: Protocol) -> BTreeMap<String, Value> {
    let (_, world) = WORLDS
        .iter()
        .zip(PROBES)
        .find(|(_, (of, ..))| *of == protocol)
        .map(|(world, _)| *world)
        .expect("each protocol has a world");
    // The least that a file has to say.
    let kept = |line: &&str| {
        !["clients", "duration", "tick", "settle", "[", "reconnect", "silence", "redelivery"]
            .iter()
            .any(|key| line.starts_with(key))
            || line.starts_with("[[")
    };
    let least: Vec<&str> = world.lines().filter(kept).collect();
    let scenario = Scenario::parse("docs/least", &least.join("\n")).expect("a test reads it");
    let value = match (table, &scenario.options) {
        ("", _) => serde_json::json!({
            "duration_ms": scenario.duration_ms, "settle_ms": scenario.settle_ms,
            "tick_ms": scenario.tick_ms,
        }),
        ("topology", _) => {
            let topology = &scenario.topology;
            let mut fields = json(topology);
            // What is left out of a plan where it is 1.
            for (name, value) in [("servers", topology.servers), ("stays", topology.stays)] {
                fields[name] = value.into();
            }
            fields
        }
        ("server", Options::Events { server, .. }) => json(server),
        ("client", Options::Events { client, .. }) => json(client),
        ("controller", Options::Tasks { controller, .. }) => json(controller),
        ("agent", Options::Tasks { agent, .. }) => json(agent),
        ("server", Options::Session { server, .. }) => json(server),
        ("client", Options::Session { client, .. }) => json(client),
        _ => Value::Null,
    };
    match value {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("options are always JSON")
}

/// A value as it would stand in a file.
fn shown(field: &str, value: &Value) -> String {
    let time = |value: &Value| value.as_u64().map(duration_text);
    match value {
        Value::Array(ends) if field.ends_with("_ms") => {
            let ends: Vec<String> = ends.iter().filter_map(time).collect();
            format!("`{}`", ends.join("..").replace("\"..\"", ".."))
        }
        Value::Number(_) if field.ends_with("_ms") => match time(value) {
            Some(time) => format!("`{time}`"),
            None => String::new(),
        },
        Value::Number(_) => format!("`{value}`"),
        Value::Bool(_) if field == "from_beginning" => "`\"live\"`".to_owned(),
        Value::Bool(_) => format!("`{value}`"),
        _ => String::new(),
    }
}

/// The keys that are asked for while a text is read, whether it is right or not.
fn asked(text: &str) -> Vec<Asked> {
    let problems = Problems::default();
    if let Some(document) = document(text, &problems) {
        // What is wrong with it does not matter.
        let _ = read("docs/probe", &Table::root(&document, text, &problems));
    }
    problems.asked()
}

/// The comments of all fields and variants, by the type and their name.
fn comments() -> BTreeMap<(String, String), String> {
    let mut comments = BTreeMap::new();
    for source in SOURCES {
        let (mut of, mut variant) = (String::new(), String::new());
        let mut comment: Vec<&str> = Vec::new();
        for line in source.lines() {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            if let Some(words) = code.strip_prefix("///") {
                comment.push(words.trim());
                continue;
            }
            if code.starts_with("#[") {
                continue;
            }
            let name: String = code
                .strip_prefix("pub ")
                .unwrap_or(code)
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let says = comment.join(" ");
            match indent {
                0 => {
                    let declared = ["pub struct ", "pub enum "]
                        .iter()
                        .find_map(|word| code.strip_prefix(word));
                    of = declared
                        .and_then(|rest| rest.split([' ', '(', '<']).next())
                        .unwrap_or_default()
                        .to_owned();
                    variant.clear();
                }
                4 if !of.is_empty() && !says.is_empty() => {
                    variant.clone_from(&name);
                    comments.insert((of.clone(), name), says);
                }
                8 if !of.is_empty() && !says.is_empty() => {
                    comments.insert((format!("{of}::{variant}"), name), says);
                }
                _ => {}
            }
            comment.clear();
        }
    }
    comments
}

/// `LoseStore` of `lose_store`.
fn camel(name: &str) -> String {
    let mut camel = String::new();
    for part in name.split('_') {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

impl Example<'_> {
    /// What the fields of the fault are if the file says only what it has to.
    fn defaults(&self, keys: &[&Asked]) -> BTreeMap<String, Value> {
        let required: Vec<&str> =
            keys.iter().filter(|key| key.required).map(|key| key.key).collect();
        let kept = self.fault.split(", ").filter(|part| {
            let key = part.split(" = ").next().unwrap_or_default();
            required.contains(&key)
        });
        let fault: Vec<&str> = kept.collect();
        let fault = fault.join(", ");
        let least = Example { fault: &fault, ..*self };
        let Ok(tried) = least.scenario() else { return BTreeMap::new() };
        match json(&tried.fault) {
            Value::Object(kind) => match kind.into_iter().next() {
                Some((name, Value::Object(fields))) if name == "engine" => {
                    let kind = fields.into_iter().next();
                    let fields = kind.and_then(|(_, fields)| fields.as_object().cloned());
                    fields.unwrap_or_default().into_iter().collect()
                }
                Some((_, Value::Object(fields))) => fields.into_iter().collect(),
                _ => BTreeMap::new(),
            },
            _ => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FAULTS, comments, reference};
    use crate::check::{Verdict, judge};
    use crate::scenario::draw;
    use crate::scenario::examples::EXAMPLES;
    use crate::seed::Seed;
    use crate::world;

    #[test]
    fn every_key_has_a_meaning() {
        let page = reference();
        let holes: Vec<&str> =
            page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
        assert_eq!(holes, [""; 0]);
        assert!(page.lines().filter(|line| line.starts_with("| `")).count() > 200, "{page}");
    }

    #[test]
    fn the_meaning_of_a_key_is_the_comment_of_its_field() {
        let comments = comments();
        let says = |of: &str, field: &str| comments[&(of.to_owned(), field.to_owned())].clone();
        assert_eq!(says("ServerOptions", "ring"), "Events per stream in memory.");
        assert_eq!(says("Fault::Cut", "how"), "How it ends.");
        assert!(reference().contains(
            "| `ring` | an integer from 1 to 1000000 | `500` | Events per stream in memory. |"
        ));
    }

    #[test]
    fn there_is_an_example_of_every_fault_and_it_happens_and_everything_holds() {
        let kinds: Vec<&str> = EXAMPLES.iter().map(|example| example.kind).collect();
        assert_eq!(kinds, FAULTS);
        for example in &EXAMPLES {
            let kind = example.kind;
            let tried = example.scenario().unwrap_or_else(|error| panic!("{kind}: {error:?}"));
            let run = world::run(&draw(&tried.scenario, Seed(1))).expect("it can be carried out");
            assert_eq!(judge(&run), Verdict::Pass, "{kind}");
            assert!(run.faults.contains_key(tried.fault.kind()), "{kind}: {:?}", run.faults);
        }
    }

    #[test]
    fn the_page_is_what_the_program_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scenarios.md");
        let committed = std::fs::read_to_string(path).expect("the page is there");
        assert!(
            committed == reference(),
            "docs/scenarios.md is not what `cargo sim scenarios --format` prints: write it anew"
        );
    }
}
