//! `pipe log`: all that is on record of one run, or what a stage told when it ran.

use super::history::{outcomes, time};
use super::status::open_to_read;
use super::{CliError, OK, load_run};
use crate::history::{self, FindError, acted};
use crate::reference::Reference;
use crate::{console, explain, stage_log, when};
use clap::Args;
use pipe_cache::{Cache, Outcome, RunRecord, StageRecord};
use std::fmt::Write as _;

/// Show one run, or the log of a stage
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Run (a tag, `latest`, `latest~1` or the beginning of an id) or stage, e.g. `train` or `train[fold=0]`
    #[arg(value_name = "RUN|STAGE", default_value = "latest")]
    name: String,
    /// Log of the stage in this run (default: the last in which it did something)
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Print the record of the run as JSON
    #[arg(long, conflicts_with = "run")]
    json: bool,
}

pub(crate) fn run(args: &LogArgs) -> Result<u8, CliError> {
    let workspace = open_to_read()?;
    let cache = &workspace.cache;
    if let Some(run) = &args.run {
        let run = load_run(cache, run)?;
        let stages = matching(&run, &args.name);
        if stages.is_empty() {
            let names: Vec<_> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
            let help = crate::problem::suggest(&args.name, names, "stages");
            return Err(CliError::usage(format!("run {} has no stage `{}`", run.id, args.name), help));
        }
        return logs(cache, &stages.into_iter().map(|stage| (&run, stage)).collect::<Vec<_>>());
    }
    let found = match history::find_run(cache, &args.name) {
        Ok(_) => Some(load_run(cache, &args.name)?),
        Err(FindError::Unknown(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let latest = last_with(cache, &args.name)?;
    match (found, latest.is_empty()) {
        (Some(run), true) => {
            let shown = if args.json {
                serde_json::to_value(&run)
                    .map(|value| format!("{value:#}\n"))
                    .map_err(|error| CliError::failed(&error))?
            } else {
                describe(&run, cache)
            };
            console::data(shown);
            Ok(OK)
        }
        (Some(run), false) => {
            let help =
                format!("`pipe log {}` shows the run, `pipe log {} --run RUN` the stage", run.id, args.name);
            Err(CliError::usage(format!("`{}` is both a run and a stage", args.name), help))
        }
        (None, true) => {
            let message = format!("no run is called `{}`, and no stage of that name has run", args.name);
            Err(CliError::usage(message, history::RUN_NAMES))
        }
        (None, false) if args.json => {
            Err(CliError::usage("`--json` shows a run, not the log of a stage", history::RUN_NAMES))
        }
        (None, false) => logs(cache, &latest.iter().map(|(run, stage)| (run, stage)).collect::<Vec<_>>()),
    }
}

/// The stages of a run that `pattern` names, as on the command line of `pipe run`.
fn matching<'a>(run: &'a RunRecord, pattern: &str) -> Vec<&'a StageRecord> {
    run.stages.iter().filter(|stage| names(pattern, &stage.name)).collect()
}

/// Whether a pattern such as `train` or `train[fold=0]` means the stage of this name.
fn names(pattern: &str, stage: &str) -> bool {
    let (Ok(pattern), Ok(stage)) = (Reference::parse(pattern), Reference::parse(stage)) else { return false };
    let axes = stage.axes.unwrap_or_default();
    let wanted = pattern.axes.unwrap_or_default();
    pattern.port.is_none() && pattern.base == stage.base && wanted.iter().all(|axis| axes.contains(axis))
}

/// The last run in which a stage of that name did something, with all such stages.
fn last_with(cache: &Cache, name: &str) -> Result<Vec<(RunRecord, StageRecord)>, CliError> {
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        // A damaged record of a run hides that run only.
        let Ok(Some(run)) = cache.runs.load_news(&id) else { continue };
        let stages: Vec<_> = matching(&run, name).into_iter().filter(|stage| acted(stage)).cloned().collect();
        if !stages.is_empty() {
            return Ok(stages.into_iter().map(|stage| (run.clone(), stage)).collect());
        }
    }
    Ok(Vec::new())
}

fn logs(cache: &Cache, stages: &[(&RunRecord, &StageRecord)]) -> Result<u8, CliError> {
    for (at, (run, stage)) in stages.iter().enumerate() {
        if stages.len() > 1 {
            console::data_line(format!("{}==> {} <==", if at > 0 { "\n" } else { "" }, stage.name));
        }
        log(cache, run, stage)?;
    }
    Ok(OK)
}

fn log(cache: &Cache, run: &RunRecord, stage: &StageRecord) -> Result<(), CliError> {
    if stage.outcome == Outcome::Skipped {
        let because = stage.error.as_deref().unwrap_or("an earlier stage failed");
        console::hint(format!("`{}` was not run in run {}: {because}", stage.name, run.id));
        return Ok(());
    }
    let maker = if stage.outcome == Outcome::Cached { maker(cache, stage)? } else { Some(run.clone()) };
    let Some(maker) = maker else {
        console::hint(format!(
            "`{}` was cached in run {}; the run that made it is not on record",
            stage.name, run.id
        ));
        return Ok(());
    };
    if maker.id != run.id {
        console::hint(format!(
            "`{}` was cached in run {}; this is its log in run {}",
            stage.name, run.id, maker.id
        ));
    }
    if stage.outcome == Outcome::Interrupted && run.finished_at.is_none() {
        console::hint(format!("`{}` is running in run {}, or was killed with it", stage.name, run.id));
    }
    let path = cache.layout.logs(&maker.id).join(stage_log::file_name(&stage.name));
    match std::fs::read(&path) {
        Ok(bytes) => console::data(String::from_utf8_lossy(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = path.display();
            console::hint(format!("`{}` has no log in run {}: `{path}` is not there", stage.name, maker.id));
        }
        Err(error) => return Err(CliError::Failed(format!("cannot read `{}`: {error}", path.display()))),
    }
    Ok(())
}

/// The run that made the result which a later one found in the cache.
fn maker(cache: &Cache, cached: &StageRecord) -> Result<Option<RunRecord>, CliError> {
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        let Ok(Some(run)) = cache.runs.load_news(&id) else { continue };
        let made = |stage: &StageRecord| {
            stage.name == cached.name && stage.key == cached.key && stage.outcome == Outcome::Ran
        };
        if run.stages.iter().any(made) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// All facts of a run, and a line a stage.
fn describe(run: &RunRecord, cache: &Cache) -> String {
    let mut text = format!("run {}\n", run.id);
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            // Lines after the first stand below it.
            let value = value.trim_end().replace('\n', "\n               ");
            let _ = writeln!(text, "  {name:<11}  {value}");
        }
    };
    fact("pipeline", &format!("{} ({})", run.pipeline, run.file));
    fact("message", run.message.as_deref().unwrap_or_default());
    fact("tags", &run.tags.join(", "));
    fact("started", &when::local(run.started_at));
    fact("time", &time(run));
    fact("stages", &outcomes(run));
    fact("command", &run.command.join(" "));
    fact("commit", run.commit.as_deref().unwrap_or_default());
    let counted = |count: Option<usize>, what: &str| count.map(|count| format!("{count} {what}"));
    let machine = [
        run.host.clone(),
        run.device.clone(),
        counted(run.cores, "cores"),
        counted(run.threads, "threads for stages"),
    ];
    fact("machine", &machine.into_iter().flatten().collect::<Vec<_>>().join(", "));
    fact("peak memory", &run.peak_memory_bytes.map(console::bytes).unwrap_or_default());
    let versions: Vec<_> = run.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    fact("versions", &versions.join(", "));
    fact("overrides", &run.overrides.join(", "));
    let params: Vec<_> = run.params.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    fact("params", &params.join("\n"));
    text.push('\n');
    let width = run.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    for stage in &run.stages {
        let _ = writeln!(text, "{}", stage_line(stage, width, cache).trim_end());
    }
    text
}

fn stage_line(stage: &StageRecord, width: usize, cache: &Cache) -> String {
    let word = match stage.outcome {
        Outcome::Ran => "ran",
        Outcome::Cached => "cached",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::Interrupted => "stopped",
    };
    let time = stage.duration.filter(|_| acted(stage)).map(console::duration).unwrap_or_default();
    let reasons = explain::describe(&stage.reasons, &stage.sources, &cache.store).join("; ");
    let why = match (&stage.error, reasons.is_empty()) {
        // The rest of a long error is in the log.
        (Some(error), _) => error.lines().next().unwrap_or_default().trim_end_matches(':').to_owned(),
        (None, true) => String::new(),
        (None, false) => format!("because {reasons}"),
    };
    let tries = match stage.failed_tries.len() {
        0 => "",
        1 => "after a try that failed; ",
        count => &format!("after {count} tries that failed; "),
    };
    let why = format!("{tries}{why}");
    let memory = stage.peak_memory_bytes.map(console::bytes).unwrap_or_default();
    format!("{word:<7}  {:<width$}  {time:>9}  {memory:>8}  {why}", stage.name)
}
