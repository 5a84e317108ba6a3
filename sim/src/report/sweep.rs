//! The page of a sweep.

use std::collections::BTreeSet;
use std::time::Duration;

use maud::{Markup, html};

use super::page::{Page, seconds, theme_button};
use crate::exit;
use crate::sweep::{ByFault, Group, Reached, Summary};

/// A sweep, and what is to be said about it.
#[derive(Debug, Clone, Copy)]
pub struct SweepPage<'a> {
    /// What its runs say together.
    pub summary: &'a Summary,
    /// Where its seeds come from.
    pub origin: &'a str,
    /// How long it took, and on how many threads, if that is known.
    pub real: Option<(Duration, usize)>,
    /// From how many runs of a swarm on its marks are judged.
    pub reach_seeds: u64,
    /// What follows the scenario and the seed in the command that repeats a run.
    pub again: &'a str,
    /// The commit of the code that ran, if it is known.
    pub commit: Option<&'a str>,
}

/// The page of a sweep, as one HTML file.
pub fn sweep_page(page: &SweepPage<'_>) -> String {
    let summary = page.summary;
    let body = html! {
        header {
            div.verdict {
                (badge(page))
                h1 { (sentence(page)) }
                (theme_button())
            }
            dl.facts {
                div { dt { "seeds" } dd { (page.origin) } }
                div { dt { "commit" } dd { code { (page.commit.unwrap_or("not known")) } } }
                @if let Some((real, jobs)) = page.real {
                    @let rate = summary.runs as f64 / real.as_secs_f64().max(0.001);
                    div { dt { "rate" } dd { b { (format!("{rate:.1} runs a second")) } (format!(" on {jobs} threads, for {:.1} s", real.as_secs_f64())) } }
                }
                @if summary.delivered > 0 {
                    div { dt { "delivered" } dd { (summary.delivered) " events" } }
                }
                @for (scenario, runs) in summary.scenarios() {
                    div { dt { (scenario) } dd { (counted(*runs)) } }
                }
            }
        }
        article {
            @let groups: Vec<&Group> = summary.groups().collect();
            @if !groups.is_empty() {
                section {
                    h2 { "What failed" }
                    @for group in groups { (failure(group, page)) }
                }
            }
            (matrix(summary))
            (reachability(page))
            (faults(summary))
        }
    };
    let title = format!("sweep · {}", sentence(page));
    let style = include_str!("assets/sweep.css");
    Page { title: &title, style, script: "", data: None, body }.into_string()
}

fn counted(runs: u64) -> String {
    match runs {
        1 => "1 run".to_owned(),
        runs => format!("{runs} runs"),
    }
}

fn badge(page: &SweepPage<'_>) -> Markup {
    match page.summary.exit_code(page.reach_seeds) {
        exit::OK => html! { span.badge.good { "ok" } },
        exit::INCONCLUSIVE | exit::NOTHING_RAN => html! { span.badge.odd { "inconclusive" } },
        _ => html! { span.badge.bad { "failed" } },
    }
}

fn sentence(page: &SweepPage<'_>) -> String {
    let (runs, failed) = (counted(page.summary.runs), page.summary.failed());
    let short = page.summary.reach().iter().filter(|it| it.is_short(page.reach_seeds)).count();
    match (failed, page.summary.groups().count(), short) {
        (0, _, 0) => format!("{runs}: nothing was lost, duplicated or reordered."),
        (0, ..) => format!("{runs}: nothing failed, but not everything that matters was reached."),
        (failed, 1, _) => format!("{failed} of {runs} failed, all alike."),
        (failed, ways, _) => format!("{failed} of {runs} failed, in {ways} ways."),
    }
}

fn failure(group: &Group, page: &SweepPage<'_>) -> Markup {
    let shortest = &group.shortest;
    let again = group.again(page.again);
    html! {
        div.failure {
            p.head { span.badge.bad { (group.verdict.describe()) } b { (group.checker) } span.dim { "in " (counted(group.runs)) } }
            @for (checker, message) in &shortest.findings {
                p.message { (message) @if *checker != group.checker { span.dim { " (" (checker) ")" } } }
            }
            p.dim { "the shortest of them: " (shortest.seen) " observations in " (seconds(shortest.virtual_ms)) }
            p { code.command { (again) " --report failing.html" } }
        }
    }
}

fn reachability(page: &SweepPage<'_>) -> Markup {
    let reach = page.summary.reach();
    html! {
        @if !reach.is_empty() {
            section {
                h2 { "What has to be reached" }
                p.dim { "Places that matter, and in how many runs of each swarm the code was there. A swarm is judged from " (page.reach_seeds) " runs on." }
                @for swarm in &reach {
                    @let never: Vec<&str> = swarm.marks.iter().filter(|(_, runs)| *runs == 0).map(|(mark, _)| mark.as_str()).collect();
                    @let all = swarm.marks.len();
                    details {
                        summary {
                            b { (swarm.scenario) } ": " (all - never.len()) " of " (all) " reached in " (counted(swarm.runs))
                            @if !never.is_empty() { ", never " span.none { (never.join(", ")) } }
                        }
                        table {
                            @for (mark, runs) in &swarm.marks {
                                tr.never[*runs == 0] {
                                    th { (mark) }
                                    td.number { (runs) }
                                    td { meter min="0" max=(swarm.runs.max(1)) value=(runs) {} }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Marks by faults: in how many of the runs with a fault a mark was reached.
fn matrix(summary: &Summary) -> Markup {
    html! {
        section {
            h2 { "Marks by faults" }
            p.dim { "In how many of a hundred runs with a kind of fault each mark was reached. A mark that stands out under one fault is reached because of it; one that is nowhere is a place that no run has been to." }
            @for (protocol, by_fault) in summary.by_fault() {
                div.wide { (matrix_of(protocol, by_fault)) }
            }
        }
    }
}

fn matrix_of(protocol: &str, by_fault: &ByFault) -> Markup {
    let ByFault { all, with } = by_fault;
    let all_marks = gapless::marks::all();
    // Those of the protocol are all there; of others, such as the disk's, those that were reached.
    let own = all_marks.iter().copied().filter(|mark| mark.split('.').next() == Some(protocol));
    let marks: BTreeSet<&str> = own.chain(all.marks.keys().map(String::as_str)).collect();
    let of = |reached: &Reached, mark: &str| reached.marks.get(mark).copied().unwrap_or(0);
    html! {
        table.matrix {
            thead {
                tr {
                    th.name { (protocol) }
                    th.turned { span { "any run" } }
                    @for kind in with.keys() { th.turned { span { (kind) } } }
                }
                tr.runs {
                    th { "runs" }
                    td { (all.runs) }
                    @for reached in with.values() { td { (reached.runs) } }
                }
            }
            tbody {
                @for mark in marks {
                    tr.never[of(all, mark) == 0] {
                        th { (mark) }
                        (share(of(all, mark), all.runs, "any"))
                        @for (kind, reached) in with { (share(of(reached, mark), reached.runs, kind)) }
                    }
                }
            }
        }
    }
}

/// A share of runs, the darker the larger.
fn share(of: u64, runs: u64, kind: &str) -> Markup {
    let percent = (of * 100).checked_div(runs).unwrap_or(0);
    let class = format!("heat{}", percent.div_ceil(10));
    let title = format!("{of} of {runs} runs ({kind})");
    html! {
        td class=(class) title=(title) {
            @match (of, percent) {
                (0, _) => {}
                (_, 0) => { "·" }
                (_, percent) => { (percent) }
            }
        }
    }
}

fn faults(summary: &Summary) -> Markup {
    html! {
        section {
            h2 { "Faults that were injected" }
            p.list {
                @for (kind, count) in &summary.faults { span { (kind) " " b { (count) } } }
            }
        }
    }
}
