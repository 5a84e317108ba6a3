//! Which changes break whoever uses a release.
//!
//! What is gone or reads differently does; so does a new variant of an enum, or a new field of a struct,
//! that could be written out, and a new item of a trait that could be implemented. Where the lines leave
//! it open, as with a method of a trait that has a body, it is taken to break.

use std::collections::BTreeSet;

/// What of `now` breaks `released`, a line each.
pub(crate) fn breaks(released: &str, now: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (released.lines().collect(), now.lines().collect());
    let gone = old.difference(&new).map(|line| format!("  - {line}"));
    let closed: BTreeSet<&str> = old.iter().filter_map(|line| closed(line)).collect();
    let open_structs: BTreeSet<&str> =
        old.iter().filter_map(|line| part(line)).filter_map(|path| owner(path)).collect();
    let added = new.difference(&old).filter(|line| {
        let in_trait = method(line).and_then(owner);
        let in_type = part(line).and_then(owner);
        // A struct whose fields are all private cannot be written out.
        in_trait.is_some_and(|of| old.contains(format!("pub trait {of}").as_str()))
            || in_type.is_some_and(|of| closed.contains(of) && open_structs.contains(of))
    });
    let added = added.map(|line| format!("  + {line}"));
    gone.chain(added).collect()
}

/// The path of an enum or a struct to which nothing can be added: `pub enum a::B`.
fn closed(line: &str) -> Option<&str> {
    line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct ")).map(path)
}

/// The path of a variant or a field: `pub a::B::C`, `pub a::B::c: u64`. All else has a keyword.
fn part(line: &str) -> Option<&str> {
    line.strip_prefix("pub ").map(path).filter(|path| path.contains("::"))
}

/// The path of an item of a trait or a type: `pub fn a::B::c(&self)`.
fn method(line: &str) -> Option<&str> {
    let keywords = ["pub fn ", "pub async fn ", "pub unsafe fn ", "pub const ", "pub type "];
    keywords.iter().find_map(|keyword| line.strip_prefix(keyword)).map(path)
}

/// The path that a text begins with.
fn path(text: &str) -> &str {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b':' if bytes.get(end + 1) == Some(&b':') => end += 2,
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => end += 1,
            _ => break,
        }
    }
    &text[..end]
}

fn owner(path: &str) -> Option<&str> {
    path.rsplit_once("::").map(|(owner, _)| owner)
}

#[cfg(test)]
mod tests {
    use super::breaks;

    const RELEASED: &str = "\
#[non_exhaustive] pub enum a::Growing
pub a::Growing::One
pub a::Kind::One
pub a::Kind::Two
pub a::Options::max: u64
pub enum a::Kind
pub fn a::Handler::handle(&mut self, u64) -> bool
pub fn a::Sealed::new() -> a::Sealed
pub fn a::run()
pub struct a::Options
pub struct a::Sealed
pub trait a::Handler
";

    #[test]
    fn the_same_api_breaks_nothing() {
        assert_eq!(breaks(RELEASED, RELEASED), [""; 0]);
    }

    #[test]
    fn a_function_that_is_gone_or_takes_something_else_breaks() {
        let gone = RELEASED.replace("pub fn a::run()\n", "");
        assert_eq!(breaks(RELEASED, &gone), ["  - pub fn a::run()"]);
        let changed = RELEASED.replace("pub fn a::run()", "pub fn a::run(u64)");
        assert_eq!(breaks(RELEASED, &changed), ["  - pub fn a::run()"]);
    }

    #[test]
    fn what_has_to_be_written_out_or_implemented_breaks_when_it_grows() {
        for added in [
            "pub a::Kind::Three",
            "pub a::Kind::Three(u64)",
            "pub a::Options::min: u64",
            "pub fn a::Handler::stop(&mut self)",
            "pub type a::Handler::Error",
        ] {
            let now = format!("{RELEASED}{added}\n");
            assert_eq!(breaks(RELEASED, &now), [format!("  + {added}")]);
        }
    }

    #[test]
    fn what_nobody_had_to_know_may_be_added() {
        for added in [
            "pub fn a::walk()",
            "pub struct a::New",
            "pub a::New::field: u64",
            "pub fn a::Options::with(u64) -> Self",
            "pub a::Growing::Two",
            "pub a::Sealed::field: u64",
            "pub trait a::Other",
            "pub fn a::Other::other(&self)",
        ] {
            let now = format!("{RELEASED}{added}\n");
            assert_eq!(breaks(RELEASED, &now), [""; 0], "{added}");
        }
    }
}
