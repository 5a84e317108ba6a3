//! The key of an agent: made, read, and told to the server.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gapless::tasks::auth::RsaSigner;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::args::KeygenArgs;
use crate::exit;
use crate::failure::Failure;
use crate::serve::tokens::agent_toml;
use crate::token;

/// The size of a fresh key, in bits.
const KEY_BITS: &str = "rsa_keygen_bits:3072";

/// How a file in PEM begins.
const PEM: &[u8] = b"-----BEGIN";

/// Reads a private key in PKCS#8, PEM or DER.
pub(super) fn read(path: &Path) -> Result<RsaSigner, Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("the key `{}` cannot be used: {problem}", path.display()))
            .hint("make one with `gapless agent keygen`")
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let parsed = match bytes.trim_ascii_start().starts_with(PEM) {
        true => PrivatePkcs8KeyDer::from_pem_slice(&bytes)
            .map_err(|error| wrong(format!("it is no PKCS#8 in PEM: {error}")))
            .map(|der| RsaSigner::from_pkcs8(der.secret_pkcs8_der()))?,
        false => RsaSigner::from_pkcs8(&bytes),
    };
    parsed.map_err(|error| wrong(error.to_string()))
}

/// Makes a key if there is none, and says what the server needs to know of it.
pub(super) fn make(args: &KeygenArgs) -> Result<u8, Failure> {
    match args.key.exists() {
        true => eprintln!("`{}` is there already, and stays as it is", args.key.display()),
        false => write(&args.key, &generate()?)?,
    }
    let entry = agent_toml(&args.id, read(&args.key)?.public_key());
    match &args.add {
        Some(path) => token::append(path, &entry)?,
        None => print!("{entry}"),
    }
    Ok(exit::OK)
}

/// The library for signatures makes no RSA keys.
fn generate() -> Result<Vec<u8>, Failure> {
    let failed = |problem: String| {
        Failure::new(format!("`openssl genpkey` makes no key: {problem}"))
            .hint("install openssl, or bring an RSA key of 2048 to 4096 bits in PKCS#8")
    };
    let output = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", KEY_BITS, "-outform", "PEM"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Writes a file that only its owner can read, and that was not there.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let failure =
            Failure::new(format!("the key `{}` cannot be written: {error}", path.display()));
        match error.kind() {
            ErrorKind::NotFound => failure.hint("make its folder first"),
            _ => failure,
        }
    })
}
