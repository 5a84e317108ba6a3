//! Implementations by statements, as one page that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html as page};

use super::matrix::{Cell, Matrix, Row, State};
use crate::conform::outcome::Word;
use crate::conform::summary::Results;

/// The page for these implementations.
pub fn html(all: &[Results]) -> String {
    let matrix = Matrix::new(all);
    let page = page! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Conformance" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                header {
                    h1 { "Conformance" }
                    p { "How implementations fared with the statements of the specification." }
                }
                main {
                    div.cards { @for results in &matrix.columns { (card(results)) } }
                    (legend())
                    div.scroll { (table(&matrix)) }
                }
            }
        }
    };
    page.into_string()
}

fn card(results: &Results) -> Markup {
    let start = &results.start;
    let who = &start.implementation;
    let good = results.end.exit == crate::exit::OK;
    page! {
        section.card.good[good].bad[!good] {
            h2 { (start.name()) " " span.version { (who.version) } }
            p.facts {
                code { (start.role) }
                @if !who.language.is_empty() { " · " (who.language) }
                @if let Some(homepage) = web(who.homepage.as_deref()) {
                    " · " a href=(homepage) { "homepage" }
                }
                @if let Some(issues) = web(who.issues.as_deref()) {
                    " · " a href=(issues) { "issues" }
                }
            }
            p.sum { (results.summary()) }
            @let groups = results.groups();
            @if !groups.is_empty() {
                ul.failures {
                    @for group in &groups {
                        li.warn[group.verdict == Word::Warn] {
                            b { (group.verdict.as_str()) } " " code { (group.kind) }
                            " in " (group.runs) @if group.runs == 1 { " run" } @else { " runs" }
                            details {
                                summary { (group.shortest.sentence().lines().next().unwrap_or_default()) }
                                pre { (start.again(group.shortest)) }
                            }
                        }
                    }
                }
            }
            @if !results.end.stale.is_empty() || !results.end.problems.is_empty() {
                ul.failures {
                    @for line in results.end.stale.iter().chain(&results.end.problems) {
                        li { (line) }
                    }
                }
            }
        }
    }
}

/// Only addresses of the web are made links.
fn web(address: Option<&str>) -> Option<&str> {
    address.filter(|it| it.starts_with("https://") || it.starts_with("http://"))
}

fn legend() -> Markup {
    page! {
        p.legend {
            span.held { "✓ held" } span.known { "~ broken, as expected" }
            span.broken { "✗ broken" } span.open { "? no verdict" }
            span.unsupported { "– not supported" } span.untested { "not tested by the role" }
            span.note { "Numbers are runs." }
        }
    }
}

fn table(matrix: &Matrix<'_>) -> Markup {
    page! {
        table {
            thead {
                tr {
                    th scope="col" { "Statement" }
                    @for results in &matrix.columns {
                        th.implementation scope="col" {
                            (results.start.name()) " "
                            span.version { (results.start.implementation.version) }
                            br; code { (results.start.role) }
                        }
                    }
                }
            }
            tbody { @for row in &matrix.rows { (line(row, matrix)) } }
        }
    }
}

fn line(row: &Row<'_>, matrix: &Matrix<'_>) -> Markup {
    let statement = row.statement;
    page! {
        tr {
            th.statement scope="row" {
                span.id { (statement.id) } " " span.level { (statement.level) ", " (statement.subject) }
                span.sentence { (statement.sentence) }
            }
            @for (cell, results) in row.cells.iter().zip(&matrix.columns) {
                (result(cell, results))
            }
        }
    }
}

fn result(cell: &Cell<'_>, results: &Results) -> Markup {
    let class = match cell.state() {
        State::Broken => "broken",
        State::Known => "known",
        State::Held => "held",
        State::Open => "open",
        State::Unsupported => "unsupported",
        State::Untested => "untested",
    };
    page! {
        td class=(class) {
            @match cell.example {
                None => { (cell.text()) }
                Some(outcome) => {
                    details {
                        summary { (cell.text()) }
                        p { (outcome.sentence()) }
                        pre { (results.start.again(outcome)) }
                    }
                }
            }
        }
    }
}
