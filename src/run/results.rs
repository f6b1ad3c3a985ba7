//! What a run made, placed where its users look.

use super::Workspace;
use crate::plan::Plan;
use petgraph::graph::NodeIndex;
use pipe_cache::{CacheError, Digest};
use std::collections::BTreeMap;
use std::path::Path;

/// Makes `results/` hold what the run made: `results/PIPELINE/STAGE/OUTPUT/`. Returns what was written, and for each
/// stage the paths of its files below `folder`; warns of files of the user's that were in the way.
pub fn place_results(
    plan: &Plan,
    workspace: &Workspace,
    outputs: &BTreeMap<NodeIndex, &BTreeMap<String, Digest>>,
    folder: &Path,
    warn: &mut dyn FnMut(String),
) -> Result<(usize, BTreeMap<NodeIndex, Vec<String>>), CacheError> {
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
    let placed = workspace.cache.store.place(&trees, folder, &workspace.stats)?;
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
    Ok((placed.written.len(), files))
}
