//! `pipe run`: brings a pipeline, or some of its stages, up to date.

use super::select::SelectArgs;
use super::watch::{WatchArgs, Watched, watch};
use super::workspace::{RESULTS, STATE, ShareArgs, open_workspace, own_results};
use super::{
    CliError, Definition, INTERRUPTED, OK, PipelineArgs, STAGE_FAILED, load_defined, targets, without_dots,
};
use crate::console::{self, Console, Output};
use crate::current::part_suffices;
use crate::event::{Event, Totals};
use crate::external::missing;
use crate::lockfile::{self, Update};
use crate::plan::Plan;
use crate::run::{Options, Results, Summary, Workspace, place_results};
use crate::state::{self, Call, Extent, Found, Known, News};
use crate::worker::LocalExecutor;
use crate::{interrupt, run as engine};
use clap::Args;
use petgraph::graph::NodeIndex;
use pipe_cache::{Cache, CacheError, Digest, Expected, Layout, StatCache};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
    #[arg(short, long)]
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

/// What stages cannot do without must be there before the first of them starts: the last one may be hours away.
fn all_there(plan: &Plan, wanted: &BTreeSet<NodeIndex>) -> Result<(), CliError> {
    let mut paths: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for &node in &plan.order {
        let stage = &plan.graph[node];
        for (parameter, path) in if wanted.contains(&node) { missing(stage) } else { Vec::new() } {
            paths.entry(without_dots(&path)).or_default().push(format!("`{parameter}` of `{}`", stage.id));
        }
    }
    if paths.is_empty() {
        return Ok(());
    }
    let folder = std::env::current_dir().unwrap_or_default();
    let told = paths.iter().map(|(path, by)| format!("\n  `{}`: {}", path.display(), some(by)));
    let message = format!("nothing was run, for what stages read is not there:{}", told.collect::<String>());
    let pattern = if paths.keys().any(|path| path.to_string_lossy().contains(['*', '?'])) {
        "; patterns are not taken, name the folder"
    } else {
        ""
    };
    let help = format!(
        "relative paths begin in `{}`{pattern}; `--keep-going` runs what does without",
        folder.display()
    );
    Err(CliError::usage(message, help))
}

/// The first three of them.
fn some(names: &[String]) -> String {
    match names.split_at_checked(3) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

/// One run. What it depends on is added to `watched` before any stage starts.
pub(super) fn run_once(args: &RunArgs, watched: Option<&mut Watched>) -> Result<u8, CliError> {
    let since = Instant::now();
    let mut console = Console::new(args.output.output());
    let PipelineArgs { file, set, params } = &args.pipeline;
    let call =
        Call { file: file.clone(), set: set.clone(), params: params.clone(), targets: args.select.words() };
    let layout = Layout::new(STATE);
    let needs_all = watched.is_some() || args.dry_run || args.message.is_some() || !args.force.is_empty();
    let mut found = state::open(&layout, &call, if needs_all { Extent::Whole } else { Extent::Changes });
    if let Found::UpToDate { name, stages } = found {
        console::hint(nothing_to_do(&name, stages, since));
        console.show(&Event::Started { pipeline: name, run: None, stages });
        console.show(&Event::Ended(Totals { cached: stages, ..Totals::default() }));
        return Ok(OK);
    }
    if let Found::Changed(part) = &found
        && part.1.is_part()
        && !Cache::open(layout.root())
            .and_then(|cache| part_suffices(&part.0, &part.1, &cache))
            .map_err(|error| CliError::failed(&error))?
    {
        found = state::open(&layout, &call, Extent::Whole);
    }
    let (plan, known, definition) = if let Found::Changed(found) = found {
        (found.0, found.1, None)
    } else {
        let (plan, definition) = load_defined(&args.pipeline)?;
        (plan, Known::default(), Some(definition))
    };
    // Not before the pipeline is known to be one.
    let workspace = open_workspace(&args.shares)?;
    own_results(&plan, &workspace)?;
    let all = || plan.order.iter().copied().collect();
    let options = Options {
        wanted: if known.is_part() { all() } else { args.select.wanted(&plan)? },
        forced: targets(&plan, &args.force)?.into_iter().collect(),
        keep_going: args.keep_going,
        dry: args.dry_run,
        message: args.message.clone(),
        command: std::env::args().collect(),
    };
    if let Some(left) = options.forced.difference(&options.wanted).next() {
        let message =
            format!("`--force {}`: it is not among the stages that are asked for", plan.graph[*left].id);
        return Err(CliError::usage(message, "name it too, or leave out `--force`"));
    }
    if let Some(watched) = watched {
        watched.add(&plan, &options.wanted);
    }
    if !options.dry && !options.keep_going {
        all_there(&plan, &options.wanted)?;
    }
    interrupt::install();
    let summary = execute(&plan, &workspace, &options, &known, &mut |event| console.show(event))?;
    if !options.dry {
        // Before the results, so that the file has settled when the state takes its stat.
        let locked = keep_lock(&plan, &options.wanted, &summary, &known, args.select.is_all());
        // Again: another file may have come first meanwhile.
        let results = own_results(&plan, &workspace)?;
        let placed = place(&plan, &workspace, &options.wanted, &summary, &known, &results)?;
        let (mut files, environment) = sources(&plan, &workspace.stats, &known, definition);
        watch_lock(&plan, &workspace.stats, &mut files);
        let news = News {
            plan: &plan,
            wanted: &options.wanted,
            results: &results,
            files: &files,
            environment: &environment,
            told: summary.told.clone(),
            locked,
            looked_at: &summary.looked_at,
            placed: &placed,
        };
        // Without it the next run takes longer.
        let _ = news.save(&known, &workspace.cache.layout, &call);
    }
    console::hint(last_line(&plan, &summary.totals, since, options.dry));
    // The process ends: to give back what thousands of stages hold, piece by piece, would take longer than a small run.
    std::mem::forget((plan, workspace, known));
    Ok(match summary.totals {
        Totals { interrupted: true, .. } => INTERRUPTED,
        Totals { failed: 1.., .. } => STAGE_FAILED,
        _ => OK,
    })
}

/// Places the results that do not stand already, and tells what stands for each stage that was looked at.
fn place(
    plan: &Plan,
    workspace: &Workspace,
    wanted: &BTreeSet<NodeIndex>,
    summary: &Summary,
    known: &Known,
    results: &Path,
) -> Result<BTreeMap<NodeIndex, Vec<pipe_cache::Watched<'static>>>, CliError> {
    let Workspace { cache, stats, .. } = workspace;
    let failed = |error: CacheError| CliError::failed(&error);
    let stands = |node: NodeIndex, outputs: &BTreeMap<String, Digest>| {
        let last = known.traces.get(node.index()).and_then(Option::as_ref).map(|trace| &trace.last.outputs);
        known.placed.get(node.index()) == Some(&true) && last == Some(outputs)
    };
    let outputs: BTreeMap<_, _> = wanted
        .iter()
        .filter_map(|&node| Some((node, summary.result(node, known)?.1)))
        .filter(|(node, outputs)| !stands(*node, outputs))
        .collect();
    let mut warn = |text: String| console::hint(format!("warning: {text}"));
    let Results { files: mut files_of, stale, .. } =
        place_results(plan, !known.is_part(), workspace, &outputs, results, &mut warn).map_err(failed)?;
    if !stale.is_empty() {
        console::hint(stale_line(results, &stale));
    }
    stats.save().map_err(failed)?;
    cache.store.save();
    let files: Vec<(NodeIndex, Vec<String>)> =
        outputs.keys().map(|node| (*node, files_of.remove(node).unwrap_or_default())).collect();
    let all: Vec<&String> = files.iter().flat_map(|(_, files)| files).collect();
    let mut watched = cache.store.watch_placed(results, &all, stats).into_iter();
    Ok(files.iter().map(|(node, files)| (*node, watched.by_ref().take(files.len()).collect())).collect())
}

/// The files and variables that the plan was made from.
fn sources(
    plan: &Plan,
    stats: &StatCache,
    known: &Known,
    definition: Option<Definition>,
) -> (Vec<pipe_cache::Watched<'static>>, BTreeMap<String, Option<String>>) {
    match definition {
        Some(definition) => {
            let files = definition.files.iter().map(|(path, digest)| watch_text(path, digest, stats));
            let absent: BTreeSet<&PathBuf> = plan
                .graph
                .node_weights()
                .flat_map(|planned| &planned.ports().absent)
                .flat_map(|paths| &**paths)
                .collect();
            let absent = absent.into_iter().map(|path| pipe_cache::Watched {
                path: path.to_string_lossy().into_owned().into(),
                expected: pipe_cache::Expected::Absent,
            });
            (files.chain(absent).collect(), state::environment(&definition.environment, plan))
        }
        None => (known.files.clone(), known.environment.clone()),
    }
}

/// A lock file that another branch or an editor changed is not up to date, though every stage is.
fn watch_lock(plan: &Plan, stats: &StatCache, files: &mut Vec<pipe_cache::Watched<'static>>) {
    let path = lockfile::path_of(&plan.file);
    let shown = path.to_string_lossy().into_owned();
    files.retain(|watched| watched.path != shown);
    if !plan.overrides.is_empty() {
        return;
    }
    let expected = match stats.digest_written(&path) {
        Ok(hashed) => Expected::of(&hashed),
        Err(_) if !path.exists() => Expected::Absent,
        Err(_) => Expected::Unsettled,
    };
    files.push(pipe_cache::Watched { path: shown.into(), expected });
}

/// What to expect of a text file that was read before, when its content had this digest.
fn watch_text(path: &Path, digest: &Digest, stats: &StatCache) -> pipe_cache::Watched<'static> {
    let expected = match stats.digest_written(path) {
        Ok(hashed) if hashed.digest == *digest => Expected::of(&hashed),
        _ => Expected::Unsettled,
    };
    pipe_cache::Watched { path: path.to_string_lossy().into_owned().into(), expected }
}

/// Brings the lock file up to date after a run that brought all that was asked for up to date. Whether it is.
fn keep_lock(
    plan: &Plan,
    wanted: &BTreeSet<NodeIndex>,
    summary: &Summary,
    known: &Known,
    whole: bool,
) -> bool {
    let Totals { failed: 0, skipped: 0, interrupted: false, .. } = summary.totals else { return false };
    let file = lockfile::path_of(&plan.file);
    let path = file.display();
    let update = lockfile::update(plan, wanted, summary, known, whole);
    match &update {
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
            CliError::failed(error),
            plan.file.display()
        )),
    }
    matches!(update, Ok(Update::Unchanged | Update::Written | Update::Overridden))
}

pub(crate) fn wanted(plan: &Plan, patterns: &[String]) -> Result<BTreeSet<NodeIndex>, CliError> {
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

/// What stands in the results and looks as if it were of this pipeline.
fn stale_line(results: &Path, stale: &[String]) -> String {
    let quoted: Vec<_> = stale.iter().map(|name| format!("`{name}`")).collect();
    let shown = some(&quoted);
    format!(
        "warning: {}/ still holds {shown}, which the pipeline has no more; `pipe gc` offers to remove that",
        results.display()
    )
}

fn nothing_to_do(name: &str, stages: usize, since: Instant) -> String {
    let time = console::duration(since.elapsed());
    format!("{name}: nothing to do, {stages} stages up to date ({time})")
}

fn last_line(plan: &Plan, totals: &Totals, since: Instant, dry: bool) -> String {
    let Totals { ran, cached, failed, skipped, stopped, interrupted } = totals;
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
    if *stopped > 0 {
        parts.push(format!("{stopped} stopped"));
    }
    if *skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    let end = if *interrupted { "; interrupted, run again to go on" } else { "" };
    let line = format!("{}: {} in {time}{end}", plan.name, parts.join(", "));
    if ran + cached == 0 {
        return line;
    }
    format!("{line}\nresults are in {RESULTS}/{}/", plan.name)
}
