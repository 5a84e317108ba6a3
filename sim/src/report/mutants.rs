//! The page of the kill table: which known-bad variants are caught, by whom, and how fast.

use maud::html;

use super::page::{Page, theme_button};
use crate::custom::command;
use crate::mutants::Mutant;

/// What came of a known-bad variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The variant.
    pub mutant: &'static str,
    /// Whether the checker that has to catch it did, each time.
    pub caught: bool,
    /// The median of the seeds that it took.
    pub median_seeds: Option<u64>,
    /// A seed that caught it.
    pub seed: Option<u64>,
    /// The checkers that had something to say besides, if it was not caught.
    pub others: Vec<&'static str>,
}

/// The page of a kill table, as one HTML file. `seeds` is how many each had.
pub fn mutants_page(kills: &[Kill], seeds: u64, commit: Option<&str>) -> String {
    let survived = kills.iter().filter(|kill| !kill.caught).count();
    let sentence = match survived {
        0 => format!("All {} known-bad variants are caught.", kills.len()),
        survived => format!("{survived} of {} known-bad variants survive.", kills.len()),
    };
    let slowest = kills.iter().filter_map(|kill| kill.median_seeds).max().unwrap_or(1);
    let body = html! {
        header {
            div.verdict {
                @match survived {
                    0 => span.badge.good { "ok" },
                    _ => span.badge.bad { "not seen" },
                }
                h1 { (sentence) }
                (theme_button())
            }
            dl.facts {
                div { dt { "each within" } dd { (seeds) " seeds of its home scenario" } }
                div { dt { "commit" } dd { code { (commit.unwrap_or("not known")) } } }
            }
        }
        article {
            div.wide {
                table.kills {
                    thead {
                        tr { th {} th { "variant" } th { "caught by" } th.number { "seeds" } th {} th { "run again" } }
                    }
                    tbody {
                        @for (kill, mutant) in kills.iter().filter_map(known) {
                            tr.never[!kill.caught] {
                                td { @if kill.caught { span.tick { "✓" } } @else { span.miss { "×" } } }
                                td {
                                    b { (mutant.id) } br;
                                    (mutant.does) br;
                                    span.dim { "enters " (mutant.seam()) "; " (mutant.statements.join(", ")) }
                                }
                                td { (mutant.checker) }
                                @match kill.median_seeds {
                                    Some(median) => {
                                        td.number { (median) }
                                        td { meter min="0" max=(slowest) value=(median) {} }
                                    }
                                    None => {
                                        td.number { "–" }
                                        td { @if kill.others.is_empty() { "nothing was found" } @else { "only " (kill.others.join(", ")) } }
                                    }
                                }
                                td { @if let Some(seed) = kill.seed { code.command { (command()) " " (mutant.home) " " (seed) " --mutant " (mutant.id) } } @else { code { (mutant.home) } } }
                            }
                        }
                    }
                }
            }
        }
    };
    let style = include_str!("assets/sweep.css");
    Page { title: &sentence, style, script: "", data: None, body }.into_string()
}

fn known(kill: &Kill) -> Option<(&Kill, &'static Mutant)> {
    crate::mutants::find(kill.mutant).map(|mutant| (kill, mutant))
}
