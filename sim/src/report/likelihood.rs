//! How likely a violation is over what is kept of the plan, as a section of the page of a run.

use maud::{Markup, html};

use super::page::seconds;
use super::steps::step_of_run;
use crate::localise::{DRAWS, Likelihood, Point};
use crate::world::Run;

// The drawing, in its own units.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 110.0;
const ALONE: f64 = 132.0;
const HEIGHT: f64 = 162.0;

pub(super) fn section(likelihood: &Likelihood, run: &Run) -> Markup {
    let points = &likelihood.points;
    let end_ms = points.iter().filter_map(|point| Some(point.last?.1)).max().unwrap_or(0).max(1);
    let x = |point: &Point| {
        let at_ms = point.last.map_or(0, |(_, at_ms)| at_ms);
        LEFT + (RIGHT - LEFT) * at_ms as f64 / end_ms as f64
    };
    let y = |percent: u32| BOTTOM - (BOTTOM - TOP) * f64::from(percent) / 100.0;
    let corners = points.iter().map(|point| format!("{:.1} {:.1}", x(point), y(point.percent())));
    let line = format!("M {}", corners.collect::<Vec<_>>().join(" L "));
    let is_redrawn = points.iter().any(|point| point.redrawn.is_some());
    let turn = likelihood.turn().filter(|(before, _)| before.is_some()).map(|(_, turn)| turn);
    html! {
        div.likelihood {
            p { (told(likelihood, run)) }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(told(likelihood, run)) {
                @for percent in [0, 50, 100] {
                    line.axis x1=(LEFT) x2=(RIGHT) y1=(y(percent)) y2=(y(percent)) {}
                    text x=(LEFT - 8.0) y=(y(percent) + 4.0) text-anchor="end" { (percent) " %" }
                }
                @if is_redrawn {
                    path.under d=(format!("{line} L {RIGHT:.1} {BOTTOM:.1} L {LEFT:.1} {BOTTOM:.1} Z")) {}
                    path.share d=(line) {}
                }
                @for point in points {
                    @if let Some(recurred) = point.redrawn {
                        circle.point cx=(format!("{:.1}", x(point))) cy=(format!("{:.1}", y(point.percent()))) r="3.5" {
                            title { "kept until " (until(point)) ": came back in " (recurred) " of " (DRAWS) " runs with another rest" }
                        }
                    }
                    circle.alone[point.alone].not[!point.alone] cx=(format!("{:.1}", x(point))) cy=(ALONE) r="4" {
                        title { "kept until " (until(point)) ", nothing after: " @if point.alone { "came back" } @else { "did not come back" } }
                    }
                }
                @if let Some(turn) = turn {
                    line.turn x1=(x(turn)) x2=(x(turn)) y1=(TOP - 6.0) y2=(ALONE + 8.0) {}
                    text.turn-text x=(x(turn)) y=(TOP - 8.0) text-anchor="middle" { (until(turn)) }
                }
                text x=(LEFT - 8.0) y=(ALONE + 4.0) text-anchor="end" { "alone" }
                text x=(LEFT) y=(HEIGHT - 6.0) { "0 s" }
                text x=((LEFT + RIGHT) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { "the plan is kept until" }
                text x=(RIGHT) y=(HEIGHT - 6.0) text-anchor="end" { (seconds(end_ms)) }
            }
            p.dim {
                @if is_redrawn {
                    "Up to each time the plan is kept, and the rest is drawn anew " (DRAWS) " times. "
                } @else {
                    "The scenario draws nothing, so there is no other rest to try. "
                }
                "The dots below say whether the violation comes back if nothing follows at all. "
                (likelihood.runs) " runs."
            }
        }
    }
}

fn until(point: &Point) -> String {
    point.last.map_or_else(|| "the beginning".to_owned(), |(_, at_ms)| seconds(at_ms))
}

/// What the curve says, as a sentence.
pub(crate) fn told(likelihood: &Likelihood, run: &Run) -> String {
    match likelihood.turn() {
        None => {
            "It is never inevitable: with another rest it mostly does not come back.".to_owned()
        }
        Some((None, _)) => {
            "Whatever the plan does, it comes back: it does not take a plan.".to_owned()
        }
        Some((Some(before), turn)) => {
            let (step, at_ms) = turn.last.unwrap_or_default();
            let steps = turn.kept - before.kept;
            let which = match steps {
                1 => "with this step".to_owned(),
                steps => format!("with the {steps} steps that end with this one"),
            };
            let before = match before.redrawn {
                Some(_) => format!("it comes back in {} % of the runs", before.percent()),
                None => "it does not come back".to_owned(),
            };
            let (at, what) = (seconds(at_ms), step_of_run(run, step));
            format!("From {at} on it is inevitable, {which}: {what}. Before, {before}.")
        }
    }
}
