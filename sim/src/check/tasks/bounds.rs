//! What grows has a bound.

use super::{Check, Checker, Facts, Finding, finding};
use crate::history::TaskSeen;
use crate::world::HELLO_BYTES_MAX;

/// The agent's database on the disk, its queue, and its hello.
pub(in crate::check) const CHECKER: Checker = Checker {
    name: "bounds_hold",
    statements: &["TK-5", "TK-6", "TK-7", "CORE-12"],
    liveness: false,
    demands: "an agent's database and log stay below the cap, its queue and its hello below theirs",
    check: Check::Tasks(check),
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, at_ms, seen) in facts.seen() {
        match seen {
            TaskSeen::Spool { agent, bytes, cap } if bytes > cap => {
                let message = format!("the store of agent-{agent} takes {bytes} bytes of {cap}");
                findings.push(finding(at_ms, Some(*agent), message));
            }
            TaskSeen::Waiting { agent, count, max } if count > max => {
                let message = format!("{count} attempts wait at agent-{agent}, and {max} may");
                findings.push(finding(at_ms, Some(*agent), message));
            }
            TaskSeen::Hello { agent, bytes, .. } if *bytes > HELLO_BYTES_MAX => {
                let message = format!("a hello of agent-{agent} has {bytes} bytes");
                findings.push(finding(at_ms, Some(*agent), message));
            }
            _ => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::CHECKER;
    use crate::history::TaskSeen;

    #[test]
    fn what_is_beyond_its_bound_is_found() {
        let spool = |bytes| vec![TaskSeen::Spool { agent: 1, bytes, cap: 10 }];
        assert_eq!(tasks(&CHECKER, spool(10)), [""; 0]);
        assert_eq!(tasks(&CHECKER, spool(11)).len(), 1);
        let queue = |count| vec![TaskSeen::Waiting { agent: 1, count, max: 2 }];
        assert_eq!(tasks(&CHECKER, queue(2)), [""; 0]);
        assert_eq!(tasks(&CHECKER, queue(3)).len(), 1);
    }
}
