//! A history shows everything up to its number, and nothing above.

use std::collections::BTreeMap;

use super::{Check, Checker, Facts, Finding, Talk, finding};
use crate::history::{Conn, Numbered, OpenQuestion, SessionSeen, ShownRow};

/// Also when nothing that it was made from is in memory any longer.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "history_is_whole",
    statements: &["SE-2"],
    liveness: false,
    demands: "a history has the newest rows without a hole, all that any client was sent before, \
              none that follows as a frame, and the open question whatever its age",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The newest row that was sent to anybody, per user.
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    // The newest row of the history of each connection.
    let mut shown: BTreeMap<Conn, u64> = BTreeMap::new();
    let empty = Talk::default();
    for (_, at_ms, seen) in facts.seen() {
        let SessionSeen::Sent { conn, seq, what } = seen else { continue };
        let Some(peer) = facts.peers.get(conn) else { continue };
        let talk = facts.talks.get(&peer.user).unwrap_or(&empty);
        let sent = sent.entry(peer.user).or_default();
        match what {
            Numbered::History { rows, truncated, question } => {
                let wrong = wrong(facts, talk, rows, *truncated, question.as_ref(), *sent);
                if let Some(wrong) = wrong {
                    let message =
                        format!("history {seq} of {} on connection {conn} {wrong}", peer.name);
                    findings.push(finding(at_ms, None, message));
                }
                let newest = rows.last().and_then(|row| row.position).unwrap_or(0);
                shown.insert(*conn, newest);
                *sent = (*sent).max(newest);
            }
            Numbered::Row(row) | Numbered::Question { row, .. } => {
                let Some(position) = row.position else { continue };
                if shown.get(conn).is_some_and(|newest| position <= *newest) {
                    let message = format!(
                        "row {position} was sent to {} under {seq}, and the history of connection \
                         {conn} has it already",
                        peer.name
                    );
                    findings.push(finding(at_ms, None, message));
                }
                *sent = (*sent).max(position);
            }
            _ => {}
        }
    }
    findings
}

fn wrong(
    facts: &Facts<'_>,
    talk: &Talk<'_>,
    rows: &[ShownRow],
    truncated: bool,
    question: Option<&OpenQuestion>,
    sent: u64,
) -> Option<String> {
    if rows.iter().any(|row| row.position.is_none()) {
        // The base contract tells no positions.
        return None;
    }
    let positions: Vec<u64> = rows.iter().filter_map(|row| row.position).collect();
    let newest = positions.last().copied().unwrap_or(0);
    if newest < sent {
        return Some(format!("ends with row {newest}, and row {sent} was sent before"));
    }
    let hole = positions.windows(2).find(|pair| {
        pair[1] != pair[0] + 1 && !(pair[1] > pair[0] && facts.is_forgotten(pair[1] - 1, newest))
    });
    if let Some(hole) = hole {
        return Some(format!("has row {} next to row {}", hole[1], hole[0]));
    }
    if !truncated && positions.first().is_some_and(|first| *first > 1) {
        return Some("does not say that there are older rows".to_owned());
    }
    if facts.blind {
        return None;
    }
    let open = talk.question_at(newest);
    match (open, question) {
        (Some(row), None) => Some(format!("lacks the question of row {}", row.position)),
        (None, Some(_)) => Some("asks what is not open".to_owned()),
        (Some(row), Some(asked)) if (&row.question, row.digest) != (&asked.id, asked.digest) => {
            Some(format!("asks something else than row {}", row.position))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Numbered, SessionSeen, ShownRow};

    fn with(sent: Vec<SessionSeen>) -> Vec<SessionSeen> {
        [durable_rows(4), vec![connected(1, 0, None), connected_as(2, 2, 0, None)], sent].concat()
    }

    #[test]
    fn a_history_has_what_was_sent_before_and_nothing_that_is_sent_after() {
        let right = vec![sent_history(1, 1, 1..=2), sent_row(1, 2, 3), sent_history(2, 1, 2..=3)];
        assert_eq!(findings(&CHECKER, with(right)), [""; 0]);
        let old = vec![sent_history(1, 1, 1..=2), sent_row(1, 2, 3), sent_history(2, 1, 1..=2)];
        assert_eq!(findings(&CHECKER, with(old)).len(), 1);
        let twice = vec![sent_history(1, 1, 1..=3), sent_row(1, 2, 3)];
        assert_eq!(findings(&CHECKER, with(twice)).len(), 1);
    }

    #[test]
    fn holes_and_missing_words_are_found() {
        let rows = |positions: &[u64]| positions.iter().copied().map(shown_row).collect();
        let history = |positions: &[u64], truncated| {
            let what = Numbered::History { rows: rows(positions), truncated, question: None };
            with(vec![sent(1, 1, what)])
        };
        assert_eq!(findings(&CHECKER, history(&[1, 2, 3], false)), [""; 0]);
        assert_eq!(findings(&CHECKER, history(&[3, 4], true)), [""; 0]);
        assert_eq!(findings(&CHECKER, history(&[1, 3], true)).len(), 1);
        assert_eq!(findings(&CHECKER, history(&[3, 4], false)).len(), 1);
    }

    #[test]
    fn a_question_is_in_the_history_until_it_is_answered() {
        let asked = question_row(2, "q");
        let question = Some(asked_by(&asked));
        let history = |positions: std::ops::RangeInclusive<u64>, question| {
            let rows = positions.map(shown_row).collect();
            let what = Numbered::History { rows, truncated: false, question };
            let rows =
                vec![durable(row(1)), durable(asked.clone()), durable(answer_row(3, "i", "q"))];
            [rows, vec![connected(1, 0, None), sent(1, 1, what)]].concat()
        };
        assert_eq!(findings(&CHECKER, history(1..=2, question.clone())), [""; 0]);
        assert_eq!(findings(&CHECKER, history(1..=2, None)).len(), 1);
        assert_eq!(findings(&CHECKER, history(1..=3, None)), [""; 0]);
        assert_eq!(findings(&CHECKER, history(1..=3, question)).len(), 1);
    }

    #[test]
    fn rows_without_positions_and_questions_that_nobody_sees_are_not_judged() {
        let anonymous = |row: ShownRow| ShownRow { position: None, ..row };
        let rows = [1, 3].map(|position| anonymous(shown_row(position))).to_vec();
        let what = Numbered::History { rows, truncated: false, question: None };
        let after = vec![sent_history(1, 1, 1..=4), sent(2, 1, what)];
        assert_eq!(findings(&CHECKER, with(after)), [""; 0]);
        let asked = Some(asked_by(&question_row(2, "q")));
        let rows = (1..=2).map(shown_row).collect();
        let what = Numbered::History { rows, truncated: false, question: asked };
        let seen = with(vec![sent(1, 1, what)]);
        assert_eq!(findings(&CHECKER, seen.clone()).len(), 1);
        assert_eq!(findings(&CHECKER, [vec![SessionSeen::Blind], seen].concat()), [""; 0]);
    }
}
