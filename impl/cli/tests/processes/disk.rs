//! A disk that can be full.
//!
//! Where this process may mount, it is a small `tmpfs`, filled to its last byte. Elsewhere the server
//! is started anew with a limit on the size of its files (`ulimit -f`, that is `RLIMIT_FSIZE`, with
//! `SIGXFSZ` ignored), so that its databases cannot grow.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The size of the file system.
const SIZE: &str = "32m";

pub(crate) struct Disk {
    path: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes the folder, on a file system of its own if that is possible.
    pub(crate) fn make(path: PathBuf) -> Self {
        std::fs::create_dir(&path).expect("made");
        let size = format!("size={SIZE}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .stderr(std::process::Stdio::null())
            .status();
        let mounted = mount.is_ok_and(|status| status.success());
        Self { path, mounted }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be filled; else the files of the server have to be limited.
    pub(crate) fn can_be_full(&self) -> bool {
        self.mounted
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Takes all the space there is.
    pub(crate) fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).expect("made");
        for size in [64 << 10, 1] {
            let piece = vec![b'x'; size];
            while filler.write_all(&piece).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // A process that still ends does not keep it.
            let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        }
    }
}
