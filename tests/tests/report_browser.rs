//! The page of a run in a real browser.
//!
//! Skipped, with a message, where there is no `chromium` on the `PATH`. Leaves pictures in
//! `target/browser/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gapless_browser::{Browser, PATIENCE, SOON, Tab};
use gapless_sim::check::judge;
use gapless_sim::scenario::{Library, draw};
use gapless_sim::seed::Seed;
use gapless_sim::trace::Kind;
use gapless_sim::trace::causality::Causality;
use gapless_sim::world::{self, Run};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// One browser at a time: each is several processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const SCENARIO: &str = "events/live-before-replay-cut";
const MUTANT: &str = "cursor-jumps";

/// Does something outside of the runtime of the test: a simulation has runtimes of its own.
fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(what).join().expect("no panic"))
}

/// The command, with its exit code.
fn sim(words: &[&str]) -> u8 {
    let args = ["gapless-sim"].into_iter().chain(words.iter().copied()).map(OsString::from);
    apart(|| gapless_sim::cli::main(args, &mut Vec::new(), &mut Vec::new()))
}

/// The page of the mutant's failing run.
fn failing(folder: &Path) -> PathBuf {
    let path = folder.join("failing.html");
    let file = path.to_str().expect("UTF-8");
    assert_eq!(sim(&["run", "-q", SCENARIO, "1", "--mutant", MUTANT, "--report", file]), 1);
    path
}

/// The same run without a page.
fn failing_run() -> Run {
    let scenario = Library::embedded().get(SCENARIO).expect("the scenario is there");
    let mut plan = draw(&scenario, Seed(1));
    plan.mutant = Some(MUTANT.to_owned());
    apart(|| world::run(&plan)).expect("it is carried out")
}

/// Opens a page, and waits until its script has drawn it in the size that it is looked at.
async fn open(browser: &Browser, path: &Path) -> Tab {
    let tab = browser.open(&format!("file://{}", path.display())).await;
    ready(&tab).await;
    tab.looks(1_400, 900, false).await;
    tab.reload().await;
    ready(&tab).await;
    drawn(&tab).await;
    tab
}

/// Waits until the script of a page has drawn it.
async fn ready(tab: &Tab) {
    let ready = async {
        while !tab.eval("document.documentElement?.dataset.ready ?? null").await.is_string() {
            tokio::time::sleep(SOON).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("it is drawn");
}

/// Waits until the page has drawn what the last key did.
async fn drawn(tab: &Tab) {
    let frames =
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
    assert_eq!(tab.eval(frames).await, json!(true));
}

/// The number of the row that is selected.
const SELECTED: &str = "Number(document.querySelector('.row.selected').id.slice(1))";

/// The finding that the page is headed with.
const FIRST: &str = r#".finding[data-finding="0"]"#;

/// Whether an element is wholly inside the part of the page that can be seen.
fn in_view(selector: &str) -> String {
    format!(
        "(() => {{ const it = document.querySelector('{selector}').getBoundingClientRect(); \
         const view = document.getElementById('timeline').getBoundingClientRect(); \
         return it.height > 0 && it.top >= view.top && it.bottom <= Math.min(view.bottom, innerHeight); }})()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_violation_is_in_view_and_what_led_to_it_stands_out() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let tab = open(&browser, &failing(folder.path())).await;
    let run = failing_run();
    let gapless_sim::check::Verdict::Violation(violations) = judge(&run) else {
        panic!("the mutant is caught")
    };
    let heading = tab.eval("document.querySelector('h1').textContent").await;
    assert_eq!(heading, json!(violations[0].message));
    for selector in [FIRST, ".row.selected"] {
        assert_eq!(tab.eval(&in_view(selector)).await, json!(true), "{selector}");
    }
    assert_eq!(tab.eval("scrollY").await, json!(0));
    // What the page shows as the causal past is what was computed from the trace.
    let selected = tab.eval(SELECTED).await.as_u64().expect("a number");
    let at = usize::try_from(selected).expect("small");
    assert!(run.trace.records[at].text.starts_with("resync "), "{}", run.trace.records[at]);
    let past = Causality::of(&run.trace, &run.plan).past(at);
    let shown = "[...document.querySelectorAll('.row')].map(it => \
                 [Number(it.id.slice(1)), it.classList.contains('past'), it.classList.contains('rest')])";
    let shown = tab.eval(shown).await;
    let shown = shown.as_array().expect("rows");
    assert!(shown.len() > 20, "{shown:?}");
    let (mut inside, mut outside) = (0, 0);
    for row in shown {
        let index = usize::try_from(row[0].as_u64().expect("a number")).expect("small");
        assert_eq!(row[1], json!(past[index]), "{}", run.trace.records[index]);
        assert_eq!(row[2], json!(!past[index]), "{}", run.trace.records[index]);
        *(if past[index] { &mut inside } else { &mut outside }) += 1;
    }
    assert!(inside > 5 && outside > 5, "{inside} {outside}");
    assert!(
        tab.eval("document.querySelectorAll('svg .arrow.past').length").await.as_u64() > Some(0)
    );
    tab.picture("report-light").await;
    tab.looks(1_400, 900, true).await;
    drawn(&tab).await;
    tab.picture("report-dark").await;
    tab.looks(640, 900, false).await;
    drawn(&tab).await;
    assert_eq!(tab.eval(&in_view(FIRST)).await, json!(true), "in a narrow window too");
    tab.picture("report-narrow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_asks_the_network_for_nothing() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let page = failing(folder.path());
    let tab = open(&browser, &page).await;
    let requests = tab.requests_of_a_reload().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].starts_with(&format!("file://{}", page.display())), "{requests:?}");
    let loaded = tab.eval("performance.getEntriesByType('resource').length").await;
    assert_eq!(loaded, json!(0));
    // And its policy would not let it.
    let tried = "fetch('data:,x').then(() => 'loaded', () => 'refused')";
    assert_eq!(tab.eval(tried).await, json!("refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let tab = open(&browser, &failing(folder.path())).await;
    let count = |class: &str| format!("document.querySelectorAll('.row.{class}').length");
    let violation = tab.eval(SELECTED).await.as_i64().expect("a number");
    for (key, moved) in [("j", 1), ("j", 2), ("k", 1), ("ArrowUp", 0), ("ArrowDown", 1)] {
        tab.press(key).await;
        drawn(&tab).await;
        assert_eq!(tab.eval(SELECTED).await, json!(violation + moved), "{key}");
    }
    // To a word, to the next place where it stands, and back to the list.
    tab.press("/").await;
    for character in ["c", "u", "r", "s", "o", "r"] {
        tab.press(character).await;
    }
    tab.press("Enter").await;
    drawn(&tab).await;
    let text = "document.querySelector('.row.selected .text').textContent";
    assert!(tab.eval(text).await.as_str().is_some_and(|text| text.contains("cursor")));
    tab.press("Escape").await;
    tab.press("g").await;
    drawn(&tab).await;
    assert_eq!(tab.eval(SELECTED).await, json!(0));
    // What led to the first record is the first record.
    tab.press("Enter").await;
    drawn(&tab).await;
    assert_eq!(tab.eval(&count("past")).await, json!(1));
    tab.press("v").await;
    drawn(&tab).await;
    assert_eq!(tab.eval(SELECTED).await, json!(violation));
    assert_eq!(tab.eval(&in_view(FIRST)).await, json!(true));
    tab.press("p").await;
    drawn(&tab).await;
    assert_eq!(tab.eval(&count("rest")).await, json!(0), "only the causal past");
    tab.press("p").await;
    tab.press("m").await;
    drawn(&tab).await;
    assert_eq!(tab.eval(&count("mark")).await, json!(0), "no marks");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mouse_shows_the_whole_frame() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let tab = open(&browser, &failing(folder.path())).await;
    let place = "(() => { const it = [...document.querySelectorAll('.row.receive .text')]\
                 .find(it => it.textContent.includes('note agent_seq=8')).getBoundingClientRect(); \
                 return [it.left + 30, it.top + 8]; })()";
    let place = tab.eval(place).await;
    let number = |nth: usize| place[nth].as_f64().expect("a number");
    tab.hover(number(0), number(1)).await;
    drawn(&tab).await;
    let whole = tab.eval("JSON.parse(document.querySelector('#details pre').textContent)").await;
    assert_eq!((&whole["type"], &whole["agent_seq"]), (&json!("note"), &json!(8)), "{whole:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_records_are_drawn_as_far_as_they_are_seen() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("long.html");
    let file = page.to_str().expect("UTF-8");
    // A task whose result is never said is asked for until the end.
    let words =
        ["run", "-q", "tasks/swarm", "5", "--mutant", "result-never-said", "--report", file];
    assert_eq!(sim(&words), 6);
    let tab = open(&browser, &page).await;
    let records =
        tab.eval("JSON.parse(document.getElementById('data').textContent).rows.length").await;
    assert!(records.as_u64() >= Some(5_000), "{records}");
    let (drawn_after, rows) = (
        tab.eval("Number(document.documentElement.dataset.ready)").await,
        tab.eval("document.querySelectorAll('.row').length").await,
    );
    println!("{records} records are drawn after {drawn_after} ms, {rows} of them in view");
    assert!((20..200).contains(&rows.as_u64().expect("a number")), "{rows}");
    assert_eq!(tab.eval(&in_view(FIRST)).await, json!(true));
    // Each place of the run can be gone to.
    let last = "document.getElementById('timeline').scrollHeight";
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        tab.eval(&format!("document.getElementById('timeline').scrollTop = {last} * {share}"))
            .await;
        drawn(&tab).await;
        let seen = tab.eval("document.querySelectorAll('.row').length").await;
        assert!(seen.as_u64() > Some(15), "{share}: {seen}");
    }
    let took = "(async () => { const list = document.getElementById('timeline'); \
                const from = performance.now(); let frames = 0; \
                for (let at = 0; at < 60; at++, frames++) { list.scrollTop = at * 400; \
                await new Promise(requestAnimationFrame); } \
                return (performance.now() - from) / frames; })()";
    let Value::Number(took) = tab.eval(took).await else { panic!("a number") };
    println!("a frame of scrolling takes {:.1} ms", took.as_f64().unwrap_or_default());
    tab.picture("report-long").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_is_shown_and_not_run() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let hostile = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>'\"<!--";
    let mut run = failing_run();
    for record in run.trace.records.iter_mut().filter(|record| record.kind != Kind::Mark) {
        record.text = hostile.into();
    }
    run.plan.scenario = hostile.to_owned();
    let verdict = judge(&run);
    let page = gapless_sim::report::run_page(&gapless_sim::report::RunPage {
        run: &run,
        verdict: &verdict,
        title: hostile,
        again: hostile,
        commit: Some(hostile),
        facts: &[("hosts", hostile.to_owned())],
        likelihood: None,
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile.html");
    std::fs::write(&path, page).expect("written");
    let tab = open(&browser, &path).await;
    assert_ne!(tab.eval("document.title").await, json!("run"));
    assert_eq!(tab.eval("document.images.length").await, json!(0));
    let text = "[...document.querySelector('.row.selected .text').childNodes].at(-1).textContent";
    assert_eq!(tab.eval(text).await, json!(hostile));
    assert_eq!(
        tab.eval("document.querySelector('.command').textContent").await,
        json!(format!("cargo sim {hostile}"))
    );
}
