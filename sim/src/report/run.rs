//! The page of one run.

use maud::{Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::likelihood::section;
use super::page::{Page, embedded, seconds, theme_button};
use super::timeline::{RECORDS_MAX, Timeline};
use crate::check::{Verdict, Violation};
use crate::custom::command;
use crate::localise::Likelihood;
use crate::mutants;
use crate::plan::{
    AgentOptions, ClientOptions, ControllerOptions, Options, Plan, Protocol, ServerOptions,
    SessionClientOptions, SessionServerOptions,
};
use crate::world::Run;

/// A run, and what is to be said about it.
#[derive(Debug, Clone, Copy)]
pub struct RunPage<'a> {
    /// The run.
    pub run: &'a Run,
    /// What the checkers say of it.
    pub verdict: &'a Verdict,
    /// What its scenario shows, as one sentence.
    pub title: &'a str,
    /// The words after `cargo sim` that repeat it.
    pub again: &'a str,
    /// The commit of the code that ran, if it is known.
    pub commit: Option<&'a str>,
    /// What is known of it beside that: a name and a value each.
    pub facts: &'a [(&'static str, String)],
    /// From when on it could not have ended otherwise, if that was asked.
    pub likelihood: Option<&'a Likelihood>,
}

/// The page of a run, as one HTML file.
pub fn run_page(page: &RunPage<'_>) -> String {
    let plan = &page.run.plan;
    let timeline = Timeline::new(page.run, page.verdict);
    let sides = sides(&plan.options);
    let body = html! {
        header {
            div.verdict {
                (badge(page.verdict))
                h1 { (sentence(page.verdict, plan)) }
                (theme_button())
            }
            (found_by(page.verdict))
            dl.facts {
                div.line { dt { "run again" } dd { code.command { (command()) " " (page.again) } } }
                div.line { dt { "scenario" } dd { b { (plan.scenario) } " " span.dim { (page.title) } } }
                @if let Some(id) = &plan.mutant {
                    @let does = mutants::find(id).map_or("", |mutant| mutant.does);
                    div.line { dt { "mutant" } dd { b { (id) } " " span.dim { (does) } } }
                }
                @for (name, value) in page.facts.iter().filter(|(name, _)| ON_TOP.contains(name)) {
                    div.line.aside { dt { (name) } dd { (value) } }
                }
                @let changed = changed(&sides);
                @if !changed.is_empty() {
                    div.line.aside.options { dt { "options" } dd title=(changed) { (changed) } }
                }
                div.line { dt { "seed" } dd { code { (plan.seed) } span.dim { ", of commit " } code { (page.commit.unwrap_or("not known")) } } }
            }
            @if let Some(likelihood) = page.likelihood {
                details.more open { summary { "from when on it was inevitable" } (section(likelihood, page.run)) }
            }
            details.more {
                summary { "more about this run" }
                div.columns {
                    (findings(page.verdict))
                    table {
                        caption { "what happened" }
                        @for (name, value) in page.facts {
                            tr { th { (name) } td { (value) } }
                        }
                    }
                    (options(&sides))
                }
            }
        }
        main {
            div #stage {
                div #heads aria-hidden="true" {}
                div #timeline tabindex="0" role="listbox" aria-label="everything that happened, in order" {
                    noscript { p { "The timeline needs JavaScript. It is part of this file and loads nothing." } }
                }
                canvas #map aria-hidden="true" {}
            }
            aside #details aria-live="polite" {}
        }
        footer {
            (window_note(&timeline))
            span { kbd { "j" } kbd { "k" } " move" }
            span { kbd { "Enter" } " what led here" }
            span { kbd { "v" } " violation" }
            span { kbd { "p" } " only the causal past" }
            span { kbd { "m" } " marks" }
            label #search { kbd { "/" } " " input type="search" placeholder="search" spellcheck="false" autocomplete="off"; output {} }
        }
    };
    let title = format!("{} {} · {}", plan.scenario, plan.seed, word(page.verdict));
    Page {
        title: &title,
        style: include_str!("assets/run.css"),
        script: include_str!("assets/run.js"),
        data: Some(embedded(&timeline)),
        body,
    }
    .into_string()
}

/// A verdict in one word or two.
fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "ok",
        Verdict::Violation(_) => "violation",
        Verdict::Liveness(_) => "no progress",
        Verdict::Inconclusive(_) => "inconclusive",
    }
}

fn badge(verdict: &Verdict) -> Markup {
    let class = match verdict {
        Verdict::Pass => "good",
        Verdict::Violation(_) | Verdict::Liveness(_) => "bad",
        Verdict::Inconclusive(_) => "odd",
    };
    html! { span class=(format!("badge {class}")) { (word(verdict)) } }
}

/// The verdict as one sentence.
fn sentence(verdict: &Verdict, plan: &Plan) -> String {
    match verdict {
        Verdict::Pass => match plan.options.protocol() {
            Protocol::Events => "Nothing was lost, duplicated or reordered.".to_owned(),
            Protocol::Tasks => "Everything ran once, and nothing of it was lost unsaid.".to_owned(),
            Protocol::Session => "Everything said is shown once, or visibly rejected.".to_owned(),
            Protocol::Custom(protocol) => capital(protocol.promise()),
        },
        Verdict::Violation(violations) | Verdict::Liveness(violations) => {
            violations.first().map_or_else(String::new, |first| first.message.clone())
        }
        Verdict::Inconclusive(_) => {
            "Nothing was violated, but what the scenario is about did not happen.".to_owned()
        }
    }
}

/// A clause as a sentence of its own.
fn capital(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).chain(['.']).collect()
}

fn found_by(verdict: &Verdict) -> Markup {
    match verdict {
        Verdict::Pass => html! {},
        Verdict::Violation(violations) | Verdict::Liveness(violations) => {
            let Some(Violation { checker, statements, at_ms, .. }) = violations.first() else {
                return html! {};
            };
            let others = violations.len() - 1;
            html! {
                p.by {
                    "found by " b { (checker) }
                    @if !statements.is_empty() { ", which stands for " (statements.join(", ")) }
                    "; seen at " (seconds(*at_ms))
                    @if let Verdict::Liveness(_) = verdict { " of virtual time, after everything had healed" }
                    @match others {
                        0 => {}
                        1 => { "; there is one more finding" }
                        others => { "; there are " (others) " more findings" }
                    }
                }
            }
        }
        Verdict::Inconclusive(marks) => html! { p.by { "not reached: " (marks.join(", ")) } },
    }
}

/// How many findings are spelled out.
const FINDINGS_MAX: usize = 20;

fn findings(verdict: &Verdict) -> Markup {
    let (Verdict::Violation(violations) | Verdict::Liveness(violations)) = verdict else {
        return html! {};
    };
    html! {
        table.findings {
            caption { "findings" }
            @for violation in violations.iter().take(FINDINGS_MAX) {
                tr {
                    th { (seconds(violation.at_ms)) }
                    td { (violation.message) br; span.dim { (violation.checker) @if !violation.statements.is_empty() { " · " (violation.statements.join(", ")) } } }
                }
            }
            @if violations.len() > FINDINGS_MAX {
                tr { th {} td { "and " (violations.len() - FINDINGS_MAX) " more" } }
            }
        }
    }
}

/// What of the facts stands on top, where there is room; all of them are a click away.
const ON_TOP: [&str; 2] = ["hosts", "faults"];

/// The options of one side: whose, what they are, and what the contract says.
type Side = (&'static str, Value, Value);

fn sides(options: &Options) -> [Side; 2] {
    match options {
        Options::Events { server, client } => [
            ("server", value(server), value(&ServerOptions::default())),
            ("client", value(client), value(&ClientOptions::default())),
        ],
        Options::Tasks { controller, agent } => [
            ("controller", value(controller), value(&ControllerOptions::default())),
            ("agent", value(agent), value(&AgentOptions::default())),
        ],
        Options::Session { server, client } => [
            ("server", value(server), value(&SessionServerOptions::default())),
            ("client", value(client), value(&SessionClientOptions::default())),
        ],
        Options::Custom { protocol, server, client } => {
            let usual = protocol.options();
            [
                ("server", value(server), value(&usual.server)),
                ("client", value(client), value(&usual.client)),
            ]
        }
    }
}

/// The options that differ from the contract's, on one line.
fn changed(sides: &[Side; 2]) -> String {
    let sides = sides.iter().filter_map(|(side, chosen, default)| {
        let chosen = chosen.as_object()?.iter().filter(|(name, value)| default[*name] != **value);
        let chosen: Vec<_> = chosen.map(|(name, value)| format!("{name} {value}")).collect();
        (!chosen.is_empty()).then(|| format!("{side}: {}", chosen.join(", ")))
    });
    sides.collect::<Vec<_>>().join("; ")
}

/// The options of both sides; those that differ from the contract's stand out.
fn options(sides: &[Side; 2]) -> Markup {
    html! {
        @for (side, chosen, default) in sides {
            table.options {
                caption { "options of the " (side) }
                @for (name, value) in chosen.as_object().into_iter().flatten() {
                    tr.differs[default[name] != *value] { th { (name) } td { (value) } }
                }
            }
        }
    }
}

fn value(options: &impl Serialize) -> Value {
    serde_json::to_value(options).expect("options are always JSON")
}

/// Says so if not everything is shown.
fn window_note(timeline: &Timeline) -> Markup {
    let (first, shown, all) = (timeline.first, timeline.rows.len(), timeline.records);
    match shown == all {
        true => html! { span.note { (all) " records" } },
        false => html! {
            span.note.part {
                "records " (first + 1) " to " (first + shown) " of " (all)
                ": a page shows " (RECORDS_MAX) " around the first finding; `" (command()) " show` prints all"
            }
        },
    }
}
