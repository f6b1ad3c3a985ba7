//! `pipe lock`: the lock file made anew, or checked. `pipe checkout`: results placed as it says.

use super::run::{execute, wanted};
use super::status::open_to_read;
use super::workspace::{ShareArgs, open_workspace, own_results};
use super::{CliError, OK, PipelineArgs, STAGE_FAILED, load, targets};
use crate::console;
use crate::lockfile::{self, LockError, LockFile, Locked};
use crate::plan::Plan;
use crate::run::{Options, Workspace, place_results};
use crate::state::Known;
use clap::Args;
use petgraph::graph::NodeIndex;
use pipe_cache::{ActionRecord, Cache, CacheError, Lookup, Outcome, StageRecord};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Write the lock file from the cache, or check that it fits the pipeline
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Change nothing; exit with 1 if the lock file does not fit the pipeline
    #[arg(long)]
    check: bool,
}

/// Place the results that the lock file names, from the cache, without running anything
#[derive(Debug, Args)]
pub(crate) struct CheckoutArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only results of these stages
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
}

pub(crate) fn run(args: &LockArgs) -> Result<u8, CliError> {
    let plan = plan(&args.file)?;
    if args.check { check(&plan) } else { write(&plan) }
}

/// A lock file holds the pipeline as it is written, so nothing may override its params.
pub(crate) fn plan(file: &Path) -> Result<Plan, CliError> {
    let plan = load(&PipelineArgs { file: file.to_owned(), set: Vec::new(), params: Vec::new() })?;
    if let Some(first) = plan.overrides.first() {
        let help = "a lock file holds the pipeline as it is written; unset the variable";
        return Err(CliError::usage(format!("params are overridden: {first}"), help));
    }
    Ok(plan)
}

fn write(plan: &Plan) -> Result<u8, CliError> {
    let workspace = open_workspace(&ShareArgs::default())?;
    let options = Options { wanted: wanted(plan, &[])?, dry: true, ..Options::default() };
    let known = Known::default();
    let summary = execute(plan, &workspace, &options, &known, &mut |_| {})?;
    let missing: Vec<String> = plan
        .stages()
        .filter(|(node, _)| summary.result(*node, &known).is_none())
        .map(|(_, planned)| planned.id.to_string())
        .collect();
    if !missing.is_empty() {
        let file = plan.file.display();
        return Err(CliError::Failed(format!(
            "not up to date: {}\n  help: `pipe run {file}` makes them, and writes the lock file",
            missing.join(", ")
        )));
    }
    let path = lockfile::path_of(&plan.file);
    let written =
        LockFile::of(plan, &options.wanted, &summary, &known).write(&path).map_err(lock_error(plan))?;
    let what = if written { "wrote" } else { "nothing to do for" };
    console::hint(format!("{what} {}: {} stages", path.display(), plan.graph.node_count()));
    Ok(OK)
}

fn check(plan: &Plan) -> Result<u8, CliError> {
    let lock = read(plan)?;
    let workspace = open_to_read()?;
    let misfits = lockfile::misfits(plan, &workspace, &lock).map_err(lock_error(plan))?;
    for misfit in &misfits {
        console::data_line(misfit);
    }
    let path = lockfile::path_of(&plan.file);
    if misfits.is_empty() {
        console::hint(format!("{} fits", path.display()));
        return Ok(OK);
    }
    console::hint(format!("{} does not fit; `pipe run {}` updates it", path.display(), plan.file.display()));
    Ok(STAGE_FAILED)
}

pub(crate) fn read(plan: &Plan) -> Result<LockFile, CliError> {
    let path = lockfile::path_of(&plan.file);
    LockFile::read(&path).map_err(lock_error(plan))?.ok_or_else(|| {
        let help = format!("`pipe run {}` writes it", plan.file.display());
        CliError::usage(format!("there is no lock file `{}`", path.display()), help)
    })
}

fn lock_error(plan: &Plan) -> impl Fn(LockError) -> CliError {
    let help = format!("`pipe lock {}` makes it anew from the cache", plan.file.display());
    move |error| match error {
        LockError::Conflict { .. } | LockError::Malformed { .. } => CliError::usage(error.to_string(), &help),
        error => CliError::failed(&error),
    }
}

pub(crate) fn checkout(args: &CheckoutArgs) -> Result<u8, CliError> {
    let plan = plan(&args.file)?;
    let lock = read(&plan)?;
    let workspace = open_workspace(&ShareArgs::default())?;
    place_locked(&plan, &lock, &workspace, &chosen(&plan, &args.stages)?)
}

/// The named stages, or all.
pub(crate) fn chosen(plan: &Plan, stages: &[String]) -> Result<Vec<NodeIndex>, CliError> {
    if stages.is_empty() { Ok(plan.order.clone()) } else { targets(plan, stages) }
}

/// Places what the lock file names for some stages, if the cache has all of it.
pub(crate) fn place_locked(
    plan: &Plan,
    lock: &LockFile,
    workspace: &Workspace,
    chosen: &[NodeIndex],
) -> Result<u8, CliError> {
    let (mut outputs, mut missing) = (BTreeMap::new(), Vec::new());
    for &node in chosen {
        let name = plan.graph[node].id.to_string();
        let Some(locked) = lock.get(&name) else {
            missing.push(format!("stage `{name}` is not in the lock file"));
            continue;
        };
        if !plan.graph[node].ports().has_outputs(&locked.outputs) {
            missing.push(format!("stage `{name}` has other outputs than the lock file says"));
            continue;
        }
        for (port, tree) in &locked.outputs {
            match workspace.cache.store.check_tree(tree) {
                Ok(()) => {}
                Err(error) if error.is_miss() => {
                    missing.push(format!("output `{port}` of stage `{name}`: {}", chain(&error)));
                }
                Err(error) => return Err(CliError::failed(&error)),
            }
        }
        outputs.insert(node, &locked.outputs);
    }
    if !missing.is_empty() {
        for line in &missing {
            console::data_line(line);
        }
        console::hint(format!(
            "nothing was placed; `pipe run {}` makes what is missing",
            plan.file.display()
        ));
        return Ok(STAGE_FAILED);
    }
    let failed = |error: CacheError| CliError::failed(&error);
    lockfile::register(&workspace.cache.layout, &lockfile::path_of(&plan.file)).map_err(failed)?;
    for node in outputs.keys() {
        let name = plan.graph[*node].id.to_string();
        if let Some(locked) = lock.get(&name) {
            restore(&workspace.cache, locked).map_err(failed)?;
        }
    }
    let folder = own_results(plan, workspace)?;
    let placed = place_results(plan, true, workspace, &outputs, &folder, &mut |text| {
        console::hint(format!("warning: {text}"));
    })
    .map_err(failed)?;
    workspace.stats.save().map_err(|error| CliError::failed(&error))?;
    console::hint(format!(
        "{} files written to {}/, {} stages as locked",
        placed.written,
        folder.display(),
        outputs.len()
    ));
    Ok(OK)
}

/// Makes the locked result the one of its key again, where a later run of the same key gave another: else the next run
/// would put that back. A result that no run on record gave is placed, and stands for nothing.
fn restore(cache: &Cache, locked: &Locked) -> Result<(), CacheError> {
    let Lookup::Hit(record) = cache.actions.lookup(&locked.key)? else { return Ok(()) };
    if record.outputs == locked.outputs {
        return Ok(());
    }
    for id in cache.runs.ids()? {
        let Ok(Some(run)) = cache.runs.load_news(&id) else { continue };
        let gave = |stage: &&StageRecord| {
            stage.key == Some(locked.key) && stage.outputs == locked.outputs && stage.outcome == Outcome::Ran
        };
        if let Some(stage) = run.stages.iter().find(gave) {
            let restored = ActionRecord {
                outputs: locked.outputs.clone(),
                summary: stage.summary.clone(),
                duration: stage.duration.unwrap_or(record.duration),
                finished_at: run.finished_at.unwrap_or(record.finished_at),
                host: run.host.clone().unwrap_or_else(|| record.host.clone()),
                ..*record
            };
            cache.actions.replace(&restored)?;
            cache.forget_states();
            console::hint(format!("{}: the result of run {id} is the one of its key again", locked.stage));
            return Ok(());
        }
    }
    console::hint(format!(
        "warning: {}: no run on record here gave what the lock file names; the next `pipe run` places its own",
        locked.stage
    ));
    Ok(())
}

fn chain(error: &CacheError) -> String {
    CliError::failed(error).to_string()
}
