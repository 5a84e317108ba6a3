//! `docs/conformance.md` and the schemas beside it say what the program does.

use std::collections::BTreeSet;
use std::ffi::OsString;

use gapless_sim::conform::outcome::Word;
use gapless_sim::conform::{Reply, Request, Role};
use gapless_sim::{cli, exit};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/conformance.md");

fn sim(line: &str) -> (u8, String) {
    let args = std::iter::once("gapless-sim").chain(line.split_whitespace()).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::main(args, &mut out, &mut err);
    (code, String::from_utf8(out).expect("UTF-8"))
}

/// The lines of the examples: what is asked, or what is answered.
fn examples(sign: &str) -> Vec<Value> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix(sign));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Every `type` that an object in a schema, or in an example, may have.
fn kinds(value: &Value, wanted: &dyn Fn(&Value) -> Option<String>, found: &mut BTreeSet<String>) {
    found.extend(wanted(value));
    match value {
        Value::Array(items) => items.iter().for_each(|item| kinds(item, wanted, found)),
        Value::Object(fields) => fields.values().for_each(|item| kinds(item, wanted, found)),
        _ => {}
    }
}

#[test]
fn every_example_is_a_line_of_the_protocol_with_nothing_that_is_not_in_it() {
    for value in examples("→ ") {
        let request: Request = serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(serde_json::to_value(&request).expect("JSON"), value);
    }
    for value in examples("← ") {
        let reply: Reply = serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(serde_json::to_value(&reply).expect("JSON"), value);
    }
}

#[test]
fn every_message_event_and_effect_has_an_example() {
    for (sign, side) in [("→ ", "request"), ("← ", "reply")] {
        let (_, schema) = sim(&format!("conform schema {side}"));
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        let (mut there, mut shown) = (BTreeSet::new(), BTreeSet::new());
        let of_schema = |value: &Value| {
            value.get("properties")?.get("type")?.get("const")?.as_str().map(str::to_owned)
        };
        let of_example = |value: &Value| value.get("type")?.as_str().map(str::to_owned);
        kinds(&schema, &of_schema, &mut there);
        for value in examples(sign) {
            kinds(&value, &of_example, &mut shown);
        }
        assert!(there.len() > 3, "{there:?}");
        let missing: Vec<_> = there.difference(&shown).collect();
        assert!(missing.is_empty(), "no example in docs/conformance.md shows {missing:?}");
    }
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let committed = [
        ("request", include_str!("../../docs/schemas/conform-v1.request.json")),
        ("reply", include_str!("../../docs/schemas/conform-v1.reply.json")),
    ];
    for (side, committed) in committed {
        let (code, schema) = sim(&format!("conform schema {side}"));
        assert_eq!(code, exit::OK);
        let file = format!("docs/schemas/conform-v1.{side}.json");
        assert!(
            schema == committed,
            "{file} is not up to date: write it with `gapless-sim conform schema {side} > {file}`"
        );
    }
}

#[test]
fn the_tables_list_every_role_feature_verdict_and_exit_code() {
    let listed = |word: &str| assert!(PAGE.contains(&format!("\n| `{word}` |")), "{word}");
    for role in Role::ALL {
        listed(role.as_str());
    }
    let words = [
        Word::Pass,
        Word::Warn,
        Word::Unsupported,
        Word::Inconclusive,
        Word::Fail,
        Word::Crash,
        Word::Error,
        Word::Nondeterminism,
    ];
    for word in words {
        listed(word.as_str());
    }
    let (_, features) = include_str!("../src/conform/protocol.rs")
        .split_once("pub mod feature {")
        .expect("the features");
    let features: Vec<&str> =
        features.lines().filter_map(|line| line.trim().strip_prefix("pub const ")).collect();
    assert!(features.len() > 10);
    for feature in features {
        let name = feature.split('"').nth(1).expect("a name");
        listed(name);
    }
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let codes: Vec<u8> = rows.filter_map(|(code, _)| code.parse().ok()).collect();
    assert_eq!(codes, exit::PRECEDENCE);
}

#[test]
fn the_example_of_expectations_is_in_order() {
    let (_, example) = PAGE.split_once("```toml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let parsed = gapless_sim::conform::expect::Expectations::parse("example.toml", example);
    let parsed = parsed.unwrap_or_else(|error| panic!("{:?}", error.problems()));
    assert_eq!(parsed.entries().len(), 2);
}
