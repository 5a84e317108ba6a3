//! Leaves hosts out.

use super::Search;
use crate::plan::{Action, Fault, Host, Plan, Protocol};

impl Search<'_> {
    /// Does with one client of one agent, or else with as few as the violation needs.
    pub(super) fn leave_out_hosts(&mut self) {
        let topology = &self.plan.topology;
        if topology.clients > 1 {
            let one = |_: u32| Some(1);
            self.takes_with(|plan| {
                keep(plan, &one, &one);
                (plan.topology.clients, plan.topology.agents) = (1, 1);
            });
        }
        let mut number = self.plan.topology.clients;
        while number > 0 && self.plan.topology.clients > 1 {
            self.takes_with(|plan| {
                let together = plan.options.protocol() == Protocol::Tasks;
                let agents =
                    move |agent| if together { without(number)(agent) } else { Some(agent) };
                keep(plan, &without(number), &agents);
                plan.topology.clients -= 1;
                plan.topology.agents = plan.topology.agents.min(plan.topology.clients);
            });
            number -= 1;
        }
        let mut number = self.plan.topology.agents;
        while number > 0
            && self.plan.topology.agents > 1
            && self.plan.options.protocol() != Protocol::Tasks
        {
            self.takes_with(|plan| {
                keep(plan, &Some, &without(number));
                plan.topology.agents -= 1;
            });
            number -= 1;
        }
    }
}

/// The numbers of the hosts when one of them is not there.
fn without(gone: u32) -> impl Fn(u32) -> Option<u32> {
    move |number| match number.cmp(&gone) {
        std::cmp::Ordering::Less => Some(number),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(number - 1),
    }
}

/// Renames clients and agents, and leaves out the steps of those that have no name any more.
fn keep(
    plan: &mut Plan,
    clients: &dyn Fn(u32) -> Option<u32>,
    agents: &dyn Fn(u32) -> Option<u32>,
) {
    let mut turns = Vec::new();
    for host in &plan.topology.order {
        let host = match *host {
            Host::Server | Host::Member(_) | Host::Engine => Some(*host),
            Host::Client(number) => clients(number).map(Host::Client),
        };
        turns.extend(host.filter(|host| !turns.contains(host)));
    }
    plan.topology.order = turns;
    plan.steps.retain_mut(|step| {
        let (number, name) = match &mut step.action {
            Action::Publish(publish) => (&mut publish.agent, agents),
            Action::Submit(submit) => (&mut submit.agent, clients),
            Action::Say(say) => (&mut say.client, clients),
            Action::Refresh { client } | Action::Reconnect { client } => (client, clients),
            Action::Work(work) => match &mut work.at {
                Host::Client(client) => (client, clients),
                Host::Server | Host::Member(_) | Host::Engine => return true,
            },
            Action::Fault(Fault::Retain { agent, .. }) => (agent, agents),
            Action::Fault(fault) => match hit(fault) {
                Some(client) => (client, clients),
                None => return true,
            },
            Action::Cancel { .. } | Action::Retry { .. } => return true,
        };
        match name(*number) {
            Some(renamed) => {
                *number = renamed;
                true
            }
            None => false,
        }
    });
}

/// The number of the client that a fault hits.
fn hit(fault: &mut Fault) -> Option<&mut u32> {
    match fault {
        Fault::Cut { client, .. }
        | Fault::Hold { client, .. }
        | Fault::Partition { client, .. }
        | Fault::Latency { client, .. }
        | Fault::Refuse { client, .. }
        | Fault::NeverAnswer { client, .. }
        | Fault::SlowReader { client, .. }
        | Fault::SlowHandler { client, .. }
        | Fault::FailHandler { client, .. }
        | Fault::FailOpenHandler { client, .. }
        | Fault::Duplicate { client, .. }
        | Fault::Lose { client, .. }
        | Fault::Answer { client, .. }
        | Fault::LoseAnswer { client, .. }
        | Fault::Inject { client, .. } => Some(client),
        Fault::Crash { host, .. }
        | Fault::PowerOff { host, .. }
        | Fault::DiskError { host, .. }
        | Fault::DiskFull { host, .. }
        | Fault::SlowCommit { host, .. }
        | Fault::ClockStep { host, .. }
        | Fault::ClockDrift { host, .. }
        | Fault::Suspend { host, .. }
        | Fault::Backup { host }
        | Fault::Restore { host, .. }
        | Fault::Swap { host, .. }
        | Fault::LoseStore { host, .. } => match host {
            Host::Client(client) => Some(client),
            Host::Server | Host::Member(_) | Host::Engine => None,
        },
        Fault::Retain { .. } | Fault::Engine(_) => None,
    }
}
