//! Options from four places, with one precedence: command line, environment, file, default.
//!
//! The command line says all there is to say about options: names, environment variables, defaults,
//! and how a value is read. A file only changes defaults, before the command line is read; so a
//! value in it is checked like any other, and nothing has to be merged.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::Value;

use crate::args::Cli;
use crate::engine;
use crate::failure::Failure;

/// Options that belong to one run and make no sense in a file.
const NOT_IN_A_FILE: [&str; 4] = ["config", "help", "print-config", "version"];

/// The options of a run.
pub(crate) struct Config {
    pub(crate) cli: Cli,
    /// What `--print-config` prints.
    pub(crate) printed: String,
    /// Whether `--token-file` is on the command line, and so comes before the environment.
    pub(crate) token_file_is_a_flag: bool,
}

/// Why there are no options.
pub(crate) enum NoConfig {
    /// Help was asked for, or the command line is wrong: clap knows what to say.
    Clap(clap::Error),
    /// The file is wrong.
    File(Failure),
}

impl From<clap::Error> for NoConfig {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<Failure> for NoConfig {
    fn from(failure: Failure) -> Self {
        Self::File(failure)
    }
}

/// Reads all sources.
pub(crate) fn read(args: Vec<OsString>) -> Result<Config, NoConfig> {
    let mut command = Cli::command();
    let file = match file_of(&args) {
        Some(path) => Some(File::read(path, &command)?),
        None => None,
    };
    if let Some(file) = &file {
        command = file.apply(command);
    }
    // Names of arguments are complete only in a command that is built.
    command.build();
    let matches = command.clone().try_get_matches_from(args)?;
    let printed = print(&command, &matches, file.as_ref());
    let token_file_is_a_flag = matches.subcommand().is_some_and(|(_, matches)| {
        let matches = innermost(matches);
        matches.try_contains_id("token_file").unwrap_or(false)
            && matches.value_source("token_file") == Some(ValueSource::CommandLine)
    });
    let cli = Cli::from_arg_matches(&matches)?;
    Ok(Config { cli, printed, token_file_is_a_flag })
}

/// The options of `task submit` are those of `submit`.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    matches
}

/// The file that the command line names, or the environment.
fn file_of(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--config") => return args.next().map(PathBuf::from),
            Some(text) => {
                if let Some(path) = text.strip_prefix("--config=") {
                    return Some(path.into());
                }
            }
            None => {}
        }
    }
    std::env::var_os("GAPLESS_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A file with options: a value for each name of an argument; `None` = of all commands.
struct File {
    path: PathBuf,
    values: BTreeMap<(Option<String>, String), String>,
}

impl File {
    fn read(path: PathBuf, command: &Command) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!(
                "the configuration `{}` cannot be read: {error}",
                path.display()
            ))
        })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::usage(format!("the configuration `{}` is no TOML: {error}", path.display()))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            match (value, command.find_subcommand(&key)) {
                (Value::Table(table), Some(subcommand)) => {
                    for (key, value) in table {
                        let value = text_of(&path, Some(subcommand), &key, &value)?;
                        values.insert((Some(subcommand.get_name().to_owned()), key), value);
                    }
                }
                (value, _) => {
                    let value = text_of(&path, None, &key, &value)?;
                    values.insert((None, key), value);
                }
            }
        }
        for (section, key) in values.keys() {
            let section = section.as_deref().and_then(|name| command.find_subcommand(name));
            let known = section.map_or_else(|| keys(command), section_keys);
            if !known.contains(key) {
                return Err(unknown(&path, section, key, known, command));
            }
        }
        Ok(Self { path, values })
    }

    /// The values become defaults.
    fn apply(&self, mut command: Command) -> Command {
        for ((section, key), value) in &self.values {
            let default = |command: Command| match keys(&command).contains(key) {
                true => {
                    let id = id_of(&command, key);
                    command.mut_arg(id, |arg| arg.default_value(value.clone()).required(false))
                }
                false => command,
            };
            command = match section {
                Some(name) => command.mut_subcommand(name, |section| {
                    let names: Vec<_> =
                        section.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
                    names.into_iter().fold(default(section), |section, name| {
                        section.mut_subcommand(name, default)
                    })
                }),
                None => default(command),
            };
        }
        command
    }

    fn has(&self, section: &str, key: &str) -> bool {
        let in_section = (Some(section.to_owned()), key.to_owned());
        self.values.contains_key(&in_section) || self.values.contains_key(&(None, key.to_owned()))
    }
}

fn id_of(command: &Command, key: &str) -> String {
    let argument = command.get_arguments().find(|arg| arg.get_long() == Some(key));
    argument.map_or_else(|| key.to_owned(), |arg| arg.get_id().to_string())
}

/// The names that a section takes.
fn keys(command: &Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(|arg| arg.get_long());
    longs.filter(|long| !NOT_IN_A_FILE.contains(long)).map(str::to_owned).collect()
}

/// Those of a section: a command, and the commands under it.
fn section_keys(section: &Command) -> Vec<String> {
    let mut known = keys(section);
    known.extend(section.get_subcommands().flat_map(keys));
    known.sort();
    known.dedup();
    known
}

fn text_of(
    path: &Path,
    section: Option<&Command>,
    key: &str,
    value: &Value,
) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(yes) => Ok(yes.to_string()),
        Value::Table(_) if section.is_none() => Err(Failure::usage(format!(
            "the configuration `{}` has a table `[{key}]`, and there is no such command",
            path.display()
        ))
        .hint("tables are named after commands: `[serve]`, `[publish]`, `[tail]`, `[task]`, `[agent]`")),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(Failure::usage(format!(
                "the configuration `{}`: `{key}` must be a string, an integer or a boolean",
                path.display()
            )))
        }
    }
}

fn unknown(
    path: &Path,
    section: Option<&Command>,
    key: &str,
    known: Vec<String>,
    command: &Command,
) -> Failure {
    let place = section.map_or_else(
        || "at its top".to_owned(),
        |section| format!("under `[{}]`", section.get_name()),
    );
    let failure = Failure::usage(format!(
        "the configuration `{}` has `{key}` {place}, which is no option there",
        path.display()
    ));
    // A name may be meant if a third of the letters are wrong.
    let nearest = known
        .iter()
        .map(|name| (strsim::osa_distance(name, key), name))
        .min()
        .filter(|(distance, _)| *distance <= key.len().div_ceil(3))
        .map(|(_, name)| name);
    let belongs_to =
        command.get_subcommands().find(|sub| section_keys(sub).iter().any(|name| name == key));
    match (nearest, belongs_to) {
        _ if keys(command).iter().any(|name| name == key) => {
            failure.hint(format!("`{key}` belongs at the top, before all tables"))
        }
        (Some(name), _) => failure.hint(format!("did you mean `{name}`?")),
        (None, Some(sub)) => failure.hint(format!("`{key}` belongs under `[{}]`", sub.get_name())),
        (None, None) => failure.hint(format!("options are {}", list(&known))),
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The options of the command that was given, as a file that says the same, but
/// without passwords in URLs; with the origin of each.
fn print(command: &Command, matches: &ArgMatches, file: Option<&File>) -> String {
    let Some((name, matches)) = matches.subcommand() else { return String::new() };
    let Some(mut subcommand) = command.find_subcommand(name) else { return String::new() };
    let mut matches = matches;
    while let Some((inner, inner_matches)) = matches.subcommand() {
        let Some(found) = subcommand.find_subcommand(inner) else { return String::new() };
        (subcommand, matches) = (found, inner_matches);
    }
    let (mut global, mut own) = (String::new(), String::new());
    // An argument with a changed default has lost its place.
    let mut args: Vec<_> = subcommand.get_arguments().collect();
    args.sort_by_key(|arg| arg.get_long());
    for arg in args {
        let Some(long) = arg.get_long().filter(|long| !NOT_IN_A_FILE.contains(long)) else {
            continue;
        };
        let lines = if arg.is_global_set() { &mut global } else { &mut own };
        let id = arg.get_id().as_str();
        let value = matches.get_raw(id).and_then(|mut values| values.next_back());
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => format!("flag --{long}"),
            Some(ValueSource::EnvVariable) => {
                let variable = arg.get_env().unwrap_or_default().to_string_lossy();
                format!("environment {variable}")
            }
            _ => match file.filter(|file| file.has(name, long)) {
                Some(file) => format!("file {}", file.path.display()),
                None => "default".to_owned(),
            },
        };
        let line = match value {
            Some(value) => {
                let value = value.to_string_lossy();
                let shown = match long == engine::OPTION {
                    true => engine::without_userinfo(&value),
                    false => value.into_owned(),
                };
                format!("{long} = {}", Value::from(shown))
            }
            None => format!("# {long} is not set"),
        };
        // Writing to a string cannot fail.
        let _ = match value {
            Some(_) => writeln!(lines, "{line:<40} # {origin}"),
            None => writeln!(lines, "{line}"),
        };
    }
    format!("{global}\n[{name}]\n{own}")
}
