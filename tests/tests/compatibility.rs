//! What `docs/compatibility.md` claims is shown by scenarios: those that it names are there, and
//! those about the base contract have a peer of the base contract in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gapless_sim::check::{Verdict, judge};
use gapless_sim::plan::Options;
use gapless_sim::scenario::{Library, Scenario, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The claims: the heading over each, the claim, and the scenarios that it names.
fn claims() -> Vec<(String, String, Vec<String>)> {
    let page = std::fs::read_to_string(root().join("docs/compatibility.md")).expect("it is there");
    let (mut heading, mut claims) = (String::new(), Vec::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title.to_owned();
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let ([claim, shown], true) = (&cells[..], line.starts_with("| ")) {
            let named: Vec<String> =
                shown.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            if *claim != "claim" && *claim != "weakness" {
                claims.push((heading.clone(), (*claim).to_owned(), named));
            }
        }
    }
    claims
}

fn limits() -> Library {
    Library::from_dir(&root().join("tests/limits")).expect("they are there")
}

/// Whether a side of a scenario has not the extension.
fn has_a_base_peer(scenario: &Scenario) -> bool {
    let (one, other) = match &scenario.options {
        Options::Events { server, client } => (server.extension, client.extension),
        Options::Tasks { controller, agent } => (controller.extension, agent.extension),
        Options::Session { server, client } => (server.extension, client.extension),
        Options::Custom { .. } => return false,
    };
    !one || !other
}

#[test]
fn every_claim_names_scenarios_that_are_there_and_what_is_said_of_base_peers_has_one() {
    let (library, limits) = (Library::embedded(), limits());
    let claims = claims();
    assert!(claims.len() > 40, "{}", claims.len());
    for (heading, claim, named) in &claims {
        assert!(!named.is_empty(), "nothing shows: {claim}");
        for id in named {
            let scenario = library.get(id).or_else(|_| limits.get(id));
            let scenario = scenario.unwrap_or_else(|_| panic!("there is no {id}: {claim}"));
            let wants_a_base_peer = heading != "What the extension adds";
            assert_eq!(has_a_base_peer(&scenario), wants_a_base_peer, "{id}: {claim}");
        }
    }
}

#[test]
fn every_scenario_with_a_base_peer_is_named() {
    let library = Library::embedded();
    let named: BTreeSet<String> = claims().into_iter().flat_map(|(.., named)| named).collect();
    let ids = library.ids().into_iter().filter(|id| !id.starts_with("regressions/"));
    let missing: Vec<&str> = ids
        .filter(|id| has_a_base_peer(&library.get(id).expect("it can be used")))
        .filter(|id| !named.contains(*id))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn what_is_lost_between_base_peers_is_not_lost_with_the_extension() {
    let limits = limits();
    let named: BTreeSet<String> = claims().into_iter().flat_map(|(.., named)| named).collect();
    for id in limits.ids() {
        assert!(named.contains(id), "docs/compatibility.md does not name {id}");
        let base = limits.get(id).expect("it can be used");
        let mut extended = base.clone();
        match &mut extended.options {
            Options::Events { server, .. } => server.extension = true,
            Options::Tasks { controller, .. } => controller.extension = true,
            Options::Session { server, .. } => server.extension = true,
            Options::Custom { .. } => panic!("{id} is none of the three protocols"),
        }
        let verdict = |scenario| judge(&run(&draw(scenario, Seed(1))).expect("it runs"));
        assert_ne!(verdict(&base).violations(), [], "{id} costs nothing between base peers");
        assert_eq!(verdict(&extended), Verdict::Pass, "{id} costs something with the extension");
    }
}
