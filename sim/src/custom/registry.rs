//! The protocols that are linked into this program.

use std::fmt;
use std::ops::Deref;

use linkme::distributed_slice;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CustomProtocol, Program, Sides};
use crate::plan::Options;

/// Every protocol that is linked into this program. [`protocol!`](crate::protocol) adds one.
#[distributed_slice]
pub static PROTOCOLS: [&'static dyn CustomProtocol];

/// Makes a protocol one of this program: it is known by its name from then on.
///
/// Takes a constant expression of a type that implements
/// [`CustomProtocol`](crate::custom::CustomProtocol). A program into which protocols are linked is
/// about them: its scenarios are those of their folder, and `NAME/swarm` of the first is run where
/// no scenario is named.
#[macro_export]
macro_rules! protocol {
    ($protocol:expr) => {
        const _: () = {
            #[$crate::custom::private::linkme::distributed_slice($crate::custom::PROTOCOLS)]
            #[linkme(crate = $crate::custom::private::linkme)]
            static PROTOCOL: &dyn $crate::custom::CustomProtocol = &$protocol;
        };
    };
}

/// A protocol of this program. Two are the same if they have the same name.
#[derive(Clone, Copy)]
pub struct Custom(&'static dyn CustomProtocol);

/// All of them, by name.
pub(crate) fn registered() -> Vec<Custom> {
    let mut all: Vec<Custom> = PROTOCOLS.iter().map(|protocol| Custom(*protocol)).collect();
    all.sort_by_key(|protocol| protocol.name());
    all
}

/// The protocol of a name.
pub fn find(name: &str) -> Option<Custom> {
    registered().into_iter().find(|protocol| protocol.name() == name)
}

/// The program that this is, if it is about protocols of its own; the first says so.
pub(crate) fn program() -> Option<Program> {
    registered().first().map(|protocol| protocol.program())
}

/// The words with which this program is called.
pub(crate) fn command() -> &'static str {
    program().map_or("cargo sim", |program| program.command)
}

impl Custom {
    /// The options as they are by default.
    pub(crate) fn usual_options(self) -> Options {
        self.with(self.options())
    }

    /// The options of a plan.
    pub(crate) fn with(self, Sides { server, client }: Sides) -> Options {
        Options::Custom { protocol: self, server, client }
    }
}

impl Deref for Custom {
    type Target = dyn CustomProtocol;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Custom").field(&self.name()).finish()
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Custom {}

impl Serialize for Custom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Custom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("no protocol `{name}` in this program"));
        find(&name).ok_or_else(unknown)
    }
}
