//! Who is killed when, drawn from a seed.
//!
//! The seed draws the order of the victims and how long each is away; when a kill may happen is up to
//! the processes.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::Pace;
use super::engine::Look;

/// How long a process is away before it is started again, in milliseconds.
const AWAY_MS: std::ops::Range<u64> = 0..2_500;

/// Of so many kills of the engine one is certain to be the leader's, whoever that is.
const LEADER_ONE_OF: u32 = 2;

/// The end of a process, by `SIGKILL`, and its next life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) number: usize,
    /// How long it is away.
    pub(crate) away: Duration,
}

/// One kind of process: when the next of them is due.
#[derive(Debug)]
struct Due {
    rng: ChaCha12Rng,
    every: Duration,
    next: Duration,
}

impl Due {
    fn new(seed: u64, stream: u64, every: Duration) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        // The first comes after half of it, so that the last has some time before the end.
        Self { rng, every, next: every / 2 }
    }

    /// A kill that has come about: the next one is due after it, one that was late or not.
    fn kill(&mut self, number: usize) -> Kill {
        self.next += self.every;
        Kill { number, away: Duration::from_millis(self.rng.random_range(AWAY_MS)) }
    }
}

/// Says who is killed.
#[derive(Debug)]
pub(crate) struct Kills {
    servers: Due,
    engine: Due,
}

impl Kills {
    pub(crate) fn new(seed: u64, pace: Pace) -> Self {
        Self {
            servers: Due::new(seed, 0, pace.server_every),
            engine: Due::new(seed, 1, pace.engine_every),
        }
    }

    /// The server to be killed now, if it is time: one of those that run.
    pub(crate) fn server(&mut self, now: Duration, runs: &[bool]) -> Option<Kill> {
        let due = &mut self.servers;
        let running: Vec<usize> = (0..runs.len()).filter(|number| runs[*number]).collect();
        if now < due.next || running.is_empty() {
            return None;
        }
        let number = running[due.rng.random_range(0..running.len())];
        Some(due.kill(number))
    }

    /// The node of the engine to be killed now, if it is time: none as long as one of them is away
    /// or has not caught up.
    pub(crate) fn engine(&mut self, now: Duration, nodes: usize, look: Look) -> Option<Kill> {
        let due = &mut self.engine;
        if now < due.next || !look.whole {
            return None;
        }
        let (leader, any) =
            (due.rng.random_ratio(1, LEADER_ONE_OF), due.rng.random_range(0..nodes));
        let number = look.leader.filter(|_| leader).unwrap_or(any);
        Some(due.kill(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        server_every: Duration::from_secs(5),
        engine_every: Duration::from_secs(20),
        settle: Duration::from_secs(60),
    };

    const WHOLE: Look = Look { leader: Some(1), whole: true };

    /// Kills, and in which tenth of a second each was.
    type Timed = Vec<(u64, Kill)>;

    /// Two minutes, looked at ten times a second, with an engine that is whole at some of them.
    fn two_minutes(seed: u64, whole: impl Fn(u64) -> bool) -> (Timed, Timed) {
        let mut kills = Kills::new(seed, PACE);
        let (mut servers, mut engine) = (Timed::new(), Timed::new());
        for tenth in 0..1_200 {
            let now = Duration::from_millis(tenth * 100);
            servers.extend(kills.server(now, &[true; 3]).map(|kill| (tenth, kill)));
            let look = Look { whole: whole(tenth), ..WHOLE };
            engine.extend(kills.engine(now, 3, look).map(|kill| (tenth, kill)));
        }
        (servers, engine)
    }

    #[test]
    fn the_same_seed_kills_the_same_and_each_as_often_as_was_asked() {
        let (servers, engine) = two_minutes(1, |_| true);
        assert_eq!((servers.len(), engine.len()), (24, 6));
        assert_eq!((&servers, &engine), (&two_minutes(1, |_| true).0, &two_minutes(1, |_| true).1));
        assert_ne!(servers, two_minutes(2, |_| true).0);
        let hit =
            |kills: &[(u64, Kill)], number| kills.iter().any(|(_, kill)| kill.number == number);
        assert!((0..3).all(|number| hit(&servers, number)), "{servers:?}");
        assert!(hit(&engine, 1), "the leader: {engine:?}");
    }

    #[test]
    fn no_node_of_the_engine_is_killed_before_all_have_caught_up_and_late_kills_are_made_up_for() {
        let whole = |tenth: u64| !(95..=320).contains(&tenth);
        let (servers, engine) = two_minutes(1, whole);
        let times: Vec<u64> = engine.iter().map(|(tenth, _)| *tenth).collect();
        assert_eq!(times, [321, 322, 500, 700, 900, 1_100]);
        assert_eq!(servers, two_minutes(1, |_| true).0, "servers are killed as before");
        assert_eq!(two_minutes(1, |_| false).1, []);
    }

    #[test]
    fn a_server_that_is_away_is_not_killed() {
        for seed in 0..20 {
            let mut kills = Kills::new(seed, PACE);
            let kill = kills.server(PACE.server_every, &[false, true, false]).expect("it is time");
            assert_eq!(kill.number, 1);
            let late = PACE.server_every * 10;
            assert_eq!(kills.server(late, &[false; 3]), None);
            assert!(kills.server(late, &[true; 3]).is_some());
        }
    }
}
