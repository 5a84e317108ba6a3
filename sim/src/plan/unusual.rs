//! The options that are not what they are by default.
//!
//! Options are looked at as JSON here, so that an option that is new is known at once.

use serde_json::{Map, Value};

use super::{
    AgentOptions, ClientOptions, ControllerOptions, Options, Protocol, ServerOptions,
    SessionClientOptions, SessionServerOptions,
};

/// An option that is not what it is by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusual {
    /// The side whose option it is: `server`, `agent` and so on.
    pub side: String,
    /// Its name, as in a plan.
    pub name: String,
    /// What it is.
    pub value: Value,
}

/// The options of both sides, by the name of the side and of the option.
type Sides = Map<String, Value>;

impl Options {
    /// What they are by default.
    pub fn usual(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Events => {
                let (server, client) = (ServerOptions::default(), ClientOptions::default());
                Self::Events { server, client }
            }
            Protocol::Tasks => {
                let (controller, agent) = (ControllerOptions::default(), AgentOptions::default());
                Self::Tasks { controller, agent }
            }
            Protocol::Session => {
                let server = SessionServerOptions::default();
                Self::Session { server, client: SessionClientOptions::default() }
            }
            Protocol::Custom(custom) => custom.usual_options(),
        }
    }

    /// The options that are not what they are by default, by side and name.
    pub fn unusual(&self) -> Vec<Unusual> {
        let (_, ours) = sides(self);
        let (_, usual) = sides(&Self::usual(self.protocol()));
        let mut unusual = Vec::new();
        for (side, options) in ours {
            let Value::Object(options) = options else { continue };
            for (name, value) in options {
                if usual.get(&side).and_then(|side| side.get(&name)) != Some(&value) {
                    unusual.push(Unusual { side: side.clone(), name, value });
                }
            }
        }
        unusual
    }

    /// The same options, some of them as they are by default.
    #[must_use]
    pub fn without(&self, unusual: &[&Unusual]) -> Self {
        let (protocol, mut ours) = sides(self);
        let (_, usual) = sides(&Self::usual(self.protocol()));
        for option in unusual {
            let value = usual.get(&option.side).and_then(|side| side.get(&option.name));
            let side = ours.get_mut(&option.side).and_then(Value::as_object_mut);
            if let (Some(value), Some(side)) = (value, side) {
                side.insert(option.name.clone(), value.clone());
            }
        }
        let whole = Map::from_iter([(protocol, Value::Object(ours))]);
        serde_json::from_value(Value::Object(whole)).expect("the default of an option is an option")
    }
}

/// The name of the protocol, and the options of both sides.
fn sides(options: &Options) -> (String, Sides) {
    let value = serde_json::to_value(options).expect("options are always JSON");
    let Value::Object(protocol) = value else { return Default::default() };
    match protocol.into_iter().next() {
        Some((name, Value::Object(sides))) => (name, sides),
        _ => Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unusual_can_be_put_back() {
        let server = ServerOptions { ring: 16, ..ServerOptions::default() };
        let client = ClientOptions { reconnect_ms: (100, 200), ..ClientOptions::default() };
        let options = Options::Events { server, client: client.clone() };
        let unusual = options.unusual();
        let names: Vec<_> = unusual.iter().map(|option| (&*option.side, &*option.name)).collect();
        assert_eq!(names, [("client", "reconnect_ms"), ("server", "ring")]);
        assert_eq!(unusual[1].value, 16);
        let back = options.without(&[&unusual[1]]);
        assert_eq!(back, Options::Events { server: ServerOptions::default(), client });
        let all: Vec<_> = unusual.iter().collect();
        assert_eq!(options.without(&all), Options::usual(Protocol::Events));
    }

    #[test]
    fn nothing_is_unusual_by_default() {
        for protocol in [Protocol::Events, Protocol::Tasks, Protocol::Session] {
            assert_eq!(Options::usual(protocol).unusual(), []);
        }
    }
}
