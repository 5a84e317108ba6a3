//! `conform` and `adapter`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::args::{AdapterArgs, ConformArgs};
use super::{Failure, guarded, library, mutants, usage};
use crate::conform::adapter::serve;
use crate::conform::suite::{SEATS_MAX, Source, Verdicted, attach, play};
use crate::conform::{ANSWER_MAX, Launch, Reference, Role};
use crate::exit;
use crate::plan::{Options, Protocol};
use crate::scenario::draw;
use crate::seed::Seed;

fn role(text: &str) -> Result<Role, Failure> {
    text.parse().map_err(|error| usage(error, "give one of them with `--role`"))
}

pub(super) fn adapter(args: &AdapterArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    if args.live {
        return super::live::adapter(args, role(&args.role)?);
    }
    let mutant = args.mutant.as_deref().map(mutants::named).transpose()?;
    let mut node = Reference::new(role(&args.role)?, mutant.map(|mutant| mutant.id))
        .map_err(|error| usage(error, "give another `--role`"))?;
    match serve(&mut node, &mut io::stdin().lock(), out) {
        Ok(()) => Ok(exit::OK),
        Err(problem) => Err(Failure::Run(format!("error: {problem}\n"))),
    }
}

fn protocol(role: Role) -> Protocol {
    match role {
        Role::EventsClient | Role::EventsServer => Protocol::Events,
        Role::SessionClient | Role::SessionServer => Protocol::Session,
        Role::TasksAgent | Role::TasksController => Protocol::Tasks,
    }
}

pub(super) fn run(args: &ConformArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let role = role(&args.role)?;
    if args.live {
        return super::live::run(args, role, out);
    }
    let source = match &args.adapter {
        None => Source::Reference(args.mutant.clone()),
        Some(command) => Source::Adapter(Launch {
            words: shlex::split(command).ok_or_else(|| {
                usage(format!("`{command}` is no command"), "close its quotation marks")
            })?,
            answer_max: ANSWER_MAX,
        }),
    };
    let attached = attach(role, &source, SEATS_MAX)
        .map_err(|error| Failure::Run(format!("error: {error}\n")))?;
    let library = library(None)?;
    let base = args.base.parse::<Seed>().map_err(|error| usage(error, "see `--base`"))?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut code = exit::OK;
    for id in library.ids() {
        if !args.words.is_empty() && !args.words.iter().any(|word| word == id) {
            continue;
        }
        let scenario = library.get(id).map_err(super::diagnostic)?;
        let of = match scenario.options {
            Options::Events { .. } => Protocol::Events,
            Options::Tasks { .. } => Protocol::Tasks,
            Options::Session { .. } => Protocol::Session,
        };
        if of != protocol(role) {
            continue;
        }
        let drawn = scenario.swarm.is_some();
        for index in 0..if drawn { args.seeds } else { 1 } {
            let seed = base.derive(index);
            let plan = draw(&scenario, seed);
            let played = guarded(seed.0, id, || play(&attached, &plan, drawn))?;
            let word = match &played.verdict {
                Verdicted::Pass => "pass",
                Verdicted::Fail(_) => "fail",
                Verdicted::Inconclusive(_) => "inconclusive",
                Verdicted::Unsupported(_) => "unsupported",
                Verdicted::Crash(_) => "crash",
                Verdicted::Error(_) => "error",
                Verdicted::Nondeterminism(_) => "nondeterminism",
            };
            *counts.entry(word).or_default() += 1;
            if word != "pass" {
                writeln!(out, "{word} {id} {seed}: {:?}", played.verdict)?;
            }
            if matches!(word, "fail" | "crash") {
                code = exit::VIOLATION;
            }
        }
    }
    writeln!(out, "{counts:?}")?;
    Ok(code)
}
