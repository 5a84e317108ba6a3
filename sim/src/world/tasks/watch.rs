//! What can be seen of tasks on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gapless::tasks::store::Append;
use gapless::tasks::wire::{
    AgentMessage, ControllerMessage, Discarded, Envelope, Final, HelloAck, codes, parse_agent,
    parse_controller,
};
use gapless::tasks::{Attempt, MessageId};

use super::script::digest;
use super::witness::Witness;
use crate::history::{Message, Stage, TaskSeen};
use crate::plan::{Answer, Strange};
use crate::world::frames::{BINARY, Frame, TEXT};
use crate::world::link::{OVERSIZE, Watch};
use crate::world::lock;
use crate::world::record::Recorder;

/// Watches the link of an agent.
pub(super) struct TaskWatch {
    agent: u32,
    recorder: Recorder,
    /// The hello of each connection: its name, and what it names.
    hellos: Mutex<BTreeMap<u64, (MessageId, Vec<Attempt>)>>,
    /// Connections on which a fault changed the answer.
    changed: Mutex<BTreeSet<u64>>,
    /// Pieces of output on their way, by the name of the message: the stream.
    pieces: Arc<Mutex<BTreeMap<MessageId, &'static str>>>,
    /// Who takes the agent at its word, if it reports nothing of its store.
    trusting: Option<Arc<Mutex<Witness>>>,
    /// Whether the agent says of no mark by itself that it was reached.
    marks: bool,
}

/// What a result is, whoever says it.
pub(super) fn digest_of(result: &Final) -> u64 {
    let Final { attempt, outcome, exit_code, error, output_truncated, error_truncated, .. } =
        result;
    let flags = (output_truncated, error_truncated);
    digest(format!("{attempt} {outcome:?} {exit_code} {error} {flags:?}").as_bytes())
}

impl TaskWatch {
    pub(super) fn new(agent: u32, recorder: Recorder) -> Self {
        Self {
            agent,
            recorder,
            hellos: Mutex::default(),
            changed: Mutex::default(),
            pieces: Arc::default(),
            trusting: None,
            marks: false,
        }
    }

    /// What the agent says is taken to have been stored just before.
    pub(super) fn trusting(self, witness: Arc<Mutex<Witness>>) -> Self {
        Self { trusting: Some(witness), ..self }
    }

    /// Marks that can be seen on the wire are told from here.
    pub(super) fn marking(self) -> Self {
        Self { marks: true, ..self }
    }

    /// What an agent that is taken at its word has in its store when it says this.
    fn trust(&self, message: &AgentMessage) {
        let Some(witness) = &self.trusting else { return };
        let witness = lock(witness);
        match message {
            AgentMessage::Received(attempt) => witness.kept(attempt, Stage::Received),
            AgentMessage::Started(attempt) => witness.kept(attempt, Stage::Running),
            AgentMessage::Output(piece) => {
                let (attempt, stream) = (piece.attempt.clone(), piece.stream);
                let (sequence, data) = (piece.sequence, piece.data.clone());
                witness.said(&Append { attempt, stream, sequence, data });
            }
            AgentMessage::Final(result) => witness.kept(&result.attempt, Stage::Ended),
            AgentMessage::Hello(hello) => {
                for (_, result) in &hello.unacked_finals {
                    witness.kept(&result.attempt, Stage::Ended);
                }
            }
            AgentMessage::Lost(_) | AgentMessage::Error(_) => {}
        }
    }

    fn see(&self, what: TaskSeen) {
        self.recorder.see_task(what);
    }

    fn said(&self, connection: u64, attempt: &Attempt, message: Message) {
        let (agent, attempt) = (self.agent, attempt.to_string());
        self.see(TaskSeen::Said { agent, connection, attempt, message });
    }

    fn answer(frame: &Frame) -> Option<(Envelope<ControllerMessage>, HelloAck)> {
        let envelope = parse_controller(frame.text()?).ok()?;
        match &envelope.message {
            ControllerMessage::HelloAck(ack) => {
                let ack = ack.clone();
                Some((envelope, ack))
            }
            _ => None,
        }
    }
}

impl Watch for TaskWatch {
    fn sent(&self, connection: u64, frame: &Frame) {
        let Some(Ok(envelope)) = frame.text().map(parse_agent) else { return };
        self.trust(&envelope.message);
        match &envelope.message {
            AgentMessage::Hello(hello) => {
                if self.marks {
                    gapless::mark!("tasks.hello_sent");
                }
                let names = |attempts: Vec<&Attempt>| {
                    let mut names: Vec<_> = attempts.iter().map(ToString::to_string).collect();
                    names.sort_unstable();
                    names.dedup();
                    names
                };
                let received: Vec<_> =
                    hello.received_not_started.iter().map(|it| &it.attempt).collect();
                let running = hello.running_tasks.iter().chain(&hello.running_task);
                let running: Vec<_> = running.map(|it| &it.attempt).collect();
                let finals: Vec<_> = hello.unacked_finals.iter().map(|it| &it.1.attempt).collect();
                let named = received.iter().chain(&running).chain(&finals).map(|it| (*it).clone());
                lock(&self.hellos).insert(connection, (envelope.message_id, named.collect()));
                self.see(TaskSeen::Hello {
                    agent: self.agent,
                    connection,
                    bytes: frame.payload.len(),
                    received: names(received),
                    running: names(running),
                    finals: names(finals),
                    complete: hello.complete,
                });
            }
            AgentMessage::Received(attempt) => self.said(connection, attempt, Message::Received),
            AgentMessage::Started(attempt) => self.said(connection, attempt, Message::Started),
            AgentMessage::Output(piece) => {
                lock(&self.pieces).insert(envelope.message_id.clone(), piece.stream.as_str());
                let message = Message::Output {
                    stream: piece.stream.as_str().to_owned(),
                    sequence: piece.sequence,
                    digest: digest(&piece.data),
                    declares: piece.truncated_locally,
                };
                self.said(connection, &piece.attempt, message);
            }
            AgentMessage::Lost(_) => {}
            AgentMessage::Final(result) => {
                let message_id = envelope.message_id.as_str().to_owned();
                let message = Message::Final { message_id, digest: digest_of(result) };
                self.said(connection, &result.attempt, message);
            }
            AgentMessage::Error(error) => {
                if let Some(attempt) = &error.attempt {
                    self.said(connection, attempt, Message::Refused(error.code.clone()));
                }
            }
        }
    }

    fn arrived(&self, connection: u64, frame: &Frame) {
        let Some(Ok(envelope)) = frame.text().map(parse_controller) else { return };
        let agent = self.agent;
        match &envelope.message {
            ControllerMessage::HelloAck(ack) => {
                let hellos = lock(&self.hellos);
                let own = hellos.get(&connection).is_some_and(|(hello, _)| *hello == ack.acked);
                drop(hellos);
                if !own {
                    return;
                }
                let replay = ack.output_replay.iter().flatten();
                let wanted = replay.map(|from| {
                    let stream = from.stream.as_str().to_owned();
                    (from.attempt.to_string(), stream, from.next_sequence)
                });
                let discarded = ack.discarded.iter().flatten().map(|it| it.attempt.to_string());
                self.see(TaskSeen::Answered {
                    agent,
                    connection,
                    wanted: wanted.collect(),
                    discarded: discarded.collect(),
                    directed: ack.output_replay.is_some(),
                    refused: false,
                    lost: false,
                    changed: lock(&self.changed).contains(&connection),
                });
            }
            ControllerMessage::Deliver(deliver) => {
                let attempt = deliver.attempt.to_string();
                self.see(TaskSeen::Delivered { agent, connection, attempt });
            }
            ControllerMessage::Ack(ack) => {
                let Some(attempt) = &ack.attempt else { return };
                let stream = lock(&self.pieces).get(&ack.acked).copied();
                let through = stream.zip(ack.highest_output_sequence);
                self.see(TaskSeen::Acked {
                    agent,
                    connection,
                    attempt: attempt.to_string(),
                    kind: ack.acked_type.clone(),
                    through: through.map(|(stream, through)| (stream.to_owned(), through)),
                });
            }
            ControllerMessage::Error(error) if error.code == codes::STORE_FORKED => {
                self.see(TaskSeen::Answered {
                    agent,
                    connection,
                    wanted: vec![],
                    discarded: vec![],
                    directed: false,
                    refused: true,
                    lost: false,
                    changed: lock(&self.changed).contains(&connection),
                });
            }
            ControllerMessage::Error(_) | ControllerMessage::Query(_) => {}
        }
    }

    fn taken_away(&self, connection: u64, _frame: &Frame) {
        self.see(TaskSeen::Answered {
            agent: self.agent,
            connection,
            wanted: vec![],
            discarded: vec![],
            directed: true,
            refused: false,
            lost: true,
            changed: false,
        });
    }

    /// Whether it is an acknowledgement or an attempt to be made.
    fn is_payload(&self, frame: &Frame) -> bool {
        frame.text().is_some_and(|text| {
            text.contains("\"type\":\"ack\"") || text.contains("\"type\":\"task.deliver\"")
        })
    }

    fn is_answer(&self, frame: &Frame) -> bool {
        Self::answer(frame).is_some()
    }

    fn changed(&self, frame: &Frame, how: Answer) -> Option<Frame> {
        let (envelope, mut ack) = Self::answer(frame)?;
        let newest = lock(&self.hellos).keys().next_back().copied();
        lock(&self.changed).extend(newest);
        match how {
            Answer::Lost => return None,
            Answer::Absent => (ack.acknowledged_finals, ack.output_replay) = (None, None),
            Answer::Empty => ack.output_replay = Some(vec![]),
            Answer::DiscardAll => {
                let named = lock(&self.hellos).values().next_back().map(|it| it.1.clone());
                let named = named.unwrap_or_default();
                let discard = |attempt| Discarded { attempt, reason: "not wanted".to_owned() };
                ack.discarded = Some(named.into_iter().map(discard).collect());
            }
        }
        let envelope = Envelope { message: ControllerMessage::HelloAck(ack), ..envelope };
        let payload = envelope.to_bytes();
        Some(Frame { wire: Frame::encode(TEXT, &payload, false), opcode: TEXT, payload })
    }

    fn strange(&self, frame: Strange, to_server: bool) -> Bytes {
        let text = |text: &str| Frame::encode(TEXT, text.as_bytes(), to_server);
        let agent = format!("agent-{}", self.agent);
        let envelope = |kind: &str, more: &str| {
            text(&format!(
                r#"{{"protocol_version":1,"message_id":"odd","type":"{kind}","agent_id":"{agent}","sent_at":"2026-01-01T00:00:00.000Z"{more}}}"#
            ))
        };
        match (frame, to_server) {
            (Strange::UnknownType, _) => envelope("task.dance", r#","payload":{"tempo":120}"#),
            (Strange::Malformed, _) => text(r#"{"type":"ack""#),
            (Strange::BadField, true) => {
                envelope("task.output", r#","task_id":"","sequence":-7,"payload":{}"#)
            }
            (Strange::BadField, false) => {
                envelope("task.deliver", r#","task_id":"","payload":{"command":7}"#)
            }
            (Strange::Binary, _) => Frame::encode(BINARY, &[0, 1, 2, 255], to_server),
            (Strange::Oversize, _) => Frame::encode(TEXT, &vec![b' '; OVERSIZE], to_server),
            (Strange::StaleAnswer, _) => Bytes::new(),
        }
    }
}
