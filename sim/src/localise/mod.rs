//! From when on a failing run could not have ended otherwise.
//!
//! The steps of its plan that were carried out until a time are kept, and the rest is redrawn:
//! the same hosts with the same options, another workload and other faults. How often the same
//! violation comes back over that time says where the run was lost. Where the share rises, there
//! is the step that matters. Once for each time the rest is left out instead: a violation that
//! comes back then needs nothing more to happen.
//!
//! How a plan is run is a matter of the caller, so that any implementation can be asked. The
//! answer depends on the plan only, and costs at most [`RUNS_MAX`] runs.

mod splice;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::splice::splice;
use crate::plan::{Plan, Step};
use crate::seed::Seed;
use crate::trace::{Fact, Kind};
use crate::world::Run;

/// At how many times the rest is redrawn at first, evenly over the steps.
pub const POINTS_MAX: usize = 16;

/// How many times more the place where the share rises most is looked into.
pub const REFINEMENTS_MAX: usize = 6;

/// How often the rest is redrawn for each time.
pub const DRAWS: u32 = 12;

/// How many runs an answer costs at most.
pub const RUNS_MAX: usize = (POINTS_MAX + REFINEMENTS_MAX) * (DRAWS as usize + 1);

/// From which share on a violation counts as inevitable, in percent.
const INEVITABLE_PERCENT: u32 = 90;

/// A failing run, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Failing {
    /// Its plan.
    pub plan: Plan,
    /// The steps that were carried out until the violation was seen, by number, with their times.
    pub steps: Vec<(usize, u64)>,
    /// When each mark was reached.
    pub marks: BTreeMap<String, Vec<u64>>,
}

impl Failing {
    /// What matters of a run that failed at a time.
    pub fn new(run: &Run, failed_ms: u64) -> Self {
        let before = run.trace.records.iter().filter(|record| record.at_ms <= failed_ms);
        let (mut steps, mut marks) = (Vec::new(), BTreeMap::<String, Vec<u64>>::new());
        for record in before {
            match (&record.fact, record.kind) {
                (Some(Fact::Step(step)), _) => steps.push((*step, record.at_ms)),
                (_, Kind::Mark) => {
                    let (mark, times) = record.mark();
                    let reached = marks.entry(mark.to_owned()).or_default();
                    reached.extend(std::iter::repeat_n(record.at_ms, times));
                }
                _ => {}
            }
        }
        Self { plan: run.plan.clone(), steps, marks }
    }
}

/// How likely the violation is, over what is kept of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Likelihood {
    /// Ascending in what is kept.
    pub points: Vec<Point>,
    /// How many runs it took.
    pub runs: usize,
}

/// What comes of keeping a part of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// How many of the steps that were carried out are kept.
    pub kept: usize,
    /// The last of them, by its number in the plan, and when it was carried out.
    pub last: Option<(usize, u64)>,
    /// In how many runs with another rest the violation came back; `None` if there is no other
    /// rest to be drawn.
    pub redrawn: Option<u32>,
    /// Whether it came back without any rest.
    pub alone: bool,
}

impl Point {
    /// In how many of a hundred runs the violation comes back.
    pub fn percent(&self) -> u32 {
        match (self.redrawn, self.alone) {
            (Some(recurred), _) => recurred * 100 / DRAWS,
            (None, true) => 100,
            (None, false) => 0,
        }
    }
}

impl Likelihood {
    /// The first point from which on the violation is inevitable, and the one before it.
    pub fn turn(&self) -> Option<(Option<&Point>, &Point)> {
        let open = self.points.iter().rposition(|point| point.percent() < INEVITABLE_PERCENT);
        let first = open.map_or(0, |open| open + 1);
        self.points.get(first).map(|point| (open.map(|open| &self.points[open]), point))
    }
}

/// Asks how likely the violation of a run is over what is kept of its plan.
///
/// `redraw` draws other steps for the same hosts and options, or none if the plan's scenario draws
/// nothing. `recurs` carries a plan out and says whether the violation came back; it is called on
/// up to `jobs` threads.
pub fn localise(
    failing: &Failing,
    redraw: &(dyn Fn(Seed) -> Option<Vec<Step>> + Sync),
    recurs: &(dyn Fn(&Plan) -> bool + Sync),
    jobs: usize,
) -> Likelihood {
    let all = failing.steps.len();
    let mut wanted: Vec<usize> = (0..POINTS_MAX).map(|nth| nth * all / (POINTS_MAX - 1)).collect();
    wanted.dedup();
    let ask = |wanted: &[usize]| points(failing, wanted, redraw, recurs, jobs);
    let (mut points, mut runs) = ask(&wanted);
    for _ in 0..REFINEMENTS_MAX {
        let Some(between) = steepest(&points) else { break };
        let (more, took) = ask(&[between]);
        points.extend(more);
        points.sort_by_key(|point| point.kept);
        runs += took;
    }
    Likelihood { points, runs }
}

/// The middle of the place where the share rises most, if there is a step between.
fn steepest(points: &[Point]) -> Option<usize> {
    let rises = points.windows(2).filter_map(|pair| {
        let [low, high] = pair else { return None };
        let rise = high.percent().saturating_sub(low.percent());
        (rise > 0 && high.kept - low.kept > 1).then_some((
            rise,
            std::cmp::Reverse(low.kept),
            low.kept.midpoint(high.kept),
        ))
    });
    rises.max().map(|(_, _, middle)| middle)
}

/// Asks for some points; and how many runs that took.
fn points(
    failing: &Failing,
    wanted: &[usize],
    redraw: &(dyn Fn(Seed) -> Option<Vec<Step>> + Sync),
    recurs: &(dyn Fn(&Plan) -> bool + Sync),
    jobs: usize,
) -> (Vec<Point>, usize) {
    let base = Seed(failing.plan.seed);
    let mut plans: Vec<(usize, bool, Plan)> = Vec::new();
    for (place, kept) in wanted.iter().enumerate() {
        plans.push((place, true, splice(failing, *kept, Vec::new())));
        for draw in 0..DRAWS {
            // The same other rests for each point, so that points differ in what is kept only.
            let Some(rest) = redraw(base.derive(u64::from(draw) + 1)) else { break };
            plans.push((place, false, splice(failing, *kept, rest)));
        }
    }
    let recurred = in_parallel(jobs, &plans, &|(_, _, plan)| recurs(plan));
    let points = wanted.iter().enumerate().map(|(place, kept)| {
        let of = |alone: bool| {
            let mine = plans.iter().zip(&recurred);
            mine.filter(move |(plan, _)| plan.0 == place && plan.1 == alone).map(|(_, is)| *is)
        };
        let drawn = of(false).count() > 0;
        Point {
            kept: *kept,
            last: kept.checked_sub(1).map(|last| failing.steps[last]),
            redrawn: drawn.then(|| of(false).map(u32::from).sum()),
            alone: of(true).any(|recurred| recurred),
        }
    });
    (points.collect(), plans.len())
}

/// Does something for each item on several threads; the results are in the order of the items.
fn in_parallel<T: Sync>(jobs: usize, items: &[T], what: &(dyn Fn(&T) -> bool + Sync)) -> Vec<bool> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<bool>> = Mutex::new(vec![false; items.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(nth) else { break };
                    let result = what(item);
                    done.lock().expect("no thread panics while it holds this")[nth] = result;
                }
            });
        }
    });
    done.into_inner().expect("no thread panics while it holds this")
}

#[cfg(test)]
mod tests;
