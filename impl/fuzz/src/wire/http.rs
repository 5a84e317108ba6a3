//! Requests and answers over HTTP of the task protocol.

use gapless::AgentId;
use gapless::recovery::MAX_SEQUENCE;
use gapless::tasks::controller::record::Command;
use gapless::tasks::driver::agent_http::{self, AgentRequest};
use gapless::tasks::driver::controller_http::{Caller, Question, Route};
use gapless::tasks::wire::Final;

use super::tasks::named_result;
use super::text_or;
use crate::source::{self, Field, Source};

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "get"];

const PATHS: [&str; 13] = [
    "/api/v1/agents/ws",
    "/api/v1/agents/agent-1/tasks",
    "/api/v1/tasks/t1",
    "/v1/tasks",
    "/v1/tasks/t1",
    "/v1/tasks/t1/attempts",
    "/v1/tasks/t1/attempts/a1/stdout",
    "/v1/tasks//attempts/a1/stderr",
    "/v1/tasks/t1/attempts/a1/stdin",
    "/v1/tasks/é",
    "/healthz",
    "",
    "//",
];

fn body(source: &mut Source<'_>) -> String {
    const FIELDS: [Field; 5] = [
        Field::new("id", source::text),
        Field::new("agent", source::text),
        Field::new("command", source::text),
        Field::new("priority", source::number),
        Field::new("after", source::number),
    ];
    match source.below(3) {
        0 => named_result(source),
        1 => {
            let tasks = source::list(source, named_result);
            format!(r#"{{"tasks":{tasks},"error":{}}}"#, source::text(source))
        }
        _ => source::object(source, &FIELDS),
    }
}

fn query(source: &mut Source<'_>) -> String {
    let name = *source.pick(&["after", "before", "%61fter"]);
    let value = match source.below(3) {
        0 => source.text(),
        1 => "%".to_owned(),
        _ => source.number().to_string(),
    };
    format!("{name}={value}&after={}", source.number())
}

/// Reads a request to a controller, or the answer to one of an agent's.
pub fn tasks_http(data: &[u8]) {
    let mut source = Source::new(data);
    let agent = AgentId::parse("agent-1").expect("valid");
    match source.below(4) {
        0 => {
            let status = *source.pick(&[200, 204, 400, 401, 403, 404, 409, 500, 503, 99, 999]);
            let text = text_or(&mut source, body);
            agent_http::posted(status, text.as_bytes());
            let tasks = agent_http::polled(status, text.as_bytes());
            assert!(
                tasks.iter().flatten().all(|task| !task.command.is_empty()),
                "a task over HTTP is one that would be taken from a frame"
            );
            let refused = agent_http::Refused::by(status, text.as_bytes());
            assert!(refused.server_time.is_none() || status == 401);
        }
        _ => {
            let (method, path) = (*source.pick(&METHODS), *source.pick(&PATHS));
            let Ok(route) = Route::of(method, path) else { return };
            let caller = match source.below(3) {
                0 => Caller::Agent(agent.clone()),
                1 => Caller::Submitter("p".to_owned()),
                _ => Caller::Anybody,
            };
            let query = source.maybe(query);
            let text = text_or(&mut source, body);
            match route.question(caller, query.as_deref(), text.as_bytes()) {
                Ok(question) => judge(&route, question),
                Err(answer) => {
                    assert!(
                        answer.status == 204 || (400..500).contains(&answer.status),
                        "what is not asked is the caller's fault: {answer:?}"
                    );
                }
            }
        }
    }
}

/// What the record is asked is what it can store.
fn judge(route: &Route, question: Question) {
    match question {
        Question::Ask(Command::Retry { after, .. } | Command::ReadOutput { after, .. }) => {
            assert!(after <= MAX_SEQUENCE, "the record cannot count to {after}");
        }
        Question::Ask(Command::Submit(wish)) => assert!(!wish.command.is_empty()),
        Question::Ask(_) | Question::Poll(_) => {}
        Question::Post { message_id, result, .. } => {
            let Final { last_output, .. } = &result;
            assert!(
                last_output.iter().flat_map(|last| last.values()).all(|it| *it <= MAX_SEQUENCE),
                "the record cannot count that far: {result:?}"
            );
            let request = AgentRequest::post(message_id.clone(), &result);
            let again = route.question(
                Caller::Agent(AgentId::parse("agent-1").expect("valid")),
                None,
                &request.body,
            );
            let Ok(Question::Post { message_id: id, result: read, .. }) = again else {
                panic!("what an agent writes can be read: {again:?}");
            };
            assert_eq!((id, read), (message_id, result));
        }
    }
}
