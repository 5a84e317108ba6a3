//! The same over TLS.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::support::{Server, assert_events, in_time, payloads, run};

/// A certificate for the loopback address and its key, in a folder: the paths of the two.
fn certificate(folder: &tempfile::TempDir) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("made");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    (write("cert.pem", made.cert.pem()), write("key.pem", made.signing_key.serialize_pem()))
}

#[tokio::test]
async fn events_go_over_tls_to_whoever_trusts_the_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate(&folder);
    let server = Server::start_with(&["--tls-cert", &cert, "--tls-key", &key]).await;
    // Somebody who never shakes hands holds nobody up.
    let mut idle = TcpStream::connect(server.address).await.expect("it listens");
    let url = format!("https://{}", server.address);
    let (publisher, subscriber) =
        (server.path("data/publisher.token"), server.path("data/subscriber.token"));
    let common = ["--url", &url, "--agent", "demo", "--tls-ca", &cert, "--token-file"];
    let publish = [&["publish"], &common[..], &[&publisher]].concat();
    let said = run(&publish, &payloads(1, 300)).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let cursor = server.path("cursor");
    let tail = [&["tail"], &common[..], &[&subscriber, "--cursor", &cursor]].concat();
    let said = run(&[&tail[..], &["--count", "300"]].concat(), "").await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<_> = said.out.lines().map(str::to_owned).collect();
    assert_events(&lines, 1, 300);

    let answered = in_time(is_answered_in_the_clear(&server)).await;
    assert!(!answered, "nothing is answered without TLS");
    let closed = in_time(idle.read(&mut [0; 8])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "a handshake has a time limit");
    let metrics = in_time(get(&server, &cert, "/metrics")).await;
    for (reason, count) in [("late", 1), ("error", 1)] {
        let line = format!("gapless_tls_handshakes_failed_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// The answer to a request, over TLS.
async fn get(server: &Server, cert: &str, path: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).expect("PEM")).expect("a certificate");
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.expect("it shakes hands");
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("UTF-8");
    answer
}

async fn is_answered_in_the_clear(server: &Server) -> bool {
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    // It is closed one way or the other.
    let _ = stream.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP")
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_gets_no_token() {
    let (folder, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let (cert, key) = certificate(&folder);
    let (foreign, _) = certificate(&other);
    let server = Server::start_with(&["--tls-cert", &cert, "--tls-key", &key]).await;
    let url = format!("https://{}", server.address);
    let token = server.path("data/subscriber.token");
    let mut tail = crate::support::gapless(&["tail", "--url", &url, "--agent", "demo"]);
    let cursor = server.path("cursor");
    tail.args(["--tls-ca", &foreign, "--token-file", &token, "--cursor", &cursor]);
    tail.stderr(std::process::Stdio::piped());
    let mut child = tail.spawn().expect("it starts");
    let mut stderr = child.stderr.take().expect("piped");
    let mut said = String::new();
    in_time(async {
        let mut buffer = [0; 1024];
        while !said.contains("invalid peer certificate") {
            let count = stderr.read(&mut buffer).await.expect("open");
            assert_ne!(count, 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    })
    .await;
    assert!(!said.contains("connected\n"), "{said}");
}

#[tokio::test]
async fn files_that_are_no_certificate_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, _) = certificate(&folder);
    let data = folder.path().join("data").to_str().expect("UTF-8").to_owned();
    let serve = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--tls-cert", &cert];
    let said = run(&serve, "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("`--tls-key`"), "{said:?}");
    let said = run(&[&serve[..], &["--tls-key", &cert]].concat(), "").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("PEM"), "{said:?}");
}
