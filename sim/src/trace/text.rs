//! What a record says, made when somebody reads it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// The text of a record, on one line.
///
/// Most runs pass, and nobody reads what happened in them. So a text that takes work, as that of a
/// frame does, is only made from what it is about when it is looked at.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Made(String),
    Later(Arc<LazyLock<String, Box<dyn FnOnce() -> String + Send>>>),
}

impl Text {
    /// A text that is made when it is looked at for the first time, or never.
    pub fn later(make: impl FnOnce() -> String + Send + 'static) -> Self {
        Self(Form::Later(Arc::new(LazyLock::new(Box::new(make)))))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Form::Made(text) => text,
            Form::Later(text) => text,
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Form::Made(text))
    }
}

impl From<fmt::Arguments<'_>> for Text {
    fn from(text: fmt::Arguments<'_>) -> Self {
        text.to_string().into()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_text_for_later_is_made_once_and_only_if_it_is_read() {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let text = Text::later(|| format!("made {}", MADE.fetch_add(1, Ordering::Relaxed)));
        let copy = text.clone();
        assert_eq!(MADE.load(Ordering::Relaxed), 0);
        assert_eq!(copy, "made 0");
        assert_eq!(text, Text::from("made 0"));
        assert_eq!(MADE.load(Ordering::Relaxed), 1);
    }
}
