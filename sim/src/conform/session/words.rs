//! To and from the words of the crate.

use gapless::session::conversation;
use gapless::session::view::Connection;
use gapless::session::wire::{self, HistoryMessage, InputRejection};

use super::{
    Attachment, LinkState, Question, RejectedInput, RejectionReason, RowHeld, RowKind, RowShown,
    SpeakerRole, StatusShown,
};

impl From<Attachment> for wire::Attachment {
    fn from(Attachment { filename, doc_id, slug, title }: Attachment) -> Self {
        Self { filename, doc_id, slug, title }
    }
}

impl From<wire::Attachment> for Attachment {
    fn from(attachment: wire::Attachment) -> Self {
        let wire::Attachment { filename, doc_id, slug, title } = attachment;
        Self { filename, doc_id, slug, title }
    }
}

impl From<&Connection> for LinkState {
    fn from(connection: &Connection) -> Self {
        match connection {
            Connection::Connecting => Self::Connecting,
            Connection::CatchingUp => Self::CatchingUp,
            Connection::Live => Self::Live,
            Connection::Waiting { .. } => Self::Waiting,
            Connection::Superseded => Self::Superseded,
            Connection::Stopped => Self::Stopped,
        }
    }
}

impl From<LinkState> for Connection {
    fn from(link: LinkState) -> Self {
        match link {
            LinkState::Connecting => Self::Connecting,
            LinkState::CatchingUp => Self::CatchingUp,
            LinkState::Live => Self::Live,
            LinkState::Waiting => {
                Self::Waiting { reason: String::new(), retry_in: std::time::Duration::ZERO }
            }
            LinkState::Superseded => Self::Superseded,
            LinkState::Stopped => Self::Stopped,
        }
    }
}

impl From<conversation::Role> for SpeakerRole {
    fn from(role: conversation::Role) -> Self {
        match role {
            conversation::Role::User => Self::User,
            conversation::Role::Assistant => Self::Assistant,
        }
    }
}

impl From<SpeakerRole> for conversation::Role {
    fn from(role: SpeakerRole) -> Self {
        match role {
            SpeakerRole::User => Self::User,
            SpeakerRole::Assistant => Self::Assistant,
        }
    }
}

impl From<conversation::Kind> for RowKind {
    fn from(kind: conversation::Kind) -> Self {
        match kind {
            conversation::Kind::Message => Self::Message,
            conversation::Kind::Question => Self::Question,
            conversation::Kind::Answer => Self::Answer,
            conversation::Kind::Interrupted => Self::Interrupted,
        }
    }
}

impl From<RowKind> for conversation::Kind {
    fn from(kind: RowKind) -> Self {
        match kind {
            RowKind::Message => Self::Message,
            RowKind::Question => Self::Question,
            RowKind::Answer => Self::Answer,
            RowKind::Interrupted => Self::Interrupted,
        }
    }
}

impl From<&conversation::Row> for RowHeld {
    fn from(row: &conversation::Row) -> Self {
        Self {
            id: row.position,
            role: row.role.into(),
            kind: row.kind.into(),
            text: row.text.clone(),
            input_id: row.input.as_ref().map(ToString::to_string),
            question_id: row.question.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&wire::Question> for Question {
    fn from(question: &wire::Question) -> Self {
        Self { id: question.id.as_ref().map(ToString::to_string), text: question.text.clone() }
    }
}

impl From<&HistoryMessage> for RowShown {
    fn from(message: &HistoryMessage) -> Self {
        let (id, role) = (message.position, message.role.into());
        Self { id, role, text: message.text.clone() }
    }
}

impl From<RowShown> for HistoryMessage {
    fn from(row: RowShown) -> Self {
        Self {
            role: row.role.into(),
            text: row.text,
            position: row.id,
            kind: None,
            input: None,
            question: None,
            attachments: Vec::new(),
        }
    }
}

impl RejectedInput {
    /// As an adapter tells it.
    pub fn new(id: &str, reason: InputRejection) -> Self {
        let (reason, queue_cap) = match reason {
            InputRejection::QueueFull { queue_cap } => {
                (RejectionReason::QueueFull, Some(queue_cap))
            }
            InputRejection::Conflict => (RejectionReason::Conflict, None),
            InputRejection::Expired => (RejectionReason::Expired, None),
            InputRejection::TooLarge => (RejectionReason::TooLarge, None),
            InputRejection::NotOpen => (RejectionReason::NotOpen, None),
        };
        Self { id: id.to_owned(), reason, queue_cap }
    }

    /// Why, in the words of the crate.
    pub fn why(&self) -> InputRejection {
        match self.reason {
            RejectionReason::QueueFull => {
                InputRejection::QueueFull { queue_cap: self.queue_cap.unwrap_or(0) }
            }
            RejectionReason::Conflict => InputRejection::Conflict,
            RejectionReason::Expired => InputRejection::Expired,
            RejectionReason::TooLarge => InputRejection::TooLarge,
            RejectionReason::NotOpen => InputRejection::NotOpen,
        }
    }
}

impl From<wire::Status> for StatusShown {
    fn from(status: wire::Status) -> Self {
        match status {
            wire::Status::Idle => Self::Idle,
            wire::Status::Thinking => Self::Thinking,
            wire::Status::Waiting => Self::Waiting,
        }
    }
}

impl From<StatusShown> for wire::Status {
    fn from(status: StatusShown) -> Self {
        match status {
            StatusShown::Idle => Self::Idle,
            StatusShown::Thinking => Self::Thinking,
            StatusShown::Waiting => Self::Waiting,
        }
    }
}
