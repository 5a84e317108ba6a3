//! A run, or many, as a page to be looked at in a browser.
//!
//! Each page is one file that needs nothing else: no network, no framework, no font of its own.
//! Its policy (`Content-Security-Policy`) allows the one style and the one script that it brings,
//! by their hashes, and nothing else; whatever came out of a run is escaped. The same run gives the
//! same page, byte for byte.
//!
//! What is shown of a run is made here, as data; where it stands on the screen is a matter of the
//! script.

mod bands;
mod likelihood;
mod mutants;
mod page;
mod run;
mod steps;
mod sweep;
mod timeline;

pub use self::mutants::{Kill, mutants_page};
pub use self::run::{RunPage, run_page};
pub use self::sweep::{SweepPage, sweep_page};

pub(crate) use self::likelihood::told;
pub(crate) use self::steps::step_of_run;

#[cfg(test)]
mod tests;
