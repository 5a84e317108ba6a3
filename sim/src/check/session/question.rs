//! A question is shown for as long as the server waits for its answer.

use super::{Check, Checker, Facts, Finding, Screens, finding};
use crate::history::SessionSeen;

/// By every client that has come so far. In the base contract a client may have to guess that a
/// question is answered; what it shows in the end is judged with everything else.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "question_is_shown",
    statements: &["SE-2", "SE-12"],
    liveness: false,
    demands: "a view shows the question that is open after its newest row, and no other",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.blind {
        return findings;
    }
    let mut screens = Screens::default();
    for (_, at_ms, seen) in facts.seen() {
        screens.see(seen);
        let SessionSeen::Shown { client, .. } = seen else { continue };
        let (Some(screen), Some(viewer)) = (screens.of(*client), facts.viewers.get(client)) else {
            continue;
        };
        let newest = screen.newest();
        let talk = facts.talks.get(&viewer.user);
        let open = talk.and_then(|talk| talk.question_at(newest)).filter(|_| viewer.extension);
        let wrong = match (open, screen.question) {
            (Some(row), None) => format!("does not ask what row {} asks", row.position),
            (Some(row), Some(asked))
                if (&row.question, row.digest) != (&asked.id, asked.digest) =>
            {
                format!("asks something else than row {}", row.position)
            }
            (None, Some(_)) if viewer.extension => {
                format!("asks something, and nothing is open after row {newest}")
            }
            _ => continue,
        };
        findings.push(finding(at_ms, Some(*client), format!("client-{client} {wrong}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Asked, SessionSeen, ViewChange};

    fn with(shown: Vec<SessionSeen>) -> Vec<SessionSeen> {
        let rows = vec![durable(row(1)), durable(question_row(2, "q"))];
        let answer = durable(answer_row(3, "i", "q"));
        [vec![began(1)], rows, vec![answer], shown].concat()
    }

    fn view(rows: u64, asked: bool) -> SessionSeen {
        let SessionSeen::Shown { client, change } = history(1, 1..=rows) else { unreachable!() };
        let question = asked.then(|| Asked::Open(asked_by(&question_row(2, "q"))));
        shown(client, ViewChange { question, ..change })
    }

    #[test]
    fn it_is_shown_until_it_is_answered() {
        for (rows, asked, wrong) in
            [(1, false, 0), (2, true, 0), (3, false, 0), (1, true, 1), (2, false, 1), (3, true, 1)]
        {
            let shown = with(vec![view(rows, asked)]);
            assert_eq!(findings(&CHECKER, shown).len(), wrong, "{rows} {asked}");
        }
    }

    #[test]
    fn another_question_is_none() {
        let other = with(vec![asks(1, &question_row(2, "another"))]);
        assert_eq!(findings(&CHECKER, other).len(), 1);
    }
}
