//! The frames of the task protocol, as they travel.

use bytes::Bytes;
use gapless::AgentId;
use gapless::recovery::{Epoch, WallTime};
use gapless::tasks::wire::{
    Ack, AgentMessage, ControllerMessage, Deliver, Discarded, Envelope, ErrorFrame, Final, Hello,
    HelloAck, LostOutput, Output, ReceivedAttempt, ReplayFrom, RunningAttempt, SpoolStatus,
    StoreLife, UnackedOutput, codes, parse_agent, parse_controller,
};
use gapless::tasks::{Attempt, AttemptId, MessageId, Outcome, OutputStream, Range, TaskId};
use proptest::prelude::*;

const AT: WallTime = WallTime::from_millis(1_763_700_000_000);

fn attempt() -> Attempt {
    Attempt {
        task: TaskId::parse("t1").expect("valid"),
        id: AttemptId::parse("a1").expect("valid"),
    }
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).expect("valid")
}

fn envelope<M>(message: M) -> Envelope<M> {
    let agent = AgentId::parse("agent-1").expect("valid");
    Envelope { message_id: id("m1"), agent, sent_at: AT, message }
}

fn last(stdout: u64, stderr: u64) -> std::collections::BTreeMap<OutputStream, u64> {
    [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)].into()
}

fn result() -> Final {
    Final {
        attempt: attempt(),
        outcome: Outcome::Failed,
        exit_code: 7,
        error: "no".to_owned(),
        output_truncated: true,
        error_truncated: false,
        last_output: Some(last(3, 0)),
    }
}

fn piece(data: &[u8]) -> Output {
    Output {
        attempt: attempt(),
        stream: OutputStream::Stderr,
        sequence: 4,
        data: Bytes::copy_from_slice(data),
        truncated_locally: false,
    }
}

fn hello() -> Hello {
    let running = RunningAttempt { attempt: attempt(), started_at: AT, last_output: last(3, 0) };
    Hello {
        running_task: Some(running.clone()),
        running_tasks: vec![running],
        received_not_started: vec![ReceivedAttempt { attempt: attempt(), received_at: AT }],
        unacked_finals: vec![(id("f1"), result())],
        unacked_output: vec![UnackedOutput {
            attempt: attempt(),
            stream: OutputStream::Stdout,
            range: Range { from: 2, to: 3 },
            truncated_locally: true,
        }],
        lost_output: vec![LostOutput {
            attempt: attempt(),
            stream: OutputStream::Stderr,
            range: Range { from: 5, to: 6 },
        }],
        spool: SpoolStatus { bytes_used: 72, byte_cap: 1 << 26, has_rotated_chunks: true },
        client_version: "gapless/0".to_owned(),
        store: Some(StoreLife {
            epoch: Epoch::parse("e2").expect("valid"),
            predecessor: Some(Epoch::parse("e1").expect("valid")),
            earlier: vec![Epoch::parse("e-0").expect("valid")],
        }),
        complete: true,
    }
}

fn agent_messages() -> Vec<AgentMessage> {
    vec![
        AgentMessage::Hello(Box::new(hello())),
        AgentMessage::Received(attempt()),
        AgentMessage::Started(attempt()),
        AgentMessage::Output(piece("10 €".as_bytes())),
        AgentMessage::Output(Output { truncated_locally: true, ..piece(&[0xff, 0, 0xe2]) }),
        AgentMessage::Final(result()),
        AgentMessage::Error(ErrorFrame {
            code: codes::SPOOL_FULL.to_owned(),
            message: "full".to_owned(),
            retryable: true,
            related: Some(id("d1")),
            highest_accepted_sequence: None,
            attempt: Some(attempt()),
        }),
    ]
}

fn controller_messages() -> Vec<ControllerMessage> {
    vec![
        ControllerMessage::HelloAck(HelloAck {
            acked: id("h1"),
            acknowledged_finals: Some(vec![id("f1")]),
            discarded: Some(vec![Discarded { attempt: attempt(), reason: "why".to_owned() }]),
            output_replay: Some(vec![ReplayFrom {
                attempt: attempt(),
                stream: OutputStream::Stdout,
                next_sequence: 2,
            }]),
            extension: true,
        }),
        ControllerMessage::Deliver(Deliver {
            attempt: attempt(),
            command: "uptime".to_owned(),
            priority: -2,
        }),
        ControllerMessage::Ack(Ack {
            acked: id("m4"),
            acked_type: "task.output".to_owned(),
            attempt: Some(attempt()),
            highest_output_sequence: Some(4),
        }),
        ControllerMessage::Error(ErrorFrame {
            code: codes::OUTPUT_SEQUENCE_GAP.to_owned(),
            message: "sequence 2 is next".to_owned(),
            retryable: true,
            related: Some(id("m4")),
            highest_accepted_sequence: Some(1),
            attempt: None,
        }),
    ]
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).expect("JSON is UTF-8")
}

#[test]
fn every_frame_comes_back_as_it_was() {
    for message in agent_messages() {
        let envelope = envelope(message);
        let bytes = envelope.to_bytes(true);
        assert_eq!(parse_agent(text(&bytes)), Ok(envelope), "{}", text(&bytes));
    }
    for message in controller_messages() {
        let envelope = envelope(message);
        let bytes = envelope.to_bytes();
        assert_eq!(parse_controller(text(&bytes)), Ok(envelope), "{}", text(&bytes));
    }
}

#[test]
fn a_frame_looks_as_the_contract_says() {
    let output = envelope(AgentMessage::Output(piece(b"hello\n"))).to_bytes(true);
    assert_eq!(
        text(&output),
        concat!(
            r#"{"protocol_version":1,"message_id":"m1","type":"task.output","agent_id":"agent-1","#,
            r#""task_id":"t1","execution_attempt_id":"a1","sequence":4,"#,
            r#""sent_at":"2025-11-21T04:40:00.000Z","#,
            r#""payload":{"stream":"stderr","data":"hello\n","byte_count":6}}"#
        )
    );
}

#[test]
fn a_peer_of_the_base_contract_sees_nothing_of_the_extension() {
    let hello = envelope(AgentMessage::Hello(Box::new(hello()))).to_bytes(false);
    for field in ["extension", "lost_output", "running_tasks", "\"store\"", "complete\":"] {
        assert!(!text(&hello).contains(field), "{field} in {}", text(&hello));
    }
    let read = parse_agent(text(&hello)).expect("it is read");
    let AgentMessage::Hello(hello) = read.message else { panic!("a hello") };
    assert_eq!((hello.store, hello.complete), (None, false));
    let binary = envelope(AgentMessage::Output(piece(&[0xff, b'x']))).to_bytes(false);
    assert!(text(&binary).contains("\"data\":\"\u{fffd}x\",\"byte_count\":4"), "{}", text(&binary));
}

#[test]
fn absent_lists_and_empty_ones_are_different() {
    let ack = |lists: &str| {
        let frame = format!(
            r#"{{"protocol_version":1,"message_id":"m","type":"agent.hello_ack","agent_id":"a",
                "sent_at":"x","payload":{{"acked_message_id":"h","acked_type":"agent.hello"{lists}}}}}"#
        );
        match parse_controller(&frame).expect("it is read").message {
            ControllerMessage::HelloAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    };
    let absent = ack("");
    assert_eq!((absent.output_replay, absent.discarded), (None, None));
    assert_eq!(ack(r#","output_replay":null"#).output_replay, None);
    assert_eq!(ack(r#","output_replay":[]"#).output_replay, Some(vec![]));
}

#[test]
fn frames_of_a_real_peer_are_read() {
    let hello = r#"{"protocol_version":1,"message_id":"msg_1795207037204848298","type":"agent.hello","agent_id":"agent-1","sent_at":"2026-11-20T20:37:17Z","payload":{"capabilities":{"delivery_enabled":true,"results_enabled":true},"client_version":"dev","received_not_started":[{"execution_attempt_id":"att_2","received_at":"2026-11-20T20:37:17Z","task_id":"tsk_2"}],"running_task":{"execution_attempt_id":"att_1","last_output_sequence":{"stderr":0,"stdout":0},"started_at":"2026-11-20T20:37:17Z","task_id":"tsk_1"},"spool_status":{"byte_cap":67108864,"bytes_used":72,"has_rotated_chunks":false},"unacked_finals":[{"error_truncated":false,"execution_attempt_id":"att_0","exit_code":0,"message_id":"msg-0","output":"hello\n","output_truncated":false,"status":"completed","task_id":"tsk_0"}],"unacked_output":[{"execution_attempt_id":"att_1","first_sequence":1,"last_sequence":1,"stream":"stdout","task_id":"tsk_1","truncated_locally":false}]}}"#;
    let AgentMessage::Hello(hello) = parse_agent(hello).expect("it is read").message else {
        panic!("a hello")
    };
    assert_eq!(hello.unacked_finals[0].1.outcome, Outcome::Completed);
    assert_eq!(hello.received_not_started.len(), 1);
    let result = r#"{"protocol_version":1,"message_id":"m","type":"task.final","agent_id":"agent-1","sent_at":"2026-11-20T20:37:17Z","task_id":"tsk_0","execution_attempt_id":"att_0","payload":{"error":"","exit_code":0,"output":"hello\n","status":"completed"}}"#;
    assert!(matches!(
        parse_agent(result).expect("it is read").message,
        AgentMessage::Final(Final { outcome: Outcome::Completed, last_output: None, .. })
    ));
    // A sequence written as a float is the same number.
    let output = r#"{"protocol_version":1,"message_id":"m","type":"task.output","agent_id":"agent-1","sent_at":"x","task_id":"t","execution_attempt_id":"a","sequence":4.0,"payload":{"byte_count":6,"data":"hello\n","stream":"stdout","later":1}}"#;
    assert!(matches!(
        parse_agent(output).expect("it is read").message,
        AgentMessage::Output(Output { sequence: 4, .. })
    ));
}

#[test]
fn a_bad_frame_is_an_error_that_names_the_problem_and_the_message() {
    let frame = |rest: &str| {
        format!(r#"{{"protocol_version":1,"message_id":"m7","agent_id":"a","sent_at":"x",{rest}}}"#)
    };
    let output = |sequence: &str, payload: &str| {
        frame(&format!(
            r#""type":"task.output","task_id":"t","execution_attempt_id":"a",{sequence}"payload":{payload}"#
        ))
    };
    let text = r#"{"stream":"stdout","data":"x","byte_count":1}"#;
    for (bad, problem) in [
        (frame(r#""type":"no.such","payload":{}"#), "unknown type"),
        (frame(r#""type":"task.received","payload":{}"#), "task_id"),
        (frame(r#""type":"task.received","task_id":"t","payload":{}"#), "execution_attempt_id"),
        (output("", text), "sequence"),
        (output(r#""sequence":0,"#, text), "sequence"),
        (output(r#""sequence":-1,"#, text), "whole number"),
        (output(r#""sequence":1.5,"#, text), "whole number"),
        (output(r#""sequence":9007199254740992,"#, text), "whole number"),
        (output(r#""sequence":1,"#, "[]"), "not an object"),
        (output(r#""sequence":1,"#, r#"{"stream":"stdin","data":"x","byte_count":1}"#), "stdin"),
        (output(r#""sequence":1,"#, r#"{"stream":"stdout","byte_count":0}"#), "neither"),
        (
            output(r#""sequence":1,"#, r#"{"stream":"stdout","data_b64":"/w==","byte_count":2}"#),
            "byte_count",
        ),
        (
            output(r#""sequence":1,"#, r#"{"stream":"stdout","data_b64":"?","byte_count":1}"#),
            "data_b64",
        ),
        (
            frame(
                r#""type":"task.received","task_id":"a b","execution_attempt_id":"a","payload":{}"#,
            ),
            "an id has",
        ),
    ] {
        let error = parse_agent(&bad).expect_err(&bad);
        assert!(error.problem.contains(problem), "{bad}: {}", error.problem);
        assert_eq!(error.message_id, Some(id("m7")), "{bad}");
    }
    for bad in ["", "[]", "[\"m\"]", "4", "{", "\"x\"", "{}"] {
        assert_eq!(parse_agent(bad).expect_err(bad).message_id, None);
    }
    let old = frame(r#""type":"task.received","payload":{}"#).replace(":1,", ":2,");
    assert!(parse_agent(&old).expect_err(&old).problem.contains("protocol_version"));
    let empty = r#"{"protocol_version":1,"message_id":"m","type":"task.deliver","agent_id":"a","task_id":"t","execution_attempt_id":"a","sent_at":"x","payload":{"command":""}}"#;
    assert!(parse_controller(empty).expect_err(empty).problem.contains("command"));
}

/// A store counts in 64 bits with a sign: what it cannot count fails each transaction that it is in.
#[test]
fn a_number_that_no_stream_can_have_is_refused_wherever_it_stands() {
    let frame = |kind: &str, payload: &str| {
        format!(
            r#"{{"protocol_version":1,"message_id":"m7","agent_id":"a","sent_at":"x","type":"{kind}","task_id":"t","execution_attempt_id":"a","payload":{payload}}}"#
        )
    };
    let of_agent = |number: &str| {
        let hello = |list: &str| {
            let lists = ["received_not_started", "unacked_finals", "unacked_output"];
            let others = lists.into_iter().filter(|it| !list.contains(it));
            let others: String = others.map(|it| format!(r#""{it}":[],"#)).collect();
            let rest = r#""running_task":null,"spool_status":{"bytes_used":0,"byte_cap":1},"client_version":"v""#;
            frame("agent.hello", &format!("{{{list},{others}{rest}}}"))
        };
        let ids = r#""task_id":"t","execution_attempt_id":"a""#;
        let last = format!(r#""last_output_sequence":{{"stdout":{number}}}"#);
        let range =
            format!(r#"{ids},"stream":"stdout","first_sequence":1,"last_sequence":{number}"#);
        vec![
            frame("task.final", &format!(r#"{{"status":"completed","exit_code":0,{last}}}"#)),
            frame("task.output_lost", &format!("{{{range}}}")),
            frame(
                "error",
                &format!(
                    r#"{{"code":"c","message":"m","retryable":true,"highest_accepted_sequence":{number}}}"#
                ),
            ),
            hello(&format!(r#""running_tasks":[{{{ids},{last}}}]"#)),
            hello(&format!(r#""unacked_output":[{{{range}}}]"#)),
            hello(&format!(r#""lost_output":[{{{range}}}]"#)),
            hello(&format!(
                r#""unacked_finals":[{{"message_id":"m",{ids},"status":"failed","exit_code":1,{last}}}]"#
            )),
        ]
    };
    let of_controller = |number: &str| {
        let replay = format!(
            r#"[{{"task_id":"t","execution_attempt_id":"a","stream":"stderr","next_sequence":{number}}}]"#
        );
        vec![
            frame(
                "agent.hello_ack",
                &format!(
                    r#"{{"acked_message_id":"m","acked_type":"agent.hello","acknowledged_final_message_ids":[],"discarded_attempts":[],"output_replay":{replay}}}"#
                ),
            ),
            frame(
                "ack",
                &format!(
                    r#"{{"acked_message_id":"m","acked_type":"task.output","highest_output_sequence":{number}}}"#
                ),
            ),
            frame(
                "error",
                &format!(
                    r#"{{"code":"output_sequence_gap","message":"m","retryable":true,"highest_accepted_sequence":{number}}}"#
                ),
            ),
        ]
    };
    for good in ["9007199254740991", "4.0"] {
        for text in of_agent(good) {
            assert!(parse_agent(&text).is_ok(), "{text}: {:?}", parse_agent(&text));
        }
        for text in of_controller(good) {
            assert!(parse_controller(&text).is_ok(), "{text}: {:?}", parse_controller(&text));
        }
    }
    for bad in ["9007199254740992", "18446744073709551615", "-1", "1.5", "\"4\"", "1e300"] {
        for text in of_agent(bad) {
            assert!(parse_agent(&text).is_err(), "{text}");
        }
        for text in of_controller(bad) {
            assert!(parse_controller(&text).is_err(), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer_and_no_panic(text in "\\PC*") {
        let _ = (parse_agent(&text), parse_controller(&text));
    }

    #[test]
    fn a_frame_that_is_cut_or_changed_is_no_panic(which in 0_usize..7, at in 0_usize..600, byte: u8) {
        let bytes = envelope(agent_messages().swap_remove(which)).to_bytes(true);
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = std::str::from_utf8(&bytes).map(|text| (parse_agent(text), parse_controller(text)));
        bytes.truncate(at);
        let _ = std::str::from_utf8(&bytes).map(|text| (parse_agent(text), parse_controller(text)));
    }

    #[test]
    fn any_bytes_arrive_as_they_were(data: Vec<u8>) {
        let envelope = envelope(AgentMessage::Output(piece(&data)));
        let bytes = envelope.to_bytes(true);
        prop_assert_eq!(parse_agent(text(&bytes)), Ok(envelope));
    }
}
