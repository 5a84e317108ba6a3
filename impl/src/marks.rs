//! Named places that a test campaign must reach.
//!
//! A mark says "the interesting thing happened here": the log answered because the ring was too
//! short, a stale completion was ignored. Marks are registered when the program is linked, so a
//! harness can list those that were never reached. In production a mark is one `tracing` event
//! that nobody listens to.

/// The `tracing` target of every mark; the field `mark` holds its name.
pub const TARGET: &str = "gapless.mark";

/// A place that has a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The name of the mark.
    pub mark: &'static str,
    /// The module in which the place is, as `gapless::events::client`.
    pub module: &'static str,
}

/// Every place with a mark that is linked into this binary, in no particular order; several places
/// may carry the same name.
#[linkme::distributed_slice]
pub static MARKS: [Place];

/// The names of all marks that are linked in, sorted and without repetitions.
pub fn all() -> Vec<&'static str> {
    let mut names: Vec<_> = MARKS.iter().map(|place| place.mark).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[doc(hidden)]
pub mod private {
    pub use linkme;
    pub use tracing;
}

/// Records that the named place was reached.
///
/// ```
/// gapless::mark!("events.example_place");
/// assert!(gapless::marks::all().contains(&"events.example_place"));
/// ```
#[macro_export]
macro_rules! mark {
    ($name:literal) => {{
        #[$crate::marks::private::linkme::distributed_slice($crate::marks::MARKS)]
        #[linkme(crate = $crate::marks::private::linkme)]
        static MARK: $crate::marks::Place =
            $crate::marks::Place { mark: $name, module: ::core::module_path!() };
        $crate::marks::private::tracing::event!(
            target: "gapless.mark",
            $crate::marks::private::tracing::Level::TRACE,
            mark = $name
        );
    }};
}
