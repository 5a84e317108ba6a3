//! All scenarios that there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use miette::Diagnostic;

use super::reader::distance;
use super::{Invalid, Scenario};
use crate::custom;

static EMBEDDED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../scenarios");

/// The folders under `scenarios/` that hold scenarios.
const FOLDERS: [&str; 4] = ["events", "regressions", "session", "tasks"];

/// The same, and those of the protocols that the user brought.
fn folders() -> Vec<&'static str> {
    let brought = custom::registered().into_iter().map(|protocol| protocol.name());
    FOLDERS.into_iter().chain(brought).collect()
}

/// How many ids are suggested for one that is not known.
const NEAR_MAX: usize = 3;

/// Scenarios by id.
#[derive(Debug, Clone)]
pub struct Library {
    texts: BTreeMap<String, String>,
}

/// A scenario is not to be had.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LibraryError {
    /// The id is not known.
    #[error("there is no scenario `{id}`")]
    Unknown {
        /// The id.
        id: String,
        /// What to do about it.
        #[help]
        remedy: String,
    },
    /// The file is no scenario.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Invalid(Box<Invalid>),
    /// A folder or file cannot be read.
    #[error("`{}` cannot be read: {problem}", path.display())]
    #[diagnostic(help("give the folder that holds `events/`, as `--scenarios scenarios`"))]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        problem: String,
    },
}

impl Library {
    /// The scenarios that were there when the program was built.
    pub fn embedded() -> Self {
        let mut texts = BTreeMap::new();
        for folder in FOLDERS.iter().filter_map(|folder| EMBEDDED.get_dir(folder)) {
            embedded_files(folder, &mut texts);
        }
        Self { texts }
    }

    /// The scenarios of a folder that is laid out like `scenarios/`.
    ///
    /// # Errors
    ///
    /// [`LibraryError::Unreadable`] if the folder or a file in it cannot be read.
    pub fn from_dir(path: &Path) -> Result<Self, LibraryError> {
        let mut texts = BTreeMap::new();
        std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
        for folder in folders() {
            let inner = path.join(folder);
            if inner.is_dir() {
                files(path, &inner, &mut texts)?;
            }
        }
        Ok(Self { texts })
    }

    /// The ids, sorted.
    pub fn ids(&self) -> Vec<&str> {
        self.texts.keys().map(String::as_str).collect()
    }

    /// The scenario of an id.
    ///
    /// # Errors
    ///
    /// [`LibraryError`] if there is none, or its file is no scenario.
    pub fn get(&self, id: &str) -> Result<Scenario, LibraryError> {
        let Some(text) = self.texts.get(id) else {
            return Err(LibraryError::Unknown { id: id.to_owned(), remedy: self.suggestion(id) });
        };
        Scenario::parse(id, text).map_err(|invalid| LibraryError::Invalid(Box::new(invalid)))
    }

    /// What somebody may have meant by a word that is no id.
    pub(crate) fn suggestion(&self, word: &str) -> String {
        let all = "`gapless-sim scenarios` lists the scenarios";
        match self.near(word).as_slice() {
            [] => all.to_owned(),
            near => {
                let near: Vec<_> = near.iter().map(|id| format!("`{id}`")).collect();
                format!("did you mean {}? {all}", near.join(" or "))
            }
        }
    }

    /// The ids that hold the word or are spelled nearly like it, with or without their folder.
    fn near(&self, word: &str) -> Vec<&str> {
        let allowed = 1 + word.len() / 4;
        let mut near: Vec<_> = self
            .texts
            .keys()
            .map(|id| {
                let name = id.rsplit_once('/').map_or(id.as_str(), |(_, name)| name);
                // A letter or two are in every id.
                let far = match word.len() > 2 && id.contains(word) {
                    true => 0,
                    false => distance(word, id).min(distance(word, name)),
                };
                // What is called so comes before what only has it in its name.
                (far, name != word, id.as_str())
            })
            .filter(|(far, ..)| *far <= allowed)
            .collect();
        near.sort_unstable();
        near.into_iter().map(|(.., id)| id).take(NEAR_MAX).collect()
    }
}

fn embedded_files(folder: &Dir<'_>, texts: &mut BTreeMap<String, String>) {
    for file in folder.files() {
        if let (Some(id), Some(text)) = (id_of(file.path()), file.contents_utf8()) {
            texts.insert(id, text.to_owned());
        }
    }
    for inner in folder.dirs() {
        embedded_files(inner, texts);
    }
}

fn files(
    root: &Path,
    folder: &Path,
    texts: &mut BTreeMap<String, String>,
) -> Result<(), LibraryError> {
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        if path.is_dir() {
            files(root, &path, texts)?;
        } else if let Some(id) = path.strip_prefix(root).ok().and_then(id_of) {
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            texts.insert(id, text);
        }
    }
    Ok(())
}

/// `events/swarm` from `events/swarm.toml`.
fn id_of(path: &Path) -> Option<String> {
    let text = path.to_str()?.strip_suffix(".toml")?;
    Some(text.replace(std::path::MAIN_SEPARATOR, "/"))
}

fn unreadable(path: &Path, error: &std::io::Error) -> LibraryError {
    LibraryError::Unreadable { path: path.to_owned(), problem: error.to_string() }
}
