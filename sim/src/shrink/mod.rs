//! Makes a failing plan small: the plan that remains still shows the same violation, and none of
//! its steps can be left out.
//!
//! Delta debugging over the steps comes first and again at the end of every round; in between the
//! time, the hosts, the numbers of the steps and the options are made simple, because that lets
//! further steps go. A candidate is taken only if it shows the same [`Symptom`]: another bug that
//! is met on the way is not followed. What a candidate shows is the caller's to find out, so that
//! plans can be shrunk that are carried out by another process.
//!
//! The same plan gives the same small plan. Only the bounds of [`Limits`] can end a search early,
//! and [`Shrunk::ended`] says so.

mod hosts;
mod options;
mod steps;
mod time;
mod work;

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::check::{Symptom, violations};
use crate::plan::{Action, Plan, When};
use crate::real_time::now;
use crate::world::{self, RunError};

/// What bounds a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long it takes at most; a run that has begun is waited for.
    pub time: Duration,
    /// How many candidates are carried out at most.
    pub runs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), runs: 20_000 }
    }
}

/// A plan that was made small.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// How many candidates were carried out.
    pub runs: u32,
    /// Why the search ended.
    pub ended: Ended,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing that is tried makes the plan any simpler; no step can be left out.
    Minimal,
    /// [`Limits::time`] was over.
    Time,
    /// [`Limits::runs`] were made.
    Runs,
}

/// A simpler plan was found.
#[derive(Debug, Clone, Copy)]
pub struct Improvement<'a> {
    /// The simplest plan so far.
    pub plan: &'a Plan,
    /// How many candidates were carried out.
    pub runs: u32,
}

/// Carries out a plan, and says which violations it shows.
pub type Look<'a> = dyn FnMut(&Plan) -> Vec<Symptom> + 'a;

/// Makes a plan small that shows a symptom: `look` carries out each candidate, `progress` is told
/// of each that is taken.
pub fn shrink(
    plan: &Plan,
    of: &Symptom,
    look: &mut Look<'_>,
    limits: Limits,
    progress: &mut dyn FnMut(Improvement<'_>),
) -> Shrunk {
    // What the scenario was about is nothing that the violation needs, nor how it was drawn.
    let plan = Plan { reaches: Vec::new(), drawn: None, ..plan.clone() };
    let began = now();
    let mut search = Search {
        plan,
        of: of.clone(),
        look,
        limits,
        began,
        runs: 0,
        refuted: BTreeSet::new(),
        progress,
        ended: None,
    };
    let ended = loop {
        let before = search.plan.clone();
        search.shorten();
        search.leave_out_steps();
        search.shorten();
        search.leave_out_hosts();
        search.bring_together();
        search.simplify_work();
        search.simplify_options();
        match search.ended {
            Some(ended) => break ended,
            None if search.plan == before => break Ended::Minimal,
            None => {}
        }
    };
    Shrunk { plan: search.plan, runs: search.runs, ended }
}

/// The violations that a plan shows in the simulated world.
///
/// # Errors
///
/// [`RunError`] if it cannot be carried out.
pub fn symptoms(plan: &Plan) -> Result<Vec<Symptom>, RunError> {
    let run = world::run_untraced(plan)?;
    let (safety, liveness) = violations(&run.history, plan);
    Ok(safety.iter().chain(&liveness).map(Symptom::of).collect())
}

/// The [`Look`] of the simulated world. If a known-bad variant is run, the symptom has to be its
/// doing: where the implementation as it is shows anything, nothing is seen.
pub fn look_for(plan: &Plan, of: &Symptom) -> Vec<Symptom> {
    // A candidate that breaks the simulation is no simpler way to the same violation.
    let found = symptoms(plan).unwrap_or_default();
    if plan.mutant.is_none() || !found.iter().any(|symptom| symptom.is_same(of)) {
        return found;
    }
    let reference = Plan { mutant: None, ..plan.clone() };
    match symptoms(&reference) {
        Ok(none) if none.is_empty() => found,
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// A search for a smaller plan.
struct Search<'a> {
    /// The simplest so far.
    plan: Plan,
    /// What it has to show, and when it did.
    of: Symptom,
    look: &'a mut Look<'a>,
    limits: Limits,
    began: std::time::Instant,
    runs: u32,
    /// The candidates that do not show it.
    refuted: BTreeSet<[u8; 32]>,
    progress: &'a mut dyn FnMut(Improvement<'_>),
    /// Set once a bound is reached: nothing is tried after it.
    ended: Option<Ended>,
}

impl Search<'_> {
    /// Takes a candidate if it shows the symptom.
    fn takes(&mut self, mut candidate: Plan) -> bool {
        tidy(&mut candidate);
        if self.ended.is_some() || candidate == self.plan || candidate.check().is_err() {
            return false;
        }
        let name = digest(&candidate);
        if self.refuted.contains(&name) {
            return false;
        }
        if self.runs >= self.limits.runs {
            self.ended = Some(Ended::Runs);
            return false;
        }
        if self.began.elapsed() >= self.limits.time {
            self.ended = Some(Ended::Time);
            return false;
        }
        self.runs += 1;
        let found = (self.look)(&candidate);
        let same = found.into_iter().filter(|symptom| symptom.is_same(&self.of));
        match same.min_by_key(|symptom| symptom.at_ms) {
            Some(first) => {
                self.of = first;
                self.plan = candidate;
                (self.progress)(Improvement { plan: &self.plan, runs: self.runs });
                true
            }
            None => {
                self.refuted.insert(name);
                false
            }
        }
    }

    /// Takes the plan as a change makes it, if it shows the symptom.
    fn takes_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut candidate = self.plan.clone();
        change(&mut candidate);
        self.takes(candidate)
    }
}

/// Leaves out what can never happen.
fn tidy(plan: &mut Plan) {
    let duration_ms = plan.duration_ms;
    plan.steps.retain(|step| match &step.when {
        When::At(at) => *at < duration_ms,
        When::Mark { after_ms, .. } => *after_ms < duration_ms,
    });
    let tasks = plan.tasks();
    plan.steps.retain(|step| match &step.action {
        Action::Cancel { task } | Action::Retry { task } => tasks.contains(task),
        _ => true,
    });
}

fn digest(plan: &Plan) -> [u8; 32] {
    let text = serde_json::to_vec(plan).expect("a plan is always JSON");
    Sha256::digest(text).into()
}

/// A number with its first two digits kept.
fn round(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

/// What a time is tried as that should be as short as possible, the boldest first. To the last
/// millisecond nobody wants to know it.
fn shorter(number: u64, least: u64) -> Vec<u64> {
    let excess = number.saturating_sub(least);
    let part = |quarters: u64| least + round(excess / 4 * quarters + excess % 4 * quarters / 4);
    decreasing(number, vec![least, part(1), part(2), part(3), round(number).max(least)])
}

/// What a count is tried as that should be as small as possible, the boldest first and one less
/// at last: how many it takes says something about the bug.
fn fewer(number: u64, least: u64) -> Vec<u64> {
    let mut numbers = vec![least];
    let mut less = number.saturating_sub(least) / 2;
    while less > 0 {
        numbers.push(number - less);
        less /= 2;
    }
    decreasing(number, numbers)
}

fn decreasing(number: u64, mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.dedup();
    numbers.retain(|smaller| *smaller < number);
    numbers
}

#[cfg(test)]
mod tests;
