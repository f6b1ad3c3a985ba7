//! `pipe run`: brings a pipeline, or some of its stages, up to date.

use super::select::SelectArgs;
use super::watch::{WatchArgs, Watched, watch};
use super::workspace::{RESULTS, STATE, ShareArgs, open_workspace};
use super::{CliError, Definition, INTERRUPTED, OK, PipelineArgs, STAGE_FAILED, load_defined, targets};
use crate::console::{self, Console, Output};
use crate::event::{Event, Totals};
use crate::lockfile::{self, Update};
use crate::plan::Plan;
use crate::run::{Options, Summary, Workspace, place_results};
use crate::state::{self, Call, Found, Known, Saved};
use crate::worker::LocalExecutor;
use crate::{interrupt, run as engine};
use clap::Args;
use pipe_cache::{CacheError, Digest, Expected, Layout, StatCache};
use std::path::Path;
use std::time::Instant;

/// Run a pipeline: only what changed, and what hangs on it. After a failure nothing further starts; what was done is kept
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) pipeline: PipelineArgs,
    #[command(flatten)]
    select: SelectArgs,
    /// Run this stage although its result is in the cache
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, go on with what does not depend on it
    #[arg(short = 'k', long)]
    keep_going: bool,
    /// Say what would run and why, and run nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    shares: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) watch: WatchArgs,
    /// Why this run: kept in its record
    #[arg(short = 'm', long)]
    message: Option<String>,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Say nothing but failures, warnings and a last line
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Print what happens as JSON, one object a line, and nothing else on stdout
    #[arg(long)]
    json: bool,
}

impl OutputArgs {
    fn output(&self) -> Output {
        match self {
            Self { json: true, .. } => Output::Json,
            Self { quiet: true, .. } => Output::Quiet,
            _ => Output::Full,
        }
    }
}

pub(crate) fn run(args: &RunArgs) -> Result<u8, CliError> {
    if args.watch.watch { watch(args) } else { run_once(args, None) }
}

/// One run. What it depends on is added to `watched` before any stage starts.
pub(super) fn run_once(args: &RunArgs, watched: Option<&mut Watched>) -> Result<u8, CliError> {
    let since = Instant::now();
    let mut console = Console::new(args.output.output());
    let PipelineArgs { file, set, params } = &args.pipeline;
    let call =
        Call { file: file.clone(), set: set.clone(), params: params.clone(), targets: args.select.words() };
    let plan_anyway = watched.is_some() || args.dry_run || args.message.is_some() || !args.force.is_empty();
    let (plan, known, definition) = match state::open(&Layout::new(STATE), &call, plan_anyway) {
        Found::UpToDate { name, stages } => {
            console::hint(nothing_to_do(&name, stages, since));
            console.show(&Event::Started { pipeline: name, run: None, stages });
            console.show(&Event::Ended(Totals { cached: stages, ..Totals::default() }));
            return Ok(OK);
        }
        Found::Changed(found) => (found.0, found.1, None),
        Found::Nothing => {
            let (plan, definition) = load_defined(&args.pipeline)?;
            (plan, Known::default(), Some(definition))
        }
    };
    let workspace = open_workspace(&args.shares)?;
    let options = Options {
        wanted: args.select.wanted(&plan)?,
        forced: targets(&plan, &args.force)?.into_iter().collect(),
        keep_going: args.keep_going,
        dry: args.dry_run,
        message: args.message.clone(),
        command: std::env::args().collect(),
    };
    if let Some(watched) = watched {
        watched.add(&plan, &options.wanted);
    }
    interrupt::install();
    let mut summary = execute(&plan, &workspace, &options, &known, &mut |event| console.show(event))?;
    if !options.dry {
        // Before the results, so that the file has settled when the state takes its stat.
        keep_lock(&plan, &summary, args.select.is_all());
        let results = Path::new(RESULTS).join(&plan.name);
        let mut known = settle(&plan, &workspace, &mut summary, &results, known, definition)?;
        watch_lock(&plan, &workspace.stats, &mut known);
        let saved = Saved { plan: &plan, wanted: &options.wanted, results: &results, known: &known };
        // Without it the next run takes longer.
        let _ = saved.write(&workspace.stats, &workspace.cache.layout, &call);
        std::mem::forget(known);
    }
    console::hint(last_line(&plan, &summary.totals, since, options.dry));
    // The process ends: to give back what thousands of stages hold, piece by piece, would take longer than a small run.
    std::mem::forget((plan, workspace));
    Ok(match summary.totals {
        Totals { interrupted: true, .. } => INTERRUPTED,
        Totals { failed: 1.., .. } => STAGE_FAILED,
        _ => OK,
    })
}

/// Places the results that do not stand already, and gathers what the next run may rely on.
fn settle(
    plan: &Plan,
    workspace: &Workspace,
    summary: &mut Summary,
    results: &Path,
    known: Known,
    definition: Option<Definition>,
) -> Result<Known, CliError> {
    let Workspace { cache, stats, .. } = workspace;
    let failed = |error: CacheError| CliError::failed(&error);
    let (files, environment) = match definition {
        Some(definition) => {
            let files = definition.files.iter().map(|(path, digest)| watch_text(path, digest, stats));
            (files.collect(), state::environment(&definition.environment, plan))
        }
        None => (known.files, known.environment),
    };
    let mut placed = known.placed;
    placed.resize(plan.graph.node_count(), None);
    let mut outputs = std::mem::take(&mut summary.outputs);
    outputs.retain(|node, trees| {
        let last = known.traces.get(node.index()).and_then(|trace| Some(&trace.as_ref()?.last.outputs));
        placed[node.index()].is_none() || last != Some(&*trees)
    });
    let (_, files_of) = place_results(plan, workspace, &outputs, results).map_err(failed)?;
    stats.save().map_err(failed)?;
    let all: Vec<String> = files_of.values().flatten().cloned().collect();
    let mut watched = cache.store.watch_placed(results, &all, stats).into_iter();
    for node in outputs.keys() {
        let count = files_of.get(node).map_or(0, Vec::len);
        placed[node.index()] = Some(watched.by_ref().take(count).collect());
    }
    let unchanged = vec![true; plan.graph.node_count()];
    Ok(Known {
        files,
        environment,
        traces: std::mem::take(&mut summary.traces),
        unchanged,
        placed,
        plan: known.plan,
    })
}

/// A lock file that another branch or an editor changed is not up to date, though every stage is.
fn watch_lock(plan: &Plan, stats: &StatCache, known: &mut Known) {
    let path = lockfile::path_of(&plan.file);
    let shown = path.to_string_lossy().into_owned();
    known.files.retain(|watched| watched.path != shown);
    if !plan.overrides.is_empty() {
        return;
    }
    let expected = match stats.digest_written(&path) {
        Ok(hashed) => Expected::of(&hashed),
        Err(_) if !path.exists() => Expected::Absent,
        Err(_) => Expected::Unsettled,
    };
    known.files.push(pipe_cache::Watched { path: shown.into(), expected });
}

/// What to expect of a text file that was read before, when its content had this digest.
fn watch_text(path: &Path, digest: &Digest, stats: &StatCache) -> pipe_cache::Watched<'static> {
    let expected = match stats.digest_written(path) {
        Ok(hashed) if hashed.digest == *digest => Expected::of(&hashed),
        _ => Expected::Unsettled,
    };
    pipe_cache::Watched { path: path.to_string_lossy().into_owned().into(), expected }
}

/// Brings the lock file up to date after a run that brought all that was asked for up to date.
fn keep_lock(plan: &Plan, summary: &Summary, whole: bool) {
    let Totals { failed: 0, skipped: 0, interrupted: false, .. } = summary.totals else { return };
    let file = lockfile::path_of(&plan.file);
    let path = file.display();
    match lockfile::update(plan, summary, whole) {
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
    known: &Known,
    observer: &mut dyn FnMut(&Event),
) -> Result<Summary, CliError> {
    let executor =
        LocalExecutor::new(workspace.cache.clone(), workspace.stats.clone(), workspace.sources.clone());
    engine::run(plan, workspace, &executor, options, known, observer)
        .map_err(|error| CliError::failed(&error))
}

fn nothing_to_do(name: &str, stages: usize, since: Instant) -> String {
    let time = console::duration(since.elapsed());
    format!("{name}: nothing to do, {stages} stages up to date ({time})")
}

fn last_line(plan: &Plan, totals: &Totals, since: Instant, dry: bool) -> String {
    let Totals { ran, cached, failed, skipped, interrupted } = totals;
    let time = console::duration(since.elapsed());
    if dry {
        return format!("{}: {ran} would run at once, {cached} cached; nothing was run", plan.name);
    }
    if *ran == 0 && *failed == 0 && *skipped == 0 && !interrupted {
        return nothing_to_do(&plan.name, *cached, since);
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
