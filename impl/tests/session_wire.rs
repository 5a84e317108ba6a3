//! The frames of the session protocol, as they travel.

use std::sync::Arc;

use gapless::recovery::{Epoch, MAX_SEQUENCE};
use gapless::session::Name;
use gapless::session::conversation::{Kind, Role};
use gapless::session::wire::{
    Assistant, Attachment, Begin, Body, ClientFrame, CursorVerdict, FrameError, History,
    HistoryMessage, InputRejection, Notice, Question, ServerFrame, Status, Usage,
};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn name(text: &str) -> Name {
    Name::parse(text).expect("valid")
}

fn epoch() -> Epoch {
    Epoch::parse("e1").expect("valid")
}

fn attachment(title: Option<&str>) -> Attachment {
    Attachment {
        filename: "a.pdf".to_owned(),
        doc_id: "d1".to_owned(),
        slug: "a".to_owned(),
        title: title.map(str::to_owned),
    }
}

fn question() -> Question {
    let source = "agent:coder".to_owned();
    Question { id: Some(name("q1")), text: "go on?".to_owned(), source }
}

fn notice(kind: &str, fields: &str) -> Body {
    let fields = RawValue::from_string(fields.to_owned()).expect("JSON");
    Body::Notice(Notice { kind: kind.to_owned(), fields })
}

fn client_frames() -> Vec<ClientFrame> {
    vec![
        ClientFrame::UserMessage {
            id: Some(name("m1")),
            text: "10 € \"quoted\"\n".to_owned(),
            attachments: vec![attachment(None), attachment(Some("A"))],
            after: Some(7),
        },
        ClientFrame::UserMessage {
            id: None,
            text: String::new(),
            attachments: vec![],
            after: None,
        },
        ClientFrame::UserAnswer {
            id: Some(name("a1")),
            question: Some(name("q1")),
            text: "yes".to_owned(),
        },
        ClientFrame::Ack { seq: MAX_SEQUENCE, epoch: Some(epoch()) },
        ClientFrame::Pong,
    ]
}

fn history() -> History {
    History {
        epoch: Some(epoch()),
        messages: vec![
            HistoryMessage {
                role: Role::User,
                text: "hello".to_owned(),
                position: Some(1),
                kind: Some(Kind::Message),
                input: Some(name("m1")),
                question: None,
                attachments: vec![attachment(Some("A"))],
            },
            HistoryMessage {
                role: Role::Assistant,
                text: "go on?".to_owned(),
                position: Some(2),
                kind: Some(Kind::Question),
                input: None,
                question: Some(name("q1")),
                attachments: vec![],
            },
        ],
        status: Some(Status::Waiting),
        open_question: Some(question()),
        truncated: true,
    }
}

/// Every frame, and whether the base contract has it with nothing left out.
fn server_bodies() -> Vec<(Body, bool)> {
    let begin = Begin { epoch: epoch(), verdict: CursorVerdict::Replay, from: 3, to: 9 };
    let said = Assistant {
        text: "hi".to_owned(),
        model: "m".to_owned(),
        usage: Some(Usage { input: 10, output: 3 }),
        position: Some(12),
        kind: Some(Kind::Interrupted),
    };
    let base_said = Assistant { usage: None, position: None, kind: None, ..said.clone() };
    let base_row = HistoryMessage {
        role: Role::User,
        text: "hello".to_owned(),
        position: None,
        kind: None,
        input: None,
        question: None,
        attachments: vec![],
    };
    let base_history = History { messages: vec![base_row], ..History::default() };
    let queue_full = InputRejection::QueueFull { queue_cap: 10 };
    vec![
        (Body::Begin(begin), false),
        (Body::History(Arc::new(history())), false),
        (Body::History(Arc::new(base_history)), true),
        (Body::Assistant(said), false),
        (Body::Assistant(base_said), true),
        (Body::Question { question: question(), position: Some(2) }, false),
        (Body::Question { question: Question { id: None, ..question() }, position: None }, true),
        (
            Body::UserMessage {
                position: 4,
                id: Some(name("m2")),
                text: "from the other tab".to_owned(),
                attachments: vec![attachment(None)],
            },
            false,
        ),
        (Body::UserAnswer { position: 5, question: None, text: "no".to_owned() }, false),
        (Body::MessageAck { id: name("m1"), position: Some(1) }, false),
        (Body::MessageAck { id: name("m1"), position: None }, true),
        (Body::MessageRejected { id: Some(name("m1")), reason: queue_full }, true),
        (Body::MessageRejected { id: None, reason: queue_full }, true),
        (Body::MessageRejected { id: Some(name("m1")), reason: InputRejection::Expired }, false),
        (Body::AnswerAck { id: name("a1"), question: Some(name("q1")), position: 3 }, false),
        (
            Body::AnswerRejected {
                id: name("a1"),
                question: Some(name("q1")),
                reason: InputRejection::NotOpen,
            },
            false,
        ),
        (Body::Status(Status::Thinking), true),
        (notice("tool_calling", r#"{"name":"grep"}"#), true),
        (notice("save_warning", r#"{"message":"disk","n":{"a":[1,null]}}"#), true),
        (notice("odd \"kind\"", "{}"), true),
        (Body::Thinking, true),
        (Body::Ping { sent: Some(0) }, false),
        (Body::Ping { sent: None }, true),
        (Body::Unknown { kind: "odd \"type\"".to_owned() }, true),
    ]
}

fn read(text: &str) -> Result<Body, FrameError> {
    ServerFrame::parse(text).map(|frame| frame.body)
}

#[test]
fn every_frame_comes_back_as_it_was() {
    for frame in client_frames() {
        let text = frame.to_text(true);
        assert_eq!(ClientFrame::parse(&text).as_ref(), Ok(&frame), "{text}");
    }
    for (body, _) in server_bodies() {
        let frame = ServerFrame { seq: 7, body };
        let text = frame.to_text(true);
        assert_eq!(ServerFrame::parse(&text).as_ref(), Ok(&frame), "{text}");
    }
}

#[test]
fn a_frame_of_the_base_contract_comes_back_without_the_extension() {
    for (body, is_base) in server_bodies() {
        let frame = ServerFrame { seq: 7, body };
        if frame.body.is_extension() {
            continue;
        }
        let text = frame.to_text(false);
        let read = ServerFrame::parse(&text).expect("it is read");
        assert_eq!(read == frame, is_base, "{text}");
        assert_eq!(read.to_text(true), text, "nothing of the extension is left in it");
    }
}

#[test]
fn a_base_server_sees_nothing_of_the_extension() {
    let texts: Vec<_> = client_frames().iter().map(|frame| frame.to_text(false)).collect();
    assert_eq!(
        texts[0],
        concat!(
            r#"{"type":"user_message","text":"10 € \"quoted\"\n","client_msg_id":"m1","#,
            r#""attachments":[{"filename":"a.pdf","doc_id":"d1","slug":"a"},"#,
            r#"{"filename":"a.pdf","doc_id":"d1","slug":"a","title":"A"}]}"#
        )
    );
    assert_eq!(texts[2], r#"{"type":"user_answer","text":"yes"}"#);
    assert_eq!(texts[3], r#"{"type":"ack","seq":9007199254740991}"#);
    assert_eq!(texts[4], r#"{"type":"pong"}"#);
}

#[test]
fn a_base_client_sees_nothing_of_the_extension() {
    let text = |body| ServerFrame { seq: 7, body }.to_text(false);
    assert_eq!(
        text(Body::History(Arc::new(history()))),
        concat!(
            r#"{"seq":7,"type":"session_history","messages":[{"role":"user","text":"hello"},"#,
            r#"{"role":"assistant","text":"go on?"}]}"#
        )
    );
    assert_eq!(
        text(Body::Question { question: question(), position: Some(2) }),
        r#"{"seq":7,"type":"question","text":"go on?","source":"agent:coder"}"#
    );
    assert_eq!(
        text(Body::MessageAck { id: name("m1"), position: Some(1) }),
        r#"{"seq":7,"type":"user_message_ack","client_msg_id":"m1"}"#
    );
    assert_eq!(
        ServerFrame { seq: 0, body: Body::Ping { sent: Some(9) } }.to_text(false),
        r#"{"seq":0,"type":"ping"}"#
    );
}

#[test]
fn a_frame_looks_as_the_contract_says() {
    let (said, _) = server_bodies().swap_remove(3);
    assert_eq!(
        ServerFrame { seq: 7, body: said }.to_text(true),
        concat!(
            r#"{"seq":7,"type":"assistant_message","text":"hi","model":"m","#,
            r#""usage":{"input":10,"output":3},"id":12,"kind":"interrupted"}"#
        )
    );
    let reason = InputRejection::QueueFull { queue_cap: 10 };
    assert_eq!(
        ServerFrame { seq: 8, body: Body::MessageRejected { id: Some(name("m1")), reason } }
            .to_text(true),
        concat!(
            r#"{"seq":8,"type":"notification","kind":"queue_full","queue_cap":10,"#,
            r#""client_msg_id":"m1"}"#
        )
    );
}

#[test]
fn frames_of_a_real_peer_are_read() {
    assert_eq!(
        ClientFrame::parse(
            r#"{"type":"user_message","text":"x","client_msg_id":null,"attachments":null}"#
        ),
        Ok(ClientFrame::UserMessage {
            id: None,
            text: "x".to_owned(),
            attachments: vec![],
            after: None
        })
    );
    assert_eq!(
        read(r#"{"seq":9,"type":"notification","kind":"queue_full","queue_cap":10}"#),
        Ok(Body::MessageRejected { id: None, reason: InputRejection::QueueFull { queue_cap: 10 } })
    );
    assert_eq!(
        read(
            r#"{"seq":3,"type":"notification","kind":"status_transition","status":"idle","detail":null}"#
        ),
        Ok(Body::Status(Status::Idle))
    );
    let affect = r#"{"seq":4,"type":"notification","kind":"affect_tick","calm":0.5,"status":"warm","id":"x","reason":7}"#;
    let Ok(Body::Notice(notice)) = read(affect) else { panic!("a notice") };
    assert_eq!(notice.fields.get(), r#"{"calm":0.5,"id":"x","reason":7,"status":"warm"}"#);
    assert!(notice.is_ephemeral() && !notice.is_progress());
    assert_eq!(
        read(r#"{"seq":8,"type":"question","text":"q","source":"cognitive"}"#),
        Ok(Body::Question {
            question: Question { id: None, text: "q".to_owned(), source: "cognitive".to_owned() },
            position: None
        })
    );
}

#[test]
fn a_number_is_whole_and_in_range() {
    let seq = |number: &str| {
        ServerFrame::parse(&format!(r#"{{"seq":{number},"type":"thinking"}}"#))
            .map(|frame| frame.seq)
    };
    assert_eq!(seq("4.0"), Ok(4));
    assert_eq!(seq("9007199254740991"), Ok(MAX_SEQUENCE));
    for bad in ["-1", "1.5", "9007199254740992", "1e300", "\"4\"", "[]", "true"] {
        assert!(seq(bad).is_err(), "{bad}");
    }
    assert_eq!(
        ClientFrame::parse(r#"{"type":"ack","seq":4.0}"#),
        Ok(ClientFrame::Ack { seq: 4, epoch: None })
    );
    let ping = |sent: &str| read(&format!(r#"{{"seq":0,"type":"ping","sent":{sent}}}"#));
    assert_eq!(ping("4.0"), Ok(Body::Ping { sent: Some(4) }));
    assert_eq!(ping("-4"), Ok(Body::Ping { sent: None }), "it is a ping all the same");
    let row = |id: &str| read(&format!(r#"{{"seq":1,"type":"user_answer","text":"x","id":{id}}}"#));
    assert!(row("3.0").is_ok() && row("0").is_err() && row("null").is_err());
}

#[test]
fn what_a_notification_tells_is_passed_on_to_the_last_digit() {
    let text =
        r#"{"seq":3,"type":"notification","kind":"news","n":18174943709995467000.1,"t":"é"}"#;
    let frame = ServerFrame::parse(text).expect("a frame");
    assert_eq!(frame.to_text(true), text);
}

#[test]
fn what_a_newer_server_says_is_taken_as_far_as_it_is_known() {
    let unknown = r#"{"seq":6,"type":"log_data","entries":[]}"#;
    assert_eq!(
        ServerFrame::parse(unknown),
        Ok(ServerFrame { seq: 6, body: Body::Unknown { kind: "log_data".to_owned() } }),
        "its number counts"
    );
    assert_eq!(
        read(r#"{"seq":0,"type":"log_data"}"#),
        Err(FrameError::UnknownType("log_data".to_owned()))
    );
    let begin = r#"{"seq":0,"type":"session_begin","epoch":"e","verdict":"lost_in_space","from":4,"to":3,"x":1}"#;
    let Ok(Body::Begin(begin)) = read(begin) else { panic!("a verdict") };
    assert!(begin.verdict.is_history());
    let history = r#"{"seq":2,"type":"session_history","status":"dreaming","messages":[{"role":"user","text":"x","kind":"song"}]}"#;
    let Ok(Body::History(history)) = read(history) else { panic!("a history") };
    assert_eq!((history.status, history.messages[0].kind), (None, None));
}

#[test]
fn a_bad_frame_is_an_error_that_names_the_problem() {
    for (bad, problem) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
        ("{}", "`type`"),
        (r#"{"seq":1,"seq":2,"type":"ping"}"#, "duplicate"),
        (r#"{"seq":1,"type":"question"}"#, "`text` is missing"),
        (r#"{"seq":1,"type":"question","text":"x","question_id":"a b"}"#, "an id has"),
        (r#"{"seq":1,"type":"user_message_ack"}"#, "`client_msg_id` is missing"),
        (r#"{"seq":1,"type":"user_message_ack","client_msg_id":"a","id":-1}"#, "integer"),
        (r#"{"seq":1,"type":"user_answer_ack","answer_id":"a"}"#, "`id` is missing"),
        (r#"{"seq":1,"type":"user_message_rejected","client_msg_id":"a"}"#, "`reason`"),
        (
            r#"{"seq":1,"type":"user_message_rejected","client_msg_id":"a","reason":"queue_full"}"#,
            "unknown reason",
        ),
        (r#"{"seq":1,"type":"notification"}"#, "`kind` is missing"),
        (
            r#"{"seq":1,"type":"notification","kind":"queue_full","queue_cap":1,"client_msg_id":""}"#,
            "an id has",
        ),
        (r#"{"seq":1,"type":"session_history","messages":[{"role":"user"}]}"#, "text"),
        (r#"{"seq":1,"type":"session_history","messages":[],"epoch":""}"#, "epoch"),
        (
            r#"{"seq":0,"type":"session_begin","epoch":"e","verdict":"replay","from":0,"to":1}"#,
            "no range",
        ),
        (
            r#"{"seq":0,"type":"session_begin","epoch":"e","verdict":"replay","from":4,"to":2}"#,
            "no range",
        ),
        (
            r#"{"seq":0,"type":"session_begin","epoch":"e","verdict":"replay","from":4,"to":1e99}"#,
            "integer",
        ),
    ] {
        let error = ServerFrame::parse(bad).expect_err(bad).to_string();
        assert!(error.contains(problem), "{bad}: {error}");
    }
    for (bad, problem) in [
        (r#"{"type":"user_message"}"#, "text"),
        (r#"{"type":"user_message","text":"x","client_msg_id":"a b"}"#, "an id has"),
        (r#"{"type":"user_message","text":"x","after":-1}"#, "integer"),
        (r#"{"type":"user_message","text":"x","attachments":[{}]}"#, "filename"),
        (r#"{"type":"ack"}"#, "seq"),
        (r#"{"type":"ack","seq":-1}"#, "integer"),
        (r#"{"type":"request_rewind","index":3}"#, "unknown type"),
    ] {
        let error = ClientFrame::parse(bad).expect_err(bad).to_string();
        assert!(error.contains(problem), "{bad}: {error}");
    }
    let long = format!(r#"{{"seq":1,"type":"{}"}}"#, "x".repeat(1_000));
    let Ok(Body::Unknown { kind }) = read(&long) else { panic!("unknown") };
    assert_eq!(kind.len(), 64, "a name of a type takes no more memory than that");
    let deep = format!(r#"{{"seq":1,"type":"notification","kind":"x","y":{}"#, "[".repeat(100_000));
    assert!(read(&deep).is_err());
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer_and_no_panic(text in "\\PC*") {
        let _ = (ServerFrame::parse(&text), ClientFrame::parse(&text));
    }

    #[test]
    fn a_frame_that_is_cut_or_changed_is_no_panic(which: usize, at: usize, byte: u8) {
        let mut texts: Vec<_> = client_frames().iter().map(|frame| frame.to_text(true)).collect();
        texts.extend(
            server_bodies().into_iter().map(|(body, _)| ServerFrame { seq: 7, body }.to_text(true)),
        );
        let mut bytes = texts.swap_remove(which % texts.len()).into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let read = |bytes: &[u8]| {
            let _ = std::str::from_utf8(bytes)
                .map(|text| (ServerFrame::parse(text), ClientFrame::parse(text)));
        };
        read(&bytes);
        read(&bytes[..at]);
    }

    #[test]
    fn any_text_arrives_as_it_was(text: String, seq in 0..=MAX_SEQUENCE) {
        let said = Assistant {
            text: text.clone(),
            model: String::new(),
            usage: None,
            position: None,
            kind: None,
        };
        let frame = ServerFrame { seq, body: Body::Assistant(said) };
        prop_assert_eq!(ServerFrame::parse(&frame.to_text(false)), Ok(frame));
        let frame = ClientFrame::UserAnswer { id: None, question: None, text };
        prop_assert_eq!(ClientFrame::parse(&frame.to_text(false)), Ok(frame));
    }
}
