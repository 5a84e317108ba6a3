//! TLS on both sides: a listener that shakes hands beside accepting, and a connector.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gapless::net::{Connector, Listener};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::failure::Failure;
use crate::logging::Label;
use crate::url::ServerUrl;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes go on at once; the next connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 1024;

/// How many connections may wait for the server after their handshake.
const READY_MAX: usize = 64;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A connection, with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut *self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut *self, inner => Pin::new(inner).poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

// ---- the server's side ----------------------------------------------------------------------------

/// The files of a certificate chain and its key, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct CertificateFiles {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

/// What changes when somebody changes the files.
type FilesStamp = [Option<(u64, i64, i64)>; 2];

impl CertificateFiles {
    fn acceptor(&self) -> Result<TlsAcceptor, Failure> {
        let wrong = |path: &Path, problem: String| {
            Failure::usage(format!("`{}` cannot be used for TLS: {problem}", path.display()))
                .hint("the certificate chain and its key must be in PEM")
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(&self.chain, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| wrong(&self.key, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| wrong(&self.chain, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn stamp(&self) -> FilesStamp {
        let stamp = |metadata: Metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        [&self.chain, &self.key].map(|path| std::fs::metadata(path).ok().map(stamp))
    }
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// Counts the handshakes that came to nothing, by reason.
#[derive(Clone, Default)]
pub(crate) struct HandshakeFailures(Family<Label, Counter>);

impl HandshakeFailures {
    /// The counters, to be shown.
    pub(crate) fn family(&self) -> &Family<Label, Counter> {
        &self.0
    }

    fn count(&self, reason: &'static str) {
        self.0.get_or_create(&[("reason", reason)]).inc();
    }
}

/// Accepts connections, with TLS or without.
pub(crate) enum PortListener {
    Plain(TcpListener),
    Tls(TlsListener),
}

/// Connections that have shaken hands.
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<io::Result<Stream>>,
    /// Accepts until it is dropped.
    _accepting: JoinSet<()>,
}

impl PortListener {
    /// Takes over a port; with TLS if there are files for it.
    pub(crate) fn new(
        listener: TcpListener,
        files: Option<CertificateFiles>,
        failures: HandshakeFailures,
    ) -> Result<Self, Failure> {
        let Some(files) = files else { return Ok(Self::Plain(listener)) };
        // Before they are read: what changes in between is then seen as a change.
        let seen = files.stamp();
        let acceptor = files.acceptor()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, acceptor, (files, seen), sender, failures));
        Ok(Self::Tls(TlsListener { ready, _accepting: accepting }))
    }
}

impl Listener for PortListener {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Self::Plain(listener) => Listener::accept(listener).await.map(Stream::Plain),
            Self::Tls(listener) => match listener.ready.recv().await {
                Some(stream) => stream,
                None => Err(io::Error::other("nothing is accepted any more")),
            },
        }
    }
}

/// Accepts and shakes hands; a slow handshake holds up no other. New files hold for new connections.
async fn accept(
    mut listener: TcpListener,
    mut acceptor: TlsAcceptor,
    (files, mut seen): (CertificateFiles, FilesStamp),
    ready: mpsc::Sender<io::Result<Stream>>,
    failures: HandshakeFailures,
) {
    let mut handshakes = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! { biased;
            _ = look.tick() => {
                let found = files.stamp();
                if found != seen {
                    seen = found;
                    match files.acceptor() {
                        Ok(new) => {
                            tracing::info!("the certificate was read again");
                            acceptor = new;
                        }
                        Err(failure) => tracing::error!(%failure, "the certificate from before holds on"),
                    }
                }
            }
            Some(_) = handshakes.join_next() => {}
            accepted = Listener::accept(&mut listener), if handshakes.len() < HANDSHAKES_MAX => {
                match accepted {
                    Ok(stream) => {
                        let (acceptor, ready) = (acceptor.clone(), ready.clone());
                        handshakes.spawn(shake_hands(stream, acceptor, ready, failures.clone()));
                    }
                    Err(error) => {
                        // The server pauses before it takes the next.
                        let _ = ready.send(Err(error)).await;
                    }
                }
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Stream>>,
    failures: HandshakeFailures,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // A server that has ended takes no more.
            let _ = ready.send(Ok(Stream::Tls(Box::new(stream.into())))).await;
        }
        Ok(Err(error)) => {
            failures.count("error");
            tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_) => {
            failures.count("late");
            tracing::debug!("a TLS handshake took too long");
        }
    }
}

// ---- the client's side ----------------------------------------------------------------------------

/// Connects to a server, with TLS if its URL says so.
pub(crate) struct ServerConnector {
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl ServerConnector {
    /// A connector that trusts the certificates of the system, or those of a file instead.
    pub(crate) fn new(url: &ServerUrl, trusted: Option<&Path>) -> Result<Self, Failure> {
        let authority = url.authority();
        if !url.is_tls() {
            return Ok(Self { authority, tls: None });
        }
        let name = ServerName::try_from(url.host().to_owned()).map_err(|_| {
            Failure::usage(format!("`{}` is no name that a certificate can have", url.host()))
        })?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(format!("TLS cannot be used: {error}")))?
            .with_root_certificates(roots(trusted)?)
            .with_no_client_auth();
        Ok(Self { authority, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }
}

fn roots(trusted: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    match trusted {
        Some(path) => {
            let wrong = |problem: String| {
                Failure::usage(format!("`{}` cannot be trusted: {problem}", path.display()))
                    .hint("`--tls-ca` names a file with certificates in PEM")
            };
            let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the system cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    match roots.is_empty() {
        true => Err(Failure::usage("there is no certificate to trust")
            .hint("name a file with certificates in PEM with `--tls-ca`")),
        false => Ok(roots),
    }
}

impl Connector for ServerConnector {
    type Stream = Stream;

    fn connect(&self) -> impl Future<Output = io::Result<Stream>> + Send + 'static {
        let (authority, tls) = (self.authority.clone(), self.tls.clone());
        async move {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            match tls {
                None => Ok(Stream::Plain(stream)),
                Some((connector, name)) => {
                    let stream = connector.connect(name, stream).await?;
                    Ok(Stream::Tls(Box::new(stream.into())))
                }
            }
        }
    }
}
