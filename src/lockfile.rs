//! The lock file: what each stage of a pipeline gives, beside the pipeline file and kept in git with it.
//!
//! One line of JSON a stage, sorted by name, so that a change is a line of a diff and two branches that changed other
//! stages merge. It can be computed again from the cache at any time.

use crate::explain;
use crate::key::{self, Keyed};
use crate::plan::Plan;
use crate::run::{Summary, Workspace};
use crate::state::Known;
use petgraph::graph::NodeIndex;
use pipe_cache::{ActionKey, CacheError, Digest, Layout, Lookup, Manifest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Permissions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

const HEADER: &str =
    "# pipe lock file, format 1. `pipe run` keeps it up to date; commit it with the pipeline.";

/// What one stage gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    pub stage: String,
    pub key: ActionKey,
    /// Output port → tree.
    pub outputs: BTreeMap<String, Digest>,
}

impl Locked {
    fn of(plan: &Plan, node: NodeIndex, (key, outputs): (ActionKey, &BTreeMap<String, Digest>)) -> Self {
        Self { stage: plan.graph[node].id.to_string(), key, outputs: outputs.clone() }
    }

    fn line(&self) -> String {
        serde_json::to_string(self).expect("names and digests are JSON") + "\n"
    }
}

/// The lock file of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockFile {
    stages: BTreeMap<String, Locked>,
}

/// Why a lock file cannot be used.
#[derive(Debug, Error)]
pub enum LockError {
    #[error("`{path}:{line}` is a merge conflict")]
    Conflict { path: String, line: usize },
    #[error("`{path}:{line}` is not a line of a lock file: {reason}")]
    Malformed { path: String, line: usize, reason: String },
    #[error("`{path}` changed while stages ran")]
    Changed { path: String },
    #[error("cannot {action} `{path}`: {source}")]
    Io { action: &'static str, path: String, source: io::Error },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What became of the lock file at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// It says what the run gave, and did so before.
    Unchanged,
    Written,
    /// The results of the run are not all on record, as an input changed while a stage ran.
    NotOnRecord,
    /// Params were overridden: the results are not those of the file as it is written.
    Overridden,
}

/// `pipelines/decathlon.yaml` → `pipelines/decathlon.lock`.
pub fn path_of(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}

/// Makes the collector of garbage keep what a lock file names, though no run of its pipeline is on record here.
pub fn register(layout: &Layout, path: &Path) -> Result<(), CacheError> {
    if registered(layout).contains(path) {
        return Ok(());
    }
    let list = layout.lock_files();
    let append = || {
        let mut file = fs_err::OpenOptions::new().append(true).create(true).open(&list)?;
        // Whole lines, which several processes may write at once.
        file.write_all(format!("{}\n", path.display()).as_bytes())
    };
    append().map_err(|source| CacheError::Io { action: "register the lock file", source })
}

/// The lock files that were registered.
pub fn registered(layout: &Layout) -> BTreeSet<PathBuf> {
    let text = std::fs::read_to_string(layout.lock_files()).unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

impl LockFile {
    /// Reads a lock file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&shown, &text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::Io { action: "read", path: shown, source }),
        }
    }

    fn parse(path: &str, text: &str) -> Result<Self, LockError> {
        let mut stages = BTreeMap::new();
        let lines = || text.lines().enumerate().map(|(at, line)| (at + 1, line));
        if let Some((line, _)) = lines().find(|(_, line)| is_conflict(line)) {
            return Err(LockError::Conflict { path: path.into(), line });
        }
        let malformed = |line, reason| LockError::Malformed { path: path.into(), line, reason };
        for (line, text) in lines() {
            if line == 1 {
                if text != HEADER {
                    return Err(malformed(line, format!("it begins with {text:?}, not with {HEADER:?}")));
                }
                continue;
            }
            let locked: Locked =
                serde_json::from_str(text).map_err(|error| malformed(line, error.to_string()))?;
            // Ports become folders of the results.
            let is_plain = |port: &String| !port.is_empty() && !port.contains('/') && !port.starts_with('.');
            if let Some(port) = locked.outputs.keys().find(|port| !is_plain(port)) {
                return Err(malformed(line, format!("`{port}` cannot name an output")));
            }
            let stage = locked.stage.clone();
            if stages.insert(stage.clone(), locked).is_some() {
                return Err(malformed(line, format!("stage `{stage}` is there twice")));
            }
        }
        Ok(Self { stages })
    }

    fn render(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for locked in self.stages.values() {
            text += &locked.line();
        }
        text
    }

    /// What the run gave: every wanted stage that has a result.
    pub fn of(plan: &Plan, wanted: &BTreeSet<NodeIndex>, summary: &Summary, known: &Known) -> Self {
        let locked = wanted.iter().filter_map(|&node| {
            let locked = Locked::of(plan, node, summary.result(node, known)?);
            Some((locked.stage.clone(), locked))
        });
        Self { stages: locked.collect() }
    }

    pub fn get(&self, stage: &str) -> Option<&Locked> {
        self.stages.get(stage)
    }

    /// Keys and trees of all stages, which the collector of garbage keeps.
    pub fn roots(&self) -> impl Iterator<Item = Digest> + '_ {
        self.stages.values().flat_map(|locked| locked.outputs.values().copied().chain([locked.key.0]))
    }

    /// Writes the file whole unless it holds exactly this. `true` if it was written.
    pub fn write(&self, path: &Path) -> Result<bool, LockError> {
        let text = self.render();
        if std::fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes()) {
            return Ok(false);
        }
        write(&text, path)?;
        Ok(true)
    }
}

/// Writes the text of a lock file in place of what is there.
fn write(text: &str, path: &Path) -> Result<(), LockError> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any other file that the user makes; the system takes away what the umask says.
        let mut builder = tempfile::Builder::new();
        let mut file = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok::<_, io::Error>(())
    };
    let error = |source| LockError::Io { action: "write", path: path.display().to_string(), source };
    write().map_err(error)
}

/// Lines that git leaves in a file that it could not merge.
fn is_conflict(line: &str) -> bool {
    ["<<<<<<< ", "======= ", ">>>>>>> ", "||||||| "].iter().any(|mark| line.starts_with(mark.trim_end()))
}

/// Writes what a run gave. `whole` is a run of all stages, which replaces the file; one of some stages replaces theirs
/// and keeps the others that the pipeline still has.
pub fn update(
    plan: &Plan,
    wanted: &BTreeSet<NodeIndex>,
    summary: &Summary,
    known: &Known,
    whole: bool,
) -> Result<Update, LockError> {
    let path = path_of(&plan.file);
    if !plan.overrides.is_empty() {
        return Ok(Update::Overridden);
    }
    let before = std::fs::read_to_string(&path).ok();
    // The state holds only while the lock file is as the run before left it: then only lines of this run differ.
    let patched = before.as_deref().filter(|_| known.locked).and_then(|before| patch(before, plan, summary));
    let text = match patched {
        Some(text) => text,
        None if known.is_part() => return Err(LockError::Changed { path: path.display().to_string() }),
        None => whole_text(plan, wanted, summary, known, (!whole).then_some(&path))?,
    };
    if before.is_some_and(|before| before == text) {
        return Ok(Update::Unchanged);
    }
    if summary.looked_at.values().flatten().any(|made| made.trace.is_none()) {
        return Ok(Update::NotOnRecord);
    }
    write(&text, &path)?;
    Ok(Update::Written)
}

/// The text with the lines of the stages that were looked at as they are now. `None` if one of them has no line.
fn patch(text: &str, plan: &Plan, summary: &Summary) -> Option<String> {
    let mut lines = HashMap::new();
    for (&node, made) in &summary.looked_at {
        let made = made.as_ref()?;
        let line = Locked::of(plan, node, (made.key, &made.outputs)).line();
        lines.insert(name_part(&line)?.to_owned(), line);
    }
    let mut patched = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let now = name_part(line).and_then(|name| lines.remove(name));
        patched.push_str(now.as_deref().unwrap_or(line));
    }
    lines.is_empty().then_some(patched)
}

/// The beginning of a line, which names the stage.
fn name_part(line: &str) -> Option<&str> {
    line.starts_with("{\"stage\":").then(|| line.find(",\"key\":")).flatten().map(|end| &line[..end])
}

/// All that the run gave, and what the file at `kept` says of other stages of the plan.
fn whole_text(
    plan: &Plan,
    wanted: &BTreeSet<NodeIndex>,
    summary: &Summary,
    known: &Known,
    kept: Option<&Path>,
) -> Result<String, LockError> {
    let mut lock = LockFile::of(plan, wanted, summary, known);
    if let Some(before) = kept.map(LockFile::read).transpose()?.flatten() {
        let names: BTreeSet<String> = plan.stages().map(|(_, planned)| planned.id.to_string()).collect();
        for (name, locked) in before.stages.into_iter().filter(|(name, _)| names.contains(name)) {
            lock.stages.entry(name).or_insert(locked);
        }
    }
    Ok(lock.render())
}

/// Where the lock file does not fit the pipeline as it stands, as sentences; none if it fits.
///
/// Needs no results: each stage is keyed with the locked outputs of the stages that it reads from, so a fresh clone
/// can check its lock file. Where the cache holds a result for a locked key, it must be the locked one.
pub fn misfits(plan: &Plan, workspace: &Workspace, lock: &LockFile) -> Result<Vec<String>, LockError> {
    let mut misfits = Vec::new();
    for (node, planned) in plan.stages() {
        let name = planned.id.to_string();
        let Some(locked) = lock.get(&name) else {
            misfits.push(format!("stage `{name}` is not in the lock file"));
            continue;
        };
        let ports: BTreeSet<&str> = planned.ports().outputs.iter().map(|port| port.name.as_ref()).collect();
        if ports != locked.outputs.keys().map(String::as_str).collect() {
            misfits.push(format!("stage `{name}` has other outputs than in the lock file"));
            continue;
        }
        let upstream = |source: NodeIndex, output: &str| {
            lock.get(&plan.graph[source].id.to_string())?.outputs.get(output).copied()
        };
        let inputs = plan.inputs(node);
        if inputs.iter().any(|(source, edge)| upstream(*source, &edge.output).is_none()) {
            // Told at the stage above; without its outputs this one has no key.
            continue;
        }
        let keyed = Keyed::new(plan, node, &workspace.cache, &workspace.stats, |source, edge| {
            upstream(source, &edge.output).expect("every output that is read was just found")
        })?;
        if keyed.key != locked.key {
            misfits.push(format!(
                "stage `{name}` has changed{}",
                because(plan, node, workspace, &keyed, locked)?
            ));
        } else if let Lookup::Hit(record) = workspace.cache.actions.lookup(&keyed.key)? {
            for (port, tree) in record.outputs.iter().filter(|(port, tree)| locked.outputs[*port] != **tree) {
                let (old, new) = (locked.outputs[port].short(), tree.short());
                misfits.push(format!(
                    "output `{port}` of stage `{name}` is {old} in the lock file but {new} in the cache"
                ));
            }
        }
    }
    let names: BTreeSet<String> = plan.stages().map(|(_, planned)| planned.id.to_string()).collect();
    let gone = lock.stages.keys().filter(|name| !names.contains(*name));
    misfits.extend(gone.map(|name| format!("stage `{name}` is in the lock file but not in the pipeline")));
    Ok(misfits)
}

/// In what a stage differs from the locked one, if the cache still knows that.
fn because(
    plan: &Plan,
    node: NodeIndex,
    workspace: &Workspace,
    keyed: &Keyed,
    locked: &Locked,
) -> Result<String, LockError> {
    let cache = &workspace.cache;
    let Lookup::Hit(record) = cache.actions.lookup(&locked.key)? else { return Ok(String::new()) };
    let Ok(manifest) = Manifest::get(&cache.store, &record.manifest) else { return Ok(String::new()) };
    keyed.externals.store(cache)?;
    let reasons = explain::describe(&keyed.manifest.diff(&manifest), &key::sources(plan, node), &cache.store);
    Ok(format!(": {}", reasons.join("; ")))
}
