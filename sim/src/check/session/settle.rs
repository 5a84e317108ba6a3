//! After the faults are over, everything that was said has its verdict, and its turn.

use std::collections::{BTreeMap, BTreeSet};

use gapless::session::conversation::Kind;

use super::{
    Check, Checker, Facts, Finding, Screens, Submission, finding, is_answer, shown_as_rejected,
};
use crate::history::SessionSeen;

/// Within the time that the plan gives.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "inputs_settle",
    statements: &["SE-3", "SE-5", "SE-12"],
    liveness: true,
    demands: "after healing nothing that was said is in flight: it is a row, whose turn has been \
              taken or is shown as interrupted, or its user was shown that it is rejected",
    check: Check::Session(check),
};

/// What became of inputs at their clients.
#[derive(Default)]
struct Kept<'a> {
    kept: BTreeSet<&'a str>,
    /// The process or its store ended before they were kept for good.
    forgotten: BTreeSet<&'a str>,
    /// What was said at each client and may be forgotten.
    said: BTreeMap<u32, Vec<&'a str>>,
}

/// What the store was seen to hold of the turns of a conversation.
#[derive(Default)]
struct Turns {
    begun: BTreeSet<u64>,
    over: BTreeSet<u64>,
    /// A step of them may have been stored.
    doubted: BTreeSet<u64>,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut screens = Screens::default();
    let mut kept = Kept::default();
    let mut turns: BTreeMap<u32, Turns> = BTreeMap::new();
    for (_, _, seen) in facts.seen() {
        screens.see(seen);
        kept.see(seen);
        match seen {
            SessionSeen::Begun { user, position } => {
                turns.entry(*user).or_default().begun.insert(*position);
            }
            SessionSeen::Over { user, position } => {
                turns.entry(*user).or_default().over.insert(*position);
            }
            SessionSeen::Doubted { user, position } => {
                turns.entry(*user).or_default().doubted.insert(*position);
            }
            _ => {}
        }
    }
    let end_ms = facts.end_ms;
    for client in facts.viewers.keys() {
        let pending = screens.of(*client).map_or(&[][..], |screen| screen.pending);
        if !pending.is_empty() {
            let message = format!("client-{client} waits for {}", pending.join(", "));
            findings.push(finding(end_ms, Some(*client), message));
        }
    }
    if facts.blind {
        return findings;
    }
    let rejected = shown_as_rejected(facts);
    let rows = facts.talks.values().flat_map(|talk| talk.rows.values());
    let accepted: BTreeSet<&str> = rows.filter_map(|row| row.input.as_deref()).collect();
    for (input, said) in &facts.inputs {
        let is_known = accepted.contains(input) || rejected.contains(input);
        if !is_known && !kept.forgotten.contains(input) && !is_base_answer(facts, said) {
            let message = format!(
                "{input} of client-{} is no row, and was never shown as rejected",
                said.client
            );
            findings.push(finding(end_ms, Some(said.client), message));
        }
    }
    for (user, talk) in &facts.talks {
        let Some(end) = facts.ends.get(user) else { continue };
        let Turns { begun, over, doubted } = turns.remove(user).unwrap_or_default();
        let is_due = |position: &&u64| match end.waiting.contains(position) {
            true => end.question.is_none(),
            false => {
                let taken = begun.contains(position) || doubted.contains(position);
                talk.rows[position].input.is_some() && !taken
            }
        };
        if let Some(position) = talk.rows.keys().find(is_due) {
            let message = format!("the turn of row {position} of user-{user} was never taken");
            findings.push(finding(end_ms, None, message));
        }
        let cut_off = begun.difference(&over).filter(|turn| !doubted.contains(turn)).count();
        let is_interrupted = |position: &&u64| talk.rows[position].kind == Kind::Interrupted;
        let interrupted = talk.rows.keys().filter(is_interrupted).count();
        if cut_off > interrupted {
            let message = format!(
                "{cut_off} turns of user-{user} have no end, and {interrupted} are shown as \
                 interrupted"
            );
            findings.push(finding(end_ms, None, message));
        }
    }
    findings
}

/// The base contract has no word for what becomes of an answer.
fn is_base_answer(facts: &Facts<'_>, said: &Submission<'_>) -> bool {
    let extension = facts.viewers.get(&said.client).is_some_and(|viewer| viewer.extension);
    !extension && is_answer(said)
}

impl<'a> Kept<'a> {
    fn see(&mut self, seen: &'a SessionSeen) {
        match seen {
            SessionSeen::Submitted { client, input, .. } => {
                self.said.entry(*client).or_default().push(input);
            }
            SessionSeen::Kept { input, .. } => {
                self.kept.insert(input);
            }
            SessionSeen::StoreReplaced { client } => {
                self.forgotten.extend(self.said.remove(client).into_iter().flatten());
            }
            SessionSeen::Began { client, .. } => {
                let said = self.said.remove(client).unwrap_or_default();
                let (kept, lost) = said.into_iter().partition(|input| self.kept.contains(input));
                let lost: Vec<&str> = lost;
                self.said.insert(*client, kept);
                self.forgotten.extend(lost);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::SessionSeen;

    fn said(next: Vec<SessionSeen>) -> Vec<SessionSeen> {
        [vec![began(1), submitted("a", 1), kept("a")], next].concat()
    }

    #[test]
    fn what_has_no_verdict_is_found() {
        assert_eq!(findings(&CHECKER, said(vec![])).len(), 1);
        assert_eq!(findings(&CHECKER, said(vec![rejected(1, "a")])), [""; 0]);
        assert_eq!(findings(&CHECKER, said(vec![durable(input_row(1, "a"))])), [""; 0]);
        let waits = said(vec![rejected(1, "a"), pending(1, &["a"])]);
        assert_eq!(findings(&CHECKER, waits).len(), 1);
    }

    #[test]
    fn what_was_never_kept_may_be_forgotten() {
        let again = || began_with(1, true, 2, &[]);
        let early = vec![began(1), submitted("a", 1), again()];
        assert_eq!(findings(&CHECKER, early), [""; 0]);
        assert_eq!(findings(&CHECKER, said(vec![again()])).len(), 1);
        let replaced = said(vec![SessionSeen::StoreReplaced { client: 1 }, again()]);
        assert_eq!(findings(&CHECKER, replaced), [""; 0]);
    }

    #[test]
    fn a_turn_that_was_never_taken_is_found() {
        let row = input_row(1, "a");
        let with = |turns: Vec<SessionSeen>| {
            let first = said(vec![durable(row.clone())]);
            [first, turns, vec![end(vec![row.clone()], &[])]].concat()
        };
        assert_eq!(findings(&CHECKER, with(vec![begun(1), over(1)])), [""; 0]);
        assert_eq!(findings(&CHECKER, with(vec![])).len(), 1);
        assert_eq!(findings(&CHECKER, with(vec![begun(1)])).len(), 1);
        let doubted = SessionSeen::Doubted { user: 1, position: 1 };
        assert_eq!(findings(&CHECKER, with(vec![begun(1), doubted])), [""; 0]);
    }

    #[test]
    fn behind_an_open_question_a_message_waits() {
        let rows = vec![input_row(1, "a"), question_row(2, "q"), input_row(3, "b")];
        let stored: Vec<_> = rows.iter().cloned().map(durable).collect();
        let first = said(vec![submitted("b", 3), kept("b")]);
        let entries = |waiting: &[u64]| {
            let turns = vec![begun(1), over(1), end(rows.clone(), waiting)];
            [first.clone(), stored.clone(), turns].concat()
        };
        assert_eq!(findings(&CHECKER, entries(&[3])), [""; 0]);
        assert_eq!(findings(&CHECKER, entries(&[])).len(), 1);
    }
}
