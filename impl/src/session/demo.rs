//! An application to try things with: it is in no hurry, so there is time to break the connection.

use std::time::Duration;

use serde_json::value::to_raw_value;

use super::Name;
use super::conversation::{Ending, Kind, Saying};
use super::driver::{Application, Speaker, Stopped};
use super::server::Work;
use super::wire::Notice;
use crate::net::BoxFuture;

/// How long the demo thinks before each thing that it says.
const PAUSE: Duration = Duration::from_millis(900);

/// Says a few things about what the user says, one by one; `ask me …` has it ask back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demo;

impl Application for Demo {
    fn turn(&self, work: Work, speaker: Speaker) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let text = work.input.text.trim().to_owned();
            let asks = text.to_lowercase().starts_with("ask me");
            match work.input.kind {
                Kind::Answer => say(speaker, answered(&text)).await,
                _ if asks => Ending::Ask {
                    question: Name::parse(&format!("question-{}", work.turn.position))
                        .expect("letters and digits are a name"),
                    text: format!(
                        "What do you say{}?",
                        text["ask me".len()..].trim_end_matches('?')
                    ),
                    source: "demo".to_owned(),
                },
                _ => say(speaker, echo(&text)).await,
            }
        })
    }
}

fn echo(text: &str) -> Vec<String> {
    let words = text.split_whitespace().count();
    let backwards: String = text.chars().rev().collect();
    let first = match words {
        1 => "That is one word.".to_owned(),
        words => format!("Those are {words} words."),
    };
    vec![
        first,
        format!("Backwards: {backwards}"),
        "Reload the page or restart the server while I speak: nothing is lost, nothing comes twice."
            .to_owned(),
        "Write “ask me about …” and I will ask you.".to_owned(),
    ]
}

fn answered(text: &str) -> Vec<String> {
    vec![format!("“{text}”, then."), "Thank you. I have written that down.".to_owned()]
}

async fn say(mut speaker: Speaker, sentences: Vec<String>) -> Ending {
    let count = sentences.len();
    for (i, text) in sentences.into_iter().enumerate() {
        let detail = format!("Thinking about sentence {} of {count}…", i + 1);
        if say_one(&mut speaker, &detail, text).await.is_err() {
            break;
        }
    }
    Ending::Done
}

async fn say_one(speaker: &mut Speaker, detail: &str, text: String) -> Result<(), Stopped> {
    let fields = to_raw_value(&serde_json::json!({ "detail": detail })).expect("it is JSON");
    speaker.progress(Notice { kind: "agent_progress".to_owned(), fields }).await?;
    tokio::time::sleep(PAUSE).await;
    speaker.say(Saying { text, model: "demo".to_owned(), usage: None }).await
}
