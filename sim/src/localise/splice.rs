//! The beginning of one plan with the rest of another.

use super::Failing;
use crate::plan::{Action, Fault, Plan, Step, When};

/// When a step is due that is never carried out.
const NEVER_MS: u64 = u64::MAX;

/// The first `kept` steps that were carried out, and after them those of another draw.
///
/// Steps keep their numbers, because what they publish is named after these. A mark for which a
/// redrawn step waits is counted from where the rest begins.
pub(super) fn splice(failing: &Failing, kept: usize, rest: Vec<Step>) -> Plan {
    let mut plan = failing.plan.clone();
    let kept = &failing.steps[..kept];
    for (number, step) in plan.steps.iter_mut().enumerate() {
        if !kept.iter().any(|(kept, _)| *kept == number) {
            step.when = When::At(NEVER_MS);
        }
    }
    // Of several that happen at one time the rest begins after the last.
    let from_ms = kept.last().map_or(0, |(_, at_ms)| at_ms + 1);
    let holds = failing.plan.steps.iter().any(|step| is_hold(&step.action));
    let partitions = failing.plan.steps.iter().any(|step| is_partition(&step.action));
    let mut rest: Vec<Step> =
        rest.into_iter().filter_map(|step| later(failing, from_ms, step)).collect();
    // What is held is never delivered across a repair, so a run has one or the other.
    rest.retain(|step| {
        !(holds && is_partition(&step.action) || partitions && is_hold(&step.action))
    });
    rest.iter_mut().for_each(|step| rename(&mut step.action));
    plan.steps.extend(rest);
    // Whoever gives a task may have come before the rest. The plan's own steps are all there.
    let known = plan.tasks();
    plan.steps.retain(|step| match &step.action {
        Action::Cancel { task } | Action::Retry { task } => known.contains(task),
        _ => true,
    });
    plan
}

/// A step of the rest, if it comes after the beginning.
fn later(failing: &Failing, from_ms: u64, mut step: Step) -> Option<Step> {
    match &mut step.when {
        When::At(at_ms) => (*at_ms >= from_ms).then_some(step),
        When::Mark { mark, nth, .. } => {
            let reached = failing.marks.get(mark.as_str()).map_or(&[][..], Vec::as_slice);
            let before = reached.iter().filter(|at_ms| **at_ms < from_ms).count();
            *nth = nth.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
            Some(step)
        }
    }
}

/// Tasks of the rest are other tasks.
fn rename(action: &mut Action) {
    match action {
        Action::Submit(submit) => submit.name = format!("r{}", submit.name),
        Action::Cancel { task } | Action::Retry { task } => *task = format!("r{task}"),
        Action::Publish(_)
        | Action::Say(_)
        | Action::Refresh { .. }
        | Action::Reconnect { .. }
        | Action::Work(_)
        | Action::Fault(_) => {}
    }
}

fn is_hold(action: &Action) -> bool {
    matches!(action, Action::Fault(Fault::Hold { .. }))
}

fn is_partition(action: &Action) -> bool {
    matches!(action, Action::Fault(Fault::Partition { .. }))
}
