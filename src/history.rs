//! What earlier runs did: a run by the name that people give it, each stage's last result, and facts about where a run
//! happens.

use pipe_cache::{
    ActionKey, Cache, CacheError, Digest, Manifest, Outcome, RunId, RunRecord, StageRecord, Warning,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use thiserror::Error;

/// How far back the last result of a stage is looked for.
const RUNS_SEARCHED: usize = 200;

/// The last result of a stage that is on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastResult {
    pub key: ActionKey,
    pub manifest: Digest,
    pub outputs: BTreeMap<String, Digest>,
    /// How long it took to make.
    pub took: Option<Duration>,
}

/// The last result of each of the named stages of a pipeline, from its runs, newest first.
pub fn last_results(
    cache: &Cache,
    pipeline: &str,
    stages: &BTreeSet<String>,
) -> Result<(BTreeMap<String, LastResult>, Vec<Warning>), CacheError> {
    let mut found = BTreeMap::new();
    let mut warnings = Vec::new();
    for id in cache.runs.ids()?.iter().take(RUNS_SEARCHED) {
        if found.len() == stages.len() {
            break;
        }
        match cache.runs.load(id) {
            Ok(Some(run)) if run.pipeline == pipeline => collect(&run, stages, &mut found),
            Ok(_) => {}
            Err(error) => warnings.push(Warning { path: cache.layout.run(id), reason: error.to_string() }),
        }
    }
    Ok((found, warnings))
}

fn collect(run: &RunRecord, stages: &BTreeSet<String>, found: &mut BTreeMap<String, LastResult>) {
    for stage in &run.stages {
        let finished = matches!(stage.outcome, Outcome::Ran | Outcome::Cached);
        if let (true, Some(key), Some(manifest)) = (finished, stage.key, stage.manifest)
            && stages.contains(&stage.name)
            && !found.contains_key(&stage.name)
        {
            let last = LastResult { key, manifest, outputs: stage.outputs.clone(), took: stage.duration };
            found.insert(stage.name.clone(), last);
        }
    }
}

/// The manifest of a last result, if it is still in the cache.
pub fn manifest(cache: &Cache, last: &LastResult) -> Option<Manifest> {
    Manifest::get(&cache.store, &last.manifest).ok()
}

/// Why no run was found.
#[derive(Debug, Error)]
pub enum FindError {
    #[error("no run is on record here")]
    NoRuns,
    #[error("`latest~{back}` goes back too far: {count} runs are on record")]
    TooFarBack { back: usize, count: usize },
    #[error("the id of more than one run begins with `{prefix}`: {}", .found.join(", "))]
    Ambiguous { prefix: String, found: Vec<String> },
    #[error("no run is called `{0}`")]
    Unknown(String),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// How a run can be named, for help texts.
pub const RUN_NAMES: &str =
    "name a run by its tag, `latest`, `latest~1` or the beginning of its id; `pipe history` lists them";

/// The run that a text names: `latest`, `latest~N` for the Nth before it, a tag, or the beginning of an id.
pub fn find_run(cache: &Cache, name: &str) -> Result<RunId, FindError> {
    let mut ids = cache.runs.ids()?;
    if ids.is_empty() {
        return Err(FindError::NoRuns);
    }
    if let Some(back) = steps_back(name) {
        let count = ids.len();
        return if back < count {
            Ok(ids.swap_remove(back))
        } else {
            Err(FindError::TooFarBack { back, count })
        };
    }
    if let Some(run) = cache.runs.tags()?.remove(name) {
        return Ok(run);
    }
    let mut found: Vec<_> = ids.into_iter().filter(|id| id.to_string().starts_with(name)).collect();
    match found.len() {
        0 => Err(FindError::Unknown(name.to_owned())),
        1 => Ok(found.remove(0)),
        _ => {
            let found = found.iter().take(3).map(ToString::to_string).collect();
            Err(FindError::Ambiguous { prefix: name.to_owned(), found })
        }
    }
}

/// How many runs before the latest a name means, if it is of that form.
fn steps_back(name: &str) -> Option<usize> {
    match name.strip_prefix("latest")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

/// Whether the stage did something in its run, and so has a log there.
pub fn acted(stage: &StageRecord) -> bool {
    matches!(stage.outcome, Outcome::Ran | Outcome::Failed | Outcome::Interrupted)
}

/// Versions of what does the work of a run, as far as they are known by now.
pub fn versions() -> BTreeMap<String, String> {
    let mut versions = pipe_stages::machine::versions();
    versions.insert("pipe".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    versions
}

/// Name of this machine, for records.
pub fn host() -> String {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name =
            file.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
        name.map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unknown".into())
    });
    HOST.clone()
}

/// The git commit of the working directory, with `+` if something is not committed; `None` outside a checkout.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if dirty { commit + "+" } else { commit })
}
