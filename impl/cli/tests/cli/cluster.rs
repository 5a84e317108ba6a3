//! Several servers on one log, on a real `nats-server`, if one is installed.

#[path = "../../../tests/nats/mod.rs"]
mod nats;

use self::nats::Nats;
use crate::support::{
    Server, assert_events, gapless, in_time, lines, payloads, run, run_command, until,
};

impl Nats {
    async fn serve(&self) -> Server {
        Server::start_with(&["--log", &self.url, "--log-replicas", "1"]).await
    }
}

#[tokio::test]
async fn a_client_goes_on_at_another_server_and_the_death_of_the_engine_is_a_pause() {
    let Some(mut nats) = Nats::start().await else { return };
    let mut one = nats.serve().await;
    let two = nats.serve().await;
    let (cursor, output) = (one.path("both.cursor"), one.path("out.jsonl"));
    let tail = |server: &Server, count: &str| {
        let (url, token) = (server.url(), server.path("data/subscriber.token"));
        let mut args = vec!["tail", "--url", &url, "--token-file", &token, "--agent", "demo"];
        args.extend(["--cursor", &cursor, "--output", &output, "--count", count]);
        gapless(&args)
    };
    assert_eq!(one.publish(&[], &payloads(1, 300)).await.code, Some(0));
    let said = run_command(tail(&one, "100"), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    // The same lines are the same events wherever they are published, and what follows is in order.
    let said = two.publish(&[], &payloads(1, 400)).await;
    assert!(said.err.contains("which has number 400"), "{said:?}");
    one.kill().await;
    let said = run_command(tail(&two, "300"), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_events(&lines(&output), 1, 400);

    one.restart().await;
    assert_eq!(one.get("/healthz").await.0, 204);
    nats.kill();
    until("it says that it cannot serve", async || two.get("/healthz").await.0 == 503).await;
    let mut follower = tail(&two, "100").spawn().expect("it starts");
    nats.restart().await;
    until("it serves again", async || two.get("/healthz").await.0 == 204).await;
    assert_eq!(one.publish(&["--id-prefix", "more"], &payloads(401, 500)).await.code, Some(0));
    assert!(in_time(follower.wait()).await.expect("it ends").success());
    assert_events(&lines(&output), 1, 500);
}

#[tokio::test]
async fn a_new_epoch_of_a_shared_log_is_begun_by_hand() {
    let Some(nats) = Nats::start().await else { return };
    let new_epoch = async || run(&["log", "new-epoch", "--log", &nats.url], "").await;
    let said = new_epoch().await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("there is no stream `gapless`"), "{said:?}");
    assert!(said.err.contains("--log-stream"), "{said:?}");

    let mut server = nats.serve().await;
    let (cursor, output) = (server.path("one.cursor"), server.path("out.jsonl"));
    let tail = async |server: &Server, count: &str| {
        let (url, token) = (server.url(), server.path("data/subscriber.token"));
        let mut args = vec!["tail", "--url", &url, "--token-file", &token, "--agent", "demo"];
        args.extend(["--cursor", &cursor, "--output", &output, "--count", count]);
        let said = run(&args, "").await;
        assert_eq!(said.code, Some(0), "{said:?}");
        std::fs::read_to_string(&cursor).expect("a cursor")
    };
    assert_eq!(server.publish(&[], &payloads(1, 10)).await.code, Some(0));
    let before = tail(&server, "10").await;

    // A server that runs joins it, and one that starts.
    let mut epochs = Vec::new();
    for events in [20, 30] {
        let said = new_epoch().await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let epoch = said.out.trim().to_owned();
        assert!(!before.contains(&epoch) && !epochs.contains(&epoch), "{said:?}");
        if events == 30 {
            server.kill().await;
            server.restart().await;
        }
        until("it has joined", async || {
            server.publish(&[], &payloads(1, events)).await.code == Some(0)
        })
        .await;
        let cursor = tail(&server, "10").await;
        assert!(cursor.contains(&epoch), "{cursor} {said:?}");
        epochs.push(epoch);
    }
    assert_events(&lines(&output), 1, 30);
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_is_no_address_is_told_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    for (log, expected) in [
        ("nats://user:secret@127.0.0.1:1", "nats://***@127.0.0.1:1"),
        ("json", "--log-format"),
        ("nats://", "nats://host:4222"),
        ("nats://user:sec/secret@n1:4222", "nats://host:4222"),
        ("nats://user:sec,secret@n1:4222", "nats://host:4222"),
    ] {
        let said = run(&["serve", "--data", &data, "--log", log], "").await;
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        assert!(said.err.contains(expected) && !said.err.contains("secret"), "{said:?}");
    }
    let log = "nats://user:secret@n1:4222,n2:4222";
    let said = run(&["serve", "--data", &data, "--log", log, "--print-config"], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("log = \"nats://***@n1:4222,n2:4222\""), "{said:?}");
    assert!(!said.out.contains("secret"), "{said:?}");
    let mut command = gapless(&["serve", "--help"]);
    command.env("GAPLESS_LOG", log);
    let said = run_command(command, "").await;
    assert!(said.out.contains("GAPLESS_LOG") && !said.out.contains("secret"), "{said:?}");
}
