//! `pipe cache`: collects garbage, verifies and measures the cache. `pipe gc` is `pipe cache gc`.

use super::workspace::STATE;
use super::{CliError, OK, STAGE_FAILED};
use crate::console;
use crate::lockfile::{self, LockFile};
use clap::{Args, Subcommand};
use pipe_cache::{Cache, Collection, Digest, GcOptions, Group, StaleResult, Usage, Verification};
use std::path::Path;
use std::time::Duration;

/// Collect garbage in the cache, verify it, measure it
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    Gc(GcArgs),
    Verify(VerifyArgs),
    Size(SizeArgs),
}

/// Say what nothing needs any more; with --yes, remove it
///
/// Kept are the results of the last runs of each pipeline and of tagged runs, what lock files name, results that stand
/// in `results/`, and whatever is younger than the grace time. What goes is moved to `.pipe/quarantine`, where a run that
/// misses it finds it, and deleted by a later `pipe gc` once it has been there for the grace time. What stands in
/// `results/` for stages or outputs that the pipeline has no more goes too, at once, but for what you edited. Safe while
/// pipelines run.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Keep the results of the last N runs of each pipeline
    #[arg(long, value_name = "N", default_value_t = 20)]
    keep_runs: usize,
    /// Keep what is younger, and keep what goes for so long in quarantine: 30m, 24h, 7d; 0s deletes at once
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    grace: Duration,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Hash everything again; what is damaged is moved away, and the next run repairs it
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say what takes how much room
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CacheArgs) -> Result<u8, CliError> {
    match &args.command {
        CacheCommand::Gc(args) => collect(args),
        CacheCommand::Verify(args) => verify(args),
        CacheCommand::Size(args) => size(args),
    }
}

pub(crate) fn collect(args: &GcArgs) -> Result<u8, CliError> {
    let cache = open()?;
    let extra_roots = locked(&cache)?;
    let options =
        GcOptions { keep_runs: args.keep_runs, grace: args.grace, extra_roots, ..GcOptions::default() };
    let found = if args.yes { cache.collect_garbage(&options) } else { cache.find_garbage(&options) };
    let found = found.map_err(|error| CliError::failed(&error))?;
    for warning in &found.warnings {
        console::hint(format!("warning: {warning}; its results are kept only if another run names them"));
    }
    if args.json {
        let Collection { kept, garbage, stale, left, .. } = found;
        json(
            &serde_json::json!({ "removed": args.yes, "kept": kept, "garbage": garbage, "stale": stale, "left": left }),
        );
        return Ok(OK);
    }
    table("kept", &found.kept);
    let word = if args.yes { "removed" } else { "would go" };
    table(word, &found.garbage);
    for StaleResult { folder, files } in &found.stale {
        let folder = relative(folder);
        console::data_line(format!("{word}: {files} files that pipe placed in `{}`", folder.display()));
    }
    for path in &found.left {
        console::hint(format!(
            "`{}` is left: no result any more, but edited",
            relative(Path::new(path)).display()
        ));
    }
    console::hint(verdict(&found, args));
    Ok(OK)
}

/// What the lock files of the pipelines on record name.
fn locked(cache: &Cache) -> Result<Vec<Digest>, CliError> {
    let mut paths = lockfile::registered(&cache.layout);
    for id in cache.runs.ids().map_err(|error| CliError::failed(&error))? {
        // A damaged record is told by the collector.
        if let Ok(Some(run)) = cache.runs.load_news(&id) {
            paths.insert(lockfile::path_of(Path::new(&run.file)));
        }
    }
    let mut roots = Vec::new();
    for path in paths {
        // A lock file that cannot be read must not cost the results that it names.
        let lock = LockFile::read(&path).map_err(|error| {
            CliError::usage(
                format!("{error}; what it names cannot be kept"),
                "`pipe lock` computes it again, or remove it",
            )
        })?;
        roots.extend(lock.iter().flat_map(LockFile::roots));
    }
    Ok(roots)
}

/// A path as it is seen from here.
fn relative(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

fn verdict(found: &Collection, args: &GcArgs) -> String {
    let size = console::bytes(found.garbage_bytes());
    match (found.garbage.is_empty(), args.yes) {
        (true, _) => "nothing to collect".to_owned(),
        (false, false) => format!("{size} would go; nothing was removed, `pipe gc --yes` does it"),
        (false, true) if args.grace.is_zero() => format!("{size} removed"),
        (false, true) => {
            let grace = console::duration(args.grace);
            format!(
                "{size} removed; what was moved to {STATE}/quarantine is deleted by the first `pipe gc --yes` after {grace}"
            )
        }
    }
}

fn table(title: &str, groups: &[Group]) {
    if groups.is_empty() {
        return;
    }
    console::data_line(title);
    for Group { thing, reason, count, bytes: size } in groups {
        console::data_line(format!("  {thing:<11} {count:>8}  {:>10}  {reason}", console::bytes(*size)));
    }
}

fn verify(args: &VerifyArgs) -> Result<u8, CliError> {
    let found = open()?.verify().map_err(|error| CliError::failed(&error))?;
    let code = if found.damage.is_empty() { OK } else { STAGE_FAILED };
    if args.json {
        let value = serde_json::to_value(&found).map_err(|error| CliError::failed(&error))?;
        json(&value);
        return Ok(code);
    }
    for damage in &found.damage {
        let needed = if damage.needed_by.is_empty() {
            String::new()
        } else {
            format!("; needed by {}", damage.needed_by.iter().cloned().collect::<Vec<_>>().join(", "))
        };
        let (part, remedy) = (damage.part.word(), damage.part.remedy());
        console::data_line(format!("damaged {part} {}: {}{needed}; {remedy}", damage.name, damage.reason));
    }
    let Verification { objects, bytes: size, results, items, trees, placings, runs, damage } = &found;
    console::data_line(format!(
        "{objects} objects ({}), {results} results, {items} items, {trees} materialised trees, {placings} placed folders, \
         {runs} runs: {}",
        console::bytes(*size),
        if damage.is_empty() { "all whole".to_owned() } else { format!("{} damaged", damage.len()) }
    ));
    if !damage.is_empty() {
        console::hint(format!(
            "what is damaged was moved to {STATE}/quarantine; run the pipeline to make it again"
        ));
    }
    Ok(code)
}

fn size(args: &SizeArgs) -> Result<u8, CliError> {
    let usage = open()?.usage().map_err(|error| CliError::failed(&error))?;
    if args.json {
        let value = serde_json::to_value(&usage).map_err(|error| CliError::failed(&error))?;
        json(&value);
        return Ok(OK);
    }
    stages(&usage);
    let parts = [
        (usage.results, "results of these stages, each object once"),
        (usage.manifests, "their manifests and listings"),
        (usage.items, "memoised items, beyond the results"),
        (usage.other_objects, "other objects: earlier results, and what nothing needs"),
        (usage.checkpoints, "checkpoints"),
        (usage.trees, "materialised trees, beyond their links to objects"),
        (usage.quarantine, "quarantine"),
        (usage.rest, "records, work folders and the rest"),
        (usage.total, "in all"),
        (usage.on_disk, "on disk"),
    ];
    for (size, what) in parts {
        console::data_line(format!("{:>10}  {what}", console::bytes(size)));
    }
    Ok(OK)
}

fn stages(usage: &Usage) {
    let mut pipeline = None;
    for stage in &usage.stages {
        if pipeline != Some(&stage.pipeline) {
            console::data_line(format!("{:>10}  {:>10}  {}", "logical", "unique", stage.pipeline));
            pipeline = Some(&stage.pipeline);
        }
        let (logical, unique) = (console::bytes(stage.logical), console::bytes(stage.unique));
        console::data_line(format!("{logical:>10}  {unique:>10}    {}", stage.stage));
    }
    if pipeline.is_some() {
        console::data_line("");
    }
}

/// The cache of the current folder, which must be there: these commands have nothing to say of an empty one.
fn open() -> Result<Cache, CliError> {
    let root = Path::new(STATE);
    if !root.is_dir() {
        let here = std::env::current_dir().unwrap_or_default();
        return Err(CliError::usage(
            format!("there is no cache in `{}`", here.display()),
            "work in the folder in which you run your pipelines, or name it with -C",
        ));
    }
    Cache::open(root).map_err(|error| CliError::failed(&error))
}

fn json(value: &serde_json::Value) {
    console::data_line(format!("{value:#}"));
}

/// Reads `90s`, `30m`, `24h`, `7d`.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    seconds
        .into_iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number and s, m, h or d, e.g. 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "24", "h", "-1h", "1.5h", "1w", "99999999999999999d"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
