//! Writes pages to look at in a browser.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Failure, Request, report, save};
use crate::check::Verdict;
use crate::localise::Likelihood;
use crate::report::{RunPage, run_page};
use crate::world::Run;

/// Writes the page of a run.
pub(super) fn write(
    path: &Path,
    request: &Request,
    run: &Run,
    verdict: &Verdict,
    likelihood: Option<&Likelihood>,
) -> Result<(), Failure> {
    let again = request.again.as_str();
    // How long it really took is no part of a page: the same run gives the same page.
    let report = report::Report { run, verdict, again, once: None, real: Duration::ZERO };
    let commit = commit();
    let page = RunPage {
        run,
        verdict,
        title: &request.title,
        again,
        commit: commit.as_deref(),
        facts: &report.facts(),
        likelihood,
    };
    save(path, &run_page(&page))
}

/// The commit of the code in the folder from which the command was called, as far as it is known
/// there.
pub(super) fn commit() -> Option<String> {
    let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let said = Command::new("git").args(describe).output().ok()?;
    let commit = String::from_utf8(said.stdout).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| said.status.success() && !commit.is_empty())
}
