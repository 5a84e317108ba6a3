//! What a backup says of itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// The file in each backup.
pub(super) const NAME: &str = "backup.json";

/// The version of the file.
const FORMAT: u32 = 1;

/// How much of a file is hashed at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// The files of a backup, each with its hash.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    pub(super) sha256: BTreeMap<String, String>,
}

impl Manifest {
    pub(super) fn new(sha256: BTreeMap<String, String>) -> Self {
        Self { format: FORMAT, sha256 }
    }

    /// That of a folder; `None` if it is no backup.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = folder.join(NAME);
        let wrong = |problem: String| {
            Failure::new(format!("`{}` cannot be read: {problem}", path.display()))
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match manifest.format {
            FORMAT => Ok(Some(manifest)),
            newer => Err(wrong(format!("it has format {newer}, this program knows {FORMAT}"))),
        }
    }
}

/// The hash of a file.
pub(super) fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => hash.update(&buffer[..length]),
        }
    }
}
