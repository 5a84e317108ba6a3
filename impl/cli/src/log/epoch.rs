//! `gapless log new-epoch`: a log that several servers share, after its engine was restored.

use gapless::events::cluster::{EngineLog, EngineLogConfig};
use gapless::events::log::{Command, Reply};
use gapless::recovery::Epoch;
use gapless::storage::Store;

use super::args::NewEpochArgs;
use crate::failure::Failure;
use crate::{engine, entropy, exit};

pub(super) async fn run(args: &NewEpochArgs) -> Result<u8, Failure> {
    let engine = engine::connect_to_existing(&args.log, args.log_stream.clone()).await?;
    let config = EngineLogConfig { prefix: args.log_stream.clone(), ..EngineLogConfig::default() };
    // Nothing is followed: the log is left as soon as it has the epoch.
    let (mut log, _follower) = EngineLog::new(engine, config, entropy()?);
    let proposed = Epoch::random(&mut *entropy()?);
    let current = open(&mut log, proposed.clone(), None).await?;
    let opened = match current == proposed {
        true => current,
        false => open(&mut log, proposed, Some(current)).await?,
    };
    println!("{}", opened.as_str());
    Ok(exit::OK)
}

async fn open(
    log: &mut impl Store<Command>,
    proposed: Epoch,
    broken: Option<Epoch>,
) -> Result<Epoch, Failure> {
    let failed = |problem: String| {
        Failure::new(format!("no epoch was begun: {problem}"))
            .hint("run it again when JetStream has a leader; one epoch more does no harm")
    };
    let replies = log.run(vec![Command::OpenEpoch { proposed, broken }]).await;
    match replies.map_err(|error| failed(error.to_string()))?.pop() {
        Some(Reply::EpochOpened(epoch)) => Ok(epoch),
        Some(Reply::Failed(error)) => Err(failed(error.to_string())),
        reply => Err(failed(format!("the log answers {reply:?}"))),
    }
}
