//! The same seed is the same run: in one process, in another one, and beside others on threads.

use std::process::Command;

use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::world;

const SEEDS: [u64; 6] = [0, 1, 7, 42, 1_234, u64::MAX];

fn trace(id: &str, seed: u64) -> String {
    let scenario = Library::embedded().get(id).expect("the scenario is there");
    let run = world::run(&draw(&scenario, Seed(seed))).expect("the run is carried out");
    run.trace.to_string()
}

#[test]
fn the_same_seed_twice_in_one_process_is_byte_identical() {
    for seed in SEEDS {
        assert_eq!(trace("events/swarm", seed), trace("events/swarm", seed), "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    assert_ne!(trace("events/swarm", 1), trace("events/swarm", 2));
}

#[test]
fn the_same_seed_in_a_child_process_is_byte_identical() {
    for seed in SEEDS {
        let child = Command::new(env!("CARGO_BIN_EXE_gapless-sim"))
            .args(["show", "events/swarm", &seed.to_string()])
            // A run depends on none of these.
            .current_dir(std::env::temp_dir())
            .env("TZ", "Pacific/Chatham")
            .output()
            .expect("the program runs");
        assert!(child.status.success(), "{child:?}");
        let said = String::from_utf8(child.stdout).expect("UTF-8");
        assert!(said == trace("events/swarm", seed), "seed {seed} differs in a child process");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "whether threads make a difference is the question")]
fn the_same_seed_on_parallel_threads_is_byte_identical() {
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                // Each thread goes through the seeds in another order.
                let mut seeds = SEEDS;
                seeds.rotate_left(thread);
                seeds.map(|seed| (seed, trace("events/swarm", seed)))
            })
        })
        .collect();
    for thread in threads {
        for (seed, seen) in thread.join().expect("the thread ends well") {
            assert!(seen == trace("events/swarm", seed), "seed {seed} differs on a thread");
        }
    }
}

#[test]
fn a_plan_is_all_that_a_run_needs() {
    let scenario = Library::embedded().get("events/swarm").expect("the scenario is there");
    let plan = draw(&scenario, Seed(42));
    let text = serde_json::to_string(&plan).expect("JSON");
    let read = serde_json::from_str(&text).expect("a plan");
    assert_eq!(plan, read);
    let run = world::run(&read).expect("the run is carried out");
    assert_eq!(run.trace.to_string(), trace("events/swarm", 42));
}

#[test]
fn wire_bytes_and_keys_leave_no_trace() {
    // Masks and keys of WebSockets are drawn by the operating system; only what they carry counts.
    let trace = trace("events/strange-frames", 1);
    assert!(!trace.to_lowercase().contains("sec-websocket"));
}

#[test]
fn the_command_meta_compares_runs_in_two_processes() {
    let meta = Command::new(env!("CARGO_BIN_EXE_gapless-sim"))
        .args(["meta", "--seeds", "3", "7"])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&meta.stdout);
    assert!(meta.status.success(), "{said}");
    assert!(said.contains("3 runs") && said.contains("the same in two processes"), "{said}");
}
