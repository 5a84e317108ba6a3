//! Leaves steps out: delta debugging.

use super::Search;

impl Search<'_> {
    /// Leaves out steps, first many at once, then fewer, at last each alone until none can go.
    ///
    /// Later steps go first: what comes after the violation is not needed for it.
    pub(super) fn leave_out_steps(&mut self) {
        let mut size = self.plan.steps.len();
        while size > 0 {
            let before = self.plan.steps.len();
            let mut end = before;
            while end > 0 {
                let start = end.saturating_sub(size);
                self.takes_with(|plan| drop(plan.steps.drain(start..end)));
                // Steps that depended on those that went may have gone with them.
                end = start.min(self.plan.steps.len());
            }
            size = match size {
                1 if self.plan.steps.len() == before || self.ended.is_some() => 0,
                1 => 1,
                _ => size / 2,
            };
        }
    }
}
