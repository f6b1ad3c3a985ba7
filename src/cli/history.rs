//! `pipe history`: the runs on record.

use super::status::open_to_read;
use super::{CliError, OK, without_dots};
use crate::{console, when};
use clap::Args;
use pipe_cache::{Outcome, RunId, RunRecord};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// List the runs on record, the latest first
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only runs of this pipeline file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    count: usize,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &HistoryArgs) -> Result<u8, CliError> {
    let workspace = open_to_read()?;
    let runs = load(args, &workspace.cache)?;
    if args.json {
        let value = serde_json::to_value(&runs).map_err(|error| CliError::failed(&error))?;
        console::data_line(format!("{value:#}"));
        return Ok(OK);
    }
    match (&args.file, runs.is_empty()) {
        (Some(file), true) => console::hint(format!("no run of `{}` is on record here", file.display())),
        (None, true) => console::hint("no run is on record here; `pipe run FILE` makes the first"),
        (_, false) => {
            let all = workspace.cache.runs.ids().map_err(|error| CliError::failed(&error))?;
            console::data(table(&runs, id_size(&runs, &all)));
        }
    }
    Ok(OK)
}

/// The chosen runs, the latest first. A damaged record is told and passed over.
fn load(args: &HistoryArgs, cache: &pipe_cache::Cache) -> Result<Vec<RunRecord>, CliError> {
    let mut runs = Vec::new();
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        if runs.len() == args.count {
            break;
        }
        match cache.runs.load_news(&id) {
            Ok(run) => runs.extend(run.filter(|run| {
                args.file.as_ref().is_none_or(|file| plain(file) == plain(Path::new(&run.file)))
            })),
            Err(error) => {
                let path = cache.layout.run(&id);
                console::hint(format!("warning: ignored `{}`: {error}", path.display()));
            }
        }
    }
    Ok(runs)
}

/// A whole path, so that a file is known however it was named.
fn plain(path: &Path) -> PathBuf {
    without_dots(&std::env::current_dir().map_or_else(|_| path.to_owned(), |folder| folder.join(path)))
}

const HEADINGS: [&str; 8] = ["run", "when", "pipeline", "stages", "time", "tags", "commit", "message"];

/// Columns as wide as their longest entry; those without any entry are left out.
fn table(runs: &[RunRecord], id_size: usize) -> String {
    let rows: Vec<[String; 8]> = runs.iter().map(|run| row(run, id_size)).collect();
    let used = |column: usize| rows.iter().any(|row| !row[column].is_empty());
    let columns: Vec<usize> = (0..HEADINGS.len()).filter(|&column| used(column)).collect();
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            rows.iter().map(|row| width(&row[column])).max().unwrap_or(0).max(HEADINGS[column].len())
        })
        .collect();
    let line = |cells: &dyn Fn(usize) -> String| {
        let padded: Vec<_> =
            columns.iter().map(|&column| format!("{:<1$}", cells(column), widths[column])).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&|column| HEADINGS[column].to_owned());
    for row in &rows {
        text += &line(&|column| row[column].clone());
    }
    text
}

/// As much of the ids as names each of these runs among all: date and time, with milliseconds, or all of it.
fn id_size(runs: &[RunRecord], all: &[RunId]) -> usize {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    let is_unique = |size: &usize| {
        let mut count: HashMap<&str, usize> = HashMap::new();
        for id in &all {
            *count.entry(&id[..*size]).or_default() += 1;
        }
        runs.iter().all(|run| count.get(&run.id.to_string()[..*size]).is_none_or(|count| *count == 1))
    };
    [15, 19].into_iter().find(is_unique).unwrap_or(26)
}

fn row(run: &RunRecord, id_size: usize) -> [String; 8] {
    [
        run.id.to_string()[..id_size].to_owned(),
        when::local(run.started_at),
        run.pipeline.clone(),
        outcomes(run),
        time(run),
        run.tags.join(", "),
        run.commit.clone().unwrap_or_default(),
        // A message of several lines would break the table; `pipe log RUN` shows all of it.
        run.message.as_deref().and_then(|message| message.lines().next()).unwrap_or_default().to_owned(),
    ]
}

/// E.g. `3 ran, 1 cached`.
pub(crate) fn outcomes(run: &RunRecord) -> String {
    let count = |outcome: Outcome| {
        // Stages that an earlier run tells of were cached.
        let others = run.unchanged.as_ref().filter(|_| outcome == Outcome::Cached);
        let listed = run.stages.iter().filter(|stage| stage.outcome == outcome).count();
        listed + others.map_or(0, |unchanged| unchanged.stages)
    };
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
    words.join(", ")
}

/// How long the run took; one that was killed never ended.
pub(crate) fn time(run: &RunRecord) -> String {
    run.finished_at.map_or_else(|| "unfinished".into(), |end| console::duration(end.since(run.started_at)))
}
