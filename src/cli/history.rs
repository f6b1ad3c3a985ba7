//! `pipe list`: the runs on record.

use super::run::open_workspace;
use super::{CliError, OK};
use crate::console;
use clap::Args;
use pipe_cache::{Outcome, RunRecord};

/// List the runs on record, the latest first
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ListArgs) -> Result<u8, CliError> {
    let workspace = open_workspace(None)?;
    let (runs, warnings) =
        workspace.cache.runs.latest(args.count).map_err(|error| CliError::failed(&error))?;
    for warning in warnings {
        console::hint(format!("warning: {warning}"));
    }
    if args.json {
        let value = serde_json::to_value(&runs).map_err(|error| CliError::failed(&error))?;
        console::data_line(format!("{value:#}"));
        return Ok(OK);
    }
    if runs.is_empty() {
        console::hint("no run is on record here; `pipe run FILE` makes the first");
    }
    for run in &runs {
        console::data_line(line(run));
    }
    Ok(OK)
}

fn line(run: &RunRecord) -> String {
    let count = |outcome: Outcome| run.stages.iter().filter(|stage| stage.outcome == outcome).count();
    let counts = [
        (Outcome::Ran, "ran"),
        (Outcome::Cached, "cached"),
        (Outcome::Failed, "failed"),
        (Outcome::Skipped, "skipped"),
        (Outcome::Interrupted, "interrupted"),
    ];
    let words: Vec<_> = counts
        .into_iter()
        .map(|(outcome, word)| (count(outcome), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let time = run
        .finished_at
        .map_or_else(|| "unfinished".into(), |end| console::duration(end.since(run.started_at)));
    let mut text = format!("{}  {}  {}  {}", run.started_at, run.pipeline, words.join(", "), time);
    for extra in [&run.commit, &run.message].into_iter().flatten() {
        text.push_str(&format!("  {extra}"));
    }
    text
}
