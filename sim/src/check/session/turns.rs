//! Turns are taken one at a time, in order, once.

use std::collections::{BTreeMap, BTreeSet};

use gapless::session::conversation::Kind;

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::{Seen, SessionSeen, StoredRow};

/// Whatever happens to the server.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "turns_are_single",
    statements: &["SE-3", "SE-12"],
    liveness: false,
    demands: "the turn of an input is run once, after that is durable, alone in its conversation, \
              an answer first and then in the order of the rows, and no message while a question \
              is open",
    check: Check::Session(check),
};

/// What is to be done in a conversation.
#[derive(Default)]
struct Agenda {
    seen: BTreeSet<u64>,
    question_is_open: bool,
    waiting: BTreeMap<u64, Kind>,
    /// What may have begun, for all that is known.
    in_doubt: BTreeSet<u64>,
    begun: BTreeSet<u64>,
    ran: BTreeSet<u64>,
    running: Option<u64>,
}

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.blind {
        return findings;
    }
    let mut agendas: BTreeMap<u32, Agenda> = BTreeMap::new();
    for entry in &facts.history.entries {
        let (user, wrong) = match &entry.what {
            Seen::Crashed { host } if host == "server" => {
                agendas.values_mut().for_each(|agenda| agenda.running = None);
                continue;
            }
            Seen::Session(SessionSeen::Durable { user, row }) => {
                agendas.entry(*user).or_default().learn(row);
                continue;
            }
            Seen::Session(SessionSeen::Over { user, position }) => {
                let agenda = agendas.entry(*user).or_default();
                agenda.running = agenda.running.filter(|running| running != position);
                continue;
            }
            Seen::Session(SessionSeen::Doubted { user, position }) => {
                // It may have begun, and be interrupted after a restart.
                agendas.entry(*user).or_default().in_doubt.insert(*position);
                continue;
            }
            Seen::Session(SessionSeen::Begun { user, position }) => {
                (user, agendas.entry(*user).or_default().begin(*position))
            }
            Seen::Session(SessionSeen::Ran { user, position }) => {
                (user, agendas.entry(*user).or_default().run(*position))
            }
            _ => continue,
        };
        if let Some(wrong) = wrong {
            findings.push(finding(entry.at_ms, None, format!("user-{user}: {wrong}")));
        }
    }
    findings
}

impl Agenda {
    fn learn(&mut self, row: &StoredRow) {
        if !self.seen.insert(row.position) {
            return;
        }
        match row.kind {
            Kind::Question => self.question_is_open = true,
            Kind::Answer => self.question_is_open = false,
            Kind::Message | Kind::Interrupted => {}
        }
        if row.input.is_some() {
            self.waiting.insert(row.position, row.kind);
        }
    }

    fn begin(&mut self, position: u64) -> Option<String> {
        let kind = self.waiting.remove(&position);
        // Who asks whether it has begun is told so again.
        if !self.begun.insert(position) || kind == Some(Kind::Answer) {
            return None;
        }
        if self.question_is_open {
            return Some(format!("the turn of {position} began while a question was open"));
        }
        let first = self.waiting.iter().find(|(waiting, kind)| {
            let comes_first = **kind == Kind::Answer || **waiting < position;
            comes_first && !self.in_doubt.contains(*waiting)
        });
        first.map(|(first, _)| format!("the turn of {position} began before that of {first}"))
    }

    fn run(&mut self, position: u64) -> Option<String> {
        let other = self.running.replace(position);
        if !self.ran.insert(position) {
            return Some(format!("the turn of {position} was run twice"));
        }
        if let Some(other) = other {
            return Some(format!("the turn of {position} was run during that of {other}"));
        }
        if !self.begun.contains(&position) {
            return Some(format!("the turn of {position} was run before that was durable"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::{Seen, SessionSeen};

    fn two() -> Vec<SessionSeen> {
        vec![durable(input_row(1, "a")), durable(input_row(2, "b"))]
    }

    fn of(turns: Vec<SessionSeen>) -> Vec<String> {
        findings(&CHECKER, [two(), turns].concat())
    }

    #[test]
    fn one_turn_after_the_other() {
        let right = vec![begun(1), ran(1), over(1), begun(2), ran(2), over(2)];
        assert_eq!(of(right), [""; 0]);
        assert_eq!(of(vec![begun(1), ran(1), begun(2), ran(2)]).len(), 1);
        assert_eq!(of(vec![begun(2), ran(2)]).len(), 1);
        let doubted = SessionSeen::Doubted { user: 1, position: 1 };
        assert_eq!(of(vec![doubted, begun(2), ran(2)]), [""; 0]);
        assert_eq!(of(vec![ran(1)]).len(), 1);
    }

    #[test]
    fn no_turn_twice_also_over_a_crash() {
        let session = |seen: Vec<SessionSeen>| seen.into_iter().map(Seen::Session);
        let with = |next: Vec<SessionSeen>| -> Vec<Seen> {
            let first = session([two(), vec![begun(1), ran(1)]].concat());
            first.chain([server_crash()]).chain(session(next)).collect()
        };
        assert_eq!(all(&CHECKER, with(vec![begun(2), ran(2)])), [""; 0]);
        assert_eq!(all(&CHECKER, with(vec![ran(1)])).len(), 1);
    }

    #[test]
    fn while_a_question_is_open_only_its_answer_has_a_turn() {
        let asked = || vec![begun(1), ran(1), durable(question_row(3, "q")), over(1)];
        assert_eq!(of([asked(), vec![begun(2)]].concat()).len(), 1);
        let answered = || [asked(), vec![durable(answer_row(4, "c", "q"))]].concat();
        assert_eq!(of([answered(), vec![begun(2)]].concat()).len(), 1);
        let right = [answered(), vec![begun(4), ran(4), over(4), begun(2), ran(2)]].concat();
        assert_eq!(of(right), [""; 0]);
    }
}
