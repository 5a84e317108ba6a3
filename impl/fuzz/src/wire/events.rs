//! Frames of the event protocol, in both directions, and the bodies of events.

use gapless::events::wire::{ClientFrame, Event, EventBody, ServerFrame};
use gapless::recovery::MAX_SEQUENCE;
use serde_json::value::RawValue;

use super::text_or;
use crate::source::{self, Field, Source, quoted};

const EPOCHS: [&str; 4] = ["e1", "e2", "", "e 3"];

fn epoch(source: &mut Source<'_>) -> String {
    quoted(source.word(&EPOCHS))
}

fn verdict(source: &mut Source<'_>) -> String {
    let names = ["up_to_date", "replay", "too_old", "ahead", "other_epoch", "unknown", "none"];
    quoted(source.word(&names))
}

fn range(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 2] =
        [Field::new("from", source::number), Field::new("to", source::number)];
    source::object(source, &FIELDS)
}

fn lost(source: &mut Source<'_>) -> String {
    source::list(source, range)
}

fn channels(source: &mut Source<'_>) -> String {
    source::list(source, source::text)
}

fn since(source: &mut Source<'_>) -> String {
    let times = [
        "2026-11-20T22:40:00.000Z",
        "2026-11-20T22:40:00+25:00",
        "9999-12-31T23:59:60Z",
        "0000-01-01T00:00:00-23:59",
        "?",
    ];
    quoted(source.word(&times))
}

/// Nearly what a client sends.
pub(crate) fn client_text(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 4] = [
        Field::new("last_seen_seq", source::number),
        Field::new("epoch", epoch),
        Field::new("since", since),
        Field::new("channels", channels),
    ];
    source::nearly(source, &["resync", "ping", "subscribe", "unsubscribe", "note"], &FIELDS)
}

/// Nearly what a server sends.
pub(crate) fn server_text(source: &mut Source<'_>) -> String {
    match source.below(8) {
        0 => {
            const FIELDS: [Field; 2] =
                [Field::new("sent", source::number), Field::new("head", source::number)];
            source::nearly(source, &["pong"], &FIELDS)
        }
        1 => {
            const FIELDS: [Field; 3] = [
                Field::new("epoch", epoch),
                Field::new("oldest", source::number),
                Field::new("head", source::number),
            ];
            source::nearly(source, &["stream"], &FIELDS)
        }
        2 | 3 => {
            const FIELDS: [Field; 9] = [
                Field::new("epoch", epoch),
                Field::new("verdict", verdict),
                Field::new("from", source::number),
                Field::new("to", source::number),
                Field::new("lost", lost),
                Field::new("last_seen_seq", source::number),
                Field::new("current_seq", source::number),
                Field::new("replayed", source::number),
                Field::new("gap_detected", source::boolean),
            ];
            source::nearly(source, &["resync_begin", "resync_ack"], &FIELDS)
        }
        4 => {
            const FIELDS: [Field; 3] = [
                Field::new("epoch", epoch),
                Field::new("from", source::number),
                Field::new("to", source::number),
            ];
            source::nearly(source, &["gap"], &FIELDS)
        }
        _ => {
            const FIELDS: [Field; 4] = [
                Field::new("agent_seq", source::number),
                Field::new("id", source::text),
                Field::new("replayed", source::boolean),
                Field::new("text", source::text),
            ];
            source::nearly(source, &["note", "message.created", "error"], &FIELDS)
        }
    }
}

/// Reads a text as a frame of either side, and as an event to be published.
pub fn events_wire(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(3) {
        0 => {
            let text = text_or(&mut source, client_text);
            let Ok(frame) = ClientFrame::parse(&text) else { return };
            if let ClientFrame::Resync(resync) = &frame {
                assert!(resync.last_seen_seq <= MAX_SEQUENCE);
            }
            // A time is written to the millisecond and within four digits of a year.
            let once = ClientFrame::parse(&frame.to_text()).expect("what is written can be read");
            let twice = ClientFrame::parse(&once.to_text());
            assert_eq!(twice.as_ref(), Ok(&once));
            match (&frame, &once) {
                (ClientFrame::Resync(read), ClientFrame::Resync(again)) => {
                    assert_eq!(
                        (read.last_seen_seq, &read.epoch, read.since.is_some()),
                        (again.last_seen_seq, &again.epoch, again.since.is_some()),
                    );
                }
                _ => assert_eq!(frame, once),
            }
        }
        1 => {
            let text = text_or(&mut source, server_text);
            let Ok(frame) = ServerFrame::parse(&text) else { return };
            if let ServerFrame::Event(event) = &frame {
                assert!(event.sequence().is_none_or(|it| (1..=MAX_SEQUENCE).contains(&it)));
                assert_eq!(event.text(), text, "an event is passed on as it came");
            }
            let bytes = frame.to_bytes();
            let text = std::str::from_utf8(&bytes).expect("a frame is UTF-8");
            assert_eq!(ServerFrame::parse(text), Ok(frame));
        }
        _ => {
            let (id, kind) = (source.maybe(Source::text), source.text());
            let sequence = source.sequence().max(1);
            let payload = text_or(&mut source, |source| {
                const FIELDS: [Field; 3] = [
                    Field::new("a", source::number),
                    Field::new("text", source::text),
                    Field::new("agent_seq", source::number),
                ];
                source::object(source, &FIELDS)
            });
            let Ok(payload) = RawValue::from_string(payload) else { return };
            let Ok(body) = EventBody::new(id.as_deref(), &kind, &payload, 256) else { return };
            assert!(body.as_str().len() <= 256, "an event is within its limit");
            let stored = EventBody::from_stored(body.as_str()).expect("what is stored can be read");
            assert_eq!(stored, body);
            let event = Event::stamped(sequence, &body);
            let read = ServerFrame::parse(event.text());
            assert_eq!(read, Ok(ServerFrame::Event(event)), "whoever is sent an event can read it");
        }
    }
}
