//! What was frozen is looked for ever after: it holds, its story is the one that was reviewed, and
//! what it was frozen for still shows in it.

use gapless_sim::check::{Verdict, judge, violations};
use gapless_sim::freeze::{FOLDER, story};
use gapless_sim::plan::Plan;
use gapless_sim::scenario::{Frozen, Library, Scenario, draw};
use gapless_sim::world::{self, Run};

/// What was frozen, each with where it was found.
fn frozen() -> Vec<(Scenario, Frozen)> {
    let library = Library::embedded();
    let all = library.ids().into_iter().map(|id| library.get(id).expect("it can be used"));
    all.filter_map(|scenario| scenario.frozen.clone().map(|from| (scenario, from))).collect()
}

fn carry_out(scenario: &Scenario, from: &Frozen, mutant: Option<&str>) -> Run {
    let plan = Plan { mutant: mutant.map(str::to_owned), ..draw(scenario, from.seed) };
    world::run(&plan).expect("the run is carried out")
}

#[test]
fn what_is_frozen_has_its_place() {
    let frozen = frozen();
    assert!(!frozen.is_empty());
    for (scenario, _) in frozen {
        let name = scenario.id.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/'));
        assert!(name.is_some_and(|name| !name.contains('/')), "{}", scenario.id);
    }
}

#[test]
fn what_was_frozen_holds_and_tells_its_story() {
    for (scenario, from) in frozen() {
        let run = carry_out(&scenario, &from, None);
        assert_eq!(judge(&run), Verdict::Pass, "{}", scenario.id);
        let name = scenario.id.rsplit('/').next().expect("an id has a name");
        insta::with_settings!({
            snapshot_path => "../../scenarios/regressions",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, story(&scenario.title, &run.trace));
        });
    }
}

#[test]
fn what_was_frozen_with_a_known_bad_variant_fails_with_it() {
    for (scenario, from) in frozen() {
        let Some(mutant) = &from.mutant else { continue };
        let run = carry_out(&scenario, &from, Some(mutant));
        let (safety, liveness) = violations(&run.history, &run.plan);
        let found = safety.iter().chain(&liveness).find(|found| found.checker == from.checker);
        assert_eq!(found.map(|found| found.message.as_str()), Some(from.shows.as_str()));
    }
}
