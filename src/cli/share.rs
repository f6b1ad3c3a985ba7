//! `pipe push` and `pipe pull`: the results that a lock file names, to and from a cache that a team shares.

use super::lock::{chosen, place_locked, plan, read};
use super::workspace::{ShareArgs, open_workspace};
use super::{CliError, OK, STAGE_FAILED};
use crate::console;
use crate::lockfile::{LockFile, Locked};
use crate::plan::Plan;
use clap::Args;
use petgraph::graph::NodeIndex;
use pipe_cache::{ActionRecord, Cache, CacheError, Lookup};
use std::path::{Path, PathBuf};

/// Copy the results that the lock file names to a cache that others can reach
///
/// The folder is laid out like `.pipe`, so it can also be the `.pipe` of another workspace. What is there already is not
/// copied again; many may push at once.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    shared: SharedArgs,
}

/// Copy the results that the lock file names from a cache that others push to, and place them, without running anything
///
/// Every file is hashed on arrival, and must be what the lock file says. A later `pipe run` finds the results and runs
/// only what changed.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    shared: SharedArgs,
}

#[derive(Debug, Args)]
struct SharedArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only results of these stages
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// The shared cache [default: the variable PIPE_REMOTE]
    #[arg(long, value_name = "FOLDER")]
    remote: Option<PathBuf>,
}

/// The variable that names the shared cache.
const VARIABLE: &str = "PIPE_REMOTE";

impl SharedArgs {
    fn remote(&self) -> Result<PathBuf, CliError> {
        let named = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let remote = self.remote.clone().or_else(named).ok_or_else(|| {
            let help = format!("name it with `--remote FOLDER`, or in the variable {VARIABLE}");
            CliError::usage("no shared cache is named", help)
        })?;
        if remote.to_string_lossy().contains("://") {
            let message = format!("`{}` is an address, not a folder", remote.display());
            return Err(CliError::usage(message, "mount it, and name the folder"));
        }
        Ok(remote)
    }
}

pub(crate) fn push(args: &PushArgs) -> Result<u8, CliError> {
    let (plan, remote) = (plan(&args.shared.file)?, args.shared.remote()?);
    let lock = read(&plan)?;
    let workspace = open_workspace(&ShareArgs::default())?;
    // A mistyped name would make a folder where nobody looks; its parent must be there.
    match std::fs::create_dir(&remote) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            let help = "name a folder that is there, or whose parent is";
            return Err(CliError::usage(format!("cannot create `{}`: {error}", remote.display()), help));
        }
        _ => {}
    }
    let is_empty = std::fs::read_dir(&remote).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty && !is_cache(&remote) {
        let message =
            format!("`{}` is a folder with other things in it, not a cache of pipe", remote.display());
        return Err(CliError::usage(
            message,
            "name a new or an empty folder, or one that was pushed to before",
        ));
    }
    let shared = Cache::open(&remote).map_err(|error| CliError::failed(&error))?;
    let chosen = chosen(&plan, &args.shared.stages)?;
    let copied =
        copy(&plan, &lock, &chosen, "pushed", &workspace.cache, &Target { cache: &shared, is_shared: true })?;
    console::hint(format!("{} are in {}", copied.summary(), remote.display()));
    if copied.all() {
        return Ok(OK);
    }
    console::hint(format!("`pipe run {}` makes what is missing", plan.file.display()));
    Ok(STAGE_FAILED)
}

pub(crate) fn pull(args: &PullArgs) -> Result<u8, CliError> {
    let (plan, remote) = (plan(&args.shared.file)?, args.shared.remote()?);
    let lock = read(&plan)?;
    let shared = existing(&remote)?;
    let workspace = open_workspace(&ShareArgs::default())?;
    let chosen = chosen(&plan, &args.shared.stages)?;
    let copied = copy(
        &plan,
        &lock,
        &chosen,
        "pulled",
        &shared,
        &Target { cache: &workspace.cache, is_shared: false },
    )?;
    if !copied.all() {
        console::hint(format!(
            "nothing was placed; `pipe push {}` where the results were made, or `pipe run` here",
            plan.file.display()
        ));
        return Ok(STAGE_FAILED);
    }
    console::hint(format!("{} are here", copied.summary()));
    place_locked(&plan, &lock, &workspace, &chosen)
}

fn is_cache(folder: &Path) -> bool {
    folder.join("objects-v1").is_dir()
}

/// Opens a cache that must be there: one made now would only say that nothing is in it.
fn existing(folder: &Path) -> Result<Cache, CliError> {
    if !is_cache(folder) {
        let message = format!("`{}` is not a cache of pipe", folder.display());
        return Err(CliError::usage(message, "name the folder that `pipe push --remote FOLDER` was given"));
    }
    Cache::open(folder).map_err(|error| CliError::failed(&error))
}

#[derive(Default)]
struct Copied {
    results: usize,
    missing: usize,
    objects: u64,
    bytes: u64,
}

impl Copied {
    fn all(&self) -> bool {
        self.missing == 0
    }

    fn summary(&self) -> String {
        let Self { results, objects, bytes, .. } = self;
        format!("copied {objects} objects of {}; {results} results", console::bytes(*bytes))
    }
}

/// Where results go.
struct Target<'a> {
    cache: &'a Cache,
    /// Others read it: nothing that is there is replaced.
    is_shared: bool,
}

/// Copies the locked result of each stage that the target lacks, tells what became of it, and counts.
fn copy(
    plan: &Plan,
    lock: &LockFile,
    chosen: &[NodeIndex],
    verb: &str,
    source: &Cache,
    target: &Target<'_>,
) -> Result<Copied, CliError> {
    let mut copied = Copied::default();
    for &node in chosen {
        let name = plan.graph[node].id.to_string();
        let found = match lock.get(&name) {
            None => Err("it is not in the lock file".to_owned()),
            Some(locked) => fetch(locked, source, target)?,
        };
        match found {
            Ok((objects, bytes)) => {
                if objects > 0 {
                    console::hint(format!("{verb} {name}: {objects} objects, {}", console::bytes(bytes)));
                }
                copied.results += 1;
                copied.objects += objects;
                copied.bytes += bytes;
            }
            Err(why) => {
                console::data_line(format!("missing {name}: {why}"));
                copied.missing += 1;
            }
        }
    }
    Ok(copied)
}

/// Objects and bytes that were copied for one result, or why it cannot be had.
fn fetch(
    locked: &Locked,
    source: &Cache,
    target: &Target<'_>,
) -> Result<Result<(u64, u64), String>, CliError> {
    let failed = |error: CacheError| CliError::failed(&error);
    let place = |cache: &Cache| cache.layout.root().display().to_string();
    let is_other = |record: &ActionRecord| record.outputs != locked.outputs;
    if let Some(here) = target.cache.whole_result(&locked.key).map_err(failed)? {
        if !is_other(&here) {
            return Ok(Ok((0, 0)));
        }
        if target.is_shared {
            let place = place(target.cache);
            return Ok(Err(format!(
                "`{place}` holds another result of the same key, which others may have; take it with the lock file that \
                 names it and `pipe pull`, or push to another folder"
            )));
        }
    }
    let place = place(source);
    match source.actions.lookup(&locked.key).map_err(failed)? {
        Lookup::Miss => return Ok(Err(format!("no result of it is in `{place}`"))),
        Lookup::Hit(record) if is_other(&record) => {
            return Ok(Err(format!(
                "`{place}` holds another result of the same key than the lock file names"
            )));
        }
        Lookup::Hit(_) | Lookup::Corrupt { .. } => {}
    }
    match target.cache.copy_result(&locked.key, source) {
        Ok(Some(copied)) => Ok(Ok((copied.objects, copied.bytes))),
        Ok(None) => Ok(Err(format!("no result of it is in `{place}`"))),
        Err(error) if error.is_miss() => Ok(Err(format!("{} (`{place}`)", failed(error)))),
        Err(error) => Err(failed(error)),
    }
}
