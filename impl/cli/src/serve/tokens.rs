//! The token file: who may do what.
//!
//! It holds hashes, never tokens. It is read again when it changes; a file that is wrong changes
//! nothing, and what is open stays open.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gapless::AgentId;
use gapless::net::{Access, Grant};
use gapless::tasks::auth::{RsaKeys, Verifier};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::signal::unix::Signal;

use super::metrics::Metrics;
use crate::failure::Failure;
use crate::secret::{Hash, Secret, hash};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest token file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Separates a token from the agent whose stream is wanted.
const AGENT_SEPARATOR: char = '@';

/// An entry, as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    sha256: String,
    principal: String,
    roles: Vec<String>,
}

/// The public key of an agent that runs tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentEntry {
    id: String,
    public_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    token: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    agent: Vec<AgentEntry>,
}

impl Entry {
    pub(crate) fn new(hash: &Hash, principal: String, roles: Vec<String>) -> Result<Self, Failure> {
        let entry = Self { sha256: hash.to_string(), principal, roles };
        Holder::parse(&entry).map_err(Failure::usage)?;
        Ok(entry)
    }

    pub(crate) fn to_toml(&self) -> String {
        let written = Written { token: vec![self.clone()], agent: vec![] };
        toml::to_string(&written).expect("strings are TOML")
    }
}

/// The entry of an agent with its public key in PKCS#1, DER.
pub(crate) fn agent_toml(id: &AgentId, public_key: &[u8]) -> String {
    let entry = AgentEntry { id: id.to_string(), public_key: BASE64.encode(public_key) };
    let written = Written { token: vec![], agent: vec![entry] };
    toml::to_string(&written).expect("strings are TOML")
}

/// Whom a token stands for, and what it allows.
#[derive(Debug, Clone, Default)]
struct Holder {
    principal: String,
    publish: bool,
    tasks: bool,
    user: bool,
    operator: bool,
    streams: BTreeSet<AgentId>,
    all_streams: bool,
}

impl Holder {
    fn parse(entry: &Entry) -> Result<Self, String> {
        let mut holder = Self { principal: entry.principal.clone(), ..Self::default() };
        if entry.principal.is_empty() {
            return Err("`principal` is empty".to_owned());
        }
        for role in &entry.roles {
            match (role.as_str(), role.strip_prefix("subscribe:")) {
                ("publish", _) => holder.publish = true,
                ("tasks", _) => holder.tasks = true,
                ("user", _) => holder.user = true,
                ("operator", _) => holder.operator = true,
                (_, Some("*")) => holder.all_streams = true,
                (_, Some(agent)) => {
                    let agent = AgentId::parse(agent);
                    holder.streams.insert(agent.map_err(|error| format!("`{role}`: {error}"))?);
                }
                _ => {
                    return Err(format!(
                        "`{role}` is no role; there are `publish`, `tasks`, `user`, \
                         `operator`, `subscribe:AGENT` and `subscribe:*`"
                    ));
                }
            }
        }
        Ok(holder)
    }

    /// The stream that is read with this token: the one that is asked for, or the only one.
    fn stream(&self, asked: Option<&str>) -> Option<AgentId> {
        match asked {
            Some(agent) => AgentId::parse(agent)
                .ok()
                .filter(|agent| self.all_streams || self.streams.contains(agent)),
            None => self
                .streams
                .first()
                .filter(|_| self.streams.len() == 1 && !self.all_streams)
                .cloned(),
        }
    }
}

/// What a token file says.
pub(crate) struct TokenFile {
    holders: Vec<(Hash, Holder)>,
    keys: RsaKeys,
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("holders", &self.holders.len()).finish_non_exhaustive()
    }
}

impl TokenFile {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::usage(format!("the token file `{}` cannot be read: {error}", path.display()))
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > FILE_BYTES_MAX {
            let path = path.display();
            return Err(Failure::usage(format!("the token file `{path}` has {length} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|problem| {
            Failure::usage(format!("the token file `{}`: {problem}", path.display()))
                .hint("docs/serve.md says what belongs there; `gapless token new` makes entries")
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let mut holders: Vec<(Hash, Holder)> = Vec::new();
        for (i, entry) in written.token.iter().enumerate() {
            let number = i + 1;
            let hash = Hash::parse(&entry.sha256).ok_or_else(|| {
                format!("token {number}: `sha256` must have 64 hexadecimal digits")
            })?;
            if holders.iter().any(|(known, _)| *known == hash) {
                return Err(format!("token {number}: its hash is there twice"));
            }
            let holder =
                Holder::parse(entry).map_err(|error| format!("token {number}: {error}"))?;
            holders.push((hash, holder));
        }
        let mut keys = RsaKeys::default();
        for agent in &written.agent {
            let id = AgentId::parse(&agent.id).map_err(|error| error.to_string())?;
            let key = BASE64
                .decode(&agent.public_key)
                .map_err(|error| format!("agent `{id}`: `public_key` is no base64: {error}"))?;
            keys = keys.with(id, key);
        }
        Ok(Self { holders, keys })
    }

    /// Who has the token. Every hash is compared to its end, so the time says nothing.
    fn holder(&self, token: &str) -> Option<&Holder> {
        let asked = hash(token);
        let mut found = None;
        for (known, holder) in &self.holders {
            if bool::from(known.as_bytes().ct_eq(asked.as_bytes())) {
                found = Some(holder);
            }
        }
        found
    }
}

/// What holds now. All clones change together.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<RwLock<Arc<TokenFile>>>);

impl Tokens {
    pub(crate) fn new(file: TokenFile) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(file))))
    }

    fn now(&self) -> Arc<TokenFile> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, file: TokenFile) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
    }

    /// What tokens allow for event streams.
    pub(crate) fn for_events(&self) -> Arc<dyn Access> {
        Arc::new(ForEvents(self.clone()))
    }

    /// What tokens allow for tasks.
    pub(crate) fn for_tasks(&self) -> Arc<dyn Access> {
        Arc::new(ForTasks(self.clone()))
    }

    /// Who operates the server: whether a token says so; `None` if it is not valid.
    pub(crate) fn is_operator(&self, token: &str) -> Option<bool> {
        self.now().holder(token).map(|holder| holder.operator)
    }

    /// What tokens allow for sessions.
    pub(crate) fn for_sessions(&self) -> Arc<dyn Access> {
        Arc::new(ForSessions(self.clone()))
    }
}

struct ForEvents(Tokens);

impl Access for ForEvents {
    fn grant(&self, token: &str) -> Option<Grant> {
        let file = self.0.now();
        let (holder, asked) = match (file.holder(token), token.rsplit_once(AGENT_SEPARATOR)) {
            (Some(holder), _) => (holder, None),
            (None, Some((token, agent))) => (file.holder(token)?, Some(agent)),
            (None, None) => return None,
        };
        Some(Grant {
            principal: holder.principal.clone(),
            stream: holder.stream(asked),
            publish: holder.publish,
        })
    }
}

struct ForTasks(Tokens);

impl Access for ForTasks {
    fn grant(&self, token: &str) -> Option<Grant> {
        let file = self.0.now();
        let holder = file.holder(token)?;
        Some(Grant { principal: holder.principal.clone(), stream: None, publish: holder.tasks })
    }
}

struct ForSessions(Tokens);

impl Access for ForSessions {
    fn grant(&self, token: &str) -> Option<Grant> {
        let file = self.0.now();
        let holder = file.holder(token).filter(|holder| holder.user)?;
        Some(Grant { principal: holder.principal.clone(), stream: None, publish: false })
    }
}

impl Verifier for Tokens {
    fn verify(&self, agent: &AgentId, message: &[u8], signature: &[u8]) -> bool {
        self.now().keys.verify(agent, message, signature)
    }
}

// ---- making ---------------------------------------------------------------------------------------

/// The tokens that a new data folder gets: the name of the file, and what the token allows.
const FIRST: [(&str, &[&str]); 3] =
    [("publisher", &["publish", "tasks"]), ("subscriber", &["subscribe:*"]), ("user", &["user"])];

/// Makes a token file, and beside it a file with each of its tokens. What is there stays.
pub(crate) fn make(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (mut text, mut made) = (String::new(), Vec::new());
    for (name, roles) in FIRST {
        let beside = path.with_file_name(format!("{name}.token"));
        let token = Secret::random()?;
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let entry = Entry::new(&token.hash(), name.to_owned(), roles)?;
        text += &format!("# The token is in {name}.token.\n{}\n", entry.to_toml());
        write_private(&beside, &format!("{}\n", token.reveal()))?;
        made.push(beside);
    }
    write_private(path, &text)?;
    Ok(made)
}

/// Writes a file that its owner alone can read.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        // A file of an earlier start that did not get to its end may be there, with any mode.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| {
        Failure::new(format!("`{}` cannot be written: {error}", path.display()))
            .hint("check that the folder is writable and has space, or choose another one")
    })
}

// ---- reading again --------------------------------------------------------------------------------

/// What changes when somebody changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(u64, i64, i64, u64)>);

impl Stamp {
    /// To be taken before the file is read: what changes in between is then seen as a change.
    pub(crate) fn of(path: &Path) -> Self {
        let stamp = |metadata: Metadata| {
            (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
        };
        Self(std::fs::metadata(path).ok().map(stamp))
    }
}

/// Reads the file again when it changes, and on `SIGHUP`; until it is dropped. `seen` is from before
/// it was read first.
pub(crate) async fn reload(
    path: PathBuf,
    mut seen: Stamp,
    mut hang_up: Signal,
    tokens: Tokens,
    metrics: Arc<Metrics>,
) {
    loop {
        let asked = tokio::select! { biased;
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let found = Stamp::of(&path);
        if found == seen && !asked {
            continue;
        }
        seen = found;
        match TokenFile::read(&path) {
            Ok(file) => {
                tracing::info!(tokens = file.holders.len(), "the token file was read again");
                tokens.replace(file);
                metrics.token_reload("ok");
            }
            Err(failure) => {
                tracing::error!(%failure, "the tokens from before hold on");
                metrics.token_reload("failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Tokens {
        Tokens::new(TokenFile::parse(text).expect("a token file"))
    }

    fn entry(token: &str, principal: &str, roles: &[&str]) -> String {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Entry::new(&hash(token), principal.to_owned(), roles).expect("an entry").to_toml()
    }

    fn stream(tokens: &Tokens, token: &str) -> Option<String> {
        let stream = tokens.for_events().grant(token)?.stream?;
        Some(stream.to_string())
    }

    #[test]
    fn a_token_allows_what_its_roles_say_and_nothing_else() {
        let text = [
            entry("p", "publisher", &["publish"]),
            entry("t", "submitter", &["tasks"]),
            entry("u", "user", &["user"]),
        ];
        let tokens = tokens(&text.concat());
        let publish =
            |access: Arc<dyn Access>, token| access.grant(token).map(|grant| grant.publish);
        assert_eq!(publish(tokens.for_events(), "p"), Some(true));
        assert_eq!(publish(tokens.for_events(), "t"), Some(false));
        assert_eq!(publish(tokens.for_tasks(), "p"), Some(false));
        assert_eq!(publish(tokens.for_tasks(), "t"), Some(true));
        assert_eq!(publish(tokens.for_sessions(), "u"), Some(false));
        assert_eq!(publish(tokens.for_sessions(), "p"), None);
        assert_eq!(publish(tokens.for_events(), "x"), None);
    }

    #[test]
    fn a_stream_is_the_one_that_is_asked_for_and_allowed() {
        let text = [
            entry("one", "a", &["subscribe:a"]),
            entry("two", "b", &["subscribe:a", "subscribe:b"]),
            entry("all", "c", &["subscribe:*"]),
        ];
        let tokens = tokens(&text.concat());
        let stream = |token| stream(&tokens, token);
        assert_eq!(stream("one"), Some("a".to_owned()));
        assert_eq!(stream("one@a"), Some("a".to_owned()));
        assert_eq!(stream("one@b"), None);
        assert_eq!(stream("two"), None);
        assert_eq!(stream("two@b"), Some("b".to_owned()));
        assert_eq!(stream("all"), None);
        assert_eq!(stream("all@anything"), Some("anything".to_owned()));
        assert_eq!(stream("all@no good"), None);
        assert_eq!(stream("none@a"), None);
    }

    #[test]
    fn a_bad_file_is_refused_with_what_is_wrong() {
        let refused = |text: &str| TokenFile::parse(text).expect_err("refused");
        assert!(
            refused("[[token]]\nsha256 = \"12\"\nprincipal = \"a\"\nroles = []").contains("64")
        );
        assert!(refused("[[tokens]]\n").contains("tokens"));
        let twice = [entry("a", "a", &[]), entry("a", "b", &[])].concat();
        assert!(refused(&twice).contains("twice"));
        let role = entry("a", "a", &["publish"]).replace("publish", "publisher");
        assert!(refused(&role).contains("`publisher` is no role"));
        let key = "[[agent]]\nid = \"a\"\npublic_key = \"%\"";
        assert!(refused(key).contains("base64"));
    }

    #[test]
    fn a_made_file_is_private_and_lets_its_tokens_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.toml");
        let made = make(&path).expect("made");
        let tokens = Tokens::new(TokenFile::read(&path).expect("a token file"));
        for file in made.iter().chain([&path]) {
            let mode = std::fs::metadata(file).expect("there").mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        let text = std::fs::read_to_string(&path).expect("there");
        for file in &made {
            let token = Secret::read(file).expect("a token");
            assert!(!text.contains(token.reveal()));
            assert!(tokens.now().holder(token.reveal()).is_some());
        }
    }
}
