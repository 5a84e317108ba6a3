//! Which scenarios are meant.

use std::path::Path;

use globset::Glob;

use crate::cli::{Failure, diagnostic, library, usage};
use crate::conform::Role;
use crate::conform::suite::protocol;
use crate::scenario::Scenario;
use crate::spec::{Spec, group_of};

/// What of the scenarios is wanted.
pub(super) struct Selection<'a> {
    pub(super) role: Role,
    /// Ids or patterns; none = all.
    pub(super) words: &'a [String],
    /// Statements; none = all.
    pub(super) statements: &'a [String],
    pub(super) folder: Option<&'a Path>,
}

/// The scenarios of a role, and those of them that are wanted.
pub(super) struct Selected {
    /// The ids of all scenarios of the role.
    pub(super) known: Vec<String>,
    pub(super) scenarios: Vec<Scenario>,
}

impl Selection<'_> {
    /// Finds them. Words that name nothing are errors.
    pub(super) fn select(&self) -> Result<Selected, Failure> {
        let library = library(self.folder)?;
        let all: Result<Vec<Scenario>, _> =
            library.ids().into_iter().map(|id| library.get(id)).collect();
        let mut all = all.map_err(diagnostic)?;
        let mut globs = Vec::new();
        for word in self.words {
            let glob = Glob::new(word).map_err(|error| {
                let message = format!("`{word}` is no pattern: {}", error.kind());
                usage(message, "`*` stands for anything, as in `events/*`")
            })?;
            let glob = glob.compile_matcher();
            if !all.iter().any(|scenario| glob.is_match(&scenario.id)) {
                return Err(usage(format!("no scenario fits `{word}`"), library.suggestion(word)));
            }
            globs.push(glob);
        }
        for id in self.statements {
            if !Spec::shared().knows(id) {
                let hint = "`gapless-sim statements` lists the statements";
                return Err(usage(format!("there is no statement `{id}`"), hint));
            }
        }
        let protocol = protocol(self.role);
        all.retain(|scenario| scenario.options.protocol() == protocol && !has_servers(scenario));
        let known = all.iter().map(|scenario| scenario.id.clone()).collect();
        all.retain(|scenario| {
            (globs.is_empty() || globs.iter().any(|glob| glob.is_match(&scenario.id)))
                && (self.statements.is_empty() || is_about(scenario, self.statements))
        });
        Ok(Selected { known, scenarios: all })
    }
}

/// Whether a scenario has several servers on one log. They are about what is between those, and what is
/// under test is one client or one server: neither may know how many there are.
fn has_servers(scenario: &Scenario) -> bool {
    let drawn = scenario.swarm.as_ref().is_some_and(|swarm| swarm.servers.1 > 1);
    drawn || scenario.topology.is_cluster()
}

/// Whether a scenario cites one of these statements, the group of one, or one of a group.
fn is_about(scenario: &Scenario, statements: &[String]) -> bool {
    let mut cited = scenario.statements.iter();
    cited.any(|cited| {
        statements.iter().any(|id| cited == id || cited == group_of(id) || group_of(cited) == id)
    })
}
