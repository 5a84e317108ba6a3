//! Every frame of the previous release is understood, and would be said in the same words.

use gapless::events::wire as events;
use gapless::session::wire as session;
use gapless::tasks::wire as tasks;

use crate::support::{MIXES, tape};

/// Calls `check` with the mark and the text of every frame of a protocol.
fn for_each(protocol: &str, mut check: impl FnMut(&str, char, &str)) {
    for mix in MIXES {
        for name in ["first.tape", "then.tape"] {
            let tape = tape(protocol, mix, name);
            let frames = tape.iter().filter(|line| line.mark != '=');
            let mut count = 0;
            for line in frames {
                check(mix, line.mark, &line.text);
                count += 1;
            }
            assert!(count > 3, "{protocol}/{mix}/{name} has {count} frames");
        }
    }
}

#[test]
fn frames_of_events_are_read_and_written_as_before() {
    for_each("events", |_, mark, text| {
        let again = match mark {
            '>' => events::ClientFrame::parse(text).expect("a frame").to_text(),
            _ => {
                let frame = events::ServerFrame::parse(text).expect("a frame");
                String::from_utf8(frame.to_bytes().to_vec()).expect("text")
            }
        };
        assert_eq!(again, text);
    });
}

#[test]
fn frames_of_sessions_are_read_and_written_as_before() {
    for_each("session", |mix, mark, text| {
        let extension = mix == "extension";
        let again = match mark {
            '>' => session::ClientFrame::parse(text).expect("a frame").to_text(extension),
            _ => session::ServerFrame::parse(text).expect("a frame").to_text(extension),
        };
        assert_eq!(again, text);
    });
}

#[test]
fn frames_of_tasks_are_read_and_written_as_before() {
    for_each("tasks", |_, mark, text| {
        let again = match mark {
            '>' => {
                let frame = tasks::parse_agent(text).expect("a frame");
                // A hello offers the extension before it is known whether the other side has it.
                [false, true].map(|extension| frame.to_bytes(extension)).to_vec()
            }
            _ => vec![tasks::parse_controller(text).expect("a frame").to_bytes()],
        };
        assert!(again.iter().any(|again| again == text.as_bytes()), "{again:?} for {text}");
    });
}

#[test]
fn a_field_that_a_later_release_adds_to_a_frame_is_passed_over() {
    let later = |text: &str| {
        let fields = text.strip_suffix('}').expect("an object");
        format!("{fields},\"added_later\":{{\"x\":[1]}}}}")
    };
    for_each("events", |_, mark, text| match mark {
        '>' => {
            assert_eq!(events::ClientFrame::parse(&later(text)).expect("a frame").to_text(), text)
        }
        _ => {
            events::ServerFrame::parse(&later(text)).expect("a frame");
        }
    });
    for_each("session", |_, mark, text| match mark {
        '>' => drop(session::ClientFrame::parse(&later(text)).expect("a frame")),
        _ => drop(session::ServerFrame::parse(&later(text)).expect("a frame")),
    });
    for_each("tasks", |_, mark, text| match mark {
        '>' => drop(tasks::parse_agent(&later(text)).expect("a frame")),
        _ => drop(tasks::parse_controller(&later(text)).expect("a frame")),
    });
}
