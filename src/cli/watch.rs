//! `pipe run --watch`: runs, waits until something that the stages read changes, and runs again.

use super::run::{RunArgs, run_once};
use super::{CliError, INTERRUPTED, tell};
use crate::plan::Plan;
use crate::watch::{Snapshot, paths};
use crate::{console, interrupt};
use clap::Args;
use petgraph::graph::NodeIndex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// After a run wait until the pipeline, or a file that its stages read, changes; then run again. Ctrl-C ends
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// How often `--watch` looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, requires = "watch",
        value_parser = clap::value_parser!(u32).range(10..))]
    every: u32,
}

/// What a run depends on, as it was before the run: a change while it runs makes it run again.
pub(crate) struct Watched {
    paths: BTreeSet<PathBuf>,
    before: Snapshot,
}

impl Watched {
    fn new(files: BTreeSet<PathBuf>) -> Self {
        Self { before: Snapshot::of(&files), paths: files }
    }

    /// Looks at all that the wanted stages of this plan read, too.
    pub(crate) fn add(&mut self, plan: &Plan, wanted: &BTreeSet<NodeIndex>) {
        self.paths.extend(wanted.iter().flat_map(|&node| paths(&plan.graph[node])));
        // The files that the plan was made from are told as they were before.
        self.before = Snapshot::of(&self.paths).with(&self.before);
    }
}

pub(crate) fn watch(args: &RunArgs) -> Result<u8, CliError> {
    interrupt::install();
    let every = Duration::from_millis(args.watch.every.into());
    let files: BTreeSet<_> =
        std::iter::once(&args.pipeline.file).chain(&args.pipeline.params).cloned().collect();
    loop {
        let mut watched = Watched::new(files.clone());
        let code = run_once(args, Some(&mut watched)).unwrap_or_else(|error| tell(&error));
        if code == INTERRUPTED {
            return Ok(code);
        }
        console::hint("waiting for a change, Ctrl-C ends");
        match next_change(&watched, every) {
            Some(changes) => console::hint(format!("\n{}", changes_text(&changes))),
            // To end it while it waits is how it is meant to end.
            None => return Ok(code),
        }
    }
}

/// What changed, once it has stopped changing; `None` if the user ends it.
fn next_change(watched: &Watched, every: Duration) -> Option<Vec<String>> {
    let mut last = watched.before.clone();
    loop {
        let now = Snapshot::of(&watched.paths);
        let changes = now.changes_since(&watched.before);
        // An editor may be about to put a file in its place, a copy may not be complete.
        if !changes.is_empty() && now == last {
            return Some(changes);
        }
        last = now;
        if !pause(every) {
            return None;
        }
    }
}

/// False if the user ends it.
fn pause(time: Duration) -> bool {
    let since = Instant::now();
    while since.elapsed() < time {
        if interrupt::asked() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    !interrupt::asked()
}

fn changes_text(changes: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = changes.len().saturating_sub(SHOWN);
    let text = changes[..changes.len() - more].join(", ");
    if more > 0 { format!("{text} and {more} more; running again") } else { format!("{text}; running again") }
}
