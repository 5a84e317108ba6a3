//! Every view is a run of the conversation's rows.

use std::collections::BTreeMap;

use gapless::session::conversation::Kind;

use super::{Check, Checker, Facts, Finding, Screens, Viewer, finding, is_answer};
use crate::history::{RowsShown, SessionSeen, ShownRow};

/// Whatever happens to the link, the server and the client.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "views_are_runs",
    statements: &["SE-4", "SE-2", "CORE-3"],
    liveness: false,
    demands: "every view shows rows of the conversation in their order, none twice, with no hole \
              and no other text, and takes none away but by a history",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut screens = Screens::default();
    // The rows that the store held so far: what they say, per user and position.
    let mut stored: BTreeMap<u32, BTreeMap<u64, u64>> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        screens.see(seen);
        match seen {
            SessionSeen::Durable { user, row } => {
                stored.entry(*user).or_default().entry(row.position).or_insert(row.digest);
            }
            SessionSeen::Shown { client, change } => {
                let Some(rows) = &change.rows else { continue };
                let (Some(screen), Some(viewer)) = (screens.of(*client), facts.viewers.get(client))
                else {
                    continue;
                };
                let is_full = screen.rows.len() == facts.limits.messages;
                let kept = matches!(rows, RowsShown::Moved { gone, .. } if *gone == 0 || is_full);
                let empty = BTreeMap::new();
                let stored = stored.get(&viewer.user).unwrap_or(&empty);
                let wrong = match viewer.extension {
                    true => wrong_run(facts, &screen.rows, stored),
                    false if facts.blind => None,
                    false => wrong_part(facts, viewer, *client, &screen.rows, stored),
                };
                if !kept && !change.history {
                    let message =
                        format!("client-{client} took rows out of its view without a history");
                    findings.push(finding(at_ms, Some(*client), message));
                } else if let Some(wrong) = wrong {
                    let message = format!("client-{client} shows {wrong}");
                    findings.push(finding(at_ms, Some(*client), message));
                }
            }
            _ => {}
        }
    }
    findings
}

/// What is wrong with a view that knows the positions of its rows.
fn wrong_run(facts: &Facts<'_>, rows: &[ShownRow], stored: &BTreeMap<u64, u64>) -> Option<String> {
    let newest = stored.last_key_value().map_or(0, |(position, _)| *position);
    let mut before = None;
    for row in rows {
        let Some(position) = row.position else { return Some("a row without a place".to_owned()) };
        match before {
            Some(before) if position <= before => {
                return Some(format!("row {position} after row {before}"));
            }
            // Where the store has forgotten rows, there may be a hole.
            Some(before) if position > before + 1 && !facts.is_forgotten(position - 1, newest) => {
                return Some(format!("row {position} next to row {before}"));
            }
            _ => {}
        }
        match stored.get(&position) {
            None if facts.blind => {}
            None => return Some(format!("row {position}, which no store has")),
            Some(digest) if *digest != row.digest => {
                return Some(format!("another text as row {position}"));
            }
            Some(_) => {}
        }
        before = Some(position);
    }
    None
}

/// What is wrong with a view of the base contract. It may lack what other clients said. It has every
/// answer that the user gave there, because nobody says what became of one. And nobody says where
/// some rows belong: what the user said there, which may be acknowledged after a history that does
/// not reach back to it, and a question, which is asked again after each history.
fn wrong_part(
    facts: &Facts<'_>,
    viewer: &Viewer,
    client: u32,
    rows: &[ShownRow],
    stored: &BTreeMap<u64, u64>,
) -> Option<String> {
    let own = || facts.inputs.values().filter(|said| said.client == client);
    let is_own = |digest: u64| own().any(|said| said.digest == digest);
    let is_own_answer = |digest: u64| own().any(|said| is_answer(said) && said.digest == digest);
    let is_question = |digest: u64| {
        let rows = facts.talks.get(&viewer.user).map(|talk| talk.rows.values());
        rows.into_iter().flatten().any(|row| row.kind == Kind::Question && row.digest == digest)
    };
    // How often each text may still come.
    let mut left: BTreeMap<u64, usize> = BTreeMap::new();
    for digest in stored.values() {
        *left.entry(*digest).or_default() += 1;
    }
    let mut after = 0;
    for ShownRow { digest, .. } in rows {
        match left.get_mut(digest) {
            None if is_own_answer(*digest) => {}
            None => return Some("a text that no store has".to_owned()),
            Some(0) if is_question(*digest) => {}
            Some(0) => return Some("a row twice".to_owned()),
            Some(left) => *left -= 1,
        }
        if is_own(*digest) || is_question(*digest) {
            continue;
        }
        let mut places = stored.range(after + 1..).filter(|(_, stored)| *stored == digest);
        match places.next() {
            Some((position, _)) => after = *position,
            None => return Some("rows in another order".to_owned()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::SessionSeen;

    fn with(shown: Vec<crate::history::SessionSeen>) -> Vec<crate::history::SessionSeen> {
        [vec![began(1)], durable_rows(4), shown].concat()
    }

    #[test]
    fn a_view_grows_by_what_follows() {
        let right = vec![history(1, 1..=2), added(1, 3..=4)];
        assert_eq!(findings(&CHECKER, with(right)), [""; 0]);
    }

    #[test]
    fn holes_repetitions_and_other_orders_are_found() {
        for wrong in [
            vec![history(1, 1..=2), added(1, 4..=4)],
            vec![history(1, 1..=2), added(1, 2..=3)],
            vec![history(1, 1..=3), added(1, 2..=2)],
            vec![history(1, 1..=3), added(1, 4..=4), added(1, 5..=5)],
        ] {
            assert_eq!(findings(&CHECKER, with(wrong.clone())).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_leaves_a_view_but_by_a_history() {
        let again = vec![history(1, 1..=3), history(1, 2..=4)];
        assert_eq!(findings(&CHECKER, with(again)), [""; 0]);
        let gone = vec![history(1, 1..=3), replaced(1, 2..=4)];
        assert_eq!(findings(&CHECKER, with(gone)).len(), 1);
    }

    #[test]
    fn another_text_is_found() {
        let other = vec![shown_texts(1, &[(Some(1), "row 1"), (Some(2), "row two")])];
        assert_eq!(findings(&CHECKER, with(other)).len(), 1);
    }

    #[test]
    fn a_view_of_the_base_contract_is_a_part_of_the_conversation() {
        let with = |shown| [vec![began_base(1)], durable_rows(4), vec![shown]].concat();
        let part = shown_texts(1, &[(None, "row 1"), (None, "row 3")]);
        assert_eq!(findings(&CHECKER, with(part)), [""; 0]);
        for wrong in [["row 1", "row 1"], ["row 3", "row 1"], ["row 1", "row 9"]] {
            let wrong = shown_texts(1, &wrong.map(|text| (None, text)));
            assert_eq!(findings(&CHECKER, with(wrong)).len(), 1);
        }
        let own = shown_texts(1, &[(None, "row 1"), (None, "row 9"), (None, "row 2")]);
        let answered = vec![began_base(1), answered("a", 9, "q")];
        let too_late = [answered, durable_rows(4), vec![own]].concat();
        assert_eq!(findings(&CHECKER, too_late), [""; 0]);
        let asked = vec![began_base(1), durable(question_row(1, "q")), durable(row(2))];
        let again = shown_texts(1, &[(None, "row 2"), (None, "row 1")]);
        assert_eq!(findings(&CHECKER, [asked, vec![again]].concat()), [""; 0]);
    }

    #[test]
    fn of_a_store_that_nobody_sees_a_view_is_judged_by_its_order_alone() {
        let with = |shown| [vec![SessionSeen::Blind, began(1)], shown].concat();
        assert_eq!(findings(&CHECKER, with(vec![history(1, 1..=2), added(1, 3..=4)])), [""; 0]);
        for wrong in [added(1, 4..=4), added(1, 2..=3), replaced(1, 1..=1)] {
            assert_eq!(findings(&CHECKER, with(vec![history(1, 1..=2), wrong])).len(), 1);
        }
    }
}
