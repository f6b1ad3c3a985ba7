//! Which stages need no second look: nothing that they depend on has changed since the last run.

use crate::plan::Plan;
use crate::state::Known;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use pipe_cache::{Cache, CacheError, Digest};
use std::collections::{BTreeMap, BTreeSet};

/// For each stage, by its index, whether it and all that it reads are as they were. What others will read of such a
/// stage, and what is to be placed anew in `results/`, is in the cache; else it must be made again.
pub fn current(
    plan: &Plan,
    wanted: &BTreeSet<NodeIndex>,
    forced: &BTreeSet<NodeIndex>,
    known: &Known,
    cache: &Cache,
) -> Result<Vec<bool>, CacheError> {
    let count = plan.graph.node_count();
    if known.traces.len() != count {
        return Ok(vec![false; count]);
    }
    let nodes = plan.graph.node_indices();
    let mut unchanged: Vec<bool> =
        nodes.map(|node| known.unchanged[node.index()] && !forced.contains(&node)).collect();
    let mut whole = BTreeSet::new();
    loop {
        let mut current = unchanged.clone();
        for &node in &plan.order {
            let mut sources = plan.graph.neighbors_directed(node, Direction::Incoming);
            current[node.index()] &=
                known.traces[node.index()].is_some() && sources.all(|source| current[source.index()]);
        }
        let mut lost = false;
        for (node, trees) in needed(plan, wanted, known, &current) {
            for tree in trees {
                if whole.contains(&tree) {
                    continue;
                }
                match cache.store.check_tree(&tree) {
                    Ok(()) => {
                        whole.insert(tree);
                    }
                    Err(error) if error.is_miss() => {
                        unchanged[node] = false;
                        lost = true;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !lost {
            return Ok(current);
        }
    }
}

/// Whether the part of the plan that is known is all that may have to run: no stage that reads from others beyond it.
pub fn part_suffices(plan: &Plan, known: &Known, cache: &Cache) -> Result<bool, CacheError> {
    let all = plan.order.iter().copied().collect();
    let current = current(plan, &all, &BTreeSet::new(), known, cache)?;
    Ok(known.border.iter().all(|node| current[node.index()]))
}

/// The outputs of current stages that stages which are not current read, or that do not stand in `results/`.
fn needed(
    plan: &Plan,
    wanted: &BTreeSet<NodeIndex>,
    known: &Known,
    current: &[bool],
) -> BTreeMap<usize, BTreeSet<Digest>> {
    let outputs = |node: usize| known.traces[node].as_ref().map(|trace| &trace.last.outputs);
    let mut needed: BTreeMap<usize, BTreeSet<Digest>> = BTreeMap::new();
    for edge in plan.graph.raw_edges() {
        let (source, target) = (edge.source().index(), edge.target());
        if current[source] && !current[target.index()] && wanted.contains(&target) {
            let tree = outputs(source).and_then(|outputs| outputs.get(&edge.weight.output));
            needed.entry(source).or_default().extend(tree);
        }
    }
    for node in wanted.iter().map(|node| node.index()) {
        if current[node] && !known.placed[node] {
            needed.entry(node).or_default().extend(outputs(node).into_iter().flat_map(BTreeMap::values));
        }
    }
    needed
}
