//! `pipe run`: brings a pipeline, or some of its stages, up to date.

use super::{CliError, INTERRUPTED, OK, PipelineArgs, STAGE_FAILED, load, targets};
use crate::console::{self, Console};
use crate::event::{Event, Totals};
use crate::external::Sources;
use crate::lockfile::{self, Update};
use crate::plan::Plan;
use crate::run::{Options, Summary, Workspace, place_results};
use crate::worker::LocalExecutor;
use crate::{interrupt, run as engine};
use clap::Args;
use pipe_cache::{Cache, StatMode};
use pipe_stages::artifact::Resources;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Run a pipeline: only what changed, and what hangs on it
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stages to bring up to date with all that they need (default: all); `train[fold=0]` names one of a matrix
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Run this stage although its result is in the cache
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, go on with what does not depend on it
    #[arg(short = 'k', long)]
    keep_going: bool,
    /// Say what would run and why, and run nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Threads that stages share (default: one per core)
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Why this run: kept in its record
    #[arg(short = 'm', long)]
    message: Option<String>,
}

pub(crate) fn run(args: &RunArgs) -> Result<u8, CliError> {
    let since = Instant::now();
    let plan = load(&args.pipeline)?;
    let workspace = open_workspace(args.jobs)?;
    let options = Options {
        wanted: wanted(&plan, &args.targets)?,
        forced: targets(&plan, &args.force)?.into_iter().collect(),
        keep_going: args.keep_going,
        dry: args.dry_run,
        message: args.message.clone(),
        command: std::env::args().collect(),
    };
    interrupt::install();
    let mut console = Console::default();
    let summary = execute(&plan, &workspace, &options, &mut |event| console.show(event))?;
    if !options.dry {
        let placed =
            place_results(&plan, &workspace, &summary.outputs, Path::new(RESULTS).join(&plan.name).as_path());
        placed.map_err(|error| CliError::failed(&error))?;
        workspace.stats.save().map_err(|error| CliError::failed(&error))?;
        keep_lock(&plan, &workspace, &summary, args.targets.is_empty());
    }
    console::hint(last_line(&plan, &summary.totals, since, options.dry));
    Ok(match summary.totals {
        Totals { interrupted: true, .. } => INTERRUPTED,
        Totals { failed: 1.., .. } => STAGE_FAILED,
        _ => OK,
    })
}

/// The folder of the engine's own files, in the working directory.
pub(crate) const STATE: &str = ".pipe";
/// The folder in which users find what their stages made.
pub(crate) const RESULTS: &str = "results";

pub(crate) fn open_workspace(jobs: Option<u16>) -> Result<Workspace, CliError> {
    open_workspace_at(Path::new(STATE), jobs)
}

pub(crate) fn open_workspace_at(folder: &Path, jobs: Option<u16>) -> Result<Workspace, CliError> {
    let cache = Cache::open(folder).map_err(|error| CliError::failed(&error))?;
    let (stats, warning) = cache.stat_cache(StatMode::Strict);
    if let Some(warning) = warning {
        console::hint(format!("warning: {warning}"));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu = jobs.map_or(cores, usize::from);
    Ok(Workspace {
        cache,
        stats: Arc::new(stats),
        sources: Arc::new(Sources::default()),
        capacity: Resources { cpu, cpu_max: cpu, memory_bytes: u64::MAX, gpu: 0 },
    })
}

/// Brings the lock file up to date after a run that brought all that was asked for up to date.
fn keep_lock(plan: &Plan, workspace: &Workspace, summary: &Summary, whole: bool) {
    let Totals { failed: 0, skipped: 0, interrupted: false, .. } = summary.totals else { return };
    let file = lockfile::path_of(&plan.file);
    let path = file.display();
    match lockfile::update(plan, workspace, summary, whole) {
        Ok(Update::Overridden) if !file.exists() => {}
        Ok(Update::Unchanged) => {}
        Ok(Update::Written) => console::hint(format!("wrote {path}")),
        Ok(Update::Overridden) => console::hint(format!("{path} is left as it is: params were overridden")),
        Ok(Update::NotOnRecord) => {
            console::hint(format!("{path} is left as it is: run again, inputs changed"));
        }
        // The results are there; that their names could not be written down does not undo them.
        Err(error) => console::hint(format!(
            "warning: the lock file is left as it is: {}; `pipe lock {}` makes it anew",
            CliError::failed(&error),
            plan.file.display()
        )),
    }
}

pub(crate) fn wanted(
    plan: &Plan,
    patterns: &[String],
) -> Result<std::collections::BTreeSet<petgraph::graph::NodeIndex>, CliError> {
    if patterns.is_empty() {
        return Ok(plan.order.iter().copied().collect());
    }
    Ok(plan.with_ancestors(&targets(plan, patterns)?))
}

/// Runs a plan in this process.
pub(crate) fn execute(
    plan: &Plan,
    workspace: &Workspace,
    options: &Options,
    observer: &mut dyn FnMut(&Event),
) -> Result<Summary, CliError> {
    let executor =
        LocalExecutor::new(workspace.cache.clone(), workspace.stats.clone(), workspace.sources.clone());
    engine::run(plan, workspace, &executor, options, observer).map_err(|error| CliError::failed(&error))
}

fn last_line(plan: &Plan, totals: &Totals, since: Instant, dry: bool) -> String {
    let Totals { ran, cached, failed, skipped, interrupted } = totals;
    let time = console::duration(since.elapsed());
    if dry {
        return format!("{}: {ran} would run at once, {cached} cached; nothing was run", plan.name);
    }
    if *ran == 0 && *failed == 0 && *skipped == 0 && !interrupted {
        return format!("{}: nothing to do, {cached} stages up to date ({time})", plan.name);
    }
    let mut parts = vec![format!("{ran} ran"), format!("{cached} cached")];
    if *failed > 0 {
        parts.push(format!("{failed} FAILED"));
    }
    if *skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    let end = if *interrupted { "; interrupted, run again to go on" } else { "" };
    format!("{}: {} in {time}{end}\nresults are in {RESULTS}/{}/", plan.name, parts.join(", "), plan.name)
}
