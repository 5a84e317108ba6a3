//! What a host is told to do.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::plan::Host;

/// What a host is told to do. The world hands it over and knows nothing of it but the host.
///
/// In a scenario it stands as `work = { at = "client-1", … }`; what else is in the table is `what`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Who does it.
    pub at: Host,
    /// What.
    pub what: Map<String, Value>,
}

impl Work {
    /// Work for a host. `what` is a struct, or an enum of which each variant has fields or a value:
    /// `Publish { topic }` becomes `publish = { topic = "…" }` if its names are made so.
    pub fn new(at: Host, what: &impl Serialize) -> Self {
        Self { at, what: fields(what) }
    }

    /// What is to be done, as the protocol has it.
    ///
    /// # Errors
    ///
    /// A sentence, if it is something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        T::deserialize(&Value::Object(self.what.clone())).map_err(|error| error.to_string())
    }

    /// What is to be done, on one line.
    pub(crate) fn describe(&self) -> String {
        let parts = self.what.iter().map(|(name, value)| format!("{name} {}", inline(value)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// The fields of a struct or a map; none of anything else.
pub(super) fn fields(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// A value for a person.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let parts = fields.iter().map(|(name, value)| format!("{name}={}", inline(value)));
            parts.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Wish {
        Subscribe(String),
        Publish { topic: String, count: u32 },
    }

    #[test]
    fn work_is_what_it_was_made_of() {
        let publish = Wish::Publish { topic: "news".to_owned(), count: 3 };
        let work = Work::new(Host::Client(1), &publish);
        assert_eq!(work.parse(), Ok(publish));
        assert_eq!(work.describe(), "publish count=3 topic=news");
        let subscribe = Work::new(Host::Client(1), &Wish::Subscribe("news".to_owned()));
        assert_eq!(subscribe.describe(), "subscribe news");
        let nothing = Work { what: Map::new(), ..work };
        assert!(nothing.parse::<Wish>().is_err());
    }
}
