//! What every page has: its head, its policy, its style and script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Colours, text, tables: what all pages share.
const STYLE: &str = include_str!("assets/page.css");

/// The switch between light and dark, which all pages share.
const SCRIPT: &str = include_str!("assets/page.js");

/// A whole page.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// What it needs beside the shared style.
    pub(super) style: &'a str,
    /// What it needs beside the shared script.
    pub(super) script: &'a str,
    /// What the script reads, as JSON.
    pub(super) data: Option<String>,
    pub(super) body: Markup,
}

impl Page<'_> {
    pub(super) fn into_string(self) -> String {
        let style = format!("{STYLE}{}", self.style);
        let script = format!("{SCRIPT}{}", self.script);
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; \
             form-action 'none'",
            hash(&style),
            hash(&script)
        );
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { (self.title) }
                    style { (PreEscaped(style)) }
                }
                body {
                    (self.body)
                    @if let Some(data) = self.data {
                        script type="application/json" id="data" { (PreEscaped(data)) }
                    }
                    script { (PreEscaped(script)) }
                }
            }
        };
        page.into_string()
    }
}

/// How a policy names a style or a script.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(Sha256::digest(text)))
}

/// JSON that may stand inside a `script` element: nothing in it ends the element or begins a
/// comment.
pub(super) fn embedded(data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).expect("what is shown is always JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The button that switches between light and dark.
pub(super) fn theme_button() -> Markup {
    html! {
        button #theme type="button" title="light or dark (t)" aria-label="switch between light and dark" { "◐" }
    }
}

/// Milliseconds as seconds.
pub(super) fn seconds(at_ms: u64) -> String {
    format!("{}.{:03} s", at_ms / 1_000, at_ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let hostile = "</script><script>alert('1')</script>\"<!--&";
        let data = embedded(&hostile);
        assert!(!data.contains(['<', '>', '&']), "{data}");
        assert_eq!(serde_json::from_str::<String>(&data).expect("JSON"), hostile);
        let page = Page {
            title: hostile,
            style: "",
            script: "",
            data: Some(data),
            body: html! { p title=(hostile) { (hostile) } },
        };
        let page = page.into_string();
        assert!(!page.contains("alert('1')</script>"), "{page}");
        assert_eq!(page.matches("<script").count(), 2, "its own and the data");
    }

    #[test]
    fn a_page_names_what_it_may_run_and_nothing_else() {
        let page = Page { title: "x", style: "p{}", script: "1;", data: None, body: html! {} };
        let page = page.into_string();
        let script = format!("{SCRIPT}1;");
        assert!(page.contains(&format!("script-src '{}'", hash(&script))), "{page}");
        assert!(page.contains(&format!("<script>{script}</script>")), "as it was hashed");
        assert!(page.contains("default-src 'none'") && !page.contains("unsafe"), "{page}");
    }
}
