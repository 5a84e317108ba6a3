//! Draws a plan from a scenario and a seed.
//!
//! A fixed scenario is its own plan. A swarm draws everything else from the seed: which kinds of
//! faults occur at all, with which weights, how often and when, how many hosts there are and in
//! which order they have their turn, how large their rings and windows are, and what is published.
//! Each of these has a stream of random numbers of its own.

mod events;
mod faults;
mod session;
mod tasks;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use super::{Scenario, Swarm};
use crate::custom::{Custom, Wanted};
use crate::plan::{Action, Drawn, FORMAT, Options, Plan, Protocol, Step, Topology, When};
use crate::seed::Seed;

/// The plan of a scenario under a seed.
pub fn draw(scenario: &Scenario, seed: Seed) -> Plan {
    let mut plan = Plan {
        format: FORMAT,
        scenario: scenario.id.clone(),
        seed: seed.0,
        mutant: None,
        tick_ms: scenario.tick_ms,
        duration_ms: scenario.duration_ms,
        settle_ms: scenario.settle_ms,
        statements: scenario.statements.clone(),
        reaches: scenario.reaches.clone(),
        topology: scenario.topology.clone(),
        options: scenario.options.clone(),
        drawn: None,
        steps: scenario.steps.clone(),
    };
    if let Some(swarm) = &scenario.swarm {
        // What a swarm has to reach is judged over many runs.
        plan.reaches.clear();
        let rng = &mut seed.stream("topology", "", 0);
        plan.topology = topology(swarm, &plan.topology, plan.options.protocol(), rng);
        let rng = &mut seed.stream("options", "", 0);
        plan.options = match plan.options.protocol() {
            Protocol::Events => events::options(rng),
            Protocol::Tasks => tasks::options(rng),
            Protocol::Session => session::options(&plan.topology, rng),
            Protocol::Custom(protocol) => protocol.with(protocol.draw_options(rng)),
        };
        fill(&mut plan, swarm, seed);
    }
    plan
}

/// What a swarm draws under another seed for the hosts and options of a plan; `None` if the
/// scenario is no swarm, and draws nothing.
pub fn redraw(scenario: &Scenario, plan: &Plan, seed: Seed) -> Option<Vec<Step>> {
    let swarm = scenario.swarm.as_ref()?;
    let mut plan = Plan { steps: scenario.steps.clone(), ..plan.clone() };
    fill(&mut plan, swarm, seed);
    Some(plan.steps)
}

/// Draws the workload and the faults.
fn fill(plan: &mut Plan, swarm: &Swarm, seed: Seed) {
    let rng = &mut seed.stream("workload", "", 0);
    let work_per_minute = within(rng, swarm.work_per_minute);
    plan.steps.extend(match plan.options.protocol() {
        Protocol::Events => events::publications(plan, work_per_minute, rng),
        Protocol::Tasks => tasks::submissions(plan, work_per_minute, rng),
        Protocol::Session => session::conversations(plan, work_per_minute, rng),
        Protocol::Custom(protocol) => own_work(plan, protocol, work_per_minute, rng),
    });
    let rng = &mut seed.stream("faults", "", 0);
    let mix = faults::mix(plan, &swarm.groups, rng);
    let faults_per_minute = within(rng, swarm.faults_per_minute);
    plan.steps.extend(faults::faults(plan, &mix, faults_per_minute, rng));
    plan.drawn = Some(Drawn { work_per_minute, faults_per_minute, weights: mix.weights() });
}

/// What the hosts of a protocol that the user brought do.
fn own_work(plan: &Plan, protocol: Custom, per_minute: u32, rng: &mut ChaCha12Rng) -> Vec<Step> {
    let wanted = Wanted { topology: &plan.topology, duration_ms: plan.duration_ms, per_minute };
    let work = protocol.draw_work(&wanted, rng).into_iter();
    work.map(|(at, work)| Step { when: When::At(at), action: Action::Work(work) }).collect()
}

/// One of a few values.
fn pick<T: Copy>(rng: &mut ChaCha12Rng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())]
}

/// A number of a range, both ends of which belong to it.
fn within(rng: &mut ChaCha12Rng, (least, most): (u32, u32)) -> u32 {
    rng.random_range(least..=most)
}

/// Whether both sides speak the extension.
fn speaks_extension(plan: &Plan) -> bool {
    match &plan.options {
        Options::Events { server, client } => server.extension && client.extension,
        Options::Tasks { controller, agent } => controller.extension && agent.extension,
        Options::Session { server, client } => server.extension && client.extension,
        // It has no base contract.
        Options::Custom { .. } => true,
    }
}

fn topology(swarm: &Swarm, base: &Topology, protocol: Protocol, rng: &mut ChaCha12Rng) -> Topology {
    // Most bugs show in a small world, and it costs less: of two numbers the smaller one.
    let clients = within(rng, swarm.clients).min(within(rng, swarm.clients));
    let mut topology = Topology {
        clients,
        agents: match protocol {
            Protocol::Events | Protocol::Session => {
                within(rng, (swarm.agents.0, swarm.agents.1.min(clients)))
            }
            Protocol::Tasks => clients,
            Protocol::Custom(_) => 1,
        },
        latency_ms: pick(rng, &[10, 10, 20, 50, 120]),
        servers: 1,
        stays: 1,
        // Small enough for a slow reader to be felt, large enough for all that connect at once.
        tcp_capacity: pick(rng, &[24, base.tcp_capacity]),
        order: Vec::new(),
    };
    if swarm.servers.1 > 1 {
        topology.servers = within(rng, swarm.servers);
        topology.stays = pick(rng, &[1, 1, 2, 3]);
    }
    topology.order = topology.hosts();
    topology.order.shuffle(rng);
    topology
}

#[cfg(test)]
mod tests;
