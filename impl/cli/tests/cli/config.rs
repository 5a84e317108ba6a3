//! Where options come from.

use crate::support::{gapless, run, run_command};

fn written(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gapless.toml").to_str().expect("UTF-8").to_owned();
    std::fs::write(&path, text).expect("written");
    (folder, path)
}

#[tokio::test]
async fn a_flag_comes_before_the_environment_before_the_file_before_the_default() {
    let text = "log-format = \"json\"\n[serve]\ndata = \"file\"\nlisten = \"127.0.0.1:1\"\ndrain = \"3s\"\n";
    let (_folder, path) = written(text);
    let mut command = gapless(&["serve", "--config", &path, "--print-config", "--data", "flag"]);
    command.env("GAPLESS_DATA", "environment").env("GAPLESS_LISTEN", "127.0.0.1:2");
    let said = run_command(command, "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let origin = |name: &str| {
        let line = said.out.lines().find(|line| line.starts_with(name)).expect("it is printed");
        let (value, origin) = line.split_once('#').expect("an origin");
        (value.trim().to_owned(), origin.trim().to_owned())
    };
    let is = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    let from_file = format!("file {path}");
    assert_eq!(origin("data"), is("data = \"flag\"", "flag --data"));
    assert_eq!(origin("listen"), is("listen = \"127.0.0.1:2\"", "environment GAPLESS_LISTEN"));
    assert_eq!(origin("drain"), is("drain = \"3s\"", &from_file));
    assert_eq!(origin("log-format"), is("log-format = \"json\"", &from_file));
    assert_eq!(origin("log-level"), is("log-level = \"info\"", "default"));
    // What is printed is a file that says the same.
    let (_folder, again) = written(&said.out);
    let same = run(&["serve", "--config", &again, "--print-config"], "").await;
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned())
            .collect()
    };
    assert_eq!(values(&same.out), values(&said.out));
}

#[tokio::test]
async fn a_table_holds_for_the_commands_under_its_command() {
    let text = "[task]\nurl = \"http://file:1\"\nagent = \"worker\"\npriority = \"7\"\n";
    let (_folder, path) = written(text);
    let said = run(&["task", "submit", "--config", &path, "--print-config", "true"], "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in ["[task]", "url = \"http://file:1\"", "agent = \"worker\"", "priority = \"7\""] {
        assert!(said.out.contains(line), "{said:?}");
    }
    let said = run(&["task", "show", "--config", &path, "--print-config", "t"], "").await;
    assert!(said.out.contains("http://file:1") && !said.out.contains("worker"), "{said:?}");
    let (_folder, path) = written("[task]\nprioriti = \"7\"\n");
    let said = run(&["task", "show", "--config", &path, "t"], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("did you mean `priority`?"), "{said:?}");
}

#[tokio::test]
async fn a_file_that_is_wrong_is_refused_with_a_hint() {
    for (text, hints) in [
        ("[serve]\nlisten-on = \"127.0.0.1:1\"", ["`listen-on`", "did you mean `listen`?"]),
        ("[serve]\ndrian = \"1s\"", ["under `[serve]`", "did you mean `drain`?"]),
        ("log-fromat = \"json\"", ["at its top", "did you mean `log-format`?"]),
        ("log = \"json\"", ["`log` at its top", "belongs under `[serve]`"]),
        ("data = \"x\"", ["`data` at its top", "belongs under `[serve]`"]),
        ("[server]\ndata = \"x\"", ["`[server]`", "`[serve]`"]),
        ("[serve]\nlog-format = \"json\"", ["`log-format` under `[serve]`", "belongs at the top"]),
        ("[serve]\nlog = \"json\"", ["no address of NATS", "--log-format"]),
        ("[serve]\ndata = [1]", ["`data`", "must be a string"]),
        ("[serve]\ndata = \"x\"\ndrain = \"soon\"", ["soon", "--drain"]),
        ("not TOML", ["is no TOML", "line 1"]),
    ] {
        let (folder, path) = written(text);
        let data = folder.path().join("data");
        let said = run(&["serve", "--config", &path, "--data", &data.to_string_lossy()], "").await;
        assert_eq!(said.code, Some(2), "{text}: {said:?}");
        assert!(!data.exists(), "{text}: nothing is left behind");
        for hint in hints {
            assert!(said.err.contains(hint), "{text}: {said:?}");
        }
    }
    let said = run(&["serve", "--config", "/no/such/file"], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("/no/such/file"), "{said:?}");
}

#[tokio::test]
async fn every_command_has_help_with_an_example_and_every_shell_has_completions() {
    for command in [
        "serve",
        "publish",
        "tail",
        "task submit",
        "task show",
        "task follow",
        "task cancel",
        "task retry",
        "agent",
        "agent keygen",
        "chat",
        "log backup",
        "log restore",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let said = run(&words, "").await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("Examples:") && said.out.contains("GAPLESS_"), "{said:?}");
    }
    for command in ["log verify", "inspect"] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        assert!(run(&words, "").await.out.contains("Examples:"), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = run(&["completions", shell], "").await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("retain-events"), "{shell}");
    }
}

#[tokio::test]
async fn a_token_is_hashed_as_a_token_file_wants_it() {
    let said = run(&["token", "new", "--principal", "a", "--role", "publish"], "").await;
    let hashed = run(&["token", "hash"], &said.out).await;
    assert_eq!(hashed.code, Some(0), "{hashed:?}");
    assert!(said.err.contains(hashed.out.trim()), "{said:?}");
    let said = run(&["token", "new", "--principal", "a", "--role", "everything"], "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("`everything` is no role"), "{said:?}");
    assert_eq!(run(&["token", "hash"], "short\n").await.code, Some(2));
}
