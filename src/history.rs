//! What earlier runs did: the record of each stage's last result, and facts about where a run happens.

use pipe_cache::{ActionKey, Cache, CacheError, Digest, Manifest, Outcome, RunRecord, Warning};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// How far back the last result of a stage is looked for.
const RUNS_SEARCHED: usize = 200;

/// The last result of a stage that is on record.
#[derive(Debug, Clone)]
pub struct LastResult {
    pub key: ActionKey,
    pub manifest: Digest,
    pub outputs: BTreeMap<String, Digest>,
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
            let last = LastResult { key, manifest, outputs: stage.outputs.clone() };
            found.insert(stage.name.clone(), last);
        }
    }
}

/// The manifest of a last result, if it is still in the cache.
pub fn manifest(cache: &Cache, last: &LastResult) -> Option<Manifest> {
    Manifest::get(&cache.store, &last.manifest).ok()
}

/// Name of this machine, for records.
pub fn host() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".into())
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
