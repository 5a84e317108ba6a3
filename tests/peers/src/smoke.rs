//! Ours and the ceiling, once and small: every path of the harness, and no time.

use std::path::PathBuf;
use std::process::Command;

use crate::failure::Result;
use crate::peer::Kind;
use crate::preflight;
use crate::run;
use crate::tally::Counts;
use crate::workload::{Sizes, Workload};

const SMALL: Sizes = Sizes {
    ring: 40,
    log: 700,
    receivers: 20,
    fan_out: 40,
    fan_out_batch: 20,
    storm: 10,
    idle: 50,
};

/// The program beside the tests; cargo builds it only for tests of another kind than this one.
pub(crate) fn program() -> PathBuf {
    let here = std::env::current_exe().expect("this program has a place");
    here.ancestors().nth(2).expect("two folders up").join("gapless-peers")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_delivers_everything_once_in_order() -> Result<()> {
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--package", "gapless-peers"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status()?.success());
    preflight::prepare(Kind::Gapless)?;
    for workload in Workload::ALL {
        let table = run(workload, &[Kind::Gapless, Kind::Raw], 1, &SMALL).await;
        for row in table.rows {
            for sample in row.samples {
                let sample = sample.expect("it is measured");
                assert!(
                    sample.counts.is_exact(),
                    "{workload:?}, {:?}: {:?}",
                    row.kind,
                    sample.counts
                );
                assert!(sample.value.is_some(), "{workload:?}, {:?}", row.kind);
                let delivers = workload != Workload::Idle;
                assert_eq!(sample.counts != Counts::default(), delivers, "{workload:?}");
            }
        }
    }
    Ok(())
}
