//! `pipe diff`: what differs between two runs.

use super::status::open_to_read;
use super::{CliError, OK, load_run};
use crate::compare::{Change, Comparison, compare};
use crate::{console, when};
use clap::Args;
use pipe_cache::{Cache, RunRecord};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Compare two runs: params, inputs, environment, metrics
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The older run (default: the one before the newer, of the same pipeline)
    #[arg(value_name = "OLD")]
    old: Option<String>,
    /// The newer run (default: the latest)
    #[arg(value_name = "NEW", default_value = "latest")]
    new: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DiffArgs) -> Result<u8, CliError> {
    let workspace = open_to_read()?;
    let cache = &workspace.cache;
    let new = load_run(cache, &args.new)?;
    let old = match &args.old {
        Some(name) => load_run(cache, name)?,
        None => before(cache, &new)?,
    };
    let comparison = compare(&old, &new, cache);
    if args.json {
        let mut value = serde_json::to_value(&comparison).map_err(|error| CliError::failed(&error))?;
        value["old"] = json!(old.id);
        value["new"] = json!(new.id);
        console::data_line(format!("{value:#}"));
    } else {
        console::data(text(&old, &new, &comparison));
    }
    Ok(OK)
}

/// The run of the same pipeline before this one.
fn before(cache: &Cache, run: &RunRecord) -> Result<RunRecord, CliError> {
    let ids = cache.runs.ids().map_err(|error| CliError::failed(&error))?;
    for id in ids.into_iter().filter(|id| *id < run.id) {
        // A damaged record of a run hides that run only.
        if let Ok(Some(earlier)) = cache.runs.load_news(&id)
            && earlier.pipeline == run.pipeline
            && let Ok(Some(earlier)) = cache.runs.load(&id)
        {
            return Ok(earlier);
        }
    }
    let message = format!("run {} is the first of `{}` on record", run.id, run.pipeline);
    Err(CliError::usage(message, "name two runs; `pipe history` lists them"))
}

fn text(old: &RunRecord, new: &RunRecord, comparison: &Comparison) -> String {
    let mut text = format!("old  {}\nnew  {}\n", heading(old), heading(new));
    let Comparison { run, params, stages, only_old, only_new, same } = comparison;
    section(&mut text, "run", run);
    section(&mut text, "params", params);
    for difference in stages {
        let _ = writeln!(text, "\nstage {}", difference.stage);
        if let Some((old, new)) = difference.outcome {
            let word = |outcome| json!(outcome).as_str().unwrap_or_default().to_owned();
            let _ = writeln!(text, "  {} → {}", word(old), word(new));
        }
        for reason in &difference.reasons {
            let _ = writeln!(text, "  {reason}");
        }
        for change in &difference.facts {
            let _ = writeln!(text, "  {}", line(change));
        }
        if !difference.outputs.is_empty() {
            let _ = writeln!(text, "  other bytes in {}", difference.outputs.join(", "));
        }
    }
    for (names, which) in [(only_old, "old"), (only_new, "new")] {
        if !names.is_empty() {
            let _ = writeln!(text, "\nonly in the {which} run: {}", names.join(", "));
        }
    }
    let _ = writeln!(text, "\n{same} {} the same", if *same == 1 { "stage is" } else { "stages are" });
    text
}

fn heading(run: &RunRecord) -> String {
    let mut text = format!("{}  {}", run.id, when::local(run.started_at));
    if !run.tags.is_empty() {
        text += &format!("  [{}]", run.tags.join(", "));
    }
    if let Some(message) = run.message.as_deref().and_then(|message| message.lines().next()) {
        text += &format!("  {message}");
    }
    text
}

fn section(text: &mut String, title: &str, changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for change in changes {
        let _ = writeln!(text, "  {}", line(change));
    }
}

/// `mean_dice: 0.8123 → 0.8345 (+0.0222)`.
fn line(change: &Change) -> String {
    let grown = change.difference.map(|difference| format!(" ({difference:+.4})")).unwrap_or_default();
    // Whole numbers differ by whole numbers.
    let whole = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.is_i64() || value.is_u64());
    let grown = match change.difference {
        Some(difference) if whole(&change.old) && whole(&change.new) => format!(" ({difference:+})"),
        _ => grown,
    };
    format!("{}: {} → {}{grown}", change.name, shown(change.old.as_ref()), shown(change.new.as_ref()))
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => text.clone(),
        Some(value) if value.is_f64() => format!("{:.4}", value.as_f64().unwrap_or_default()),
        Some(value) => value.to_string(),
    }
}
