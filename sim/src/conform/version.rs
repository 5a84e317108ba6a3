//! Versions of implementations, as far as one can be said to come before another.

use std::cmp::Ordering;

/// Numbers with dots between them, and perhaps what comes before a release.
#[derive(Debug, Clone)]
pub(super) struct Version {
    numbers: Vec<u64>,
    /// What follows a `-`: it comes before the release.
    before: Option<String>,
}

impl Version {
    /// `6.0.2`, `v6.0.2`, `6.0.2-rc.1`, `6.0.2+build`; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (numbers, before) = match text.split_once('-') {
            Some((numbers, before)) => (numbers, Some(before.to_owned())),
            None => (text, None),
        };
        let number = |part: &str| part.parse().ok().filter(|_| !part.starts_with('+'));
        Some(Self { numbers: numbers.split('.').map(number).collect::<Option<_>>()?, before })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let longest = self.numbers.len().max(other.numbers.len());
        let padded = |version: &Self| {
            let zeros = std::iter::repeat(0);
            version.numbers.iter().copied().chain(zeros).take(longest).collect::<Vec<u64>>()
        };
        padded(self).cmp(&padded(other)).then_with(|| match (&self.before, &other.before) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(another)) => one.cmp(another),
        })
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_are_compared_as_numbers() {
        let before = |one: &str, another: &str| {
            let parse = |text| Version::parse(text).expect("a version");
            assert!(parse(one) < parse(another), "{one} < {another}");
        };
        before("6.0.2", "6.0.10");
        before("6.0.2", "v7");
        before("6.0.2-rc.1", "6.0.2");
        before("2026.9.1", "2026.11.0+build.7");
        assert!(Version::parse("6") >= Version::parse("6.0.0"));
    }

    #[test]
    fn what_is_no_version_is_not_guessed_at() {
        for text in ["", "unreleased", "1.x", "1..2", "+1", "-1"] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }
}
