//! `gapless publish`: standard input becomes events, in order, each stored once.

mod lines;

use gapless::AgentId;
use gapless::events::driver::{
    BATCH_BYTES_MAX, Publication, PublishFailure, Publisher, PublisherConfig,
};
use gapless::events::server::Receipt;
use tokio::io::BufReader;
use tokio::sync::mpsc;

use self::lines::{Ids, Line, Lines};
use crate::args::PublishArgs;
use crate::failure::Failure;
use crate::secret::Secret;
use crate::signals::Stop;
use crate::tls::ServerConnector;
use crate::{entropy, exit};

/// How many lines are read ahead.
const LINES_AHEAD_MAX: usize = 1024;

/// How many bytes of payload a batch has at most; what is around them in the request comes on top.
const PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;

/// Publishes until the input ends.
pub(crate) async fn run(args: PublishArgs, token: Secret) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let config = PublisherConfig { attempts_max: u32::MAX, ..PublisherConfig::default() };
    let authority = args.server.url.authority();
    let connector = ServerConnector::new(&args.server.url, args.server.tls_ca.as_deref())?;
    let mut work = Work {
        publisher: Publisher::new(connector, authority, token.reveal(), config, entropy()?),
        agent: args.agent.clone(),
        batch: usize::from(args.batch),
        waiting: None,
        done: Done::default(),
    };
    let ids = match args.id_prefix {
        Some(prefix) => Ids::Numbered(prefix),
        None => Ids::Chained(Vec::new()),
    };
    let (sender, inbox) = mpsc::channel(LINES_AHEAD_MAX);
    let lines = Lines::new(BufReader::new(tokio::io::stdin()), args.agent, args.kind, ids);
    tokio::spawn(lines.read(sender));
    let ended = tokio::select! { biased;
        signal = stop.asked() => Err(signal),
        result = work.run(inbox) => Ok(result),
    };
    eprintln!("{}", work.done);
    match ended {
        Ok(result) => result.map(|()| exit::OK),
        Err(signal) => {
            eprintln!(
                "stopped by {signal}; some of the next {} lines may be stored as well\n  \
                 hint: publish the same input again to go on, nothing is stored twice",
                args.batch
            );
            Ok(exit::INTERRUPTED)
        }
    }
}

struct Work {
    publisher: Publisher<ServerConnector>,
    agent: AgentId,
    batch: usize,
    /// A line that did not fit into the batch before.
    waiting: Option<Line>,
    done: Done,
}

/// How far it got.
#[derive(Default)]
struct Done {
    events: u64,
    /// The last line that is published.
    line: u64,
    last: Option<Receipt>,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.last {
            None => write!(f, "published no events"),
            Some(Receipt { epoch, sequence }) => write!(
                f,
                "published {} events, up to line {}, which has number {sequence} in epoch {}",
                self.events,
                self.line,
                epoch.as_str()
            ),
        }
    }
}

impl Work {
    async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<Result<Line, Failure>>,
    ) -> Result<(), Failure> {
        loop {
            let (batch, problem) = self.next_batch(&mut inbox).await;
            if !batch.is_empty() {
                self.publish(batch).await?;
            } else if problem.is_none() {
                return Ok(());
            }
            if let Some(problem) = problem {
                return Err(problem);
            }
        }
    }

    /// What is there, and at least one line; nothing at the end of the input. A line that is wrong
    /// ends the input.
    async fn next_batch(
        &mut self,
        inbox: &mut mpsc::Receiver<Result<Line, Failure>>,
    ) -> (Vec<Line>, Option<Failure>) {
        let first = match self.waiting.take() {
            Some(line) => Some(Ok(line)),
            None => inbox.recv().await,
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut next = first;
        loop {
            match next {
                Some(Ok(line)) => {
                    bytes += line.bytes();
                    if bytes > PAYLOAD_BYTES_MAX && !batch.is_empty() {
                        self.waiting = Some(line);
                        return (batch, None);
                    }
                    batch.push(line);
                }
                Some(Err(problem)) => return (batch, Some(problem)),
                None => return (batch, None),
            }
            if batch.len() >= self.batch {
                return (batch, None);
            }
            next = inbox.try_recv().ok();
        }
    }

    async fn publish(&mut self, batch: Vec<Line>) -> Result<(), Failure> {
        let (numbers, publications): (Vec<u64>, Vec<Publication>) =
            batch.into_iter().map(|line| (line.number, line.publication)).unzip();
        let (receipts, failure) = match &publications[..] {
            [one] if self.batch == 1 => match self.publisher.publish(one).await {
                Ok(receipt) => (vec![receipt], None),
                Err(failure) => (vec![], Some(failure)),
            },
            all => self.publish_all(all).await,
        };
        for (number, receipt) in numbers.iter().zip(&receipts) {
            let (epoch, sequence) = (receipt.epoch.as_str(), receipt.sequence);
            tracing::debug!(line = *number, epoch, sequence, "published");
            self.done.events += 1;
            self.done.line = *number;
            self.done.last = Some(receipt.clone());
        }
        match (failure, numbers.get(receipts.len())) {
            (Some(failure), Some(line)) => Err(failed(*line, failure)),
            _ => Ok(()),
        }
    }
}

impl Work {
    /// Publishes a batch; the receipts up to the first event that failed. If the server refuses the
    /// batch as a whole because of one event in it, those before that one are published.
    async fn publish_all(
        &mut self,
        batch: &[Publication],
    ) -> (Vec<Receipt>, Option<PublishFailure>) {
        let failed = match self.publisher.publish_all(&self.agent, batch).await {
            Ok(receipts) => return (receipts, None),
            Err(failed) => failed,
        };
        let as_a_whole = failed.receipts.is_empty()
            && batch.len() > 1
            && matches!(failed.failure, PublishFailure::Refused { status: 400 | 413, .. });
        if !as_a_whole {
            return (failed.receipts, Some(failed.failure));
        }
        let mut receipts = Vec::new();
        for one in batch {
            match self.publisher.publish(one).await {
                Ok(receipt) => receipts.push(receipt),
                Err(failure) => return (receipts, Some(failure)),
            }
        }
        (receipts, None)
    }
}

fn failed(line: u64, failure: PublishFailure) -> Failure {
    let problem = format!("line {line}: {failure}");
    match failure {
        PublishFailure::Refused { status: 401, .. } => Failure::refused(problem)
            .hint("check the token, and that the server's token file has its hash"),
        PublishFailure::Refused { status: 403, .. } => {
            Failure::refused(problem).hint("the token needs the role `publish`")
        }
        PublishFailure::Refused { status: 404, .. } => Failure::new(problem)
            .hint("is this a server for event streams? one without batches needs `--batch 1`"),
        PublishFailure::Refused { status: 409, .. } => Failure::new(problem).hint(
            "the id is taken: the line is another one than when it was published first, or another \
             input has the same `--id-prefix`",
        ),
        PublishFailure::Refused { .. } => {
            Failure::new(problem).hint("correct the line and publish the input again")
        }
        PublishFailure::Unknown(_) | PublishFailure::NotStored(_) => {
            Failure::new(problem).hint("publish the same input again to go on")
        }
    }
}
