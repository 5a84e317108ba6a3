//! After the faults are over, every view shows what the server holds.

use gapless::session::wire::Status;

use super::{Check, Checker, End, Facts, Finding, Screen, Screens, Viewer, finding};
use crate::history::{LinkShown, StoredRow};

/// Within the time that the plan gives.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "views_converge",
    statements: &["SE-1", "SE-2", "SE-4", "SE-6", "SE-9", "CORE-11"],
    liveness: true,
    demands: "after healing every client whose place nobody took is connected, and shows the \
              newest row, the open question and what the application is doing",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut screens = Screens::default();
    for (_, _, seen) in facts.seen() {
        screens.see(seen);
    }
    let mut findings = Vec::new();
    for (client, viewer) in &facts.viewers {
        let (Some(end), Some(screen)) = (facts.ends.get(&viewer.user), screens.of(*client)) else {
            continue;
        };
        if let Some(wrong) = wrong(viewer, screen, end) {
            findings.push(finding(facts.end_ms, Some(*client), format!("client-{client} {wrong}")));
        }
    }
    findings
}

fn wrong(viewer: &Viewer, screen: &Screen<'_>, end: &End<'_>) -> Option<String> {
    match screen.link {
        LinkShown::Superseded => return None,
        LinkShown::Live => {}
        link => return Some(format!("is not connected: {link:?}")),
    }
    // The base contract has no word for what another client of the same user says.
    let is_told = |row: &&StoredRow| viewer.extension || row.input.is_none();
    if let Some(row) = end.rows.iter().rfind(is_told)
        && !screen.rows.iter().any(|shown| shown.digest == row.digest)
    {
        return Some(format!("does not show row {}", row.position));
    }
    let newest = end.rows.last().map_or(0, |row| row.position);
    if viewer.extension && screen.newest() != newest {
        return Some(format!("ends with row {}, the conversation with {newest}", screen.newest()));
    }
    match (end.question, screen.question) {
        (Some(open), asked) if asked.is_none_or(|asked| asked.digest != open.digest) => {
            return Some("does not ask what is open".to_owned());
        }
        (None, Some(_)) if viewer.extension => {
            return Some("asks something, and nothing is open".to_owned());
        }
        _ => {}
    }
    let status = match end.question {
        Some(_) => Status::Waiting,
        None => Status::Idle,
    };
    (screen.status != status).then(|| format!("shows {:?} instead of {status:?}", screen.status))
}

#[cfg(test)]
mod tests {
    use gapless::session::wire::Status;

    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{LinkShown, SessionSeen};

    fn with(shown: Vec<SessionSeen>) -> Vec<SessionSeen> {
        let end = end(vec![row(1), row(2)], &[]);
        [vec![began(1), linked(1, LinkShown::Live)], shown, vec![end]].concat()
    }

    #[test]
    fn a_view_that_lacks_something_is_found() {
        assert_eq!(findings(&CHECKER, with(vec![history(1, 1..=2)])), [""; 0]);
        for next in [
            vec![history(1, 1..=1)],
            vec![history(1, 1..=2), linked(1, LinkShown::Waiting)],
            vec![history(1, 1..=2), status(1, Status::Thinking)],
            vec![history(1, 1..=2), asks(1, &question_row(2, "q"))],
        ] {
            assert_eq!(findings(&CHECKER, with(next.clone())).len(), 1, "{next:?}");
        }
        let aside = vec![history(1, 1..=1), linked(1, LinkShown::Superseded)];
        assert_eq!(findings(&CHECKER, with(aside)), [""; 0]);
    }

    #[test]
    fn an_open_question_is_shown_in_the_end() {
        let asked = question_row(2, "q");
        let with = |shown: Vec<SessionSeen>| {
            let end = end(vec![row(1), asked.clone()], &[]);
            let live = vec![began_base(1), linked(1, LinkShown::Live), history(1, 1..=2)];
            [live, vec![status(1, Status::Waiting)], shown, vec![end]].concat()
        };
        assert_eq!(findings(&CHECKER, with(vec![asks(1, &asked)])), [""; 0]);
        assert_eq!(findings(&CHECKER, with(vec![])).len(), 1);
    }
}
