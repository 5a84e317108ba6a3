//! Frames of the task protocol, in both directions.

use gapless::recovery::WallTime;
use gapless::tasks::wire::{AgentMessage, Envelope, parse_agent, parse_controller};

use super::text_or;
use crate::source::{self, Field, Source, quoted};

fn id(source: &mut Source<'_>) -> String {
    quoted(source.word(&["t1", "t2", "t3", "", "a/b"]))
}

fn attempt_id(source: &mut Source<'_>) -> String {
    quoted(source.word(&["a1", "a2", "a3", "", "a b"]))
}

fn message_id(source: &mut Source<'_>) -> String {
    match source.below(8) {
        0 => source::text(source),
        n => quoted(&format!("m{n}")),
    }
}

fn agent_id(source: &mut Source<'_>) -> String {
    quoted(source.word(&["agent-1", "agent-1", "agent-1", "agent-2", "a/b"]))
}

fn version(source: &mut Source<'_>) -> String {
    match source.rarely(16) {
        true => source.number().to_string(),
        false => "1".to_owned(),
    }
}

fn stream(source: &mut Source<'_>) -> String {
    quoted(source.word(&["stdout", "stderr", "stdout", "stdin"]))
}

fn time(source: &mut Source<'_>) -> String {
    quoted(source.word(&["2025-11-21T04:40:00.000Z", "", "yesterday", "9999-12-31T23:59:60Z"]))
}

fn extension(source: &mut Source<'_>) -> String {
    quoted(source.word(&["gapless.tasks.v1", "gapless.tasks.v1", "gapless.tasks.v2"]))
}

fn epoch(source: &mut Source<'_>) -> String {
    quoted(source.word(&["l1", "l2", "l3", "l4", ""]))
}

fn integer(source: &mut Source<'_>) -> String {
    match source.below(6) {
        0 => i64::MIN.to_string(),
        1 => i64::MAX.to_string(),
        2 => "-1".to_owned(),
        _ => source.number().to_string(),
    }
}

fn last(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 2] =
        [Field::new("stdout", source::number), Field::new("stderr", source::number)];
    source::object(source, &FIELDS)
}

fn outcome(source: &mut Source<'_>) -> String {
    quoted(source.word(&["completed", "failed", "interrupted", "lost"]))
}

fn running(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 4] = [
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
        Field::new("started_at", time),
        Field::new("last_output_sequence", last),
    ];
    source::object(source, &FIELDS)
}

fn running_or_null(source: &mut Source<'_>) -> String {
    match source.flip() {
        true => "null".to_owned(),
        false => running(source),
    }
}

fn received(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 3] = [
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
        Field::new("received_at", time),
    ];
    source::object(source, &FIELDS)
}

const RESULT: [Field; 6] = [
    Field::new("status", outcome),
    Field::new("exit_code", integer),
    Field::new("error", source::text),
    Field::new("output_truncated", source::boolean),
    Field::new("error_truncated", source::boolean),
    Field::new("last_output_sequence", last),
];

pub(super) fn result(source: &mut Source<'_>) -> String {
    source::object(source, &RESULT)
}

/// A result with the ids that it has in a hello and over HTTP.
pub(super) fn named_result(source: &mut Source<'_>) -> String {
    const IDS: [Field; 3] = [
        Field::new("message_id", message_id),
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
    ];
    let (ids, result) = (source::object(source, &IDS), result(source));
    match (ids.as_str(), result.as_str()) {
        ("{}", result) => result.to_owned(),
        (ids, "{}") => ids.to_owned(),
        (ids, result) => format!("{},{}", &ids[..ids.len() - 1], &result[1..]),
    }
}

fn run_of_numbers(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 6] = [
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
        Field::new("stream", stream),
        Field::new("first_sequence", source::number),
        Field::new("last_sequence", source::number),
        Field::new("truncated_locally", source::boolean),
    ];
    source::object(source, &FIELDS)
}

fn spool(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 3] = [
        Field::new("bytes_used", source::number),
        Field::new("byte_cap", source::number),
        Field::new("has_rotated_chunks", source::boolean),
    ];
    source::object(source, &FIELDS)
}

fn life(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 3] = [
        Field::new("epoch", epoch),
        Field::new("predecessor", epoch),
        Field::new("earlier", |source| source::list(source, epoch)),
    ];
    source::object(source, &FIELDS)
}

fn hello(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 11] = [
        Field::new("running_task", running_or_null),
        Field::new("received_not_started", |source| source::list(source, received)),
        Field::new("unacked_finals", |source| source::list(source, named_result)),
        Field::new("unacked_output", |source| source::list(source, run_of_numbers)),
        Field::new("spool_status", spool),
        Field::new("client_version", source::text),
        Field::new("extension", extension),
        Field::new("running_tasks", |source| source::list(source, running)),
        Field::new("lost_output", |source| source::list(source, run_of_numbers)),
        Field::new("store", life),
        Field::new("complete", source::boolean),
    ];
    source::object(source, &FIELDS)
}

fn piece(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 2] =
        [Field::new("stream", stream), Field::new("truncated_locally", source::boolean)];
    let rest = source::object(source, &FIELDS);
    let rest = rest.strip_prefix('{').unwrap_or_default();
    let data = match source.below(4) {
        0 => r#""data_b64":"/wA=","byte_count":2"#.to_owned(),
        1 => format!(r#""data_b64":{},"byte_count":{}"#, source::text(source), source.number()),
        _ => format!(r#""data":{},"byte_count":{}"#, source::text(source), source.number()),
    };
    match rest {
        "}" => format!("{{{data}}}"),
        rest => format!("{{{data},{rest}"),
    }
}

fn lost(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 3] = [
        Field::new("stream", stream),
        Field::new("first_sequence", source::number),
        Field::new("last_sequence", source::number),
    ];
    source::object(source, &FIELDS)
}

fn error(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 5] = [
        Field::new("code", |source| {
            let codes = [
                "output_sequence_gap",
                "store_forked",
                "invalid_message",
                "spool_full",
                "queue_full",
                "unknown_attempt",
                "other",
            ];
            quoted(source.word(&codes))
        }),
        Field::new("message", source::text),
        Field::new("retryable", source::boolean),
        Field::new("related_message_id", message_id),
        Field::new("highest_accepted_sequence", source::number),
    ];
    source::object(source, &FIELDS)
}

fn hello_ack(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 6] = [
        Field::new("acked_message_id", message_id),
        Field::new("acked_type", |_| quoted("agent.hello")),
        Field::new("acknowledged_final_message_ids", |source| source::list(source, message_id)),
        Field::new("discarded_attempts", |source| source::list(source, received)),
        Field::new("output_replay", |source| {
            const FIELDS: [Field; 4] = [
                Field::new("task_id", id),
                Field::new("execution_attempt_id", attempt_id),
                Field::new("stream", stream),
                Field::new("next_sequence", source::number),
            ];
            source::list(source, |source| source::object(source, &FIELDS))
        }),
        Field::new("extension", extension),
    ];
    source::object(source, &FIELDS)
}

fn deliver(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 2] =
        [Field::new("command", source::text), Field::new("priority", integer)];
    source::object(source, &FIELDS)
}

fn ack(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 5] = [
        Field::new("acked_message_id", message_id),
        Field::new("acked_type", |source| {
            quoted(source.word(&["task.output", "task.final", "task.received", "other"]))
        }),
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
        Field::new("highest_output_sequence", source::number),
    ];
    source::object(source, &FIELDS)
}

type Payload = fn(&mut Source<'_>) -> String;

/// A frame of one of these types, each with what its payload nearly is.
fn envelope(source: &mut Source<'_>, kinds: &[(&'static str, Payload)]) -> String {
    const FIELDS: [Field; 7] = [
        Field::new("protocol_version", version),
        Field::new("message_id", message_id),
        Field::new("agent_id", agent_id),
        Field::new("task_id", id),
        Field::new("execution_attempt_id", attempt_id),
        Field::new("sequence", source::number),
        Field::new("sent_at", time),
    ];
    let (kind, payload) = *source.pick(kinds);
    let payload = match source.below(32) {
        31 => source.json(3),
        _ => payload(source),
    };
    let frame = source::nearly(source, &[kind], &FIELDS);
    match frame.strip_suffix('}') {
        Some(open) => format!("{open},\"payload\":{payload}}}"),
        None => frame,
    }
}

fn nothing(_: &mut Source<'_>) -> String {
    "{}".to_owned()
}

/// Nearly what an agent sends.
pub(crate) fn agent_text(source: &mut Source<'_>) -> String {
    let kinds: [(&str, Payload); 8] = [
        ("agent.hello", hello),
        ("task.received", nothing),
        ("task.started", nothing),
        ("task.output", piece),
        ("task.output_lost", lost),
        ("task.final", result),
        ("error", error),
        ("task.other", nothing),
    ];
    envelope(source, &kinds)
}

/// Nearly what a controller sends.
pub(crate) fn controller_text(source: &mut Source<'_>) -> String {
    let kinds: [(&str, Payload); 6] = [
        ("agent.hello_ack", hello_ack),
        ("task.deliver", deliver),
        ("task.query", nothing),
        ("ack", ack),
        ("error", error),
        ("task.other", nothing),
    ];
    envelope(source, &kinds)
}

/// Reads a text as a frame of either side.
pub fn tasks_wire(data: &[u8]) {
    let mut source = Source::new(data);
    let is_controllers = source.flip();
    let nearly = if is_controllers { controller_text } else { agent_text };
    let text = text_or(&mut source, nearly);
    if is_controllers {
        let Ok(frame) = parse_controller(&text) else { return };
        let again = parse_controller(utf8(&frame.to_bytes()));
        assert_eq!(again, Ok(Envelope { sent_at: written(frame.sent_at), ..frame }));
        return;
    }
    let Ok(frame) = parse_agent(&text) else { return };
    // What times a hello tells is written to the millisecond and within four digits of a year.
    let once = parse_agent(utf8(&frame.to_bytes(true))).expect("what is written can be read");
    assert_eq!(parse_agent(utf8(&once.to_bytes(true))).as_ref(), Ok(&once));
    if !matches!(frame.message, AgentMessage::Hello(_)) {
        assert_eq!(once, Envelope { sent_at: written(frame.sent_at), ..frame.clone() });
    }
    let base = frame.to_bytes(false);
    let read = parse_agent(utf8(&base)).expect("a base peer can read what it is sent");
    assert_eq!(read.to_bytes(false), base, "a base peer is sent nothing of the extension");
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a frame is UTF-8")
}

/// A time as it is read back.
fn written(time: WallTime) -> WallTime {
    WallTime::parse_rfc3339(&time.to_rfc3339()).expect("what is written can be read")
}
