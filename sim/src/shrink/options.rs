//! Puts options back to what they are by default.

use super::Search;
use crate::plan::{Topology, Unusual};

impl Search<'_> {
    /// Puts as many options as it can back to their defaults: all, those of a side, or each alone.
    ///
    /// What has to arrive in time after healing depends on every time-out, so they stay as they
    /// are where progress is what is missing.
    pub(super) fn simplify_options(&mut self) {
        let usual = Topology::default();
        self.takes_with(|plan| plan.topology.latency_ms = usual.latency_ms);
        self.takes_with(|plan| plan.topology.tcp_capacity = usual.tcp_capacity);
        self.takes_with(|plan| plan.topology.order.clear());
        let mut unusual = self.plan.options.unusual();
        unusual.retain(|option| !(self.of.liveness && option.name.ends_with("_ms")));
        let (Some(first), Some(last)) = (unusual.first(), unusual.last()) else { return };
        if self.resets(&unusual, |_| true) {
            return;
        }
        for side in [&first.side, &last.side] {
            self.resets(&unusual, |option| option.side == *side);
        }
        for wanted in &unusual {
            self.resets(&unusual, |option| option == wanted);
        }
    }

    /// Puts some options back.
    fn resets(&mut self, unusual: &[Unusual], wanted: impl Fn(&Unusual) -> bool) -> bool {
        let unusual: Vec<_> = unusual.iter().filter(|option| wanted(option)).collect();
        self.takes_with(|plan| plan.options = plan.options.without(&unusual))
    }
}
