//! `meta`: is the same seed the same run?

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::args::MetaArgs;
use super::{Failure, library, usage};
use crate::custom::program;
use crate::exit;
use crate::seed::Seed;

pub(super) fn run(args: &MetaArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut lines = 0;
    let runs = runs(args)?;
    for run in &runs {
        let (mut left, mut right) = (run.start("/", "UTC")?, run.start(".", "Pacific/Chatham")?);
        let mut last = None;
        loop {
            let (one, other) = (left.next()?, right.next()?);
            if one != other {
                // Nobody waits for the rest.
                left.stop();
                right.stop();
                let said = |line: Option<String>| line.unwrap_or_else(|| "(ends here)".to_owned());
                writeln!(out, "  × {} is not the same run in two processes", run.name)?;
                if let Some(last) = last {
                    writeln!(out, "      {last}")?;
                }
                writeln!(out, "    - {}\n    + {}", said(one), said(other))?;
                return Ok(exit::NONDETERMINISM);
            }
            match one {
                Some(line) => last = Some(line),
                None => break,
            }
            lines += 1;
        }
    }
    let what = match runs.as_slice() {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    writeln!(out, "  ok         {what}, {lines} lines in all: the same in two processes")?;
    Ok(exit::OK)
}

/// A run as a child process is asked for it.
struct Asked {
    name: String,
    words: Vec<OsString>,
}

fn runs(args: &MetaArgs) -> Result<Vec<Asked>, Failure> {
    let whole = |path: &Path| {
        path.canonicalize().map_err(|error| {
            usage(format!("`{}` cannot be read: {error}", path.display()), "name what is there")
        })
    };
    if let Some(plan) = &args.source.plan {
        let words = vec!["show".into(), "--plan".into(), whole(plan)?.into()];
        return Ok(vec![Asked { name: format!("the plan {}", plan.display()), words }]);
    }
    let library = library(args.source.scenarios.as_deref())?;
    let (scenario, first) = args.source.resolve(&library)?;
    let seeds: Vec<Seed> = match args.seeds {
        Some(count) => (0..count).map(|index| first.derive(index)).collect(),
        None => vec![first],
    };
    let mut folder: Vec<OsString> = Vec::new();
    let own = || program().map(|program| PathBuf::from(program.scenarios));
    if let Some(path) = args.source.scenarios.clone().or_else(own) {
        folder = vec!["--scenarios".into(), whole(&path)?.into()];
    }
    let asked = seeds.into_iter().map(|seed| {
        let mut words = vec!["show".into(), scenario.clone().into(), seed.to_string().into()];
        words.extend(folder.iter().cloned());
        Asked { name: format!("seed {seed} of {scenario}"), words }
    });
    Ok(asked.collect())
}

/// A child process that prints a trace.
struct Twin {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Asked {
    /// Starts a process that prints the trace. A run depends on neither folder nor time zone.
    fn start(&self, folder: &str, zone: &str) -> Result<Twin, Failure> {
        let broken = |problem: std::io::Error| {
            Failure::Run(format!("error: a child process cannot be started: {problem}\n"))
        };
        let mut child = Command::new(std::env::current_exe().map_err(broken)?)
            .args(&self.words)
            .current_dir(folder)
            .env("TZ", zone)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(broken)?;
        let stdout = child.stdout.take().expect("it was asked for");
        Ok(Twin { child, lines: BufReader::new(stdout).lines() })
    }
}

impl Twin {
    /// The next line; `None` once the child has ended well.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        match self.lines.next() {
            Some(line) => Ok(Some(line?)),
            None => match self.child.wait()? {
                status if status.success() => Ok(None),
                status => {
                    Err(Failure::Run(format!("error: a child process ended with {status}\n")))
                }
            },
        }
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
