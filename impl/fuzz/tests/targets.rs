//! The fuzz targets on any toolchain: over the committed corpus, and over pseudo-random bytes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gapless_fuzz::{TARGETS, Target};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

/// How many pseudo-random inputs each target gets.
const RANDOM_INPUTS: usize = 200;

/// How long they are at most, in bytes.
const RANDOM_BYTES_MAX: usize = 1_024;

/// How large the committed corpus may be.
const CORPUS_FILES_MAX: usize = 200;
const CORPUS_BYTES_MAX: u64 = 200 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a folder in the order of their names, wherever they were written.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn feed(target: &Target, input: &[u8], from: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("`{}` does not bear {from}: {input:02x?}", target.name);
    }
}

#[test]
fn every_target_bears_its_corpus() {
    for target in &TARGETS {
        let files = files(&corpus().join(target.name));
        assert!(!files.is_empty(), "`{}` has no corpus", target.name);
        for file in files {
            let input = fs::read(&file).expect("a file");
            feed(target, &input, &file.display().to_string());
        }
    }
}

#[test]
fn every_target_bears_pseudo_random_inputs() {
    for (nth, target) in TARGETS.iter().enumerate() {
        let mut random = ChaCha12Rng::seed_from_u64(nth as u64);
        for input in 0..RANDOM_INPUTS {
            let length = random.random_range(0..RANDOM_BYTES_MAX);
            let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
            feed(target, &bytes, &format!("pseudo-random input {input}"));
        }
    }
}

#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    let folders = files(&corpus());
    let names: Vec<_> = folders.iter().filter_map(|folder| folder.file_name()).collect();
    let mut expected: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let files: Vec<_> = folders.iter().flat_map(|folder| files(folder)).collect();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).expect("a file").len()).sum();
    assert!(files.len() <= CORPUS_FILES_MAX, "{} files", files.len());
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn every_target_is_a_program_for_libfuzzer() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("a manifest");
    let programs = manifest.matches("[[bin]]").count();
    assert_eq!(programs, TARGETS.len());
    for target in &TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}
