//! What each client has: one slot of a file, so that it outlives the process.
//!
//! A slot is written with one call, and lies within one page: a process that is killed has written all
//! of it or nothing. So an effect and the cursor that belongs to it, in one slot, are one transaction
//! as far as the end of a process goes; the end of the machine is not what is tested here.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// The size of a slot, of which a page holds a whole number.
const SLOT_BYTES: usize = 1 << 10;

/// A file of slots.
#[derive(Debug)]
pub(crate) struct Slots(File);

impl Slots {
    /// Makes a file of empty slots.
    pub(crate) fn make(path: &Path, count: usize) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len((count * SLOT_BYTES) as u64)?;
        Ok(Self(file))
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        file.map(Self).map_err(|error| Failure::from(error).context(path.display()))
    }

    /// What is in a slot; the default, if nothing ever was.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self, slot: usize) -> Result<T> {
        let mut bytes = [0; SLOT_BYTES];
        self.0.read_exact_at(&mut bytes, (slot * SLOT_BYTES) as u64)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(SLOT_BYTES);
        match &bytes[..end] {
            [] => Ok(T::default()),
            text => Ok(serde_json::from_slice(text)?),
        }
    }

    pub(crate) fn write<T: Serialize>(&self, slot: usize, value: &T) -> Result<()> {
        let mut bytes = serde_json::to_vec(value)?;
        if bytes.len() >= SLOT_BYTES {
            return Err(Failure::new(format!("{} bytes do not fit into a slot", bytes.len())));
        }
        bytes.resize(SLOT_BYTES, 0);
        Ok(self.0.write_all_at(&bytes, (slot * SLOT_BYTES) as u64)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_what_was_written_last_and_touches_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("slots");
        let slots = Slots::make(&path, 3).expect("made");
        slots.write(1, &"a longer text".to_owned()).expect("written");
        slots.write(1, &"short".to_owned()).expect("written");
        let again = Slots::open(&path).expect("opened");
        let read = |slot| again.read::<String>(slot).expect("read");
        assert_eq!((read(0), read(1), read(2)), (String::new(), "short".to_owned(), String::new()));
        slots.write(0, &"x".repeat(SLOT_BYTES)).expect_err("it does not fit");
    }
}
