//! Frames of the session protocol, in both directions.

use gapless::recovery::MAX_SEQUENCE;
use gapless::session::wire::{Body, ClientFrame, Notice, ServerFrame};

use super::text_or;
use crate::source::{self, Field, Source, quoted};

fn name(source: &mut Source<'_>) -> String {
    quoted(source.word(&["a", "b", "c", "d", "", "x y"]))
}

fn epoch(source: &mut Source<'_>) -> String {
    quoted(source.word(&["e1", "e2", ""]))
}

fn attachment(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 4] = [
        Field::new("filename", source::text),
        Field::new("doc_id", source::text),
        Field::new("slug", source::text),
        Field::new("title", source::text),
    ];
    source::object(source, &FIELDS)
}

fn attachments(source: &mut Source<'_>) -> String {
    match source.rarely(4) {
        true => source::list(source, attachment),
        false => "[]".to_owned(),
    }
}

fn kind(source: &mut Source<'_>) -> String {
    quoted(source.word(&["message", "question", "answer", "interrupted", "other"]))
}

fn role(source: &mut Source<'_>) -> String {
    quoted(source.word(&["user", "assistant", "nobody"]))
}

fn message(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 7] = [
        Field::new("role", role),
        Field::new("text", source::text),
        Field::new("id", source::number),
        Field::new("kind", kind),
        Field::new("input_id", name),
        Field::new("question_id", name),
        Field::new("attachments", attachments),
    ];
    source::object(source, &FIELDS)
}

fn messages(source: &mut Source<'_>) -> String {
    source::list(source, message)
}

fn question(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 3] = [
        Field::new("question_id", name),
        Field::new("text", source::text),
        Field::new("source", source::text),
    ];
    source::object(source, &FIELDS)
}

fn status(source: &mut Source<'_>) -> String {
    quoted(source.word(&["idle", "thinking", "waiting", "asleep"]))
}

fn verdict(source: &mut Source<'_>) -> String {
    let names = ["up_to_date", "replay", "too_old", "ahead", "other_epoch", "unknown", "none"];
    quoted(source.word(&names))
}

fn reason(source: &mut Source<'_>) -> String {
    quoted(source.word(&["conflict", "expired", "too_large", "not_open", "queue_full"]))
}

fn usage(source: &mut Source<'_>) -> String {
    format!(r#"{{"input":{},"output":{}}}"#, source.number(), source.number())
}

fn notice(source: &mut Source<'_>) -> String {
    let kinds = ["queue_full", "status_transition", "tool_calling", "input_queued", "news"];
    quoted(source.word(&kinds))
}

/// Nearly what a client sends.
pub(crate) fn client_text(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 8] = [
        Field::new("text", source::text),
        Field::new("client_msg_id", name),
        Field::new("attachments", attachments),
        Field::new("after", source::number),
        Field::new("answer_id", name),
        Field::new("question_id", name),
        Field::new("seq", source::number),
        Field::new("epoch", epoch),
    ];
    let kinds = ["user_message", "user_message", "user_answer", "ack", "pong", "request_data"];
    source::nearly(source, &kinds, &FIELDS)
}

/// Nearly what a server sends.
pub(crate) fn server_text(source: &mut Source<'_>) -> String {
    const SEQ: Field = Field::new("seq", source::number);
    match source.below(8) {
        0 => {
            const FIELDS: [Field; 5] = [
                SEQ,
                Field::new("epoch", epoch),
                Field::new("verdict", verdict),
                Field::new("from", source::number),
                Field::new("to", source::number),
            ];
            source::nearly(source, &["session_begin"], &FIELDS)
        }
        1 => {
            const FIELDS: [Field; 6] = [
                SEQ,
                Field::new("epoch", epoch),
                Field::new("messages", messages),
                Field::new("status", status),
                Field::new("open_question", question),
                Field::new("truncated", source::boolean),
            ];
            source::nearly(source, &["session_history"], &FIELDS)
        }
        2 => {
            const FIELDS: [Field; 5] = [
                SEQ,
                Field::new("kind", notice),
                Field::new("queue_cap", source::number),
                Field::new("client_msg_id", name),
                Field::new("status", status),
            ];
            source::nearly(source, &["notification"], &FIELDS)
        }
        3 => {
            const FIELDS: [Field; 2] = [SEQ, Field::new("sent", source::number)];
            source::nearly(source, &["ping", "thinking", "news"], &FIELDS)
        }
        4 => {
            const FIELDS: [Field; 6] = [
                SEQ,
                Field::new("client_msg_id", name),
                Field::new("answer_id", name),
                Field::new("question_id", name),
                Field::new("id", source::number),
                Field::new("reason", reason),
            ];
            let kinds = [
                "user_message_ack",
                "user_message_rejected",
                "user_answer_ack",
                "user_answer_rejected",
            ];
            source::nearly(source, &kinds, &FIELDS)
        }
        _ => {
            const FIELDS: [Field; 10] = [
                SEQ,
                Field::new("text", source::text),
                Field::new("model", source::text),
                Field::new("usage", usage),
                Field::new("id", source::number),
                Field::new("kind", kind),
                Field::new("source", source::text),
                Field::new("question_id", name),
                Field::new("client_msg_id", name),
                Field::new("attachments", attachments),
            ];
            let kinds = ["assistant_message", "question", "user_message", "user_answer"];
            source::nearly(source, &kinds, &FIELDS)
        }
    }
}

/// Reads a text as a frame of either side.
pub fn session_wire(data: &[u8]) {
    let mut source = Source::new(data);
    if source.flip() {
        let text = text_or(&mut source, client_text);
        let Ok(frame) = ClientFrame::parse(&text) else { return };
        let base = frame.to_text(false);
        let read = ClientFrame::parse(&base).expect("a base peer can read what it is sent");
        assert_eq!(read.to_text(false), base, "a base peer is sent nothing of the extension");
        assert_eq!(ClientFrame::parse(&frame.to_text(true)), Ok(frame));
        return;
    }
    let text = text_or(&mut source, server_text);
    let Ok(frame) = ServerFrame::parse(&text) else { return };
    assert!(frame.seq <= MAX_SEQUENCE);
    let read = ServerFrame::parse(&frame.to_text(true));
    assert_eq!(read.as_ref().ok(), Some(&frame), "what is written can be read: {read:?}");
    if !frame.body.is_extension() {
        let base = frame.to_text(false);
        let read = ServerFrame::parse(&base).expect("a base peer can read what it is sent");
        assert_eq!(read.seq, frame.seq);
        assert_eq!(read.to_text(false), base, "a base peer is sent nothing of the extension");
    }
    if let Body::Notice(Notice { fields, .. }) = &frame.body {
        assert!(fields.get().starts_with('{'), "the fields of a notice are an object");
    }
}
