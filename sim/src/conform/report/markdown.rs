//! Results as Markdown: for a summary of a continuous integration, or a page of a repository.

use std::fmt::Write;

use super::matrix::{Matrix, State};
use crate::conform::summary::Results;

/// How many scenarios are named beside what they need.
const NAMED_MAX: usize = 10;

/// What came of one implementation.
pub fn markdown(results: &Results) -> String {
    let start = &results.start;
    let who = &start.implementation;
    let mut text =
        format!("## {} {}, `{}`\n\n", escaped(&start.name()), escaped(&who.version), start.role);
    let _ = writeln!(text, "**{}** (base {})", results.summary(), start.base);
    let groups = results.groups();
    if !groups.is_empty() {
        text += "\n| verdict | found by | runs | the shortest |\n|---|---|---|---|\n";
    }
    for group in &groups {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {}<br>`{}` |",
            group.verdict.as_str(),
            escaped(&group.kind),
            group.runs,
            escaped(&group.shortest.sentence()),
            start.again(group.shortest).replace('|', "\\|")
        );
    }
    for line in results.end.stale.iter().chain(&results.end.problems) {
        let _ = writeln!(text, "\n- {}", escaped(line));
    }
    let unsupported = results.unsupported();
    if !unsupported.is_empty() {
        text += "\n| not supported | scenarios |\n|---|---|\n";
    }
    for (needs, cases) in unsupported {
        let named = cases.iter().take(NAMED_MAX).map(|case| format!("`{case}`"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match cases.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(text, "| {} | {named}{more} |", escaped(needs));
    }
    text
}

/// Several implementations by statements.
pub fn matrix(all: &[Results]) -> String {
    let matrix = Matrix::new(all);
    let mut text = "| statement | level |".to_owned();
    for results in &matrix.columns {
        let who = &results.start.implementation;
        let _ = write!(
            text,
            " {} {}<br>`{}` |",
            escaped(&results.start.name()),
            escaped(&who.version),
            results.start.role
        );
    }
    text += "\n|---|---|";
    text += &"---|".repeat(matrix.columns.len());
    text.push('\n');
    for row in &matrix.rows {
        if row.cells.iter().all(|cell| cell.state() == State::Untested) {
            continue;
        }
        let _ = write!(text, "| {} | {} |", row.statement.id, row.statement.level);
        for cell in &row.cells {
            let _ = write!(text, " {} |", cell.text());
        }
        text.push('\n');
    }
    text += "\n✓ runs in which it held, ✗ runs that broke it, ~ runs that broke it as expected, \
             – not supported, ? no verdict\n";
    text
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\n' => escaped += "<br>",
            '<' => escaped += "&lt;",
            '|' | '*' | '_' | '`' | '\\' | '[' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}
