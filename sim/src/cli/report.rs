//! Says what came of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use gapless::session::conversation::Kind as RowKind;

use crate::capsule::{Capsule, Recorded};
use crate::check::{Verdict, Violation};
use crate::custom::command;
use crate::history::{Said, Seen, SessionSeen, TaskSeen};
use crate::plan::{Action, Host, Options, Plan, Protocol};
use crate::scenario::Scenario;
use crate::trace::{Kind, Record};
use crate::world::Run;

/// How many violations are spelled out.
const VIOLATIONS_MAX: usize = 5;

/// How many records before the first violation are shown, if there is room.
const RECORDS_MAX: usize = 40;

/// How many lines a report has, with its heading.
const LINES_MAX: usize = 60;

/// How many columns a line of options has.
const OPTIONS_COLUMNS_MAX: usize = 96;

/// How many lines the commands at the end have.
const COMMANDS_LINES: usize = 6;

/// How many columns a line of the trace has.
const COLUMNS_MAX: usize = 110;

const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const QUIET: Style = Style::new().dimmed();

/// A run, its verdict, and how it was asked for.
pub(super) struct Report<'a> {
    pub(super) run: &'a Run,
    pub(super) verdict: &'a Verdict,
    /// The words after `cargo sim` that repeat it.
    pub(super) again: &'a str,
    /// What came of it once, if it is from a capsule.
    pub(super) once: Option<&'a Capsule>,
    pub(super) real: Duration,
}

/// What the history counts.
#[derive(Default)]
struct Counts {
    publishing: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    delivered: u64,
    gaps: u64,
    crashes: u64,
    ran: u64,
    results: u64,
    pieces: u64,
    answers: u64,
    rows: u64,
    interrupted: u64,
    asked: u64,
    told: u64,
}

impl Counts {
    fn see<'a>(&mut self, seen: &'a TaskSeen, acknowledged: &mut BTreeSet<&'a str>) {
        match seen {
            TaskSeen::Submitting { .. } => self.publishing += 1,
            // A task that is submitted twice is one task.
            TaskSeen::Submitted { task, .. } => {
                acknowledged.insert(task);
            }
            TaskSeen::NotSubmitted { .. } => self.refused += 1,
            TaskSeen::SubmitUnknown { .. } => self.unknown += 1,
            TaskSeen::Ran { .. } => self.ran += 1,
            TaskSeen::TaskEnd { attempts, .. } => {
                for attempt in attempts {
                    self.results += u64::from(attempt.result.is_some());
                    let pieces = attempt.streams.iter().map(|stream| stream.pieces.len() as u64);
                    self.pieces += pieces.sum::<u64>();
                }
            }
            _ => {}
        }
    }

    fn see_session(&mut self, seen: &SessionSeen) {
        match seen {
            SessionSeen::Submitted { what, .. } => {
                self.publishing += 1;
                self.answers += u64::from(matches!(what, Said::Answer { .. }));
            }
            SessionSeen::ConversationEnd { rows, .. } => {
                self.rows += rows.len() as u64;
                let interrupted = rows.iter().filter(|row| row.kind == RowKind::Interrupted);
                self.interrupted += interrupted.count() as u64;
            }
            _ => {}
        }
    }
}

/// What became of the inputs of all users.
#[derive(Default)]
struct Inputs<'a> {
    submitted: BTreeSet<&'a str>,
    accepted: BTreeSet<&'a str>,
    refused: BTreeSet<&'a str>,
    shown_as_rejected: BTreeSet<&'a str>,
}

impl<'a> Inputs<'a> {
    fn see(&mut self, seen: &'a SessionSeen) {
        match seen {
            SessionSeen::Submitted { input, .. } => drop(self.submitted.insert(input)),
            SessionSeen::Durable { row, .. } => self.accepted.extend(row.input.as_deref()),
            SessionSeen::Refused { input, .. } => drop(self.refused.insert(input)),
            SessionSeen::Shown { change, .. } => {
                let rejected = change.rejected.iter().map(|(input, _)| input.as_str());
                self.shown_as_rejected.extend(rejected);
            }
            _ => {}
        }
    }
}

impl Report<'_> {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let mut acknowledged = BTreeSet::new();
        let mut acknowledged_tasks = BTreeSet::new();
        let mut inputs = Inputs::default();
        for entry in &self.run.history.entries {
            match &entry.what {
                Seen::Publishing { .. } => counts.publishing += 1,
                // An event that is published twice is one event.
                Seen::Published { agent, key, .. } => {
                    acknowledged.insert((agent, key));
                }
                Seen::NotPublished { .. } => counts.refused += 1,
                Seen::PublishUnknown { .. } => counts.unknown += 1,
                Seen::Delivered { .. } => counts.delivered += 1,
                Seen::Gap { .. } => counts.gaps += 1,
                Seen::Crashed { .. } => counts.crashes += 1,
                Seen::Custom(_) => counts.told += 1,
                Seen::Task(seen) => counts.see(seen, &mut acknowledged_tasks),
                Seen::Session(seen) => {
                    counts.see_session(seen);
                    inputs.see(seen);
                }
                _ => {}
            }
        }
        let steps = self.run.plan.steps.iter();
        counts.asked = steps.filter(|step| matches!(step.action, Action::Work(_))).count() as u64;
        let accepted = inputs.submitted.intersection(&inputs.accepted).count();
        counts.acknowledged = (acknowledged.len() + acknowledged_tasks.len() + accepted) as u64;
        let Inputs { submitted, accepted, refused, shown_as_rejected } = inputs;
        for input in submitted.difference(&accepted) {
            match refused.contains(input) || shown_as_rejected.contains(input) {
                true => counts.refused += 1,
                false => counts.unknown += 1,
            }
        }
        counts
    }

    /// The report for a person, below its heading.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.summary(&mut text);
        match self.verdict {
            Verdict::Pass => {
                let _ = writeln!(
                    text,
                    "  {GOOD}ok{GOOD:#}         {}",
                    match self.run.plan.options.protocol() {
                        Protocol::Events => "nothing lost, duplicated or reordered",
                        Protocol::Tasks => "everything ran once, and nothing of it was lost unsaid",
                        Protocol::Session => "everything said is shown once, or visibly rejected",
                        Protocol::Custom(protocol) => protocol.promise(),
                    }
                );
            }
            Verdict::Violation(violations) => {
                let _ = writeln!(text, "  {BAD}violation{BAD:#}  {}", self.count(violations.len()));
                self.violations(&mut text, violations);
            }
            Verdict::Liveness(violations) => {
                let _ = writeln!(
                    text,
                    "  {BAD}no progress{BAD:#}  within {} s after healing: {}",
                    self.run.plan.settle_ms / 1_000,
                    self.count(violations.len())
                );
                self.violations(&mut text, violations);
            }
            Verdict::Inconclusive(marks) => {
                let _ = writeln!(
                    text,
                    "  {BAD}inconclusive{BAD:#}  nothing was violated, but what the scenario is about did not happen\n"
                );
                for mark in marks {
                    let _ = writeln!(text, "  × not reached: {mark}");
                }
                self.commands(&mut text);
            }
        }
        text
    }

    fn count(&self, violations: usize) -> String {
        match violations {
            1 => "one invariant does not hold".to_owned(),
            count => format!("{count} findings"),
        }
    }

    /// What is known of the run beside its verdict: a name and a value each.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let run = self.run;
        let counts = self.counts();
        let mut facts = Vec::new();
        let mut line = |label, value: &str| facts.push((label, value.to_owned()));
        let plural = |count: u32, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let topology = &run.plan.topology;
        let protocol = run.plan.options.protocol();
        let hosts = match protocol {
            Protocol::Events => format!(
                "{} of {}, 1 server",
                plural(topology.clients, "client"),
                plural(topology.agents, "agent")
            ),
            Protocol::Tasks => format!("{}, 1 controller", plural(topology.agents, "agent")),
            Protocol::Custom(_) => format!("{}, 1 server", plural(topology.clients, "client")),
            Protocol::Session => format!(
                "{} of {}, 1 server",
                plural(topology.clients, "client"),
                plural(topology.agents, "user")
            ),
        };
        let turns = match topology.order.is_empty() {
            true => String::new(),
            false => {
                let turns = topology.order.iter().map(|host| host.name(protocol));
                format!("; turns: {}", turns.collect::<Vec<_>>().join(" "))
            }
        };
        line("hosts", &format!("{hosts}, {} ms apart{turns}", topology.latency_ms));
        line("options", &options(&run.plan.options));
        if let Some(drawn) = &run.plan.drawn {
            let work = match protocol {
                Protocol::Events => "events",
                Protocol::Tasks => "tasks",
                Protocol::Session => "messages",
                Protocol::Custom(_) => "pieces of work",
            };
            line("drawn", &wrapped(&drawn.words(work)));
        }
        let faults: Vec<_> =
            run.faults.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
        let injected: u64 = run.faults.values().sum();
        line(
            "faults",
            &match injected {
                0 => "none".to_owned(),
                _ => wrapped(&format!("{injected} injected: {}", faults.join(", "))),
            },
        );
        let of_others: &[&str] = match protocol {
            Protocol::Events => &["cluster.", "tasks.", "session."],
            Protocol::Tasks => &["cluster.", "events.", "session."],
            Protocol::Session => &["cluster.", "events.", "tasks."],
            Protocol::Custom(_) => &["cluster.", "events.", "tasks.", "session."],
        };
        let of_this = |mark: &&&str| !of_others.iter().any(|other| mark.starts_with(other));
        let known = gapless::marks::all().iter().filter(of_this).count();
        let mut marks = format!("{} of {known} reached", run.marks.len());
        if !run.plan.reaches.is_empty() {
            let required = run.plan.reaches.iter().map(|mark| {
                let sign = if run.marks.contains_key(mark.as_str()) { '✓' } else { '×' };
                format!("{sign} {mark}")
            });
            let _ = write!(marks, "; required: {}", required.collect::<Vec<_>>().join(", "));
        }
        line("marks", &marks);
        let outcomes = format!(
            "{} acknowledged, {} refused, {} of unknown outcome",
            counts.acknowledged, counts.refused, counts.unknown
        );
        match run.plan.options.protocol() {
            Protocol::Events => {
                line("published", &format!("{} events: {outcomes}", counts.publishing));
                let delivered =
                    format!("{} events, {} gaps declared", counts.delivered, counts.gaps);
                line("delivered", &delivered);
            }
            Protocol::Tasks => {
                line("submitted", &format!("{} tasks: {outcomes}", counts.publishing));
                let ran = format!(
                    "{} commands, {} results and {} pieces of output in the record",
                    counts.ran, counts.results, counts.pieces
                );
                line("ran", &ran);
            }
            Protocol::Session => {
                let messages = counts.publishing - counts.answers;
                let said = format!("{messages} messages and {} answers", counts.answers);
                line("said", &format!("{said}: {outcomes}"));
                let rows = format!(
                    "{} rows in all conversations, {} of them interruptions",
                    counts.rows, counts.interrupted
                );
                line("stored", &rows);
            }
            Protocol::Custom(_) => {
                line("work", &format!("{} things asked for", counts.asked));
                line("seen", &format!("{} things told by the hosts", counts.told));
            }
        }
        line(
            "time",
            &format!("{}.{:03} s virtual", run.virtual_ms / 1_000, run.virtual_ms % 1_000,),
        );
        let hash = run.trace.hash();
        line("trace", &format!("{} records, hash {hash}", run.trace.records.len()));
        if let Some(capsule) = self.once {
            line("recorded", &compared(capsule, &Recorded::new(self.verdict, hash)));
        }
        facts
    }

    fn summary(&self, text: &mut String) {
        for (label, value) in self.facts() {
            let took = match label {
                "time" => format!(", {} ms real", self.real.as_millis()),
                _ => String::new(),
            };
            text.push_str(&labelled(label, &(value + &took)));
        }
    }

    fn violations(&self, text: &mut String, violations: &[Violation]) {
        for violation in violations.iter().take(VIOLATIONS_MAX) {
            let _ = writeln!(
                text,
                "\n  {BAD}×{BAD:#} {}\n    {QUIET}{}, seen at {}{QUIET:#}",
                violation.message,
                found_by(violation),
                seconds(violation.at_ms)
            );
        }
        if violations.len() > VIOLATIONS_MAX {
            let _ = writeln!(text, "\n    and {} more", violations.len() - VIOLATIONS_MAX);
        }
        if let Some(first) = violations.first() {
            self.excerpt(text, first);
        }
        self.commands(text);
    }

    /// The records that lead to a violation.
    fn excerpt(&self, text: &mut String, violation: &Violation) {
        let protocol = self.run.plan.options.protocol();
        let client = violation.client.map(|client| Host::Client(client).name(protocol));
        let concerns = |record: &Record| match (&client, record.host) {
            _ if record.at_ms > violation.at_ms || record.kind == Kind::Mark => false,
            (None, _) | (_, "world") => true,
            // Of what the server does with frames, that which goes to or comes from the client.
            (Some(client), "server" | "controller") => {
                !matches!(record.kind, Kind::Send | Kind::Receive)
                    || record.text.starts_with(*client)
            }
            (Some(client), host) => host == *client,
        };
        let records: Vec<_> =
            self.run.trace.records.iter().filter(|record| concerns(record)).collect();
        // What else is to be said: the heading, the frame around the records, the commands.
        let others = heading_lines(&self.run.plan) + text.lines().count() + 3 + COMMANDS_LINES;
        let most = RECORDS_MAX.min(LINES_MAX.saturating_sub(others));
        let shown = &records[records.len().saturating_sub(most)..];
        let whose = client.unwrap_or("all hosts");
        let _ = writeln!(
            text,
            "\n  ╭─ the {} records before {}, {whose}",
            shown.len(),
            seconds(violation.at_ms)
        );
        for record in shown {
            let _ = writeln!(text, "  │ {}", cut(&record.to_string()));
        }
        let _ = writeln!(text, "  ╰─");
    }

    fn commands(&self, text: &mut String) {
        let again = self.again;
        if again.starts_with("conform ") {
            let again = format!("gapless-sim {again}");
            let _ = writeln!(text, "\n  reproduce    {again}");
            let _ = writeln!(text, "  whole trace  {again} --trace failing.txt");
            let _ = writeln!(text, "  keep it      {again} --save-plan failing.json");
            return;
        }
        let program = command();
        let show = again.strip_prefix("run ").unwrap_or(again);
        let _ = writeln!(text, "\n  reproduce    {program} {again}");
        let _ = writeln!(text, "  whole trace  {program} show {show}");
        if matches!(self.verdict, Verdict::Violation(_) | Verdict::Liveness(_)) {
            let _ = writeln!(text, "  shrink       {program} shrink {show}");
            let _ = writeln!(text, "  freeze       {program} freeze {show}");
        }
        if !again.contains("--plan") {
            let _ = writeln!(text, "  keep it      {program} {again} --capsule failing.json");
        }
    }

    /// The report for a program.
    pub(super) fn json(&self) -> serde_json::Value {
        let counts = self.counts();
        let (verdict, violations, unreached) = match self.verdict {
            Verdict::Pass => ("pass", &[][..], &[][..]),
            Verdict::Violation(violations) => ("violation", &violations[..], &[][..]),
            Verdict::Liveness(violations) => ("liveness", &violations[..], &[][..]),
            Verdict::Inconclusive(marks) => ("inconclusive", &[][..], &marks[..]),
        };
        let violations: Vec<_> = violations
            .iter()
            .map(|violation| {
                serde_json::json!({
                    "checker": violation.checker, "statements": violation.statements,
                    "message": violation.message, "at_ms": violation.at_ms,
                    "client": violation.client,
                })
            })
            .collect();
        let marks: BTreeMap<_, _> = self.run.marks.iter().collect();
        serde_json::json!({
            "seed": self.run.plan.seed.to_string(),
            "scenario": self.run.plan.scenario,
            "verdict": verdict,
            "violations": violations,
            "unreached": unreached,
            "topology": self.run.plan.topology,
            "options": self.run.plan.options,
            "drawn": self.run.plan.drawn,
            "faults": self.run.faults,
            "marks": marks,
            "published": counts.publishing,
            "acknowledged": counts.acknowledged,
            "refused": counts.refused,
            "unknown": counts.unknown,
            "delivered": counts.delivered,
            "gaps": counts.gaps,
            "crashes": counts.crashes,
            "virtual_ms": self.run.virtual_ms,
            "real_ms": u64::try_from(self.real.as_millis()).unwrap_or(u64::MAX),
            "trace_hash": self.run.trace.hash(),
            "reproduce": format!("{} {}", command(), self.again),
        })
    }
}

/// The checker that says so, and the statements that it stands for.
pub(super) fn found_by(violation: &Violation) -> String {
    match violation.statements {
        [] => violation.checker.to_owned(),
        statements => format!("{} ({})", violation.checker, statements.join(", ")),
    }
}

/// The options that are not what they are by default, those of each side on lines of their own.
fn options(options: &Options) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut side = String::new();
    for option in options.unusual() {
        let word = format!("{}={}", option.name, option.value);
        match lines.last_mut() {
            Some(line) if option.side == side => {
                line.push(',');
                match line.len() + word.len() > OPTIONS_COLUMNS_MAX {
                    true => lines.push(word),
                    false => *line = format!("{line} {word}"),
                }
            }
            _ => lines.push(format!("{}: {word}", option.side)),
        }
        side = option.side;
    }
    match lines.is_empty() {
        true => "as they are by default".to_owned(),
        false => lines.join("\n             "),
    }
}

/// A list with commas, in lines of a width that fits below each other.
fn wrapped(list: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in list.split(", ") {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 3 <= OPTIONS_COLUMNS_MAX => {
                *line = format!("{line}, {word}");
            }
            Some(line) => {
                line.push(',');
                lines.push(word.to_owned());
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n             ")
}

/// What came of the run of a capsule once, and whether the same comes of it now.
fn compared(capsule: &Capsule, now: &Recorded) -> String {
    let commit = capsule.commit.as_deref().unwrap_or("an unknown commit");
    let once = &capsule.recorded;
    match (once.is_same(now), once.trace_hash == now.trace_hash) {
        (true, true) => format!("the same run at {commit}"),
        (true, false) => format!("the same verdict at {commit}, by another trace"),
        (false, _) => {
            format!(
                "{BAD}another verdict{BAD:#} at {commit}: {}; now {}",
                once.words(),
                now.words()
            )
        }
    }
}

/// What is known before a run.
pub(super) fn heading(plan: &Plan, title: &str) -> String {
    let scenario = format!("{}: {title}", plan.scenario);
    let mut text = labelled("seed", &plan.seed.to_string()) + &labelled("scenario", &scenario);
    if let Some(id) = &plan.mutant {
        let does = crate::mutants::find(id).map_or("is not known here", |mutant| mutant.does);
        text += &labelled("mutant", &format!("{id}: {does}"));
    }
    text
}

fn heading_lines(plan: &Plan) -> usize {
    2 + usize::from(plan.mutant.is_some())
}

pub(super) fn labelled(label: &str, value: &str) -> String {
    format!("  {QUIET}{label:<10}{QUIET:#} {value}\n")
}

/// A scenario in the list of scenarios.
pub(super) fn scenario(scenario: &Scenario) -> String {
    let kind = if scenario.swarm.is_some() { " (swarm)" } else { "" };
    let mut text = format!("{}{kind}\n  {}", scenario.id, scenario.title);
    let _ = write!(text, "\n  {QUIET}{}{QUIET:#}", scenario.statements.join(" "));
    if !scenario.reference.is_empty() {
        let _ = write!(text, "{QUIET}; {}{QUIET:#}", scenario.reference.join(" "));
    }
    text
}

fn seconds(at_ms: u64) -> String {
    format!("{}.{:03} s", at_ms / 1_000, at_ms % 1_000)
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(COLUMNS_MAX) {
        None => line.to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests;
