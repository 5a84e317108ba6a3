//! What a page shows of a run: hosts, rows, arrows, bands and findings, as data for its script.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bands::{Band, bands};
use super::steps::sentence;
use crate::check::{Verdict, Violation};
use crate::plan::{Host, Plan};
use crate::trace::causality::Causality;
use crate::trace::{Fact, Kind, Record, Trace};
use crate::world::Run;

/// How many records a page holds. Of a longer run it shows those around the first finding.
pub(super) const RECORDS_MAX: usize = 10_000;

/// How many of them come after the finding, if there are as many before it.
const RECORDS_AFTER_MAX: usize = 2_000;

/// How many findings are marked.
const FINDINGS_MAX: usize = 20;

/// How much of what is in a frame is shown.
const WHOLE_CHARS_MAX: usize = 4_000;

/// A run as its page shows it.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    /// From left to right.
    pub(super) hosts: Vec<Lane>,
    pub(super) rows: Vec<Row>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) bands: Vec<Band>,
    pub(super) findings: Vec<Mark>,
    /// The number of the first row in the whole run.
    pub(super) first: usize,
    /// How many records the whole run has.
    pub(super) records: usize,
}

/// A host, which has up to three lanes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) side: Side,
    /// Whether its application has something to say.
    pub(super) app: bool,
    /// Whether it has a store.
    pub(super) store: bool,
}

/// On which side of the network a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    Client,
    Server,
    /// Who asks the server for work.
    Workload,
}

/// One record.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(rename = "t")]
    at_ms: u64,
    /// Which host, by its place; `None` for the world.
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    host: Option<usize>,
    #[serde(rename = "l")]
    life: u64,
    #[serde(rename = "k")]
    kind: &'static str,
    #[serde(rename = "x")]
    text: String,
    /// How the trace says it, if it is said better here.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    said: Option<String>,
    /// What is in the frame that it is about.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    whole: Option<String>,
    /// The rows that led to it at once.
    #[serde(rename = "c", skip_serializing_if = "Vec::is_empty")]
    causes: Vec<usize>,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Arrow {
    /// The row of its departure; `None` if it was put in on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<usize>,
    /// The row of its arrival or end; `None` if it was not seen again.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<usize>,
    how: Fate,
    /// On whose link, by the place of the host.
    link: usize,
}

/// How a frame ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    Delivered,
    /// It had arrived before, or nobody had sent it.
    Extra,
    /// A fault swallowed it.
    Dropped,
    /// It never arrived: its connection ended first.
    Lost,
}

/// A finding, and the row at which it shows.
#[derive(Debug, Serialize)]
pub(super) struct Mark {
    /// The row after which it is to be seen.
    pub(super) row: usize,
    pub(super) message: String,
    pub(super) checker: &'static str,
    pub(super) statements: &'static [&'static str],
    pub(super) at_ms: u64,
}

impl Timeline {
    pub(super) fn new(run: &Run, verdict: &Verdict) -> Self {
        let (trace, plan) = (&run.trace, &run.plan);
        let causality = Causality::of(trace, plan);
        let anchors: Vec<(usize, &Violation)> = verdict
            .violations()
            .iter()
            .take(FINDINGS_MAX)
            .filter_map(|violation| Some((anchor(trace, plan, violation)?, violation)))
            .collect();
        let (first, end) = window(trace.records.len(), anchors.first().map(|(row, _)| *row));
        let hosts = lanes(trace, plan);
        let place: BTreeMap<&str, usize> =
            hosts.iter().enumerate().map(|(at, lane)| (lane.name.as_str(), at)).collect();
        let shown = |at: &usize| (first..end).contains(at);
        let rows = (first..end).map(|at| {
            let record = &trace.records[at];
            let step = step_of(record, plan);
            let causes = causality.causes[at].iter().filter(|at| shown(at));
            Row {
                at_ms: record.at_ms,
                host: place.get(record.host).copied(),
                life: record.incarnation,
                kind: kind(record.kind),
                text: step.clone().unwrap_or_else(|| record.text.to_string()),
                said: step.map(|_| record.text.to_string()),
                whole: whole(record),
                causes: causes.map(|at| at - first).collect(),
            }
        });
        let mut arrows = arrows(trace, &causality, &place);
        arrows.retain(|arrow| arrow.from.iter().chain(&arrow.to).all(shown));
        for arrow in &mut arrows {
            arrow.from = arrow.from.map(|at| at - first);
            arrow.to = arrow.to.map(|at| at - first);
        }
        let findings =
            anchors.into_iter().filter(|(row, _)| shown(row)).map(|(row, violation)| Mark {
                row: row - first,
                message: violation.message.clone(),
                checker: violation.checker,
                statements: violation.statements,
                at_ms: violation.at_ms,
            });
        Self {
            rows: rows.collect(),
            arrows,
            bands: bands(trace, plan),
            findings: findings.collect(),
            first,
            records: trace.records.len(),
            hosts,
        }
    }
}

/// The record at which a violation shows: the last thing that its client did until then; if it
/// concerns none, the last that anybody did.
pub(super) fn anchor(trace: &Trace, plan: &Plan, violation: &Violation) -> Option<usize> {
    let end = trace.records.partition_point(|record| record.at_ms <= violation.at_ms);
    let client = violation.client.map(|client| Host::Client(client).name(plan.options.protocol()));
    let fits = |record: &Record| {
        // At the end a host may be started once more, for a look into its database.
        let counts = record.kind != Kind::Mark && record.fact != Some(Fact::Starts);
        counts
            && match client {
                Some(client) => record.host == client,
                None => record.kind != Kind::Step,
            }
    };
    let before = &trace.records[..end];
    before.iter().rposition(fits).or(before.len().checked_sub(1))
}

/// The part of a run that is shown: its beginning, or what surrounds a record.
pub(super) fn window(records: usize, around: Option<usize>) -> (usize, usize) {
    let end = match around {
        _ if records <= RECORDS_MAX => records,
        None => RECORDS_MAX,
        Some(at) => (at + RECORDS_AFTER_MAX).clamp(RECORDS_MAX, records),
    };
    (end.saturating_sub(RECORDS_MAX), end)
}

fn lanes(trace: &Trace, plan: &Plan) -> Vec<Lane> {
    let protocol = plan.options.protocol();
    let clients = (1..=plan.topology.clients).map(|number| Host::Client(number).name(protocol));
    let servers = plan.topology.servers().into_iter().chain(plan.topology.engine());
    let mut lanes: Vec<Lane> = clients
        .map(|name| (name, Side::Client))
        .chain(servers.map(|host| (host.name(protocol), Side::Server)))
        .map(|(name, side)| Lane { name: name.to_owned(), side, app: false, store: false })
        .collect();
    for record in trace.records.iter().filter(|record| record.incarnation > 0) {
        let known = lanes.iter().position(|lane| lane.name == record.host);
        let place = known.unwrap_or_else(|| {
            let name = record.host.to_owned();
            lanes.push(Lane { name, side: Side::Workload, app: false, store: false });
            lanes.len() - 1
        });
        lanes[place].app |= record.kind == Kind::App;
        lanes[place].store |= record.kind == Kind::Store;
    }
    lanes
}

fn arrows(trace: &Trace, causality: &Causality, place: &BTreeMap<&str, usize>) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    let link = |at: usize| {
        let record = &trace.records[at];
        let client = match &record.fact {
            Some(Fact::Frame(passage)) => &*passage.client,
            _ => record.host,
        };
        place.get(client).copied().unwrap_or(0)
    };
    let mut seen = vec![false; trace.records.len()];
    let mut arrived = vec![false; trace.records.len()];
    for &(from, to) in &causality.passages {
        let how = match trace.records[to].kind {
            Kind::Drop => Fate::Dropped,
            _ if std::mem::replace(&mut arrived[from], true) => Fate::Extra,
            _ => Fate::Delivered,
        };
        (seen[from], seen[to]) = (true, true);
        arrows.push(Arrow { from: Some(from), to: Some(to), how, link: link(from) });
    }
    for (at, record) in trace.records.iter().enumerate().filter(|(at, _)| !seen[*at]) {
        let is_frame = matches!(record.fact, Some(Fact::Frame(_)));
        match record.kind {
            Kind::Send if is_frame => {
                arrows.push(Arrow { from: Some(at), to: None, how: Fate::Lost, link: link(at) });
            }
            // What the host said itself, and the network never got.
            Kind::Drop if is_frame => {
                let how = Fate::Dropped;
                arrows.push(Arrow { from: Some(at), to: Some(at), how, link: link(at) });
            }
            // An answer over HTTP, or what a fault put in.
            Kind::Receive => {
                arrows.push(Arrow { from: None, to: Some(at), how: Fate::Extra, link: link(at) });
            }
            Kind::Step
            | Kind::Life
            | Kind::Send
            | Kind::Drop
            | Kind::Store
            | Kind::App
            | Kind::Mark => {}
        }
    }
    arrows
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Step => "step",
        Kind::Life => "life",
        Kind::Send => "send",
        Kind::Receive => "receive",
        Kind::Drop => "drop",
        Kind::Store => "store",
        Kind::App => "app",
        Kind::Mark => "mark",
    }
}

/// The step of the plan that a record of the world is about, as a sentence.
fn step_of(record: &Record, plan: &Plan) -> Option<String> {
    let Some(Fact::Step(step)) = &record.fact else { return None };
    sentence(&plan.steps.get(*step)?.action, plan.options.protocol())
}

/// What is in the frame of a record, if it is text, up to [`WHOLE_CHARS_MAX`].
fn whole(record: &Record) -> Option<String> {
    let Some(Fact::Frame(passage)) = &record.fact else { return None };
    let text = std::str::from_utf8(&passage.payload).ok().filter(|text| !text.is_empty())?;
    Some(match text.char_indices().nth(WHOLE_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    })
}
