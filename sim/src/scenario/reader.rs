//! Reads TOML with an eye on places: what is wrong is written down and reading goes on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// What is wrong so far, and which keys were asked for.
#[derive(Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
    asked: RefCell<Vec<Asked>>,
}

/// A key that may stand in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The table, as it is called in the file; empty = the file itself.
    pub(super) table: String,
    /// The key.
    pub(super) key: &'static str,
    /// What may stand there.
    pub(super) form: String,
    /// Whether it has to be there.
    pub(super) required: bool,
}

impl Problems {
    pub(crate) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    /// The keys that were asked for, in the order in which that was done first.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    fn add(&self, message: String, span: &Range<usize>, label: String, remedy: String) {
        let span = span.clone().into();
        self.found.borrow_mut().push(Problem { message, span, label, remedy });
    }

    /// Writes down that a key was asked for. What is said of it last is the most exact.
    fn ask(&self, table: &str, key: &'static str, form: &str, required: bool) {
        let mut asked = self.asked.borrow_mut();
        match asked.iter_mut().find(|asked| asked.table == table && asked.key == key) {
            Some(asked) => {
                asked.form = form.to_owned();
                asked.required |= required;
            }
            None => {
                asked.push(Asked { table: table.to_owned(), key, form: form.to_owned(), required })
            }
        }
    }
}

/// A value with its place.
pub(crate) type At<T> = (T, Range<usize>);

/// The longest duration that a file may name: a day.
pub(super) const DURATION_MS_MAX: u64 = 24 * 3_600_000;

/// Parses the text; each place that is no TOML is a problem.
pub(crate) fn document<'a>(text: &'a str, problems: &Problems) -> Option<Spanned<DeTable<'a>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(
            "this is not TOML".to_owned(),
            &error.span().unwrap_or(0..0),
            error.message().to_owned(),
            "see https://toml.io for the syntax; strings need quotes, tables `[name]`".to_owned(),
        );
    }
    // What was made of the rest is a guess, which would only be complained about.
    errors.is_empty().then_some(document)
}

/// A table of the file, and which of its keys have been asked for.
pub(crate) struct Table<'a> {
    /// Its key; empty = the file itself.
    name: &'static str,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: &'a Problems,
}

impl<'a> Table<'a> {
    pub(crate) fn root(
        document: &'a Spanned<DeTable<'a>>,
        text: &str,
        problems: &'a Problems,
    ) -> Self {
        Self::new("", document.get_ref(), 0..text.len().min(1), problems)
    }

    fn new(
        name: &'static str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        problems: &'a Problems,
    ) -> Self {
        Self { name, table, span, asked: RefCell::default(), problems }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(crate) fn problem(
        &self,
        message: impl Into<String>,
        span: &Range<usize>,
        label: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.add(message.into(), span, label.into(), remedy.into());
    }

    /// Reports the keys that nobody has asked for.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !asked.contains(name) {
                let remedy = match nearest(name, asked.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        let known: Vec<_> = asked.iter().map(|key| format!("`{key}`")).collect();
                        format!("known here: {}", known.join(", "))
                    }
                };
                self.problem(format!("unknown key `{name}`"), &key.span(), "unknown", remedy);
            }
        }
    }

    /// The keys that stand in the table, in the order of the file.
    pub(crate) fn keys(&self) -> Vec<At<String>> {
        let mut keys: Vec<_> =
            self.table.keys().map(|key| (key.get_ref().to_string(), key.span())).collect();
        keys.sort_by_key(|(_, span)| span.start);
        keys
    }

    /// Whether a key stands in the table, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&self, key: &'static str, form: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.problems.ask(self.name, key, form, false);
        self.table.get(key)
    }

    fn required(&self, key: &'static str, form: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let value = self.get(key, form);
        self.problems.ask(self.name, key, form, true);
        if value.is_none() {
            let remedy = format!("add `{key} = …`");
            self.problem(format!("`{key}` is missing"), &self.span, "in this table", remedy);
        }
        value
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let message = format!("`{key}` must be {wanted}");
        let label = format!("this is {}", kind(value.get_ref()));
        self.problem(message, &value.span(), label, format!("write {wanted}"));
    }

    fn as_text(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        wanted: &str,
    ) -> Option<At<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span())),
            _ => {
                self.wrong(key, value, wanted);
                None
            }
        }
    }

    /// A string that has to be there.
    pub(crate) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.required(key, "a string")?;
        self.as_text(key, value, "a string")
    }

    pub(crate) fn text_optional(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key, "a string")?;
        self.as_text(key, value, "a string")
    }

    /// A list of strings, possibly absent.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        self.get(key, "a list of strings").map_or_else(Vec::new, |value| self.as_texts(key, value))
    }

    /// A list of strings that has to be there.
    pub(super) fn texts_required(&self, key: &'static str) -> Vec<At<String>> {
        self.required(key, "a list of strings")
            .map_or_else(Vec::new, |value| self.as_texts(key, value))
    }

    fn as_texts(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Vec<At<String>> {
        match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| self.as_text(key, item, "a list of strings"))
                .collect(),
            _ => {
                self.wrong(key, value, "a list of strings");
                vec![]
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key, "`true` or `false`")?;
        match value.get_ref() {
            DeValue::Boolean(boolean) => Some((*boolean, value.span())),
            _ => {
                self.wrong(key, value, "`true` or `false`");
                None
            }
        }
    }

    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let wanted = format!("an integer from {} to {}", range.start(), range.end());
        let value = self.get(key, &wanted)?;
        let integer = match value.get_ref() {
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                u64::from_str_radix(&digits, integer.radix()).ok()
            }
            _ => None,
        };
        match integer.filter(|integer| range.contains(integer)) {
            Some(integer) => Some((integer, value.span())),
            None => {
                self.wrong(key, value, &wanted);
                None
            }
        }
    }

    /// An integer that may be below zero.
    pub(super) fn signed(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        let wanted = format!("an integer from {} to {}", range.start(), range.end());
        let value = self.get(key, &wanted)?;
        let integer = match value.get_ref() {
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                i64::from_str_radix(&digits, integer.radix()).ok()
            }
            _ => None,
        };
        match integer.filter(|integer| range.contains(integer)) {
            Some(integer) => Some((integer, value.span())),
            None => {
                self.wrong(key, value, &wanted);
                None
            }
        }
    }

    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<usize>> {
        let (integer, span) = self.integer(key, range)?;
        Some((usize::try_from(integer).ok()?, span))
    }

    /// Milliseconds, from `250ms`, `2s`, `5m` or `1h`.
    pub(super) fn duration(&self, key: &'static str) -> Option<At<u64>> {
        let value = self.get(key, "a duration")?;
        let wanted = "a duration such as \"250ms\", \"2s\", \"5m\" or \"1h\", up to \"24h\"";
        let (text, span) = self.as_text(key, value, wanted)?;
        match parse_duration(&text) {
            Some(duration) => Some((duration, span)),
            None => {
                self.wrong(key, value, wanted);
                None
            }
        }
    }

    /// A duration of which the caller has said that it is missing, if it is.
    pub(super) fn duration_needed(&self, key: &'static str) -> Option<At<u64>> {
        let duration = self.duration(key);
        self.problems.ask(self.name, key, "a duration", true);
        duration
    }

    /// A duration that is not zero.
    pub(super) fn duration_above_zero(&self, key: &'static str) -> Option<At<u64>> {
        let duration = self.duration(key);
        self.problems.ask(self.name, key, "a duration above zero", false);
        let duration = duration?;
        if duration.0 == 0 {
            self.problem(
                format!("`{key}` must be longer than nothing"),
                &duration.1,
                "no time at all",
                "write a duration of at least \"1ms\"",
            );
            return None;
        }
        Some(duration)
    }

    /// Two durations, from `1s..30s`.
    pub(super) fn duration_range(&self, key: &'static str) -> Option<At<(u64, u64)>> {
        let value = self.get(key, "a range of durations")?;
        let wanted = "a range of durations such as \"1s..30s\"";
        let (text, span) = self.as_text(key, value, wanted)?;
        let range = text.split_once("..").and_then(|(from, to)| {
            Some((parse_duration(from)?, parse_duration(to)?)).filter(|(from, to)| from <= to)
        });
        if range.is_none() {
            self.wrong(key, value, wanted);
        }
        range.map(|range| (range, span))
    }

    /// Two integers, from `"1..3"`, or one, from `2` or `"2"`.
    pub(super) fn integer_range(
        &self,
        key: &'static str,
        within: RangeInclusive<u64>,
    ) -> Option<At<(u32, u32)>> {
        let form =
            format!("a range of integers, or one, from {} to {}", within.start(), within.end());
        let value = self.get(key, &form)?;
        if let DeValue::Integer(_) = value.get_ref() {
            let (integer, span) = self.integer(key, within)?;
            let integer = u32::try_from(integer).ok()?;
            return Some(((integer, integer), span));
        }
        let wanted =
            format!("a range such as \"1..3\", between {} and {}", within.start(), within.end());
        let (text, span) = self.as_text(key, value, &wanted)?;
        let (from, to) = text.split_once("..").unwrap_or((&text, &text));
        let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| within.contains(n));
        let range = match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => {
                Some((u32::try_from(from).ok()?, u32::try_from(to).ok()?))
            }
            _ => None,
        };
        if range.is_none() {
            self.wrong(key, value, &wanted);
        }
        range.map(|range| (range, span))
    }

    /// One of a few words, which has to be there.
    pub(crate) fn one_of<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key);
        self.problems.ask(self.name, key, &one_of(words), true);
        let (word, span) = text?;
        self.choose(&word, &span, words)
    }

    pub(crate) fn one_of_optional<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text_optional(key);
        self.problems.ask(self.name, key, &one_of(words), false);
        let (word, span) = text?;
        self.choose(&word, &span, words)
    }

    pub(super) fn choose<T: Copy>(
        &self,
        word: &str,
        span: &Range<usize>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(name, _)| format!("`{name}`")).collect();
            let remedy = match nearest(word, words.iter().map(|(name, _)| *name)) {
                Some(near) => format!("did you mean `{near}`? known here: {}", known.join(", ")),
                None => format!("known here: {}", known.join(", ")),
            };
            self.problem(format!("`{word}` is not known here"), span, "unknown", remedy);
        }
        found
    }

    /// Takes a value over if there is one.
    pub(super) fn set<T>(&self, place: &mut T, value: Option<At<T>>) {
        if let Some((value, _)) = value {
            *place = value;
        }
    }

    /// Takes over everything that stands here, for options of which the names and the defaults are
    /// known and nothing else.
    pub(super) fn set_json(&self, options: &mut Map<String, Value>) {
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            let Some(usual) = options.get_mut(name) else {
                let remedy = match nearest(name, options.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        let known: Vec<_> = options.keys().map(|key| format!("`{key}`")).collect();
                        format!("known here: {}", known.join(", "))
                    }
                };
                self.problem(format!("unknown key `{name}`"), &key.span(), "unknown", remedy);
                continue;
            };
            match self.json(value) {
                Some(value) if json_kind(&value) == json_kind(usual) => *usual = value,
                Some(_) => self.wrong(name, value, json_kind(usual)),
                None => {}
            }
        }
    }

    /// Everything that stands here but for one key, for whoever knows what it means.
    pub(super) fn json_without(&self, without: &str) -> Map<String, Value> {
        let others = self.table.iter().filter(|(key, _)| key.get_ref() != without);
        others
            .filter_map(|(key, value)| Some((key.get_ref().to_string(), self.json(value)?)))
            .collect()
    }

    fn json(&self, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        Some(match value.get_ref() {
            DeValue::String(text) => Value::from(text.to_string()),
            DeValue::Boolean(boolean) => Value::from(*boolean),
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                match i64::from_str_radix(&digits, integer.radix()) {
                    Ok(integer) => Value::from(integer),
                    Err(_) => {
                        self.problem(
                            "the number is too large",
                            &value.span(),
                            "this number",
                            "write one of at most 63 bits",
                        );
                        return None;
                    }
                }
            }
            DeValue::Array(items) => {
                items.iter().map(|item| self.json(item)).collect::<Option<_>>()?
            }
            DeValue::Table(table) => {
                let fields = table
                    .iter()
                    .map(|(key, value)| Some((key.get_ref().to_string(), self.json(value)?)));
                Value::Object(fields.collect::<Option<_>>()?)
            }
            DeValue::Float(_) | DeValue::Datetime(_) => {
                let remedy = "write a string, an integer, a boolean, a list or a table";
                let label = format!("this is {}", kind(value.get_ref()));
                self.problem("this cannot be kept in a plan", &value.span(), label, remedy);
                return None;
            }
        })
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'a>> {
        let value = self.get(key, "a table")?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(key, table, value.span(), self.problems)),
            _ => {
                self.wrong(key, value, "a table");
                None
            }
        }
    }

    /// The tables of a list of tables, possibly absent; `None` if it is something else.
    pub(crate) fn tables(&self, key: &'static str) -> Option<Vec<Table<'a>>> {
        let Some(value) = self.get(key, "a list of tables") else { return Some(vec![]) };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(key, value, &format!("a list of tables, each begun with `[[{key}]]`"));
            return None;
        };
        let tables = items.iter().map(|item| match item.get_ref() {
            DeValue::Table(table) => Some(Table::new(key, table, item.span(), self.problems)),
            _ => {
                self.wrong(key, item, "a table");
                None
            }
        });
        // Every item is looked at, also behind one that is no table.
        tables.collect::<Vec<_>>().into_iter().collect()
    }
}

/// The words of which one may stand there.
fn one_of<T>(words: &[(&str, T)]) -> String {
    let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    words.join(", ")
}

/// Reports a mark that nothing emits.
pub(super) fn known_mark(table: &Table<'_>, mark: &str, span: &Range<usize>, marks: &[&str]) {
    if !marks.contains(&mark) {
        let remedy = match nearest(mark, marks.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "marks are the names in `mark!(…)` under impl/src".to_owned(),
        };
        table.problem(format!("no code emits the mark `{mark}`"), span, "unknown mark", remedy);
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string that does not fit",
        DeValue::Integer(_) => "an integer that does not fit",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What an option has to be, by its default.
fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// Milliseconds, from a text such as `250ms`, `2s`, `5m` or `1h`.
pub(crate) fn parse_duration(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let duration = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (duration <= DURATION_MS_MAX).then_some(duration)
}

/// The known word that is most like the given one, if any is.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.len() / 4;
    known
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// How many letters have to be changed, put in or left out.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
