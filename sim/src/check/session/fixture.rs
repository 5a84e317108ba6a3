//! Short histories for the tests of the checkers: one user, whose rows say `row 1` and so on.

use std::ops::RangeInclusive;

use gapless::session::conversation::{Kind, Role};
use gapless::session::wire::{CursorVerdict, InputRejection, Status};

use super::{Check, Checker, Facts, Limits};
use crate::history::{
    Asked, Conn, Entry, History, LinkShown, Numbered, OpenQuestion, RowsShown, Said, Seen,
    SessionSeen, ShownRow, StoredRow, ViewChange, digest,
};

/// What the checker says of these entries, one millisecond apart.
pub(super) fn findings(checker: &Checker, entries: Vec<SessionSeen>) -> Vec<String> {
    all(checker, entries.into_iter().map(Seen::Session).collect())
}

pub(super) fn all(checker: &Checker, entries: Vec<Seen>) -> Vec<String> {
    bounded(checker, entries, Limits { queue: 2, ring: 3, ..Limits::NONE })
}

pub(super) fn bounded(checker: &Checker, entries: Vec<Seen>, limits: Limits) -> Vec<String> {
    let entries = entries.into_iter().zip(1..).map(|(what, at_ms)| Entry { at_ms, what });
    let history = History { entries: entries.collect() };
    let Check::Session(check) = checker.check else { panic!("not a checker of sessions") };
    let findings = check(&Facts::of(&history, limits));
    findings.into_iter().map(|finding| finding.message).collect()
}

/// Every role's text, so that a test needs not to care who says it.
pub(super) fn text(text: &str) -> u64 {
    digest(Role::Assistant, text)
}

fn row_text(position: u64) -> u64 {
    text(&format!("row {position}"))
}

pub(super) fn server_crash() -> Seen {
    Seen::Crashed { host: "server".to_owned() }
}

// ---- the store ---------------------------------------------------------------------------------

pub(super) fn row(position: u64) -> StoredRow {
    let kind = Kind::Message;
    StoredRow { position, kind, digest: row_text(position), input: None, question: None }
}

pub(super) fn input_row(position: u64, input: &str) -> StoredRow {
    StoredRow { input: Some(input.to_owned()), ..row(position) }
}

pub(super) fn question_row(position: u64, question: &str) -> StoredRow {
    StoredRow { kind: Kind::Question, question: Some(question.to_owned()), ..row(position) }
}

pub(super) fn answer_row(position: u64, input: &str, question: &str) -> StoredRow {
    let question = Some(question.to_owned());
    StoredRow { kind: Kind::Answer, question, ..input_row(position, input) }
}

pub(super) fn durable(row: StoredRow) -> SessionSeen {
    SessionSeen::Durable { user: 1, row }
}

pub(super) fn durable_rows(count: u64) -> Vec<SessionSeen> {
    (1..=count).map(|position| durable(row(position))).collect()
}

pub(super) fn refused(input: &str) -> SessionSeen {
    let (input, reason) = (input.to_owned(), InputRejection::NotOpen);
    SessionSeen::Refused { user: 1, input, reason }
}

pub(super) fn begun(position: u64) -> SessionSeen {
    SessionSeen::Begun { user: 1, position }
}

pub(super) fn ran(position: u64) -> SessionSeen {
    SessionSeen::Ran { user: 1, position }
}

pub(super) fn over(position: u64) -> SessionSeen {
    SessionSeen::Over { user: 1, position }
}

pub(super) fn end(rows: Vec<StoredRow>, waiting: &[u64]) -> SessionSeen {
    let question = rows.iter().rfind(|row| matches!(row.kind, Kind::Question | Kind::Answer));
    let question = question.filter(|row| row.kind == Kind::Question).map(asked_by);
    SessionSeen::ConversationEnd { user: 1, rows, question, waiting: waiting.to_vec() }
}

pub(super) fn asked_by(row: &StoredRow) -> OpenQuestion {
    OpenQuestion { id: row.question.clone(), digest: row.digest }
}

// ---- a client ----------------------------------------------------------------------------------

pub(super) fn began(client: u32) -> SessionSeen {
    began_with(client, true, 1, &[])
}

pub(super) fn began_base(client: u32) -> SessionSeen {
    began_with(client, false, 1, &[])
}

pub(super) fn began_with(
    client: u32,
    extension: bool,
    life: u64,
    in_flight: &[&str],
) -> SessionSeen {
    let in_flight = in_flight.iter().map(|input| (*input).to_owned()).collect();
    let name = format!("c{client}");
    SessionSeen::Began { client, user: 1, name, life, extension, in_flight }
}

pub(super) fn submitted(input: &str, position: u64) -> SessionSeen {
    let (input, what, digest) = (input.to_owned(), Said::Message, row_text(position));
    SessionSeen::Submitted { client: 1, input, what, digest }
}

pub(super) fn answered(input: &str, position: u64, question: &str) -> SessionSeen {
    let what = Said::Answer { question: Some(question.to_owned()) };
    SessionSeen::Submitted { client: 1, input: input.to_owned(), what, digest: row_text(position) }
}

pub(super) fn kept(input: &str) -> SessionSeen {
    SessionSeen::Kept { client: 1, input: input.to_owned() }
}

pub(super) fn input_sent(number: u64, input: &str) -> SessionSeen {
    SessionSeen::InputSent { client: 1, conn: conn(number), input: input.to_owned() }
}

pub(super) fn dialed(number: u64, since: u64, epoch: Option<&str>) -> SessionSeen {
    let (conn, epoch) = (conn(number), epoch.map(str::to_owned));
    SessionSeen::Dialed { client: 1, conn, since, epoch, attempt: number }
}

pub(super) fn lost(number: u64, code: u16) -> SessionSeen {
    SessionSeen::Lost { client: 1, conn: conn(number), code: Some(code) }
}

pub(super) fn acked(seq: u64, epoch: &str) -> SessionSeen {
    SessionSeen::Acked { client: 1, conn: conn(1), seq, epoch: Some(epoch.to_owned()) }
}

pub(super) fn shown(client: u32, change: ViewChange) -> SessionSeen {
    SessionSeen::Shown { client, change }
}

fn shown_rows(positions: RangeInclusive<u64>) -> Vec<ShownRow> {
    positions.map(shown_row).collect()
}

pub(super) fn shown_row(position: u64) -> ShownRow {
    ShownRow { position: Some(position), digest: row_text(position) }
}

/// A history was shown.
pub(super) fn history(client: u32, positions: RangeInclusive<u64>) -> SessionSeen {
    let rows = Some(RowsShown::Replaced(shown_rows(positions)));
    shown(client, ViewChange { history: true, rows, ..ViewChange::default() })
}

/// The same, and nothing says that it was one.
pub(super) fn replaced(client: u32, positions: RangeInclusive<u64>) -> SessionSeen {
    let rows = Some(RowsShown::Replaced(shown_rows(positions)));
    shown(client, ViewChange { rows, ..ViewChange::default() })
}

pub(super) fn added(client: u32, positions: RangeInclusive<u64>) -> SessionSeen {
    let rows = Some(RowsShown::Moved { gone: 0, new: shown_rows(positions) });
    shown(client, ViewChange { rows, ..ViewChange::default() })
}

pub(super) fn shown_texts(client: u32, texts: &[(Option<u64>, &str)]) -> SessionSeen {
    let row = |(position, said): &(Option<u64>, &str)| ShownRow {
        position: *position,
        digest: text(said),
    };
    let rows = Some(RowsShown::Replaced(texts.iter().map(row).collect()));
    shown(client, ViewChange { history: true, rows, ..ViewChange::default() })
}

pub(super) fn linked(client: u32, link: LinkShown) -> SessionSeen {
    shown(client, ViewChange { link: Some(link), ..ViewChange::default() })
}

pub(super) fn pending(client: u32, inputs: &[&str]) -> SessionSeen {
    let pending = Some(inputs.iter().map(|input| (*input).to_owned()).collect());
    shown(client, ViewChange { pending, ..ViewChange::default() })
}

pub(super) fn rejected(client: u32, input: &str) -> SessionSeen {
    let rejected = vec![(input.to_owned(), InputRejection::NotOpen)];
    shown(client, ViewChange { rejected, ..ViewChange::default() })
}

pub(super) fn asks(client: u32, row: &StoredRow) -> SessionSeen {
    let question = Some(Asked::Open(asked_by(row)));
    shown(client, ViewChange { question, ..ViewChange::default() })
}

pub(super) fn status(client: u32, status: Status) -> SessionSeen {
    shown(client, ViewChange { status: Some(status), ..ViewChange::default() })
}

// ---- the server --------------------------------------------------------------------------------

pub(super) fn conn(number: u64) -> Conn {
    Conn { life: 1, number }
}

pub(super) fn connected(number: u64, since: u64, epoch: Option<&str>) -> SessionSeen {
    connected_as(1, number, since, epoch)
}

pub(super) fn connected_as(
    client: u32,
    number: u64,
    since: u64,
    epoch: Option<&str>,
) -> SessionSeen {
    SessionSeen::Connected {
        conn: conn(number),
        user: 1,
        name: format!("c{client}"),
        extension: true,
        since,
        epoch: epoch.map(str::to_owned),
        attempt: Some(("view".to_owned(), number)),
    }
}

pub(super) fn verdict(
    number: u64,
    epoch: &str,
    verdict: CursorVerdict,
    range: RangeInclusive<u64>,
) -> SessionSeen {
    let (from, to) = (*range.start(), *range.end());
    SessionSeen::Verdict { conn: conn(number), epoch: epoch.to_owned(), verdict, from, to }
}

/// The first answer to a client: a history of this many rows.
pub(super) fn welcome(number: u64, epoch: &str, seq: u64, rows: u64) -> Vec<SessionSeen> {
    vec![
        verdict(number, epoch, CursorVerdict::Unknown, seq..=seq),
        sent_history(number, seq, 1..=rows),
        greeted(number),
    ]
}

pub(super) fn greeted(number: u64) -> SessionSeen {
    SessionSeen::Greeted { conn: conn(number), status: Status::Idle }
}

pub(super) fn sent(number: u64, seq: u64, what: Numbered) -> SessionSeen {
    SessionSeen::Sent { conn: conn(number), seq, what }
}

pub(super) fn sent_row(number: u64, seq: u64, position: u64) -> SessionSeen {
    sent(number, seq, Numbered::Row(shown_row(position)))
}

pub(super) fn sent_history(number: u64, seq: u64, positions: RangeInclusive<u64>) -> SessionSeen {
    let truncated = *positions.start() > 1;
    let rows = shown_rows(positions);
    sent(number, seq, Numbered::History { rows, truncated, question: None })
}

pub(super) fn accepted(number: u64, seq: u64, input: &str, position: u64) -> SessionSeen {
    let (input, position) = (input.to_owned(), Some(position));
    sent(number, seq, Numbered::Accepted { input, position })
}

pub(super) fn ack_came(number: u64, seq: u64, epoch: &str) -> SessionSeen {
    SessionSeen::AckCame { conn: conn(number), seq, epoch: Some(epoch.to_owned()) }
}

pub(super) fn left(number: u64, code: Option<u16>) -> SessionSeen {
    SessionSeen::Left { conn: conn(number), code }
}
