//! The folders that commands work in, and what of the machine they may take.

use super::CliError;
use crate::capacity::Capacity;
use crate::console;
use crate::external::Sources;
use crate::plan::Plan;
use crate::quantity;
use crate::run::{Workspace, other_owner};
use clap::Args;
use pipe_cache::{Cache, StatMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of the engine's own files, in the working directory.
pub(crate) const STATE: &str = ".pipe";
/// The folder in which users find what their stages made.
pub(crate) const RESULTS: &str = "results";

/// What stages may share, where it is not all that the machine has.
#[derive(Debug, Default, Args)]
pub(crate) struct ShareArgs {
    /// Threads that stages share (default: one per core)
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Memory that stages share, e.g. 8G (default: that of the machine, or of its container)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// GPUs that stages share (default: those of the machine)
    #[arg(long, value_name = "N")]
    gpus: Option<u16>,
}

fn size(text: &str) -> Result<u64, String> {
    quantity::bytes(text).ok_or_else(|| "write a size such as 512M or 8G".into())
}

impl ShareArgs {
    fn capacity(&self) -> Capacity {
        let mut capacity = Capacity::of_machine();
        capacity.cpu = self.jobs.map_or(capacity.cpu, usize::from);
        capacity.memory_bytes = self.memory.unwrap_or(capacity.memory_bytes);
        if let Some(gpus) = self.gpus {
            capacity.set_gpus(usize::from(gpus));
        }
        capacity
    }
}

pub(crate) fn open_workspace(shares: &ShareArgs) -> Result<Workspace, CliError> {
    open_workspace_at(Path::new(STATE), shares)
}

/// The folder of the results of a plan, unless it holds those of another file.
pub(crate) fn own_results(plan: &Plan, workspace: &Workspace) -> Result<PathBuf, CliError> {
    let folder = Path::new(RESULTS).join(&plan.name);
    let other = other_owner(plan, workspace, &folder).map_err(|error| CliError::failed(&error))?;
    let Some(other) = other else { return Ok(folder) };
    let here = std::env::current_dir().unwrap_or_default();
    let other = other.strip_prefix(here).unwrap_or(&other);
    let (folder, file) = (folder.display(), plan.file.display());
    let message = format!("`{folder}/` holds the results of `{}`, not those of `{file}`", other.display());
    let help =
        format!("give one of the two files another name than `{}`: write `name: …` at its top", plan.name);
    Err(CliError::usage(message, help))
}

pub(crate) fn open_workspace_at(folder: &Path, shares: &ShareArgs) -> Result<Workspace, CliError> {
    let cache = Cache::open(folder).map_err(|error| CliError::failed(&error))?;
    let (stats, warning) = cache.stat_cache(StatMode::Strict);
    if let Some(warning) = warning {
        console::hint(format!("warning: {warning}"));
    }
    Ok(Workspace {
        cache,
        stats: Arc::new(stats),
        sources: Arc::new(Sources::default()),
        capacity: shares.capacity(),
    })
}
