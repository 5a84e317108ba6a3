//! Puts options back to what they are by default.

use serde_json::{Map, Value};

use super::Search;
use crate::plan::{
    AgentOptions, ClientOptions, ControllerOptions, Options, Protocol, ServerOptions,
    SessionClientOptions, SessionServerOptions, Topology,
};

impl Search<'_> {
    /// Puts as many options as it can back to their defaults: all, those of a side, or each alone.
    ///
    /// What has to arrive in time after healing depends on every time-out, so they stay as they
    /// are where progress is what is missing.
    pub(super) fn simplify_options(&mut self) {
        let usual = Topology::default();
        self.takes_with(|plan| plan.topology.latency_ms = usual.latency_ms);
        self.takes_with(|plan| plan.topology.tcp_capacity = usual.tcp_capacity);
        let times = !self.of.liveness;
        let Some(paths) = differing(&self.plan.options, times) else { return };
        let sides: Vec<&String> = paths.iter().map(|(side, _)| side).collect();
        let all = |_: &(String, String)| true;
        if paths.is_empty() || self.resets(&paths, &all) {
            return;
        }
        let (Some(first), Some(last)) = (sides.first(), sides.last()) else { return };
        for side in [first, last] {
            self.resets(&paths, &|path| path.0 == **side);
        }
        for wanted in &paths {
            self.resets(&paths, &|path| path == wanted);
        }
    }

    /// Puts some options back.
    fn resets(
        &mut self,
        paths: &[(String, String)],
        wanted: &dyn Fn(&(String, String)) -> bool,
    ) -> bool {
        let paths: Vec<_> = paths.iter().filter(|path| wanted(path)).collect();
        self.takes_with(|plan| {
            if let Some(options) = reset(&plan.options, &paths) {
                plan.options = options;
            }
        })
    }
}

/// The options of a protocol that nobody has changed.
fn usual(protocol: Protocol) -> Options {
    match protocol {
        Protocol::Events => {
            Options::Events { server: ServerOptions::default(), client: ClientOptions::default() }
        }
        Protocol::Tasks => Options::Tasks {
            controller: ControllerOptions::default(),
            agent: AgentOptions::default(),
        },
        Protocol::Session => Options::Session {
            server: SessionServerOptions::default(),
            client: SessionClientOptions::default(),
        },
    }
}

/// The options of both sides, by the name of the side and of the option. They are looked at as
/// JSON, so that an option that is new is known here at once.
type Sides = Map<String, Value>;

fn sides(options: &Options) -> Option<(String, Sides)> {
    let Value::Object(protocol) = serde_json::to_value(options).ok()? else { return None };
    let (name, sides) = protocol.into_iter().next()?;
    match sides {
        Value::Object(sides) => Some((name, sides)),
        _ => None,
    }
}

/// The options that are not what they are by default: side and name, in the order of the names.
fn differing(options: &Options, times: bool) -> Option<Vec<(String, String)>> {
    let (_, ours) = sides(options)?;
    let (_, usual) = sides(&usual(options.protocol()))?;
    let mut paths = Vec::new();
    for (side, options) in &ours {
        for (name, value) in options.as_object()? {
            let is_time = name.ends_with("_ms");
            if usual.get(side).and_then(|side| side.get(name)) != Some(value) && (times || !is_time)
            {
                paths.push((side.clone(), name.clone()));
            }
        }
    }
    Some(paths)
}

fn reset(options: &Options, paths: &[&(String, String)]) -> Option<Options> {
    let (protocol, mut ours) = sides(options)?;
    let (_, usual) = sides(&usual(options.protocol()))?;
    for (side, name) in paths {
        let value = usual.get(side)?.get(name)?.clone();
        ours.get_mut(side)?.as_object_mut()?.insert(name.clone(), value);
    }
    let whole = Map::from_iter([(protocol, Value::Object(ours))]);
    serde_json::from_value(Value::Object(whole)).ok()
}
