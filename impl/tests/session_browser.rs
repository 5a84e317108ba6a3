//! The page in a real browser, while links break, servers restart and pages are reloaded.
//!
//! Skipped, with a message, where there is no `chromium` on the `PATH`. Each test leaves pictures
//! in `target/browser/`.
#![cfg(all(feature = "net", feature = "sqlite"))]

mod session_support;

use gapless::session::conversation::Role;
use gapless_browser::{Browser, Tab};
use serde_json::json;
use session_support::{Host, PATIENCE, Proxy, SOON};
use tokio::sync::Mutex;

/// One browser at a time: each is several processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What the page shows, one line for each bubble: `role text`, and its state in parentheses.
const SHOWN: &str = "[...document.querySelectorAll('#log > li')].map(it => `${it.dataset.role} \
    ${it.querySelector('.text').textContent}${it.dataset.state && ` (${it.dataset.state})`}`)";

/// What the page says about its connection.
const LINK: &str = "document.getElementById('link').dataset.state";

const QUESTION: &str = "document.getElementById('asked').hidden ? null \
    : document.querySelector('#asked span').textContent";

const CLIENT: &str = "sessionStorage.getItem('gapless.client')";

async fn page(browser: &Browser, port: u16) -> Tab {
    browser.open(&format!("http://127.0.0.1:{port}/?token=secret")).await
}

/// Waits until an expression has a value.
async fn until(tab: &Tab, expression: &str, expected: serde_json::Value) {
    let mut value = json!(null);
    let wait = async {
        loop {
            value = tab.eval(expression).await;
            if value == expected {
                return;
            }
            tokio::time::sleep(SOON).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("`{expression}` is {value:#}, and does not become {expected:#}");
    }
}

/// Waits until the page shows exactly this.
async fn shows(tab: &Tab, expected: &[&str]) {
    until(tab, SHOWN, json!(expected)).await;
}

/// The server holds what the page shows: nothing is lost, nothing is there twice.
async fn holds(host: Host, expected: &[&str]) {
    let stored = host.stored("somebody").await;
    let stored: Vec<String> = stored
        .into_iter()
        .map(|(role, text)| match role {
            Role::User => format!("user {text}"),
            Role::Assistant => format!("assistant {text}"),
        })
        .collect();
    assert_eq!(stored, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_on_where_the_connection_broke() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let host = Host::start().await;
    let proxy = Proxy::start(host.port).await;
    let tab = page(&browser, proxy.port).await;
    until(&tab, LINK, json!("live")).await;
    tab.say("count 6").await;
    host.permit(3);
    shows(&tab, &["user count 6", "assistant 1 of 6", "assistant 2 of 6", "assistant 3 of 6"])
        .await;
    proxy.refuse(true);
    proxy.cut();
    until(&tab, LINK, json!("waiting")).await;
    tab.picture("reply-cut").await;
    host.permit(2);
    proxy.refuse(false);
    let all = [
        "user count 6",
        "assistant 1 of 6",
        "assistant 2 of 6",
        "assistant 3 of 6",
        "assistant 4 of 6",
        "assistant 5 of 6",
        "assistant 6 of 6",
    ];
    shows(&tab, &all[..6]).await;
    // What the server has sent, and the page does not get.
    proxy.mute(true);
    host.permit(1);
    proxy.cut();
    proxy.mute(false);
    shows(&tab, &all).await;
    until(&tab, LINK, json!("live")).await;
    tab.picture("reply-whole").await;
    holds(host, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_flight_survives_a_restart_of_the_server() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let mut host = Host::start().await;
    let proxy = Proxy::start(host.port).await;
    let witness = page(&browser, host.port).await;
    let tab = page(&browser, proxy.port).await;
    until(&tab, LINK, json!("live")).await;
    // It is accepted, and the page is not told.
    proxy.mute(true);
    tab.say("hello").await;
    shows(&witness, &["user hello", "assistant you said hello"]).await;
    shows(&tab, &["user hello (pending)"]).await;
    host.kill().await;
    // This one does not even leave, and is not lost by a reload either.
    tab.say("again").await;
    shows(&tab, &["user hello (pending)", "user again (pending)"]).await;
    proxy.cut();
    tab.picture("message-in-flight").await;
    proxy.mute(false);
    host.start_again().await;
    let all = ["user hello", "assistant you said hello", "user again", "assistant you said again"];
    shows(&tab, &all).await;
    shows(&witness, &all).await;
    tab.picture("message-accepted").await;
    until(&tab, "Object.keys(localStorage).length", json!(0)).await;
    holds(host, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_shown_again_after_a_reload_and_can_be_answered() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let host = Host::start().await;
    let tab = page(&browser, host.port).await;
    until(&tab, LINK, json!("live")).await;
    tab.say("ask how old is it?").await;
    until(&tab, QUESTION, json!("how old is it?")).await;
    let client = tab.eval(CLIENT).await;
    tab.reload().await;
    until(&tab, QUESTION, json!("how old is it?")).await;
    assert_eq!(tab.eval(CLIENT).await, client, "a tab that is reloaded keeps its name");
    shows(&tab, &["user ask how old is it?", "assistant how old is it?"]).await;
    tab.picture("question-after-reload").await;
    tab.say("seven years").await;
    let all = [
        "user ask how old is it?",
        "assistant how old is it?",
        "user seven years",
        "assistant you answered seven years",
    ];
    shows(&tab, &all).await;
    until(&tab, QUESTION, json!(null)).await;
    tab.picture("question-answered").await;
    holds(host, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_see_everything_and_one_that_closes_disturbs_nothing() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let host = Host::start().await;
    let one = page(&browser, host.port).await;
    until(&one, LINK, json!("live")).await;
    // A tab that another one opens begins with a copy of its session's storage.
    let two = one.duplicate().await;
    until(&two, LINK, json!("live")).await;
    assert_ne!(one.eval(CLIENT).await, two.eval(CLIENT).await, "two views, two names");
    one.say("from one").await;
    let first = ["user from one", "assistant you said from one"];
    shows(&one, &first).await;
    shows(&two, &first).await;
    two.say("from two").await;
    let second = [first[0], first[1], "user from two", "assistant you said from two"];
    shows(&one, &second).await;
    shows(&two, &second).await;
    one.picture("two-tabs-one").await;
    two.picture("two-tabs-two").await;
    two.close().await;
    one.say("alone").await;
    let all =
        [second[0], second[1], second[2], second[3], "user alone", "assistant you said alone"];
    shows(&one, &all).await;
    until(&one, LINK, json!("live")).await;
    holds(host, &all).await;
}

/// Closes a tab that has said something while there was no server, which is there again afterwards.
async fn close_with_a_message(tab: Tab, host: &mut Host) {
    host.kill().await;
    tab.say("do not forget this").await;
    shows(&tab, &["user do not forget this (pending)"]).await;
    tab.close().await;
    host.start_again().await;
}

/// What is there when that was sent all the same.
const NOT_FORGOTTEN: [&str; 2] =
    ["user do not forget this", "assistant you said do not forget this"];

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_tab_that_was_closed_is_sent_by_the_next() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let mut host = Host::start().await;
    // The storage belongs to the port, and outlives what listens there.
    let proxy = Proxy::start(host.port).await;
    let closed = page(&browser, proxy.port).await;
    until(&closed, LINK, json!("live")).await;
    close_with_a_message(closed, &mut host).await;
    let tab = page(&browser, proxy.port).await;
    shows(&tab, &NOT_FORGOTTEN).await;
    holds(host, &NOT_FORGOTTEN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_tab_that_is_closed_is_sent_by_one_that_is_open() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let mut host = Host::start().await;
    let proxy = Proxy::start(host.port).await;
    let open = page(&browser, proxy.port).await;
    let closed = page(&browser, proxy.port).await;
    until(&open, LINK, json!("live")).await;
    until(&closed, LINK, json!("live")).await;
    close_with_a_message(closed, &mut host).await;
    shows(&open, &NOT_FORGOTTEN).await;
    holds(host, &NOT_FORGOTTEN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_valid_is_said_to_be_so() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(browser) = Browser::start(env!("CARGO_TARGET_TMPDIR")).await else { return };
    let host = Host::start().await;
    let tab = browser.open(&format!("http://127.0.0.1:{}/?token=wrong", host.port)).await;
    until(&tab, LINK, json!("refused")).await;
    until(&tab, "document.getElementById('text').disabled", json!(true)).await;
}
