//! Texts that say what the application is to do about them, and of which no two are alike.

use gapless::session::Name;
use gapless::session::client::Submission;
use gapless::session::conversation::{Ending, Saying};
use gapless::session::wire::{Attachment, Notice, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::plan::{Say, TurnScript};

/// A text that somebody says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text {
    /// Names it.
    pub(super) key: String,
    /// What the application does about it, or about the answer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) does: Option<TurnScript>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    fill: String,
}

impl Text {
    /// Reads a text; `None` if nobody in the world has said it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn write(key: String, does: Option<TurnScript>, fill: u32) -> String {
        let text = Self { key, does, fill: "x".repeat(fill as usize) };
        serde_json::to_string(&text).expect("a text is JSON")
    }
}

/// The `nth` message of a step of the plan.
pub(super) fn message(step: usize, nth: u32, say: &Say) -> Submission {
    let key = format!("m{step}-{}", if say.same { 1 } else { nth });
    let attachment = |number: u32| Attachment {
        filename: format!("{key}-{number}.md"),
        doc_id: format!("doc-{number}"),
        slug: key.clone(),
        title: (number > 1).then(|| "A document".to_owned()),
    };
    let attachments = (1..=say.attachments).map(attachment).collect();
    Submission::Message { text: Text::write(key.clone(), Some(say.script), say.bytes), attachments }
}

/// The `nth` answer of a client, to a question.
pub(super) fn answer(client: u32, nth: u64, question: &str) -> Submission {
    let does = Text::parse(question).and_then(|text| text.does);
    Submission::Answer { text: Text::write(format!("a{client}-{nth}"), does, 0) }
}

/// The `nth` thing that the application says in the turn for a text.
pub(super) fn saying(about: &Text, nth: u32, does: &TurnScript) -> Saying {
    let tokens = u64::from(does.bytes);
    Saying {
        text: Text::write(format!("r{nth}:{}", about.key), None, does.bytes),
        model: "scripted-1".to_owned(),
        usage: (nth % 2 == 1).then_some(Usage { input: 7, output: tokens }),
    }
}

/// The `nth` time that the application tells how it is getting on.
pub(super) fn progress(nth: u32) -> Notice {
    let (kind, fields) = match nth % 3 {
        1 => ("tool_calling", format!(r#"{{"name":"search-{nth}"}}"#)),
        2 => ("agent_progress", format!(r#"{{"agent_name":"planner","turn":{nth}}}"#)),
        _ => ("affect_tick", r#"{"calm":0.5}"#.to_owned()),
    };
    let fields = RawValue::from_string(fields).expect("a fixed pattern");
    Notice { kind: kind.to_owned(), fields }
}

/// How the turn of a row ends.
pub(super) fn ending(position: u64, about: &Text, does: &TurnScript) -> Ending {
    if does.fails {
        return Ending::Failed(Text::write(format!("f:{}", about.key), None, 0));
    }
    match does.asks.checked_sub(1) {
        None => Ending::Done,
        Some(asks) => {
            let then = TurnScript { asks, ..*does };
            let key = format!("q:{}", about.key);
            Ending::Ask {
                question: Name::parse(&format!("q{position}")).expect("it has no space"),
                text: Text::write(key, Some(then), 0),
                source: "cognitive".to_owned(),
            }
        }
    }
}
