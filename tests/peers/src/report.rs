//! Tables of what was measured, and the same as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::peer::Kind;
use crate::stats::Median;
use crate::tally::Counts;
use crate::workload::{Sample, Sizes, Workload};

/// What came of one peer in one workload.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// One for each round, or why there is none.
    pub(crate) samples: Vec<Result<Sample, String>>,
}

/// What came of a workload.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) workload: Workload,
    pub(crate) rows: Vec<Row>,
}

/// A row as it is shown.
#[derive(Debug, Serialize)]
struct Line {
    workload: String,
    peer: &'static str,
    version: String,
    /// How many measurements it is made of.
    rounds: usize,
    /// Seconds, or bytes per connection.
    value: Option<Median>,
    /// This one's value by that of gapless in the same round.
    times_gapless: Option<Median>,
    counts: Counts,
    failure: Option<String>,
}

impl Table {
    fn lines(&self, sizes: &Sizes, version: &dyn Fn(Kind) -> String) -> Vec<Line> {
        let ours = self.rows.iter().find(|row| row.kind == Kind::Gapless);
        let line = |row: &Row| {
            let good = || row.samples.iter().filter_map(|sample| sample.as_ref().ok());
            let mut counts = Counts::default();
            good().for_each(|sample| counts += sample.counts);
            let values: Vec<_> = good().filter_map(|sample| sample.value).collect();
            Line {
                workload: self.workload.title(sizes),
                peer: row.kind.title(),
                version: version(row.kind),
                rounds: good().count(),
                value: Median::of(&values),
                times_gapless: ours.and_then(|ours| Median::of(&ratios(row, ours))),
                counts,
                failure: row.samples.iter().find_map(|sample| sample.as_ref().err().cloned()),
            }
        };
        self.rows.iter().map(line).collect()
    }

    /// What gapless did that it must not do, and what of it could not be measured.
    pub(crate) fn inexact(&self) -> impl Iterator<Item = String> {
        let is_ours = |row: &&Row| row.kind.is_ours();
        let ours = self.rows.iter().filter(is_ours);
        ours.flat_map(|row| &row.samples).filter_map(|sample| match sample {
            Ok(Sample { counts, value: _ }) if counts.is_exact() => None,
            Ok(Sample { counts, value: _ }) => Some(format!("{counts:?}")),
            Err(failure) => Some(failure.clone()),
        })
    }

    /// The table in Markdown.
    pub(crate) fn markdown(&self, sizes: &Sizes) -> String {
        let deliveries = self.workload.deliveries(sizes);
        let mut text = format!("### {}\n\n", self.workload.title(sizes));
        text += match (self.workload, deliveries) {
            (Workload::Idle, _) => "| peer | KiB per connection | times gapless |\n|---|---|---|\n",
            (_, None) => "| peer | lost | doubled | swapped |\n|---|---|---|---|\n",
            (_, Some(_)) => {
                "| peer | ms | events/s | times gapless | lost | doubled | swapped |\n\
                 |---|---|---|---|---|---|---|\n"
            }
        };
        for line in self.lines(sizes, &|_| String::new()) {
            let ratio = line.times_gapless.map_or("–".to_owned(), |ratio| shown(ratio, 1.0, 2));
            let Counts { expected, lost, doubled, swapped, foreign } = line.counts;
            let lost = match lost {
                0 => "0".to_owned(),
                lost => format!("**{lost} of {expected}**"),
            };
            // What nobody published is as wrong as what came twice.
            let doubled = doubled + foreign;
            let peer = line.peer;
            let row = match (&line.failure, line.value, self.workload, deliveries) {
                (Some(failure), ..) => format!("| {peer} | not measured: {failure} |"),
                (None, Some(value), Workload::Idle, _) => {
                    format!("| {peer} | {} | {ratio} |", shown(value, 1.0 / 1024.0, 1))
                }
                (None, Some(value), _, Some(deliveries)) => format!(
                    "| {peer} | {} | {} | {ratio} | {lost} | {doubled} | {swapped} |",
                    shown(value, 1000.0, 1),
                    rate(deliveries as f64 / value.median),
                ),
                (None, None, _, Some(_)) => {
                    format!("| {peer} | – | – | – | {lost} | {doubled} | {swapped} |")
                }
                (None, ..) => format!("| {peer} | {lost} | {doubled} | {swapped} |"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{row}");
        }
        text
    }

    /// One JSON object per line.
    pub(crate) fn json(&self, sizes: &Sizes, version: &dyn Fn(Kind) -> String) -> String {
        let lines = self.lines(sizes, version);
        let texts = lines.iter().filter_map(|line| serde_json::to_string(line).ok());
        texts.fold(String::new(), |all, line| all + &line + "\n")
    }
}

/// The values of a row by those of another, round by round.
fn ratios(row: &Row, by: &Row) -> Vec<f64> {
    let value =
        |sample: &Result<Sample, String>| sample.as_ref().ok().and_then(|sample| sample.value);
    let pairs = row.samples.iter().map(value).zip(by.samples.iter().map(value));
    pairs.filter_map(|(row, by)| Some(row? / by?)).collect()
}

fn shown(Median { low, median, high }: Median, scale: f64, digits: usize) -> String {
    let [low, median, high] = [low, median, high].map(|value| value * scale);
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

fn rate(per_second: f64) -> String {
    match per_second {
        1e6.. => format!("{:.2} M", per_second / 1e6),
        _ => format!("{:.0} k", per_second / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes::within(u64::MAX)
    }

    fn row(kind: Kind, values: &[f64], lost: u64) -> Row {
        let counts = Counts { expected: 400, lost, ..Counts::default() };
        let sample = |value: &f64| Ok(Sample { counts, value: Some(*value) });
        Row { kind, samples: values.iter().map(sample).collect() }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() {
        let rows = vec![
            row(Kind::Gapless, &[0.001, 0.010, 0.002], 0),
            row(Kind::Raw, &[0.002, 0.010, 0.006], 0),
        ];
        let table = Table { workload: Workload::ReplayRing, rows };
        let text = table.markdown(&sizes());
        assert!(
            text.contains("| raw WebSocket | 6.0 (2.0 to 10.0) | 67 k | 2.00 (1.00 to 3.00) |"),
            "{text}"
        );
    }

    #[test]
    fn a_loss_of_gapless_is_a_failure_and_one_of_a_peer_is_a_result() {
        let table = |kind, lost| {
            let rows = vec![row(kind, &[0.1], lost)];
            Table { workload: Workload::Takeover, rows }
        };
        assert_eq!(table(Kind::Gapless, 1).inexact().count(), 1);
        assert_eq!(table(Kind::Gapless, 0).inexact().count(), 0);
        assert_eq!(table(Kind::SocketIo, 400).inexact().count(), 0);
    }

    #[test]
    fn a_loss_and_a_failure_are_said() {
        let mut rows = vec![row(Kind::SocketIo, &[0.1, 0.1], 400)];
        rows.push(Row { kind: Kind::Jetstream, samples: vec![Err("it is not there".to_owned())] });
        let table = Table { workload: Workload::Takeover, rows };
        let text = table.markdown(&sizes());
        assert!(text.contains("| Socket.IO, recovery | **800 of 800** | 0 | 0 |"), "{text}");
        assert!(text.contains("not measured: it is not there"), "{text}");
    }
}
