//! Many cases, on several threads.
//!
//! Each thread has processes of its own, which go from case to case; a case depends on nothing but
//! its scenario and its seed, so the number of threads makes no difference. What comes of the cases
//! is taken down in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::node::NodeError;
use super::outcome::Outcome;
use super::profile::{Fit, Profile};
use super::protocol::{Hello, Role};
use super::suite::{Played, SEATS_MAX, Source, Verdicted, attach_again, play};
use super::summary::Tally;
use crate::plan::Plan;
use crate::scenario::{Scenario, draw};
use crate::seed::Seed;
use crate::trace::Trace;
use crate::world::Attached;

/// One case in so many is played again in fresh processes, and at least one.
pub const REPEAT_EVERY: usize = 50;

/// How often an adapter may fail where no expectation covers it. The cases behind that are not
/// played.
pub const ADAPTER_FAILURES_MAX: usize = 10;

/// How often [`Progress::waited`] is called at least.
const WAIT: Duration = Duration::from_millis(250);

/// What is played once.
#[derive(Debug, Clone, Copy)]
pub enum Case<'a> {
    /// A scenario with a seed.
    Scenario(&'a Scenario, Seed),
    /// A plan that somebody has kept.
    Plan(&'a Plan),
}

impl Case<'_> {
    /// The id of its scenario.
    pub fn id(&self) -> &str {
        match self {
            Self::Scenario(scenario, _) => &scenario.id,
            Self::Plan(plan) => &plan.scenario,
        }
    }

    /// Its seed.
    pub fn seed(&self) -> Seed {
        match self {
            Self::Scenario(_, seed) => *seed,
            Self::Plan(plan) => Seed(plan.seed),
        }
    }

    /// The statements that it is about.
    pub fn statements(&self) -> &[String] {
        match self {
            Self::Scenario(scenario, _) => &scenario.statements,
            Self::Plan(plan) => &plan.statements,
        }
    }

    /// Whether what does not apply to the implementation is left out of it. Of a fixed scenario
    /// nothing is.
    pub fn is_drawn(&self) -> bool {
        match self {
            Self::Scenario(scenario, _) => scenario.swarm.is_some(),
            Self::Plan(_) => true,
        }
    }

    /// What is to happen.
    pub fn plan(&self) -> Plan {
        match self {
            Self::Scenario(scenario, seed) => draw(scenario, *seed),
            Self::Plan(plan) => (*plan).clone(),
        }
    }
}

/// What is played.
#[derive(Debug, Clone)]
pub struct Suite<'a> {
    /// The part that the implementation plays.
    pub role: Role,
    /// Where its nodes come from.
    pub source: &'a Source,
    /// How it introduced itself.
    pub hello: &'a Hello,
    /// The cases.
    pub cases: Vec<Case<'a>>,
    /// How many threads play.
    pub jobs: usize,
}

/// Is told how it gets on, from the thread that started it, in the order of the cases.
pub trait Progress {
    /// A case was played.
    fn ended(&mut self, outcome: &Outcome, tally: &Tally<'_>);

    /// Some time has passed.
    fn waited(&mut self, tally: &Tally<'_>);
}

/// The cases of scenarios: fixed ones once with the base as their seed, what was frozen with the seed
/// with which it was found, and `seeds` of the swarms, dealt round-robin.
pub fn cases(scenarios: &[Scenario], base: Seed, seeds: u64) -> Vec<Case<'_>> {
    let fixed = scenarios.iter().filter(|scenario| scenario.swarm.is_none());
    let fixed = fixed.map(|scenario| {
        let found = scenario.frozen.as_ref().map_or(base, |frozen| frozen.seed);
        Case::Scenario(scenario, found)
    });
    let swarms: Vec<&Scenario> =
        scenarios.iter().filter(|scenario| scenario.swarm.is_some()).collect();
    // Without swarms there is nothing that takes a seed.
    let dealt = swarms.iter().cycle().zip(0..seeds);
    fixed.chain(dealt.map(|(scenario, k)| Case::Scenario(scenario, base.derive(k)))).collect()
}

impl Suite<'_> {
    /// Plays everything. The tally holds what came of it; the outcomes are returned in the order of
    /// the cases. `first` is made use of by the first thread.
    pub fn play(
        &self,
        first: Attached,
        tally: &mut Tally<'_>,
        progress: &mut dyn Progress,
    ) -> Vec<Outcome> {
        let sample = self.sample();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        // Bounded, so that a slow reader holds the threads up instead of filling the memory.
        let (send, receive) = mpsc::sync_channel(64);
        let mut first = Some(first);
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                let (send, next, stop, sample) = (send.clone(), &next, &stop, &sample);
                let mut worker = Worker { suite: self, attached: first.take() };
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = self.cases.get(index) else { break };
                        let (_, outcome) = worker.play(case, sample.contains(&index));
                        if send.send(Message::Played(index, Box::new(outcome))).is_err() {
                            return;
                        }
                    }
                    if let Err(error) = worker.finish() {
                        // Nobody hears it only if everything is over.
                        let _ = send.send(Message::Problem(error));
                    }
                });
            }
            drop(send);
            let mut early: BTreeMap<usize, Outcome> = BTreeMap::new();
            loop {
                match receive.recv_timeout(WAIT) {
                    Ok(Message::Played(index, outcome)) => {
                        early.insert(index, *outcome);
                        while let Some(outcome) = early.remove(&taken.len()) {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let outcome = tally.take(outcome);
                            progress.ended(&outcome, tally);
                            taken.push(outcome);
                            if tally.adapter_failures() > ADAPTER_FAILURES_MAX {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                    Ok(Message::Problem(error)) => tally.problem(&error),
                    Err(mpsc::RecvTimeoutError::Timeout) => progress.waited(tally),
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        tally.not_run(self.cases.len() - taken.len());
        taken
    }

    /// Plays the first case on this thread, twice, and returns also what is too large to keep of many.
    /// The caller takes the outcome down.
    ///
    /// # Errors
    ///
    /// What is wrong when nothing more is asked.
    pub fn play_first(&self, first: Attached) -> Option<(Played, Outcome, Result<(), NodeError>)> {
        let case = self.cases.first()?;
        let mut worker = Worker { suite: self, attached: Some(first) };
        let (played, outcome) = worker.play(case, true);
        Some((played, outcome, worker.finish()))
    }

    /// Which cases are played again: one in [`REPEAT_EVERY`] of those that can be played at all.
    fn sample(&self) -> BTreeSet<usize> {
        let profile = Profile::new(self.role, self.hello);
        let runs = |case: &Case<'_>| {
            case.is_drawn() || matches!(profile.fit(&case.plan(), false), Fit::Runs { .. })
        };
        let playable: Vec<usize> =
            (0..self.cases.len()).filter(|at| runs(&self.cases[*at])).collect();
        // Others for another base.
        let among = playable.len().clamp(1, REPEAT_EVERY) as u64;
        let begin = self.cases.first().map_or(0, |case| case.seed().derive(0).0 % among);
        let begin = usize::try_from(begin).unwrap_or(0);
        playable.into_iter().skip(begin).step_by(REPEAT_EVERY).collect()
    }
}

/// What a thread has to say.
enum Message {
    Played(usize, Box<Outcome>),
    Problem(NodeError),
}

/// What one thread plays with.
struct Worker<'a> {
    suite: &'a Suite<'a>,
    attached: Option<Attached>,
}

impl Worker<'_> {
    fn fresh(&self) -> Result<Attached, NodeError> {
        attach_again(self.suite.role, self.suite.source, self.suite.hello, SEATS_MAX)
    }

    fn play(&mut self, case: &Case<'_>, again: bool) -> (Played, Outcome) {
        let attached = match self.attached.take().map_or_else(|| self.fresh(), Ok) {
            Ok(attached) => attached,
            Err(error) => {
                let played = failed(error);
                let outcome = outcome(case, &played);
                return (played, outcome);
            }
        };
        let played = guarded(&attached, case);
        let mut outcome = outcome(case, &played);
        // A process in which something went wrong plays no other case.
        if outcome.cause.is_none() {
            self.attached = Some(attached);
        }
        if let Some(run) = played.run.as_ref().filter(|_| again) {
            self.play_again(case, &run.trace, &mut outcome);
        }
        (played, outcome)
    }

    /// Plays a case in fresh processes, where everything has to go as it did before.
    fn play_again(&self, case: &Case<'_>, before: &Trace, outcome: &mut Outcome) {
        let (second, ended) = match self.fresh() {
            Ok(attached) => {
                let second = guarded(&attached, case);
                (second, attached.finish())
            }
            Err(error) => (failed(error), Ok(())),
        };
        match (&second.run, ended) {
            (Some(_), Err(error)) => {
                outcome.findings.clear();
                outcome.judge(&Verdicted::Error(error.to_string()), Some(&error));
            }
            (Some(run), Ok(())) => match difference(before, &run.trace) {
                None => outcome.repeated = true,
                Some(difference) => {
                    outcome.findings.clear();
                    outcome.judge(&Verdicted::Nondeterminism(difference), None);
                }
            },
            (None, _) => {
                outcome.findings.clear();
                outcome.judge(&second.verdict, second.error.as_ref());
                let problem = outcome.problem.take().unwrap_or_default();
                outcome.problem = Some(format!("in a fresh process, and only there: {problem}"));
            }
        }
    }

    fn finish(self) -> Result<(), NodeError> {
        self.attached.map_or(Ok(()), |attached| attached.finish())
    }
}

fn outcome(case: &Case<'_>, played: &Played) -> Outcome {
    Outcome::new(case.id(), case.seed().0, case.is_drawn(), case.statements(), played)
}

fn failed(error: NodeError) -> Played {
    let verdict = Verdicted::Error(error.to_string());
    let (left_out, last) = (Vec::new(), Vec::new());
    Played { verdict, left_out, run: None, error: Some(error), last }
}

/// Plays a case. A panic that gets through to here is one of the checkers, which have never seen such
/// a history.
fn guarded(attached: &Attached, case: &Case<'_>) -> Played {
    let played = catch_unwind(AssertUnwindSafe(|| play(attached, &case.plan(), case.is_drawn())));
    played.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let problem = format!("panic: {}", said.unwrap_or("without a message"));
        let (left_out, last) = (Vec::new(), Vec::new());
        Played { verdict: Verdicted::Error(problem), left_out, run: None, error: None, last }
    })
}

/// Where two traces part, as a sentence.
pub fn difference(one: &Trace, another: &Trace) -> Option<String> {
    let same = one.records.iter().zip(&another.records).take_while(|(one, other)| one == other);
    let at = same.count();
    let line =
        |trace: &Trace| trace.records.get(at).map_or("(ends here)".to_owned(), ToString::to_string);
    (at < one.records.len() || at < another.records.len()).then(|| {
        format!(
            "the same case went differently in a fresh process: line {} of the trace was `{}`, and \
             then `{}`",
            at + 1,
            line(one),
            line(another)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Library;

    fn scenarios(ids: &[&str]) -> Vec<Scenario> {
        let library = Library::embedded();
        ids.iter().map(|id| library.get(id).expect("embedded")).collect()
    }

    #[test]
    fn fixed_scenarios_are_played_once_and_swarms_share_the_seeds() {
        let scenarios = scenarios(&["events/server-restart", "events/swarm", "session/swarm"]);
        let dealt: Vec<(String, Seed)> = cases(&scenarios, Seed(7), 3)
            .into_iter()
            .map(|case| (case.id().to_owned(), case.seed()))
            .collect();
        let drawn = |k| Seed(7).derive(k);
        assert_eq!(
            dealt,
            [
                ("events/server-restart".to_owned(), Seed(7)),
                ("events/swarm".to_owned(), drawn(0)),
                ("session/swarm".to_owned(), drawn(1)),
                ("events/swarm".to_owned(), drawn(2)),
            ]
        );
        assert_eq!(cases(&scenarios[..1], Seed(7), 3).len(), 1);
    }
}
