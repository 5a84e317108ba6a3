//! What a user says is accepted once, or rejected, and as it was said.

use std::collections::{BTreeMap, BTreeSet};

use gapless::session::conversation::Kind;
use gapless::session::wire::InputRejection;

use super::{
    Check, Checker, Facts, Finding, Screens, Submission, finding, is_answer, shown_as_rejected,
};
use crate::history::{Said, SessionSeen, StoredRow};

/// However often it is sent.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "accepted_once",
    statements: &["SE-5"],
    liveness: false,
    demands: "every input becomes one row, with its text and to its question, or is rejected, and \
              never both; no row comes from an input that nobody gave",
    check: Check::Session(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.blind {
        return findings;
    }
    // The row of each input, and when it was seen.
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    let mut refused: BTreeMap<(u32, &str), Refusal> = BTreeMap::new();
    // How many rejections of each user were remembered.
    let mut rejections: BTreeMap<u32, u64> = BTreeMap::new();
    // What was rejected and said again by an older state of the store.
    let mut forgotten: BTreeSet<&str> = BTreeSet::new();
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            SessionSeen::Durable { user, row } => {
                let newest = newest.entry(*user).or_default();
                *newest = (*newest).max(row.position);
                let Some((input, said)) = said(facts, row) else {
                    if row.input.is_some() {
                        let message =
                            format!("row {} of user-{user} is what nobody said", row.position);
                        findings.push(finding(at_ms, None, message));
                    }
                    continue;
                };
                let first = *rows.entry(input).or_insert(row.position);
                // An answer of the base contract has no name by which it could be recognised.
                let is_named = row.input.as_deref() == Some(input);
                let wrong = if first != row.position && is_named {
                    Some(format!("is row {first} and row {}", row.position))
                } else if refused.get(&(*user, input)).is_some_and(|refusal| {
                    let newest = rejections.get(user).copied().unwrap_or(0);
                    !may_expire(refusal.reason) && !facts.is_forgotten(refusal.nth, newest)
                }) {
                    Some(format!("was rejected and is row {}", row.position))
                } else {
                    distorted(said, row)
                };
                if let Some(wrong) = wrong {
                    let message = format!("{input} of client-{} {wrong}", said.client);
                    findings.push(finding(at_ms, Some(said.client), message));
                }
            }
            // An older state of the store says again what was rejected since, and a server keeps no
            // rejections.
            SessionSeen::StoreReplaced { client } => {
                let of = |input: &str| facts.inputs.get(input).map(|said| said.client);
                let gone = refused.extract_if(.., |(_, input), _| of(input) == Some(*client));
                forgotten.extend(gone.map(|((_, input), _)| input));
            }
            SessionSeen::Refused { user, input, reason } => {
                let count = rejections.entry(*user).or_default();
                let known = refused.get(&(*user, input.as_str()));
                let nth = match known.filter(|known| !facts.is_forgotten(known.nth, *count)) {
                    Some(known) => known.nth,
                    None if is_remembered(*reason) => {
                        *count += 1;
                        *count
                    }
                    None => ALWAYS,
                };
                refused.insert((*user, input), Refusal { reason: *reason, nth });
                let newest = newest.get(user).copied().unwrap_or(0);
                let row = rows.get(input.as_str()).copied();
                // Of an input whose row is forgotten nothing is known.
                if let Some(row) = row.filter(|row| !facts.is_forgotten(*row, newest)) {
                    let message = format!("{input} is row {row}, and was rejected as {reason:?}");
                    let client = facts.inputs.get(input.as_str()).map(|said| said.client);
                    findings.push(finding(at_ms, client, message));
                }
            }
            _ => {}
        }
    }
    findings.extend(answers_to_others(facts));
    for input in shown_as_rejected(facts) {
        if forgotten.contains(input) {
            continue;
        }
        let Some((row, said)) = rows.get(input).zip(facts.inputs.get(input)) else { continue };
        let user = facts.viewers.get(&said.client).map_or(0, |viewer| viewer.user);
        if !facts.is_forgotten(*row, newest.get(&user).copied().unwrap_or(0)) {
            let message =
                format!("{input} is row {row}, and client-{} shows it as rejected", said.client);
            findings.push(finding(facts.end_ms, Some(said.client), message));
        }
    }
    findings
}

/// Answers that a client sends to a server of the base contract when something else is asked there,
/// or nothing [SE-5l].
fn answers_to_others(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut screens = Screens::default();
    // What was asked when each answer was given.
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, at_ms, seen) in facts.seen() {
        screens.see(seen);
        let question = |client| screens.of(client)?.question.map(|question| question.digest);
        match seen {
            SessionSeen::Submitted {
                client, input, what: Said::Answer { question: None }, ..
            } => {
                asked.extend(question(*client).map(|question| (input.as_str(), question)));
            }
            SessionSeen::InputSent { client, input, .. } => {
                let Some(asked) = asked.get(input.as_str()) else { continue };
                if question(*client) != Some(*asked) {
                    let message = format!(
                        "client-{client} sent the answer {input} when its question was over"
                    );
                    findings.push(finding(at_ms, Some(*client), message));
                }
            }
            _ => {}
        }
    }
    findings
}

/// A verdict on an input.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    reason: InputRejection,
    /// Which of the remembered rejections of its user it is, from 1, or [`ALWAYS`].
    nth: u64,
}

/// The number of a rejection that nothing has to be remembered for.
const ALWAYS: u64 = u64::MAX;

/// Whether a server has to remember that it rejected an input; the others it rejects again for the same
/// reason.
fn is_remembered(reason: InputRejection) -> bool {
    match reason {
        InputRejection::QueueFull { .. } | InputRejection::NotOpen => true,
        InputRejection::Conflict | InputRejection::Expired | InputRejection::TooLarge => false,
    }
}

/// Whether an input that was rejected for this reason once may be taken another time.
fn may_expire(reason: InputRejection) -> bool {
    // Another input of the same name was.
    reason == InputRejection::Conflict
}

/// The input that a row came from. A server names an answer of the base contract itself; which it
/// is says its text.
fn said<'a, 'f>(facts: &'f Facts<'a>, row: &StoredRow) -> Option<(&'a str, &'f Submission<'a>)> {
    let input = row.input.as_deref()?;
    if let Some((input, said)) = facts.inputs.get_key_value(input) {
        return Some((input, said));
    }
    let is_base = |said: &Submission<'_>| {
        facts.viewers.get(&said.client).is_some_and(|viewer| !viewer.extension)
    };
    let answers = facts.inputs.iter().filter(|(_, said)| is_base(said) && is_answer(said));
    let mut same = answers.filter(|(_, said)| said.digest == row.digest);
    same.next().map(|(input, said)| (*input, said)).filter(|_| row.kind == Kind::Answer)
}

/// In what a row is not what was said.
fn distorted(said: &Submission<'_>, row: &StoredRow) -> Option<String> {
    let position = row.position;
    if is_answer(said) != (row.kind == Kind::Answer) {
        return Some(format!("was taken for something else in row {position}"));
    }
    if said.digest != row.digest {
        return Some(format!("says something else in row {position}"));
    }
    match said.what {
        Said::Answer { question: Some(question) } if row.question.as_ref() != Some(question) => {
            Some(format!("answers another question in row {position}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Said, Seen, SessionSeen};

    #[test]
    fn one_row_for_each_input() {
        let once = vec![began(1), submitted("a", 1), durable(input_row(1, "a"))];
        assert_eq!(findings(&CHECKER, once.clone()), [""; 0]);
        let again = [once.clone(), vec![durable(input_row(1, "a"))]].concat();
        assert_eq!(findings(&CHECKER, again), [""; 0], "the same row is seen twice");
        let twice = [once, vec![durable(input_row(2, "a"))]].concat();
        assert_eq!(findings(&CHECKER, twice).len(), 1);
        assert_eq!(findings(&CHECKER, vec![began(1), durable(input_row(1, "b"))]).len(), 1);
    }

    #[test]
    fn never_both_accepted_and_rejected() {
        let said = || vec![began(1), submitted("a", 1)];
        let (yes, no) = (durable(input_row(1, "a")), refused("a"));
        assert_eq!(findings(&CHECKER, [said(), vec![no.clone()]].concat()), [""; 0]);
        for both in [vec![yes.clone(), no.clone()], vec![no.clone(), yes.clone()]] {
            assert_eq!(findings(&CHECKER, [said(), both].concat()).len(), 1);
        }
        let older = SessionSeen::StoreReplaced { client: 1 };
        let again = [said(), vec![no, older, yes.clone()]].concat();
        assert_eq!(findings(&CHECKER, again), [""; 0], "nobody remembers the rejection");
        let shown = [said(), vec![yes, rejected(1, "a")]].concat();
        assert_eq!(findings(&CHECKER, shown).len(), 1);
    }

    #[test]
    fn a_rejection_holds_as_long_as_it_is_remembered() {
        let limits = Limits { retain_rows: 2, ..Limits::NONE };
        let said = ["a", "b", "c"].map(|input| submitted(input, 1));
        let then = |next: &[SessionSeen]| {
            let seen = [&[began(1)], &said[..], next, &[durable(input_row(1, "a"))]].concat();
            bounded(&CHECKER, seen.into_iter().map(Seen::Session).collect(), limits)
        };
        // The same verdict once more is no other one.
        assert_eq!(then(&[refused("a"), refused("b"), refused("b")]).len(), 1);
        assert_eq!(then(&[refused("a"), refused("b"), refused("c")]), [""; 0]);
        let again = [refused("a"), refused("b"), refused("c"), refused("a")];
        assert_eq!(then(&again).len(), 1, "it was rejected anew");
    }

    #[test]
    fn an_answer_without_a_name_is_sent_while_its_question_is_open() {
        let answer = SessionSeen::Submitted {
            client: 1,
            input: "a".to_owned(),
            what: Said::Answer { question: None },
            digest: 7,
        };
        let asked = |position| asks(1, &question_row(position, "q"));
        let given = vec![began_base(1), asked(1), answer, input_sent(1, "a")];
        let again = |next| [given.clone(), next].concat();
        assert_eq!(findings(&CHECKER, again(vec![input_sent(2, "a")])), [""; 0]);
        assert_eq!(findings(&CHECKER, again(vec![asked(2), input_sent(2, "a")])).len(), 1);
    }

    #[test]
    fn a_row_is_what_was_said() {
        let message = vec![began(1), submitted("a", 2), durable(input_row(1, "a"))];
        assert_eq!(findings(&CHECKER, message).len(), 1);
        let answer =
            |question| vec![began(1), answered("a", 3, "q"), durable(answer_row(3, "a", question))];
        assert_eq!(findings(&CHECKER, answer("q")), [""; 0]);
        assert_eq!(findings(&CHECKER, answer("another")).len(), 1);
        let as_message = vec![began(1), answered("a", 1, "q"), durable(input_row(1, "a"))];
        assert_eq!(findings(&CHECKER, as_message).len(), 1);
    }
}
