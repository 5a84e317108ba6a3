//! `gapless log new-epoch`: a log that several servers share, after its engine was restored.

use gapless::events::cluster::{EngineLog, EngineLogConfig};
use gapless::recovery::Epoch;

use super::args::NewEpochArgs;
use crate::failure::Failure;
use crate::{engine, entropy, exit};

pub(super) async fn run(args: &NewEpochArgs) -> Result<u8, Failure> {
    let engine = engine::connect_to_existing(&args.log, args.log_stream.clone()).await?;
    let config = EngineLogConfig { prefix: args.log_stream.clone(), ..EngineLogConfig::default() };
    // Nothing is followed: the log is left as soon as it has the epoch.
    let (log, _follower) = EngineLog::new(engine, config, entropy()?);
    let epoch = Epoch::random(&mut *entropy()?);
    log.begin_epoch(epoch.clone()).await.map_err(|error| {
        Failure::new(format!("no epoch was begun: {error}"))
            .hint("run it again when JetStream has a leader; one epoch more does no harm")
    })?;
    println!("{}", epoch.as_str());
    Ok(exit::OK)
}
