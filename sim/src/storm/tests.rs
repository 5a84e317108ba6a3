//! What the pages say of storms.

use std::time::Duration;

use super::{Config, Outcome, Variant, storm};
use crate::seed::Seed;

/// A small one: as many clients for each server as a million for 64.
fn config(seed: u64) -> Config {
    Config {
        clients: 2 * 15_625,
        servers: 2,
        handshakes_per_second: 500,
        patience: Duration::from_secs(10),
        admitted: Duration::from_secs(2),
        horizon: Duration::from_secs(300),
        seed: Seed(seed),
    }
}

/// How long it takes if no server ever waits.
const LEAST: Duration = Duration::from_millis(31_250);

fn most(outcome: &Outcome) -> Option<Duration> {
    outcome.connected(99, config(1).clients)
}

#[test]
fn the_same_seed_is_the_same_storm() {
    for variant in Variant::ALL {
        assert_eq!(storm(&config(1), variant), storm(&config(1), variant));
    }
    assert_ne!(storm(&config(1), Variant::Jitter), storm(&config(2), Variant::Jitter));
}

#[test]
fn clients_that_come_back_after_a_fixed_time_keep_the_servers_from_ever_recovering() {
    let outcome = storm(&config(1), Variant::Fixed);
    assert_eq!(most(&outcome), None);
    let late: u64 = outcome.seconds[60..].iter().map(|second| second.connected).sum();
    assert_eq!(late, 0, "after a minute, no handshake is in time any more");
    assert!(outcome.wasted > 10 * u64::from(config(1).clients));
}

#[test]
fn pauses_that_double_end_the_storm_and_jitter_spreads_its_first_second() {
    let backoff = storm(&config(1), Variant::Backoff);
    let jitter = storm(&config(1), Variant::Jitter);
    assert!(most(&backoff).is_some() && most(&jitter).is_some());
    assert!(backoff.peak() > 15 * jitter.peak() / 10, "{} {}", backoff.peak(), jitter.peak());
    assert!(jitter.wasted > 0, "and still servers work for those who have gone");
}

#[test]
fn servers_that_refuse_what_would_wait_for_long_waste_nothing() {
    for variant in [Variant::Admission, Variant::Appointment] {
        let outcome = storm(&config(1), variant);
        assert_eq!(outcome.wasted, 0);
        assert!(outcome.refused > 0);
        assert!(most(&outcome) < most(&storm(&config(1), Variant::Jitter)));
    }
}

#[test]
fn appointments_are_close_to_the_least_that_it_can_take() {
    for seed in 1..=5 {
        let admission = storm(&config(seed), Variant::Admission);
        let appointment = storm(&config(seed), Variant::Appointment);
        let most = most(&appointment).expect("it ends");
        assert!(most < LEAST * 125 / 100, "{most:?}");
        assert!(appointment.attempts < admission.attempts);
    }
}

#[test]
fn every_client_is_connected_once() {
    for variant in [Variant::Backoff, Variant::Jitter, Variant::Admission, Variant::Appointment] {
        let outcome = storm(&config(1), variant);
        let connected: u64 = outcome.seconds.iter().map(|second| second.connected).sum();
        assert_eq!(connected, u64::from(config(1).clients), "{}", variant.name());
        assert_eq!(outcome.attempts, connected + outcome.refused + outcome.wasted);
        let rate = outcome.seconds.iter().map(|second| second.connected).max();
        assert!(rate <= Some(2 * 501), "no server makes more than it can: {rate:?}");
    }
}
