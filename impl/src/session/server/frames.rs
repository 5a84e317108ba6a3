//! The frames that tell of rows, and the verdicts on inputs.

use crate::session::Name;
use crate::session::conversation::{Kind, Role, Row, What};
use crate::session::wire::{Assistant, Body, InputRejection};

/// What shows the row to a client that did not say it itself.
pub(super) fn frame_of(row: &Row) -> Body {
    let position = row.position;
    match (row.role, row.kind) {
        (Role::User, Kind::Answer) => {
            Body::UserAnswer { position, question: row.question.clone(), text: row.text.clone() }
        }
        (Role::User, _) => Body::UserMessage {
            position,
            id: row.input.clone(),
            text: row.text.clone(),
            attachments: row.attachments.clone(),
        },
        (Role::Assistant, kind) => match row.as_question() {
            Some(question) => Body::Question { question, position: Some(position) },
            None => Body::Assistant(Assistant {
                text: row.text.clone(),
                model: row.model.clone(),
                usage: row.usage,
                position: Some(position),
                kind: (kind == Kind::Interrupted).then_some(kind),
            }),
        },
    }
}

/// What tells a client that its input is this row.
pub(super) fn acknowledgement(id: &Name, row: &Row) -> Body {
    let (id, position) = (id.clone(), row.position);
    match row.kind {
        Kind::Answer => Body::AnswerAck { id, question: row.question.clone(), position },
        _ => Body::MessageAck { id, position: Some(position) },
    }
}

/// What tells a client that its input is rejected. `id` is what the client called it; an answer
/// without an id is one of the base contract, which has no word for its rejection.
pub(super) fn rejection(id: Option<Name>, what: &What, reason: InputRejection) -> Body {
    match (what, id) {
        (What::Answer { question, .. }, Some(id)) => {
            Body::AnswerRejected { id, question: question.clone(), reason }
        }
        (_, id) => Body::MessageRejected { id, reason },
    }
}
