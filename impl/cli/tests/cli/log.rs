//! `log` and `inspect`: backups, what a restore does to clients, and what files say.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Said, Server, assert_events, ended, gapless, lines, payloads, run, run_command, signal, until,
};

async fn stop(server: &mut Server) {
    signal(&server.child, Signal::TERM);
    assert_eq!(ended(&mut server.child).await.code(), Some(0));
}

/// The payloads that were written, and the line of a gap.
async fn tail(server: &Server, output: &str, count: u64) -> Said {
    let count = count.to_string();
    run_command(server.tail(&["--output", output, "--count", &count]), "").await
}

/// Each file of a folder, with its contents.
fn contents(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let file = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().expect("UTF-8");
        (name, std::fs::read(entry.path()).expect("readable"))
    };
    entries.map(|entry| file(entry.expect("an entry"))).collect()
}

fn execute(path: &str, sql: &str) {
    let connection = Connection::open(Path::new(path)).expect("a database");
    connection.execute_batch(sql).expect("it is done");
}

#[tokio::test]
async fn a_restore_tells_clients_what_is_lost_and_gives_no_number_again() {
    let mut server = Server::start().await;
    let (data, backup, output) =
        (server.path("data"), server.path("backups/one"), server.path("output"));
    let said = run(&["log", "backup", "--data", &data, "--to", &backup], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by another server"), "{said:?}");
    server.publish(&[], &payloads(1, 10)).await;
    stop(&mut server).await;
    let said = run(&["log", "backup", "--data", &data, "--to", &backup], "").await;
    assert_eq!((said.code, said.out.trim()), (Some(0), backup.as_str()), "{said:?}");
    let said = run(&["log", "verify", &backup], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    server.restart().await;
    server.publish(&["--id-prefix", "lost"], &payloads(11, 20)).await;
    assert_eq!(tail(&server, &output, 20).await.code, Some(0));
    assert_events(&lines(&output), 1, 20);
    stop(&mut server).await;

    let restore = ["log", "restore", "--from", &backup, "--data", &data];
    let said = run(&restore, "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--replace"), "{said:?}");
    let said = run(&[&restore[..], &["--replace"]].concat(), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("new epoch"), "{said:?}");
    assert!(said.err.contains("replaced-1"), "{said:?}");
    server.restart().await;
    server.publish(&["--id-prefix", "new"], &payloads(31, 35)).await;
    let said = tail(&server, &output, 15).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let lines = lines(&output);
    let gap: Value = serde_json::from_str(&lines[20]).expect("JSON");
    assert_eq!((&gap["type"], &gap["verdict"]), (&"gap".into(), &"other_epoch".into()), "{gap}");
    // From the beginning of what there is: the numbers have other events now.
    assert_events(&lines[21..31], 1, 10);
    assert_events(&lines[31..36], 31, 35);
}

#[tokio::test]
async fn a_restore_into_an_empty_folder_needs_nothing_and_damage_is_refused() {
    let mut server = Server::start().await;
    let (data, backup) = (server.path("data"), server.path("backup"));
    server.publish(&[], &payloads(1, 10)).await;
    stop(&mut server).await;
    assert_eq!(run(&["log", "backup", "--data", &data, "--to", &backup], "").await.code, Some(0));
    let said = run(&["log", "backup", "--data", &data, "--to", &backup], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    let other = server.path("other");
    let restore = ["log", "restore", "--from", &backup, "--data", &other];
    assert_eq!(run(&restore, "").await.code, Some(0));
    let said = run(&["inspect", "--json", &format!("{other}/events.db")], "").await;
    let facts: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(
        (&facts["epochs"], &facts["streams"][0]["head"]),
        (&2.into(), &10.into()),
        "{facts}"
    );

    execute(&format!("{backup}/events.db"), "DELETE FROM events WHERE sequence = 4");
    let said = run(&["log", "verify", &backup], "").await;
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.out.contains("not the file that was backed up"), "{said:?}");
    assert!(said.out.contains("9 events where there must be 10"), "{said:?}");
    let third = server.path("third");
    let said = run(&["log", "restore", "--from", &backup, "--data", &third], "").await;
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(!Path::new(&third).exists());
    let said = run(&["log", "restore", "--from", &data, "--data", &third], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("is no backup"), "{said:?}");
}

#[tokio::test]
async fn verify_finds_each_thing_that_must_not_be() {
    let mut server = Server::start().await;
    server.publish(&["--id-prefix", "p"], &payloads(1, 10)).await;
    stop(&mut server).await;
    let said = run(&["log", "verify", &server.path("data")], "").await;
    assert_eq!((said.code, said.out.trim()), (Some(0), "nothing is wrong"), "{said:?}");
    // Without a write-ahead log, so that a file is all of it.
    let (data, backup) = (server.path("data"), server.path("backup"));
    let said = run(&["log", "backup", "--data", &data, "--to", &backup], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let wrong = [
        ("events.db", "DELETE FROM events WHERE sequence = 1", "9 events"),
        ("events.db", "UPDATE streams SET head = 9", "event 10 is not from 1 to 9"),
        ("events.db", "UPDATE lineage SET first = 11", "an epoch begins with 11"),
        ("events.db", "UPDATE lineage SET first = 2", "no epoch has event 1"),
        ("events.db", "UPDATE event_keys SET sequence = 11 WHERE sequence = 5", "the id `p-5`"),
        (
            "events.db",
            "PRAGMA foreign_keys = OFF; DELETE FROM lineage; DELETE FROM epochs; UPDATE streams SET stream = 9",
            "refers to",
        ),
        (
            "tasks.db",
            "PRAGMA foreign_keys = OFF; INSERT INTO attempts (task, id, ordinal, agent, state, stdout_highest) VALUES ('t', 'a1', 1, 'w', 3, 2)",
            "its standard output has a hole",
        ),
        (
            "tasks.db",
            "PRAGMA foreign_keys = OFF; INSERT INTO attempts (task, id, ordinal, agent, state, stderr_highest) VALUES ('t', 'a1', 1, 'w', 3, 2)",
            "its standard error has a hole",
        ),
        (
            "sessions.db",
            "INSERT INTO conversations (principal, next_position, kept_from) VALUES ('u', 1, 1); INSERT INTO rows (conversation, position, role, kind, text, attachments, model) VALUES (1, 1, 'user', 'message', '', '[]', '')",
            "row 1 is beyond",
        ),
    ];
    for (name, sql, expected) in wrong {
        let copy = tempfile::tempdir().expect("a folder");
        let folder = copy.path().to_str().expect("UTF-8");
        std::fs::copy(format!("{backup}/{name}"), format!("{folder}/{name}")).expect("copied");
        execute(&format!("{folder}/{name}"), sql);
        let said = run(&["log", "verify", folder], "").await;
        assert_eq!(said.code, Some(5), "{sql}: {said:?}");
        assert!(said.out.contains(expected), "{sql}: {said:?}");
    }
}

#[tokio::test]
async fn inspect_says_what_files_are_and_changes_none() {
    let mut server = Server::start().await;
    let (data, output, cursor) =
        (server.path("data"), server.path("output"), server.path("cursor"));
    server.publish(&[], &payloads(1, 10)).await;
    assert_eq!(tail(&server, &output, 10).await.code, Some(0));
    let said = run(&["inspect", &data], "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("in use by process"), "{said:?}");
    // Killed, so that the newest of it is in the write-ahead log.
    server.kill().await;
    let before = contents(&data);
    assert!(before.get("events.db-wal").is_some_and(|wal| !wal.is_empty()));
    let said = run(&["inspect", "--json", &data], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let facts: Value = serde_json::from_str(&said.out).expect("JSON");
    let whats: Vec<_> = facts.as_array().expect("an array").iter().map(|it| &it["what"]).collect();
    assert_eq!(whats, ["event log", "conversations", "record of tasks"]);
    assert_eq!(facts[0]["streams"][0]["head"], 10, "{facts}");
    let said = run(&["inspect", &data], "").await;
    assert!(said.out.contains("agent demo, events 10, head 10, oldest 1"), "{said:?}");
    assert!(contents(&data) == before, "a file has changed");
    let said = run(&["inspect", "--json", &cursor], "").await;
    let facts: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&facts["what"], &facts["sequence"]), (&"cursor".into(), &10.into()), "{facts}");
    for (path, problem) in [
        (output, "neither a database nor a cursor"),
        (server.path("none"), "cannot be read"),
        (server.path("data/user.token"), "neither a database nor a cursor"),
    ] {
        let said = run(&["inspect", &path], "").await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(problem), "{said:?}");
    }
}

/// Makes a token of a role, which the server knows when this returns.
async fn operator(server: &Server) -> String {
    let (tokens, file) = (server.path("data/tokens.toml"), server.path("operator.token"));
    let new = ["token", "new", "--principal", "op", "--role", "operator", "--add", &tokens];
    let said = run(&new, "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    std::fs::write(&file, said.out).expect("written");
    until("the token is taken", async || server.log().contains("token file was read")).await;
    file
}

#[tokio::test]
async fn a_backup_of_a_server_that_is_publishing_is_a_prefix_and_can_be_restored() {
    let mut server = Server::start().await;
    let token = operator(&server).await;
    let url = server.url();
    let online = |name: &'static str, token: &str| {
        gapless(&["log", "backup", "--online", name, "--url", &url, "--token-file", token])
    };
    server.publish(&[], &payloads(1, 20_000)).await;
    let input = payloads(20_001, 60_000);
    let published = server.publish(&["--id-prefix", "more"], &input);
    let backups = async {
        let mut made = Vec::new();
        for name in ["one", "two", "three"] {
            let said = run_command(online(name, &token), "").await;
            assert_eq!(said.code, Some(0), "{said:?}");
            made.push(said.out.trim().to_owned());
        }
        made
    };
    let (published, made) = tokio::join!(published, backups);
    assert_eq!(published.code, Some(0), "{published:?}");
    assert_eq!(made[0], server.path("data/backups/one"));
    for backup in &made {
        // While the server runs.
        let said = run(&["log", "verify", backup], "").await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    // A name is given once, and only to who may.
    let said = run_command(online("one", &token), "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("409") && said.err.contains("hint:"), "{said:?}");
    let publisher = server.path("data/publisher.token");
    let said = run_command(online("four", &publisher), "").await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("`operator`"), "{said:?}");
    assert!(!Path::new(&server.path("data/backups/four")).exists());

    // What is restored is a prefix, in a new epoch.
    let output = server.path("output");
    assert_eq!(tail(&server, &output, 60_000).await.code, Some(0));
    stop(&mut server).await;
    let data = server.path("data");
    let restore = ["log", "restore", "--from", &made[0], "--data", &data, "--replace"];
    let said = run(&restore, "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    server.restart().await;
    let before = lines(&output).len();
    assert_eq!(before, 60_000);
    server.publish(&["--id-prefix", "after"], "{\"n\":0}\n").await;
    let cursor = server.path("fresh-cursor");
    let fresh = server.path("fresh");
    let subscriber = server.path("data/subscriber.token");
    let args = ["tail", "--url", &url, "--token-file", &subscriber, "--agent", "demo"];
    let mut tail = gapless(&args);
    tail.args(["--cursor", &cursor, "--output", &fresh]).kill_on_drop(true);
    let mut child = tail.spawn().expect("it starts");
    until("the event after the restore comes", async || {
        lines(&fresh).last().is_some_and(|line| line.contains("\"n\":0}"))
    })
    .await;
    signal(&child, Signal::TERM);
    ended(&mut child).await;
    let lines = lines(&fresh);
    let restored = lines.len() as u64 - 1;
    assert!((20_000..=60_000).contains(&restored), "{restored}");
    assert_events(&lines[..lines.len() - 1], 1, restored);
}
