//! Makes what the steps do simple: fewer and smaller things, for a shorter time.

use super::{Search, fewer, shorter};
use crate::plan::{
    Action, Cut, EngineFault, Fault, Protocol, Publish, Say, Script, Step, Submit, Text,
    TurnScript, When,
};

impl Search<'_> {
    /// Simplifies all steps at once, or each as a whole, or its numbers one by one.
    pub(super) fn simplify_work(&mut self) {
        self.takes_with(|plan| plan.steps.iter_mut().for_each(simplest));
        for index in (0..self.plan.steps.len()).rev() {
            self.takes_with(|plan| simplest(&mut plan.steps[index]));
        }
        let mut index = self.plan.steps.len();
        while let Some(before) = index.checked_sub(1) {
            index = before;
            self.simplify_step(index);
            index = index.min(self.plan.steps.len());
        }
    }

    fn simplify_step(&mut self, index: usize) {
        let mut nth = 0;
        while let Some(simpler) = self.choice(index, nth) {
            if !self.takes_with(|plan| plan.steps[index].action = simpler) {
                nth += 1;
            }
        }
        let mut nth = 0;
        while let Some(smaller) = self.number(index, nth) {
            let taken = smaller
                .into_iter()
                .any(|number| self.takes_with(|plan| set(&mut plan.steps[index], nth, number)));
            if !taken {
                nth += 1;
            }
        }
    }

    /// What a step could do instead, the nth of it.
    fn choice(&self, index: usize, nth: usize) -> Option<Action> {
        let action = &self.plan.steps.get(index)?.action;
        match (action, self.plan.options.protocol()) {
            (Action::Work(work), Protocol::Custom(protocol)) => {
                protocol.simpler(work).into_iter().nth(nth).map(Action::Work)
            }
            _ => choices(action).into_iter().nth(nth),
        }
    }

    /// What the nth number of a step is tried as; `None` if it has no such number.
    fn number(&self, index: usize, nth: usize) -> Option<Vec<u64>> {
        let mut step = self.plan.steps.get(index)?.clone();
        let (place, least) = numbers(&mut step).into_iter().nth(nth)?;
        Some(match place {
            Place::Count(count) => fewer(u64::from(*count), least),
            Place::Long(count) => fewer(*count, least),
            Place::Time(ms) => shorter(*ms, least),
        })
    }
}

/// Where a number of a step stands.
enum Place<'a> {
    /// A count.
    Count(&'a mut u32),
    /// A count that may be large.
    Long(&'a mut u64),
    /// A time, in milliseconds.
    Time(&'a mut u64),
}

impl Place<'_> {
    fn get(&self) -> u64 {
        match self {
            Self::Count(number) => u64::from(**number),
            Self::Long(number) | Self::Time(number) => **number,
        }
    }

    fn set(self, to: u64) {
        match self {
            Self::Count(number) => *number = u32::try_from(to).unwrap_or(u32::MAX),
            Self::Long(number) | Self::Time(number) => *number = to,
        }
    }
}

/// Sets the nth number of a step.
fn set(step: &mut Step, nth: usize, to: u64) {
    let first = match &step.action {
        Action::Submit(submit) => Some(submit.task(1)),
        _ => None,
    };
    if let Some((place, _)) = numbers(step).into_iter().nth(nth) {
        place.set(to);
    }
    // Of several tasks the first remains, by its name.
    if let (Action::Submit(submit), Some(first)) = (&mut step.action, first)
        && submit.count == 1
    {
        submit.name = first;
    }
}

/// The step as simple as it can be.
fn simplest(step: &mut Step) {
    while let Some(simpler) = choices(&step.action).into_iter().next() {
        step.action = simpler;
    }
    for nth in 0..numbers(step).len() {
        if let Some((place, least)) = numbers(step).into_iter().nth(nth)
            && place.get() > least
        {
            set(step, nth, least);
        }
    }
}

/// How short a fault that lasts, or a restart, is made.
const LASTS_MS: u64 = 100;

/// The numbers of a step, each with the least that it is made. What is less already stays.
fn numbers(step: &mut Step) -> Vec<(Place<'_>, u64)> {
    use Place::{Count, Time};
    let mut places = match &mut step.when {
        When::At(_) => Vec::new(),
        When::Mark { nth, after_ms, .. } => vec![(Count(nth), 1), (Time(after_ms), 0)],
    };
    match &mut step.action {
        Action::Publish(Publish { count, every_ms, bytes, .. }) => {
            places.extend([(Count(count), 1), (Time(every_ms), 0), (Count(bytes), 16)]);
        }
        Action::Submit(Submit { count, every_ms, script, .. }) => {
            places.extend([(Count(count), 1), (Time(every_ms), 0)]);
            let Script { stdout, stderr, bytes, every_ms, .. } = script;
            places.extend([(Count(stdout), 0), (Count(stderr), 0), (Count(bytes), 40)]);
            places.push((Time(every_ms), 0));
        }
        Action::Say(Say { count, every_ms, bytes, attachments, script, .. }) => {
            places.extend([(Count(count), 1), (Time(every_ms), 0), (Count(bytes), 16)]);
            places.push((Count(attachments), 0));
            let TurnScript { progress, say, bytes, each_ms, asks, .. } = script;
            places.extend([(Count(progress), 0), (Count(say), 1), (Count(bytes), 16)]);
            places.extend([(Time(each_ms), 50), (Count(asks), 0)]);
        }
        Action::Cancel { .. }
        | Action::Retry { .. }
        | Action::Refresh { .. }
        | Action::Reconnect { .. }
        | Action::Work(_) => {}
        Action::Fault(fault) => places.extend(numbers_of_fault(fault)),
    }
    places
}

fn numbers_of_fault(fault: &mut Fault) -> Vec<(Place<'_>, u64)> {
    use Place::{Count, Long, Time};
    match fault {
        Fault::Cut { after_frames, for_ms, .. } => {
            let mut places = vec![(Time(for_ms), 0)];
            places.extend(after_frames.as_mut().map(|frames| (Count(frames), 0)));
            places
        }
        Fault::Latency { latency_ms, for_ms, .. } => {
            vec![(Time(latency_ms), LASTS_MS), (Time(for_ms), LASTS_MS)]
        }
        Fault::SlowReader { pause_ms, for_ms, .. } => {
            let mut places = vec![(Time(for_ms), LASTS_MS)];
            places.extend(pause_ms.as_mut().map(|pause| (Time(pause), LASTS_MS)));
            places
        }
        Fault::SlowCommit { each_ms, for_ms, .. } | Fault::SlowHandler { each_ms, for_ms, .. } => {
            vec![(Time(each_ms), LASTS_MS), (Time(for_ms), LASTS_MS)]
        }
        Fault::Hold { for_ms, .. }
        | Fault::Partition { for_ms, .. }
        | Fault::Refuse { for_ms, .. }
        | Fault::NeverAnswer { for_ms, .. }
        | Fault::DiskFull { for_ms, .. }
        | Fault::ClockDrift { for_ms, .. }
        | Fault::Suspend { for_ms, .. } => vec![(Time(for_ms), LASTS_MS)],
        Fault::PowerOff { after_ops, restart_ms, .. } => {
            vec![(Long(after_ops), 0), (Time(restart_ms), LASTS_MS)]
        }
        Fault::DiskError { after_ops, count, .. } => vec![(Long(after_ops), 0), (Count(count), 1)],
        Fault::Crash { restart_ms, .. }
        | Fault::Restore { restart_ms, .. }
        | Fault::Swap { restart_ms, .. }
        | Fault::LoseStore { restart_ms, .. } => vec![(Time(restart_ms), LASTS_MS)],
        Fault::FailHandler { times, .. }
        | Fault::FailOpenHandler { times, .. }
        | Fault::LoseAnswer { times, .. } => vec![(Count(times), 1)],
        Fault::Duplicate { frames, .. } | Fault::Lose { frames, .. } => vec![(Count(frames), 1)],
        Fault::Retain { keep, .. } => vec![(Long(keep), 0)],
        Fault::Engine(fault) => match fault {
            EngineFault::Election { for_ms, .. }
            | EngineFault::StaleLeader { for_ms, .. }
            | EngineFault::Isolate { for_ms, .. }
            | EngineFault::LagFollow { for_ms, .. }
            | EngineFault::Full { for_ms } => vec![(Time(for_ms), LASTS_MS)],
            EngineFault::LateWrite { times, after_ms } => {
                vec![(Count(times), 1), (Time(after_ms), LASTS_MS)]
            }
            EngineFault::LoseAck { times } | EngineFault::DoubleWrite { times } => {
                vec![(Count(times), 1)]
            }
            EngineFault::Redeliver { messages, .. } => vec![(Count(messages), 1)],
            EngineFault::BreakFollow { .. } => Vec::new(),
        },
        Fault::ClockStep { .. }
        | Fault::Backup { .. }
        | Fault::Answer { .. }
        | Fault::Inject { .. } => Vec::new(),
    }
}

/// What an action could be instead, each with one thing less.
fn choices(action: &Action) -> Vec<Action> {
    match action {
        Action::Publish(publish) => simpler(
            publish,
            &[|publish| publish.twice = false, |publish| publish.ids = true],
            Action::Publish,
        ),
        Action::Submit(submit) => simpler(
            submit,
            &[
                |submit| submit.twice = false,
                |submit| submit.priority = 0,
                |submit| submit.script.text = Text::Plain,
                |submit| submit.script.exit = 0,
            ],
            Action::Submit,
        ),
        Action::Say(say) => {
            simpler(say, &[|say| say.same = false, |say| say.script.fails = false], Action::Say)
        }
        Action::Fault(fault) => simpler(
            fault,
            &[
                |fault| {
                    if let Fault::Cut { how, .. } = fault {
                        *how = Cut::Reset;
                    }
                },
                |fault| {
                    if let Fault::Cut { after_frames, .. } = fault {
                        *after_frames = None;
                    }
                },
                |fault| {
                    if let Fault::PowerOff { torn_percent, .. } = fault {
                        *torn_percent = None;
                    }
                },
            ],
            Action::Fault,
        ),
        Action::Cancel { .. }
        | Action::Retry { .. }
        | Action::Refresh { .. }
        | Action::Reconnect { .. }
        // Only its protocol knows.
        | Action::Work(_) => Vec::new(),
    }
}

/// What each change makes of something, as far as it makes a difference.
fn simpler<T: Clone + PartialEq>(
    from: &T,
    changes: &[fn(&mut T)],
    action: fn(T) -> Action,
) -> Vec<Action> {
    let changed = changes.iter().map(|change| {
        let mut changed = from.clone();
        change(&mut changed);
        changed
    });
    changed.filter(|changed| changed != from).map(action).collect()
}
