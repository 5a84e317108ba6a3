//! As much of the Chrome DevTools protocol as the tests need, over the WebSocket of the browser.
//!
//! The crates that speak all of it bring hundreds of thousands of generated lines and their own
//! WebSocket stack; this is one request and one answer at a time. Whatever goes wrong is a panic: a
//! test fails.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before looking again.
pub const SOON: Duration = Duration::from_millis(20);

/// A browser with a profile of its own; it ends when it is dropped.
pub struct Browser {
    link: Arc<Mutex<Link>>,
    pictures: PathBuf,
    _process: Child,
    _profile: tempfile::TempDir,
}

/// A tab of a browser.
pub struct Tab {
    link: Arc<Mutex<Link>>,
    target: String,
    session: String,
    pictures: PathBuf,
}

struct Link {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
    /// What tabs have asked the network for, as far as they are watched: the session, and the URL.
    requests: Vec<(String, String)>,
}

impl Browser {
    /// Starts the browser; `None`, with a message, if there is none. Pictures go to `browser/`
    /// beside the folder, which is `CARGO_TARGET_TMPDIR`.
    pub async fn start(beside: &str) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a folder");
        let started = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-extensions", "--disable-background-networking"])
            .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding"])
            .args(["--window-size=900,760", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("skipped: there is no `chromium` on the PATH");
                return None;
            }
            Err(error) => panic!("`chromium` does not start: {error}"),
        };
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if let Some((_, address)) = line.split_once("DevTools listening on ") {
                    return address.to_owned();
                }
            }
            panic!("`chromium` ended before it listened");
        };
        let address = tokio::time::timeout(PATIENCE, address).await.expect("it listens");
        // What else it has to say is read, so that it can go on saying it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = address.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).await.expect("it listens");
        let (socket, _) = client_async(&address, stream).await.expect("a WebSocket");
        let link = Arc::new(Mutex::new(Link { socket, calls: 0, requests: Vec::new() }));
        let pictures = Path::new(beside).with_file_name("browser");
        Some(Self { link, pictures, _process: process, _profile: profile })
    }

    /// Opens a tab.
    pub async fn open(&self, url: &str) -> Tab {
        let what = json!({ "url": url });
        let created = self.link.lock().await.call(None, "Target.createTarget", what).await;
        let target = created["targetId"].as_str().expect("an id").to_owned();
        Tab::attach(self.link.clone(), target, self.pictures.clone()).await
    }
}

impl Tab {
    async fn attach(link: Arc<Mutex<Link>>, target: String, pictures: PathBuf) -> Self {
        let how = json!({ "targetId": target, "flatten": true });
        let attached = link.lock().await.call(None, "Target.attachToTarget", how).await;
        let session = attached["sessionId"].as_str().expect("an id").to_owned();
        Self { link, target, session, pictures }
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.link.lock().await.call(Some(&self.session), method, params).await
    }

    /// The value of an expression; `null` while there is no page, or it throws.
    pub async fn eval(&self, expression: &str) -> Value {
        let what = json!({
            "expression": expression,
            "returnByValue": true,
            "awaitPromise": true,
            "userGesture": true,
        });
        self.call("Runtime.evaluate", what).await["result"]["value"].take()
    }

    /// Writes into the page's field and presses the Enter key, as a person does.
    pub async fn say(&self, text: &str) {
        self.call("Page.bringToFront", json!({})).await;
        self.eval("document.getElementById('text').focus()").await;
        self.call("Input.insertText", json!({ "text": text })).await;
        self.press("Enter").await;
    }

    /// Presses a key: its name, or the character that it writes.
    pub async fn press(&self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowUp" => (38, ""),
            "ArrowDown" => (40, ""),
            character => (0, character),
        };
        for kind in ["keyDown", "keyUp"] {
            let key = json!({
                "type": kind,
                "key": key,
                "text": if kind == "keyDown" { text } else { "" },
                "windowsVirtualKeyCode": code,
            });
            self.call("Input.dispatchKeyEvent", key).await;
        }
    }

    /// Moves the mouse, without a button.
    pub async fn hover(&self, x: f64, y: f64) {
        let to = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.call("Input.dispatchMouseEvent", to).await;
    }

    /// Makes the page this large, in a light or a dark scheme of colours.
    pub async fn looks(&self, width: u32, height: u32, dark: bool) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let value = if dark { "dark" } else { "light" };
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", scheme).await;
    }

    /// Loads the page anew and returns once it is there, with every URL that it asked for.
    pub async fn requests_of_a_reload(&self) -> Vec<String> {
        self.call("Network.enable", json!({})).await;
        self.link.lock().await.requests.clear();
        self.reload().await;
        let link = self.link.lock().await;
        let mine = link.requests.iter().filter(|(session, _)| *session == self.session);
        mine.map(|(_, url)| url.clone()).collect()
    }

    /// Loads the page anew.
    pub async fn reload(&self) {
        self.eval("window.isOld = true").await;
        self.call("Page.reload", json!({})).await;
        let wait = async {
            while self.eval("!window.isOld && document.readyState").await != "complete" {
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it loads");
    }

    /// Opens the same page from this one.
    pub async fn duplicate(&self) -> Self {
        self.eval("void window.open(location.href)").await;
        let opened = async {
            loop {
                let all = self.link.lock().await.call(None, "Target.getTargets", json!({})).await;
                let opened = all["targetInfos"]
                    .as_array()
                    .and_then(|all| all.iter().find(|it| it["openerId"] == self.target.as_str()));
                if let Some(target) = opened.and_then(|it| it["targetId"].as_str()) {
                    return target.to_owned();
                }
                tokio::time::sleep(SOON).await;
            }
        };
        let target = tokio::time::timeout(PATIENCE, opened).await.expect("it opens");
        Self::attach(self.link.clone(), target, self.pictures.clone()).await
    }

    /// Closes the tab.
    pub async fn close(self) {
        let which = json!({ "targetId": self.target });
        self.link.lock().await.call(None, "Target.closeTarget", which).await;
    }

    /// Leaves a picture of the tab in `target/browser/`.
    pub async fn picture(&self, name: &str) {
        self.call("Page.bringToFront", json!({})).await;
        let taken = self.call("Page.captureScreenshot", json!({})).await;
        let data = taken["data"].as_str().expect("a picture");
        let png = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::create_dir_all(&self.pictures).expect("a folder");
        std::fs::write(self.pictures.join(format!("{name}.png")), png).expect("it writes");
    }
}

impl Link {
    async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        let exchange = async {
            let text = Message::text(request.to_string());
            self.socket.send(text).await.expect("the browser listens");
            while let Some(message) = self.socket.next().await {
                let Message::Text(text) = message.expect("the browser speaks") else { continue };
                let mut answer: Value = serde_json::from_str(&text).expect("JSON");
                if answer["method"] == "Network.requestWillBeSent" {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let url = text(&answer["params"]["request"]["url"]);
                    self.requests.push((text(&answer["sessionId"]), url));
                }
                // The rest are other events.
                if answer["id"] == id {
                    assert!(answer["error"].is_null(), "{method}: {answer:#}");
                    return answer["result"].take();
                }
            }
            panic!("the browser ended during {method}");
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{method} hangs"))
    }
}
