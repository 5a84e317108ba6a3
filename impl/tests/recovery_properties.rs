//! Properties of the recovery blocks, each against a model that is too simple to be wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use gapless::recovery::{
    Backoff, BackoffConfig, Cursor, Entropy, Epoch, EpochStart, Generation, Generations, Instant,
    InvalidEpoch, Lineage, Liveness, LivenessAction, LivenessConfig, Observed, ReplayRing,
    RingAnswer, RingLimits, SeenIds, SequenceTracker, Timers, Verdict, WallTime,
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// A failure prints its smallest input; it is kept as a named test of its own, not in a file of seeds.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

mod ring {
    use super::*;

    prop_state_machine! {
        #![proptest_config(config(768))]

        #[test]
        fn ring_keeps_and_answers_what_a_plain_list_would(sequential 1..40 => RingTest);
    }

    /// What is kept, as a list; the item of an entry is the number of its push.
    #[derive(Clone, Debug)]
    struct Model {
        limits: RingLimits,
        now: u64,
        pushes: u32,
        kept: Vec<ModelEntry>,
        last: u64,
    }

    #[derive(Clone, Debug)]
    struct ModelEntry {
        sequence: u64,
        bytes: usize,
        pushed: u64,
        item: u32,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Advance { ms: u64 },
        Push { sequence: u64, bytes: usize },
        PruneAge,
        PruneThrough { sequence: u64 },
        Clear,
    }

    impl Model {
        fn keep(&mut self, wanted: impl Fn(&Self, &ModelEntry) -> bool) {
            let kept = self.kept.iter().filter(|entry| wanted(self, entry));
            self.kept = kept.cloned().collect();
        }

        /// The longest run up to the newest that is within the limits, at least the newest itself.
        fn within_limits(&self) -> Vec<ModelEntry> {
            let fits = |run: &[ModelEntry]| {
                let bytes: usize = run.iter().map(|entry| entry.bytes).sum();
                run.len() <= 1 || (run.len() <= self.limits.count && bytes <= self.limits.bytes)
            };
            let start = (0..self.kept.len()).find(|&start| fits(&self.kept[start..]));
            self.kept[start.unwrap_or(0)..].to_vec()
        }

        fn answer(&self, after: u64) -> RingAnswer {
            let is_kept = |wanted| self.kept.iter().any(|entry| entry.sequence == wanted);
            if after > self.last {
                RingAnswer::Ahead { last: self.last }
            } else if after == self.last {
                RingAnswer::UpToDate
            } else if (after + 1..=self.last).all(is_kept) {
                RingAnswer::Replay { from: after + 1, to: self.last }
            } else {
                RingAnswer::TooOld { oldest: self.kept.first().map(|entry| entry.sequence) }
            }
        }
    }

    impl ReferenceStateMachine for Model {
        type State = Self;
        type Transition = Step;

        fn init_state() -> BoxedStrategy<Self> {
            (0_usize..8, 0_usize..60, prop::option::of(0_u64..30), 0_u64..5)
                .prop_map(|(count, bytes, age_ms, last)| Self {
                    limits: RingLimits { count, bytes, age: age_ms.map(ms) },
                    now: 0,
                    pushes: 0,
                    kept: Vec::new(),
                    last,
                })
                .boxed()
        }

        fn transitions(state: &Self) -> BoxedStrategy<Step> {
            let last = state.last;
            prop_oneof![
                12 => (0_usize..20).prop_map(move |bytes| Step::Push { sequence: last + 1, bytes }),
                1 => (1..last + 4, 0_usize..20)
                    .prop_map(|(sequence, bytes)| Step::Push { sequence, bytes }),
                4 => (0_u64..15).prop_map(|ms| Step::Advance { ms }),
                3 => Just(Step::PruneAge),
                2 => (0..last + 4).prop_map(|sequence| Step::PruneThrough { sequence }),
                1 => Just(Step::Clear),
            ]
            .boxed()
        }

        fn apply(mut state: Self, step: &Step) -> Self {
            match *step {
                Step::Advance { ms } => state.now += ms,
                Step::Push { sequence, bytes } => {
                    if sequence != state.last + 1 {
                        state.kept.clear();
                    }
                    state.pushes += 1;
                    state.last = sequence;
                    state.kept.push(ModelEntry {
                        sequence,
                        bytes,
                        pushed: state.now,
                        item: state.pushes,
                    });
                    state.kept = state.within_limits();
                }
                Step::PruneAge => state.keep(|state, entry| {
                    let age = ms(state.now - entry.pushed);
                    state.limits.age.is_none_or(|limit| age <= limit)
                }),
                Step::PruneThrough { sequence } => state.keep(|_, entry| entry.sequence > sequence),
                Step::Clear => state.kept.clear(),
            }
            state
        }
    }

    struct RingTest;

    impl StateMachineTest for RingTest {
        type SystemUnderTest = ReplayRing<u32>;
        type Reference = Model;

        fn init_test(model: &Model) -> ReplayRing<u32> {
            match model.last {
                0 => ReplayRing::new(model.limits),
                head => ReplayRing::starting_after(model.limits, head),
            }
        }

        fn apply(mut ring: ReplayRing<u32>, model: &Model, step: Step) -> ReplayRing<u32> {
            match step {
                Step::Advance { .. } => {}
                Step::Push { sequence, bytes } => {
                    ring.push(at(model.now), sequence, bytes, model.pushes);
                }
                Step::PruneAge => ring.prune_age(at(model.now)),
                Step::PruneThrough { sequence } => ring.prune_through(sequence),
                Step::Clear => ring.clear(),
            }
            ring
        }

        fn check_invariants(ring: &ReplayRing<u32>, model: &Model) {
            assert_eq!(ring.last(), model.last);
            assert_eq!(ring.len(), model.kept.len());
            assert_eq!(ring.is_empty(), model.kept.is_empty());
            assert_eq!(ring.bytes(), model.kept.iter().map(|entry| entry.bytes).sum::<usize>());
            assert_eq!(ring.oldest(), model.kept.first().map(|entry| entry.sequence));
            for sequence in (0..model.last + 3).chain([u64::MAX]) {
                let kept = model.kept.iter();
                let found = kept.clone().find(|entry| entry.sequence == sequence);
                assert_eq!(ring.get(sequence), found.map(|entry| &entry.item));
                assert_eq!(ring.answer(sequence), model.answer(sequence));
                let from: Vec<_> = kept
                    .filter(|entry| entry.sequence >= sequence)
                    .map(|entry| (entry.sequence, &entry.item))
                    .collect();
                assert_eq!(ring.iter_from(sequence).collect::<Vec<_>>(), from);
            }
        }
    }

    #[test]
    fn emptied_ring_never_says_up_to_date_to_a_receiver_that_lacks_something() {
        let limits = RingLimits { count: 8, bytes: 80, age: Some(ms(5)) };
        let mut ring = ReplayRing::starting_after(limits, 6);
        assert_eq!(ring.answer(5), RingAnswer::TooOld { oldest: None });
        ring.push(at(0), 7, 1, ());
        ring.prune_age(at(5));
        assert_eq!(ring.answer(6), RingAnswer::Replay { from: 7, to: 7 });
        ring.prune_age(at(6));
        assert_eq!(ring.answer(6), RingAnswer::TooOld { oldest: None });
        assert_eq!(ring.answer(7), RingAnswer::UpToDate);
        assert_eq!(ring.answer(8), RingAnswer::Ahead { last: 7 });
    }

    #[test]
    fn cursor_of_another_epoch_is_a_mismatch_whatever_its_number() {
        let [ours, other] = ["ours", "other"].map(epoch);
        let limits = RingLimits { count: 8, bytes: 80, age: None };
        let ring = ReplayRing::<()>::starting_after(limits, 6);
        for sequence in [0, 6, 7] {
            let answer =
                |epoch: &Epoch| ring.answer_cursor(&Cursor::new(epoch.clone(), sequence), &ours);
            assert_eq!(answer(&other), RingAnswer::EpochMismatch);
            assert_eq!(answer(&ours), ring.answer(sequence));
        }
    }
}

mod seen {
    use super::*;

    prop_state_machine! {
        #![proptest_config(config(768))]

        #[test]
        fn seen_ids_forget_exactly_the_least_recently_used(sequential 1..60 => SeenTest);
    }

    #[derive(Clone, Debug)]
    struct Model {
        capacity: usize,
        /// Least recently used first.
        ids: Vec<u8>,
        /// What the last step has to answer.
        answer: bool,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Contains(u8),
        Insert(u8),
        Clear,
    }

    impl Model {
        /// Moves `id` to the end if it is there.
        fn touch(&mut self, id: u8) -> bool {
            let found = self.ids.iter().position(|known| *known == id);
            if let Some(at) = found {
                self.ids.remove(at);
                self.ids.push(id);
            }
            found.is_some()
        }
    }

    impl ReferenceStateMachine for Model {
        type State = Self;
        type Transition = Step;

        fn init_state() -> BoxedStrategy<Self> {
            (0_usize..6)
                .prop_map(|capacity| Self { capacity, ids: Vec::new(), answer: false })
                .boxed()
        }

        fn transitions(_: &Self) -> BoxedStrategy<Step> {
            prop_oneof![
                12 => (0_u8..10).prop_map(Step::Insert),
                8 => (0_u8..10).prop_map(Step::Contains),
                1 => Just(Step::Clear),
            ]
            .boxed()
        }

        fn apply(mut state: Self, step: &Step) -> Self {
            match *step {
                Step::Contains(id) => state.answer = state.touch(id),
                Step::Insert(id) => {
                    state.answer = !state.touch(id);
                    if state.answer {
                        state.ids.push(id);
                    }
                    if state.ids.len() > state.capacity.max(1) {
                        state.ids.remove(0);
                    }
                }
                Step::Clear => state.ids.clear(),
            }
            state
        }
    }

    struct SeenTest;

    impl StateMachineTest for SeenTest {
        type SystemUnderTest = SeenIds<u8>;
        type Reference = Model;

        fn init_test(model: &Model) -> SeenIds<u8> {
            SeenIds::new(model.capacity)
        }

        fn apply(mut seen: SeenIds<u8>, model: &Model, step: Step) -> SeenIds<u8> {
            match step {
                Step::Contains(id) => assert_eq!(seen.contains(&id), model.answer),
                Step::Insert(id) => assert_eq!(seen.insert(id), model.answer),
                Step::Clear => seen.clear(),
            }
            seen
        }

        fn check_invariants(seen: &SeenIds<u8>, model: &Model) {
            assert_eq!(seen.len(), model.ids.len());
            assert_eq!(seen.is_empty(), model.ids.is_empty());
            assert_eq!(seen.capacity(), model.capacity.max(1));
        }

        fn teardown(mut seen: SeenIds<u8>, model: Model) {
            for id in 0..10 {
                assert_eq!(seen.contains(&id), model.ids.contains(&id));
            }
        }
    }
}

fn epoch(name: &str) -> Epoch {
    Epoch::parse(name).expect("test epochs are well formed")
}

mod lineage {
    use super::*;

    /// A stream whose every payload is unique, so that two logs are the same exactly where their payloads are.
    #[derive(Clone)]
    struct Server {
        /// The payload of the sequence n is at n - 1; pruned ones stay here, for the judge.
        log: Vec<u32>,
        oldest: u64,
        lineage: Lineage,
    }

    /// What a receiver held at some time.
    struct Receiver {
        epoch: Epoch,
        applied: Vec<u32>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append,
        Restart,
        Backup,
        /// Puts the last backup back; as at every start, a new epoch opens.
        Restore,
        /// The store is gone, with its lineage.
        Lose,
        Prune {
            keep: u64,
        },
        /// A receiver comes to have everything up to `behind` below the head.
        Receive {
            behind: usize,
        },
    }

    impl Server {
        fn head(&self) -> u64 {
            self.log.len() as u64
        }

        fn judge(&self, receiver: &Receiver) -> Verdict {
            let cursor = Cursor::new(receiver.epoch.clone(), receiver.applied.len() as u64);
            self.lineage.judge(&cursor, self.oldest, self.head())
        }

        /// The answer from the payloads themselves. Only whether the epoch is known is not in them.
        fn naive_verdict(&self, receiver: &Receiver) -> Verdict {
            let to = self.head();
            let applied = receiver.applied.len() as u64;
            let pairs = receiver.applied.iter().zip(&self.log);
            let common = pairs.take_while(|(theirs, ours)| theirs == ours).count() as u64;
            let is_known = |row: &EpochStart| row.epoch == receiver.epoch;
            if !self.lineage.rows().iter().any(is_known) {
                Verdict::OtherEpoch { from: self.oldest, to }
            } else if common < applied {
                Verdict::Ahead { from: self.oldest.max(common + 1), to }
            } else if applied == to && self.oldest <= applied + 1 {
                Verdict::UpToDate
            } else if (applied + 1..=to).all(|sequence| sequence >= self.oldest) {
                Verdict::Replay { from: applied + 1, to }
            } else {
                Verdict::TooOld {
                    lost_from: applied + 1,
                    lost_to: self.oldest - 1,
                    from: self.oldest,
                    to,
                }
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => Just(Step::Append),
            2 => Just(Step::Restart),
            2 => Just(Step::Backup),
            2 => Just(Step::Restore),
            1 => Just(Step::Lose),
            1 => (0_u64..4).prop_map(|keep| Step::Prune { keep }),
            5 => (0_usize..4).prop_map(|behind| Step::Receive { behind }),
        ]
    }

    proptest! {
        #![proptest_config(config(2_048))]

        #[test]
        fn verdict_is_what_comparing_the_payloads_would_say(steps in prop::collection::vec(step(), 1..60)) {
            let mut fresh = 0..;
            let mut next = move || fresh.next().expect("an endless range");
            let empty = Server { log: vec![], oldest: 1, lineage: Lineage::default() };
            let mut server = empty.clone();
            server.lineage.push_epoch(epoch("first"));
            let mut backup = server.clone();
            let mut receivers = vec![Receiver { epoch: epoch("stranger"), applied: vec![] }];

            for step in steps {
                let current = server.lineage.current().cloned().expect("an epoch is open");
                match step {
                    Step::Append => {
                        server.log.push(next());
                        server.lineage.record_first(&current, server.head());
                    }
                    Step::Backup => backup = server.clone(),
                    Step::Restart | Step::Restore | Step::Lose => {
                        match step {
                            Step::Restore => server = backup.clone(),
                            Step::Lose => server = empty.clone(),
                            _ => {}
                        }
                        server.lineage.push_epoch(epoch(&format!("e{}", next())));
                    }
                    Step::Prune { keep } => {
                        let oldest = (server.head() + 1).saturating_sub(keep);
                        server.oldest = server.oldest.max(oldest);
                    }
                    Step::Receive { behind } => receivers.push(Receiver {
                        epoch: current,
                        applied: server.log[..server.log.len().saturating_sub(behind)].to_vec(),
                    }),
                }
                for receiver in &receivers {
                    let verdict = server.judge(receiver);
                    prop_assert_eq!(verdict, server.naive_verdict(receiver));
                    prop_assert!(verdict.to().is_none_or(|to| to == server.head()));
                    let sendable = server.oldest..=server.head() + 1;
                    prop_assert!(verdict.from().is_none_or(|from| sendable.contains(&from)));
                }
            }
        }
    }

    #[test]
    fn only_up_to_date_and_replay_are_no_gap() {
        let [known, other] = ["known", "other"].map(epoch);
        let rows = vec![EpochStart { epoch: known.clone(), first: Some(1) }];
        let lineage = Lineage::new(rows);
        let facts = |epoch: &Epoch, sequence| {
            let verdict = lineage.judge(&Cursor::new(epoch.clone(), sequence), 5, 9);
            (verdict.as_str(), verdict.is_gap(), verdict.lost(), verdict.from(), verdict.to())
        };
        assert_eq!(facts(&known, 9), ("up_to_date", false, None, None, None));
        assert_eq!(facts(&known, 4), ("replay", false, None, Some(5), Some(9)));
        assert_eq!(facts(&known, 3), ("too_old", true, Some((4, 4)), Some(5), Some(9)));
        assert_eq!(facts(&known, 10), ("ahead", true, None, Some(10), Some(9)));
        assert_eq!(facts(&other, 9), ("other_epoch", true, None, Some(5), Some(9)));
    }

    #[test]
    fn stream_without_an_append_has_nothing_to_send_and_no_gap_at_zero() {
        let mut lineage = Lineage::default();
        let start = Cursor::new(epoch("only"), 0);
        assert_eq!(lineage.current(), None);
        assert_eq!(lineage.judge(&start, 1, 0), Verdict::OtherEpoch { from: 1, to: 0 });
        lineage.push_epoch(epoch("only"));
        assert_eq!(lineage.judge(&start, 1, 0), Verdict::UpToDate);
    }

    #[test]
    fn epoch_without_an_append_ends_where_the_next_row_begins() {
        let [a, b, c] = ["a", "b", "c"].map(epoch);
        let mut lineage = Lineage::default();
        for (epoch, first) in [(&a, Some(1)), (&b, None), (&c, Some(8))] {
            lineage.push_epoch(epoch.clone());
            if let Some(first) = first {
                lineage.record_first(epoch, first);
            }
        }
        lineage.record_first(&c, 11);
        assert_eq!(lineage.rows()[2].first, Some(8));
        let ends = [&a, &b, &c].map(|epoch| lineage.end_of(epoch, 12));
        assert_eq!(ends, [Some(7), Some(7), Some(12)]);
        assert_eq!(lineage.end_of(&epoch("other"), 12), None);
    }

    #[test]
    fn epoch_never_ends_beyond_the_head() {
        let [a, b] = ["a", "b"].map(epoch);
        let lineage = Lineage::new(vec![
            EpochStart { epoch: a.clone(), first: Some(1) },
            EpochStart { epoch: b, first: Some(100) },
        ]);
        assert_eq!(lineage.end_of(&a, 50), Some(50));
        let verdict = lineage.judge(&Cursor::new(a, 60), 1, 50);
        assert_eq!(verdict, Verdict::Ahead { from: 51, to: 50 });
    }
}

proptest! {
    #![proptest_config(config(1_024))]

    #[test]
    fn accepted_sequences_have_neither_hole_nor_duplicate(
        start in 0_u64..3,
        offered in prop::collection::vec(0_u64..20, 0..120),
    ) {
        let mut tracker = SequenceTracker::new(start);
        let mut accepted = Vec::new();
        for sequence in offered {
            let expected = start + accepted.len() as u64 + 1;
            let observed = tracker.observe(sequence);
            prop_assert_eq!(observed, match sequence {
                sequence if sequence == expected => Observed::Accepted,
                sequence if sequence < expected => Observed::Duplicate,
                _ => Observed::Gap { expected },
            });
            if observed == Observed::Accepted {
                accepted.push(sequence);
            }
            prop_assert_eq!(tracker.highest(), start + accepted.len() as u64);
        }
        tracker.reset(100);
        prop_assert_eq!(tracker.observe(101), Observed::Accepted);
    }

    #[test]
    fn backoff_doubles_within_its_bounds_and_never_stops(
        min_ms in 0_u64..5_000,
        max_ms in 0_u64..120_000,
        jitter_percent in 0_u32..130,
        seed: u64,
    ) {
        let mut entropy = ChaCha8Rng::seed_from_u64(seed);
        let mut backoff = Backoff::new(BackoffConfig {
            min: ms(min_ms),
            max: ms(max_ms),
            jitter_percent,
        });
        for _ in 0..2 {
            let mut span_ms = min_ms.max(1);
            for attempt in 1..=80 {
                span_ms = span_ms.min(max_ms.max(1));
                let spread_ms = span_ms * u64::from(jitter_percent.min(100)) / 100;
                let delay = backoff.next_delay(&mut entropy);
                prop_assert!(delay >= ms((span_ms - spread_ms).max(1)), "{delay:?} at {attempt}");
                prop_assert!(delay <= ms(span_ms + spread_ms), "{delay:?} at {attempt}");
                prop_assert_eq!(backoff.attempts(), attempt);
                span_ms *= 2;
            }
            backoff.reset();
            prop_assert_eq!(backoff.attempts(), 0);
        }
    }

    #[test]
    fn close_of_an_old_generation_changes_nothing(
        steps in prop::collection::vec((any::<bool>(), 0_u8..3, 0_usize..20), 0..80),
    ) {
        let mut generations = Generations::default();
        let mut accepted: Vec<(u8, Generation)> = Vec::new();
        let mut closed = BTreeSet::new();
        for (is_accept, identity, pick) in steps {
            let newest = |identity: u8| {
                let mine = accepted.iter().rev().find(|(owner, _)| *owner == identity);
                mine.map(|(_, generation)| *generation)
            };
            let live = |identity: u8| newest(identity).filter(|newest| !closed.contains(newest));
            if is_accept {
                let superseded = live(identity);
                let outcome = generations.accept(identity);
                prop_assert_eq!(outcome.superseded, superseded);
                prop_assert!(accepted.iter().all(|(_, older)| *older < outcome.generation));
                accepted.push((identity, outcome.generation));
            } else if let Some(&(_, generation)) = accepted.get(pick) {
                let was_current = live(identity) == Some(generation);
                prop_assert_eq!(generations.close(&identity, generation), was_current);
                if was_current {
                    closed.insert(generation);
                }
            }
            let live = |identity: u8| {
                let newest = accepted.iter().rev().find(|(owner, _)| *owner == identity);
                newest.map(|(_, generation)| *generation).filter(|newest| !closed.contains(newest))
            };
            for &(_, generation) in &accepted {
                for identity in 0..3 {
                    let is_current = live(identity) == Some(generation);
                    prop_assert_eq!(generations.is_current(&identity, generation), is_current);
                }
            }
            let count = (0..3).filter(|&identity| live(identity).is_some()).count();
            prop_assert_eq!(generations.len(), count);
            prop_assert_eq!(generations.is_empty(), count == 0);
        }
    }

    #[test]
    fn timers_expire_in_the_order_of_time_then_key(
        steps in prop::collection::vec((0_u8..4, 0_u8..5, 0_u64..20), 0..100),
    ) {
        let mut timers = Timers::default();
        let mut model: Vec<(Instant, u8)> = Vec::new();
        let mut now = at(0);
        for (kind, key, span) in steps {
            match kind {
                0 | 1 => {
                    timers.set(key, now + ms(span));
                    model.retain(|(_, other)| *other != key);
                    model.push((now + ms(span), key));
                    model.sort();
                }
                2 => {
                    timers.stop(key);
                    model.retain(|(_, other)| *other != key);
                }
                _ => {
                    now = now + ms(span);
                    while let Some(expired) = timers.pop_expired(now) {
                        let (due, key) = model.remove(0);
                        prop_assert!(due <= now);
                        prop_assert_eq!(expired, key);
                    }
                    prop_assert!(model.iter().all(|(due, _)| *due > now));
                }
            }
            prop_assert_eq!(timers.next(), model.first().map(|(due, _)| *due));
            prop_assert_eq!(timers.len(), model.len());
            prop_assert_eq!(timers.is_empty(), model.is_empty());
            let due = model.iter().find(|(_, other)| *other == key).map(|(due, _)| *due);
            prop_assert_eq!(timers.get(key), due);
        }
    }

    #[test]
    fn epoch_is_one_to_128_bytes_of_visible_ascii(text in "[ -~é\n]{0,3}|[!-~]{120,136}") {
        let is_visible = |byte: u8| (b'!'..=b'~').contains(&byte);
        let is_valid = !text.is_empty() && text.len() <= 128 && text.bytes().all(is_visible);
        prop_assert_eq!(Epoch::parse(&text).is_ok(), is_valid);
        let json = serde_json::to_string(&text).expect("a string is JSON");
        let read: Result<Epoch, _> = serde_json::from_str(&json);
        prop_assert_eq!(read.is_ok(), is_valid);
        if let Ok(epoch) = read {
            prop_assert_eq!(epoch.as_str(), &text);
            prop_assert_eq!(serde_json::to_string(&epoch).expect("a string is JSON"), json);
        }
    }

    #[test]
    fn random_epochs_are_valid_and_differ(seed: u64) {
        let mut entropy = ChaCha8Rng::seed_from_u64(seed);
        let entropy: &mut dyn Entropy = &mut entropy;
        let [one, two] = [(); 2].map(|()| Epoch::random(entropy));
        prop_assert_ne!(&one, &two);
        prop_assert_eq!(one.as_str().len(), 32);
        prop_assert_eq!(Epoch::parse(one.as_str()), Ok(one));
    }

    #[test]
    fn instant_arithmetic_saturates_and_is_never_early(start: u64, nanos: u64) {
        let span = Duration::from_nanos(nanos);
        let due = at(start) + span;
        prop_assert!(due.saturating_since(at(start)) >= span || due == at(u64::MAX));
        prop_assert!(due.saturating_since(at(start)) < span + ms(1));
        prop_assert_eq!(at(start).saturating_since(due), Duration::ZERO);
        prop_assert_eq!(at(start) + Duration::MAX, at(u64::MAX));
    }
}

#[test]
fn epoch_refusal_names_the_broken_rule() {
    assert_eq!(Epoch::parse(&"x".repeat(129)), Err(InvalidEpoch::Length { bytes: 129 }));
    assert_eq!(Epoch::parse("ab\n"), Err(InvalidEpoch::Character { at: 2 }));
}

#[test]
fn cursor_is_a_plain_object_on_the_wire() {
    let cursor = Cursor::new(epoch("b81f"), 42);
    let json = serde_json::to_string(&cursor).expect("a cursor is JSON");
    assert_eq!(json, r#"{"epoch":"b81f","sequence":42}"#);
    assert_eq!(serde_json::from_str::<Cursor>(&json).expect("what was written is read"), cursor);
}

mod liveness {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    struct Spans {
        ping_every: u64,
        pong_timeout: u64,
    }

    impl Spans {
        fn start(self) -> Liveness {
            let config = LivenessConfig {
                ping_every: ms(self.ping_every),
                pong_timeout: ms(self.pong_timeout),
            };
            Liveness::new(config, at(0))
        }
    }

    fn spans() -> impl Strategy<Value = Spans> {
        (1_u64..60, 1_u64..60)
            .prop_map(|(ping_every, pong_timeout)| Spans { ping_every, pong_timeout })
    }

    /// The instants of frames that follow each other by the given gaps.
    fn arrivals(gaps: &[u64]) -> BTreeSet<u64> {
        let sums = gaps.iter().scan(0, |sum, gap| {
            *sum += gap;
            Some(*sum)
        });
        sums.collect()
    }

    fn spans_and_lively_gaps() -> impl Strategy<Value = (Spans, Vec<u64>)> {
        spans().prop_flat_map(|spans| {
            (Just(spans), prop::collection::vec(1..=spans.pong_timeout, 1..40))
        })
    }

    proptest! {
        #![proptest_config(config(1_024))]

        #[test]
        fn link_with_inbound_traffic_every_pong_timeout_is_never_dead(
            (spans, gaps) in spans_and_lively_gaps(),
            // `None`: that ping is stuck for good.
            write_delays in prop::collection::vec(prop::option::weighted(0.8, 0_u64..80), 1..10),
        ) {
            let mut liveness = spans.start();
            let arrivals = arrivals(&gaps);
            let mut delays = write_delays.iter().cycle();
            let mut write_at = None;
            for now in 0..=*arrivals.last().expect("there is a gap") {
                if arrivals.contains(&now) {
                    liveness.on_inbound(at(now));
                }
                if write_at == Some(now) {
                    liveness.on_ping_written(at(now));
                }
                match liveness.handle_timeout(at(now)) {
                    LivenessAction::None => {}
                    LivenessAction::SendPing => {
                        match delays.next().expect("a cycle") {
                            Some(0) => liveness.on_ping_written(at(now)),
                            Some(delay) => write_at = Some(now + delay),
                            None => write_at = None,
                        }
                    }
                    LivenessAction::Dead => prop_assert!(false, "dead at {now}"),
                }
            }
        }

        #[test]
        fn silent_link_is_dead_within_ping_every_and_pong_timeout(
            spans in spans(),
            gaps in prop::collection::vec(0_u64..60, 0..10),
            tick in 1_u64..20,
        ) {
            let mut liveness = spans.start();
            let arrivals = arrivals(&gaps);
            let mut silent_since = 0;
            // The driver looks once per tick: the ping and the verdict are late by up to one each.
            let bound = spans.ping_every + spans.pong_timeout + 2 * tick;
            let mut died_at = None;
            for now in 0.. {
                if arrivals.contains(&now) {
                    liveness.on_inbound(at(now));
                    silent_since = now;
                }
                prop_assert!(now <= silent_since + bound, "still alive at {now}");
                if now % tick != 0 {
                    continue;
                }
                match liveness.handle_timeout(at(now)) {
                    LivenessAction::None => {}
                    LivenessAction::SendPing => liveness.on_ping_written(at(now)),
                    LivenessAction::Dead => {
                        died_at = Some(now);
                        break;
                    }
                }
            }
            let silence = died_at.expect("the loop ends with a death") - silent_since;
            prop_assert!(silence >= spans.pong_timeout, "dead after only {silence}");
        }

        #[test]
        fn link_that_cannot_be_written_is_dead_in_bounded_time(spans in spans()) {
            let mut liveness = spans.start();
            let mut pings = 0;
            let bound = at(2 * spans.ping_every + spans.pong_timeout);
            let died_at = loop {
                let due = liveness.deadline().expect("a ping is always due");
                prop_assert!(due <= bound, "still alive at {due:?}");
                match liveness.handle_timeout(due) {
                    LivenessAction::None => {}
                    LivenessAction::SendPing => pings += 1,
                    LivenessAction::Dead => break due,
                }
            };
            prop_assert_eq!(died_at, bound);
            prop_assert_eq!(pings, 1);
        }

        #[test]
        fn pausing_never_kills_and_pings_go_on(
            spans in spans(),
            pause_at in 0_u64..200,
            length in 1_u64..400,
            writes: bool,
        ) {
            let mut liveness = spans.start();
            let mut last_ping = 0;
            for now in 0..pause_at + length {
                if now == pause_at {
                    liveness.pause(at(now));
                } else if now < pause_at {
                    liveness.on_inbound(at(now));
                }
                prop_assert!(now <= last_ping + spans.ping_every || !writes, "no ping by {now}");
                match liveness.handle_timeout(at(now)) {
                    LivenessAction::None => {}
                    LivenessAction::SendPing => {
                        last_ping = now;
                        if writes {
                            liveness.on_ping_written(at(now));
                        }
                    }
                    LivenessAction::Dead => prop_assert!(false, "dead at {now}"),
                }
            }

            let resumed = pause_at + length;
            liveness.resume(at(resumed));
            for now in resumed..resumed + spans.pong_timeout {
                let action = liveness.handle_timeout(at(now));
                prop_assert_ne!(action, LivenessAction::Dead, "dead {} after", now - resumed);
            }
        }

        #[test]
        fn nothing_is_due_before_the_deadline_and_something_moves_at_it(
            spans in spans(),
            calls in prop::collection::vec((0_u8..5, 0_u64..40), 0..60),
        ) {
            let mut liveness = spans.start();
            let mut now = 0;
            for (call, span) in calls {
                let due = liveness.deadline().expect("a ping is always due").as_millis();
                prop_assert!(due > now);
                let before = (now + span).min(due - 1);
                prop_assert_eq!(liveness.handle_timeout(at(before)), LivenessAction::None);
                now += span;
                match call {
                    0 => liveness.on_inbound(at(now)),
                    1 => liveness.on_ping_written(at(now)),
                    2 => liveness.pause(at(now)),
                    3 => liveness.resume(at(now)),
                    _ => {}
                }
                if liveness.handle_timeout(at(now)) == LivenessAction::Dead {
                    break;
                }
            }
        }
    }

    #[test]
    fn later_ping_does_not_extend_the_time_of_an_unanswered_one() {
        let mut liveness = Spans { ping_every: 10, pong_timeout: 25 }.start();
        for now in [10, 20, 30] {
            assert_eq!(liveness.handle_timeout(at(now)), LivenessAction::SendPing);
            liveness.on_ping_written(at(now));
        }
        assert_eq!(liveness.handle_timeout(at(35)), LivenessAction::Dead);
    }

    #[test]
    fn resume_without_a_pause_gives_no_extra_time() {
        let mut liveness = Spans { ping_every: 10, pong_timeout: 5 }.start();
        assert_eq!(liveness.handle_timeout(at(10)), LivenessAction::SendPing);
        liveness.on_ping_written(at(10));
        liveness.resume(at(14));
        assert_eq!(liveness.deadline(), Some(at(15)));
    }
}

mod wall_time {
    use super::*;

    const FIRST_MS: i64 = -62_167_219_200_000;
    const LAST_MS: i64 = 253_402_300_799_999;

    proptest! {
        #![proptest_config(config(2_048))]

        #[test]
        fn rfc3339_round_trips_for_every_year_of_four_digits(ms in FIRST_MS..=LAST_MS) {
            let time = WallTime::from_millis(ms);
            prop_assert_eq!(WallTime::parse_rfc3339(&time.to_rfc3339()), Some(time));
        }

        #[test]
        fn offset_names_the_same_time(ms in 0_i64..=LAST_MS / 2, hours in 0_i64..24, minutes in 0_i64..60) {
            let time = WallTime::from_millis(ms);
            let offset_ms = (hours * 60 + minutes) * 60_000;
            for (sign, local_ms) in [('+', ms + offset_ms), ('-', ms - offset_ms)] {
                let local = WallTime::from_millis(local_ms).to_rfc3339();
                let text = format!("{}{sign}{hours:02}:{minutes:02}", local.trim_end_matches('Z'));
                prop_assert_eq!(WallTime::parse_rfc3339(&text), Some(time));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+Z-]{0,30}") {
            if let Some(time) = WallTime::parse_rfc3339(&text) {
                prop_assert!(WallTime::parse_rfc3339(&time.to_rfc3339()).is_some());
            }
        }

        #[test]
        fn every_time_can_be_shown(ms: i64, nanos: u64) {
            let time = WallTime::from_millis(ms);
            prop_assert_eq!(time.to_rfc3339().len(), "0000-01-01T00:00:00.000Z".len());
            let earlier = time.saturating_sub(Duration::from_nanos(nanos));
            prop_assert_eq!(earlier.as_millis(), ms.saturating_sub_unsigned(nanos / 1_000_000));
        }
    }

    #[test]
    fn calendar_agrees_with_counting_days_one_by_one() {
        let (mut year, mut month, mut day) = (1_890, 1, 1);
        let mut midnight_ms = -2_524_521_600_000;
        while year < 2_110 {
            let shown = WallTime::from_millis(midnight_ms).to_rfc3339();
            assert_eq!(shown, format!("{year:04}-{month:02}-{day:02}T00:00:00.000Z"));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if is_leap { 29 } else { 28 };
            let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            day += 1;
            if day > days[month - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
            midnight_ms += 86_400_000;
        }
    }

    #[test]
    fn known_times_are_read() {
        let read = |text| WallTime::parse_rfc3339(text).map(WallTime::as_millis);
        assert_eq!(read("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(read("2001-09-09T01:46:40.123456Z"), Some(1_000_000_000_123));
        assert_eq!(read("1969-12-31t23:59:59.9z"), Some(-100));
        assert_eq!(read("2016-12-31 23:59:60+00:00"), read("2017-01-01T00:00:00Z"));
        assert_eq!(read("0000-01-01T00:00:00Z"), Some(FIRST_MS));
        assert_eq!(read("9999-12-31T23:59:59.999Z"), Some(LAST_MS));
    }

    #[test]
    fn texts_that_are_no_time_are_refused() {
        let texts = [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Z ",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T24:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "+2024-01-01T00:00:00Z",
        ];
        for text in texts {
            assert_eq!(WallTime::parse_rfc3339(text), None, "{text:?}");
        }
    }
}
