//! What a run made, placed where its users look.

use super::Workspace;
use crate::pipeline::{Overrides, Pipeline};
use crate::plan::{Plan, PlannedStage};
use petgraph::graph::NodeIndex;
use pipe_cache::{CacheError, Digest, Owner};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What [`place_results`] did.
#[derive(Debug)]
pub struct Results {
    /// How many files were written.
    pub written: usize,
    /// The files of each stage, by their paths below the folder.
    pub files: BTreeMap<NodeIndex, Vec<String>>,
    /// `STAGE/OUTPUT` of earlier results that the pipeline has no more.
    pub stale: Vec<String>,
}

/// The other pipeline file, if there is one, whose results a folder holds: it placed some there last, and is still there
/// with the name of this plan.
pub fn other_owner(plan: &Plan, workspace: &Workspace, folder: &Path) -> Result<Option<PathBuf>, CacheError> {
    let Some(file) = workspace.cache.store.owner(folder)?.map(PathBuf::from) else { return Ok(None) };
    let (Ok(there), Ok(here)) = (file.canonicalize(), plan.file.canonicalize()) else { return Ok(None) };
    if there == here {
        return Ok(None);
    }
    let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
    let other = Pipeline::parse(&file, &text, &Overrides::default());
    // One that cannot be read at the moment keeps its results.
    Ok(other.map_or(true, |other| other.name == plan.name).then_some(file))
}

/// Makes `results/` hold what the run made: `results/PIPELINE/STAGE/OUTPUT/`. Warns of files of the user's that were in
/// the way. A plan that is `whole` has all stages of its file: what stands there for others is out of date.
pub fn place_results(
    plan: &Plan,
    whole: bool,
    workspace: &Workspace,
    outputs: &BTreeMap<NodeIndex, &BTreeMap<String, Digest>>,
    folder: &Path,
    warn: &mut dyn FnMut(String),
) -> Result<Results, CacheError> {
    let mut trees = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (node, ports) in outputs {
        let stage = plan.graph[*node].id.folder();
        for (port, tree) in *ports {
            let name = format!("{stage}/{port}");
            trees.insert(name.clone(), *tree);
            names.insert(name, *node);
        }
    }
    let all: Option<BTreeSet<String>> = whole.then(|| {
        let ports = |(_, planned): (_, &PlannedStage)| {
            let stage = planned.id.folder();
            planned.ports().outputs.iter().map(|port| format!("{stage}/{}", port.name)).collect::<Vec<_>>()
        };
        plan.stages().flat_map(ports).collect()
    });
    let file = std::path::absolute(&plan.file).unwrap_or_else(|_| plan.file.clone());
    let owner = Owner { file: &file.to_string_lossy(), names: all.as_ref() };
    let placed = workspace.cache.store.place(&trees, folder, owner, &workspace.stats)?;
    for path in &placed.kept {
        warn(format!(
            "a result was edited, or a file stood where one goes; it is kept as `{}`",
            folder.join(path).display()
        ));
    }
    for path in &placed.left {
        warn(format!("`{}` is left: no result any more, but edited", folder.join(path).display()));
    }
    let mut files: BTreeMap<NodeIndex, Vec<String>> = BTreeMap::new();
    for (name, paths) in placed.stand {
        files.entry(names[&name]).or_default().extend(paths.iter().map(|path| format!("{name}/{path}")));
    }
    Ok(Results { written: placed.written.len(), files, stale: placed.stale })
}
