//! [`Pipeline`] to [`Plan`]: kinds found, parameters typed, references resolved, edges type-checked, cycles refused.

use crate::decode::Decoder;
use crate::matrix::StageId;
use crate::pipeline::Pipeline;
use crate::problem::{Problem, Problems};
use crate::reference::Reference;
use crate::yaml::{Key, Node, NodeId};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use pipe_stages::artifact::{Ports, Resources};
use pipe_stages::registry;
use pipe_stages::stage::{AnyStage, ConfiguredStage};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

mod configure;
mod connect;
mod limits;

pub use limits::Limits;

/// A checked graph of configured stages, free of cycles. Running it cannot fail on wiring.
pub struct Plan {
    pub name: String,
    pub file: PathBuf,
    /// Params as they are used, for the record: stages have theirs filled in.
    pub params: BTreeMap<String, serde_json::Value>,
    /// Where params did not come from the file, e.g. `--set epochs=9`.
    pub overrides: Vec<String>,
    pub graph: DiGraph<PlannedStage, Edge>,
    /// Every stage after all it reads from; otherwise in the order of the file.
    pub order: Vec<NodeIndex>,
    /// What works but is seldom meant, at its places; nothing in a plan that was read back.
    pub advice: Vec<Problem>,
}

pub struct PlannedStage {
    pub id: StageId,
    pub seed: Option<u64>,
    pub resources: Resources,
    pub limits: Limits,
    kind: &'static dyn AnyStage,
    /// Parameters as written, `${…}` filled in.
    with: Node,
    /// Names of the inputs of a stage that takes any.
    open_inputs: Vec<String>,
    configured: OnceLock<(Box<dyn ConfiguredStage>, Ports)>,
}

/// A planned stage as it is kept from one run to the next.
#[derive(Serialize, Deserialize)]
pub struct StoredStage {
    id: StageId,
    seed: Option<u64>,
    resources: Resources,
    limits: Limits,
    kind: String,
    with: Node,
    open_inputs: Vec<String>,
}

impl PlannedStage {
    pub fn to_stored(&self) -> StoredStage {
        StoredStage {
            id: self.id.clone(),
            seed: self.seed,
            resources: self.resources,
            limits: self.limits,
            kind: self.kind().to_owned(),
            with: self.with.clone(),
            open_inputs: self.open_inputs.clone(),
        }
    }

    /// The stage that this very program stored; it is configured when somebody asks for it. `None` if there is no such
    /// kind.
    pub fn restore(stored: StoredStage) -> Option<Self> {
        let StoredStage { id, seed, resources, limits, kind, with, open_inputs } = stored;
        let kind = registry::find(&kind)?;
        Some(Self { id, seed, resources, limits, kind, with, open_inputs, configured: OnceLock::new() })
    }

    pub fn kind(&self) -> &'static str {
        self.kind.kind()
    }

    pub fn stage(&self) -> &dyn ConfiguredStage {
        &*self.configured().0
    }

    pub fn ports(&self) -> &Ports {
        &self.configured().1
    }

    fn configured(&self) -> &(Box<dyn ConfiguredStage>, Ports) {
        self.configured.get_or_init(|| {
            let failed = Cell::new(None);
            let mut decoder = <dyn erased_serde::Deserializer>::erase(Decoder::new(&self.with, &failed));
            let stage = self.kind.configure(&mut decoder).expect("these parameters were read before");
            let mut ports = stage.ports();
            ports.open(self.open_inputs.iter().cloned());
            ports.resources = self.resources;
            (stage, ports)
        })
    }
}

/// An output port of the source feeds an input port of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub output: String,
    pub input: String,
    /// Position among the artifacts of an input port that takes many.
    pub position: usize,
    /// It is all that a pattern such as `train[*]` names, of an input that takes any artifact: a program finds it where
    /// it would find several.
    pub alone: bool,
}

impl Plan {
    pub fn new(pipeline: &Pipeline) -> Result<Self, Problems> {
        let mut planner = Planner { problems: pipeline.problems.clone(), ..Planner::default() };
        planner.configure_all(pipeline);
        planner.connect_all();
        let order = planner.order();
        let shown = pipeline.file.display().to_string();
        match order {
            Some(order) if planner.problems.is_empty() => {
                let Planner { graph, advice, .. } = planner;
                let params = pipeline.scope.params.iter().map(|(name, node)| (name.clone(), node.to_json()));
                Ok(Self {
                    name: pipeline.name.clone(),
                    file: pipeline.file.clone(),
                    params: params.collect(),
                    overrides: pipeline.overrides.clone(),
                    graph,
                    order,
                    advice,
                })
            }
            _ => Err(Problems::new(&shown, &pipeline.text, planner.problems)),
        }
    }

    pub fn stages(&self) -> impl Iterator<Item = (NodeIndex, &PlannedStage)> {
        self.order.iter().map(|&node| (node, &self.graph[node]))
    }

    /// Edges into a stage, sorted by port and position.
    pub fn inputs(&self, node: NodeIndex) -> Vec<(NodeIndex, &Edge)> {
        let mut edges: Vec<_> = self
            .graph
            .edges_directed(node, petgraph::Direction::Incoming)
            .map(|edge| (edge.source(), edge.weight()))
            .collect();
        edges.sort_by(|(_, a), (_, b)| (&a.input, a.position).cmp(&(&b.input, b.position)));
        edges
    }

    /// The stages that `pattern` names: `train`, `train[fold=0]`, `train[*]`. Empty if there is none.
    pub fn matching(&self, pattern: &str) -> Vec<NodeIndex> {
        let Ok(reference) = Reference::parse(pattern) else { return Vec::new() };
        self.stages()
            .filter(|(_, planned)| reference.port.is_none() && reference.selects_or_names(&planned.id))
            .map(|(node, _)| node)
            .collect()
    }

    /// The given stages and all they depend on.
    pub fn with_ancestors(&self, targets: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        self.reachable(targets, petgraph::Direction::Incoming)
    }

    pub fn with_descendants(&self, targets: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        self.reachable(targets, petgraph::Direction::Outgoing)
    }

    fn reachable(&self, from: &[NodeIndex], direction: petgraph::Direction) -> BTreeSet<NodeIndex> {
        let mut found = BTreeSet::new();
        let mut open = from.to_vec();
        while let Some(node) = open.pop() {
            if found.insert(node) {
                open.extend(self.graph.neighbors_directed(node, direction));
            }
        }
        found
    }
}

/// A plan in the making.
#[derive(Default)]
struct Planner {
    problems: Vec<Problem>,
    advice: Vec<Problem>,
    graph: DiGraph<PlannedStage, Edge>,
    /// All instances of a stage of the file, in order.
    instances: BTreeMap<String, Vec<NodeIndex>>,
    /// Inputs as written, `${…}` filled in.
    wires: BTreeMap<NodeIndex, Wires>,
    /// Stages of the file that could not be configured: references to them are not told again.
    broken: BTreeSet<String>,
    /// Where the stages are named in the file.
    name_ids: BTreeMap<String, NodeId>,
}

struct Wires {
    name: Key,
    inputs: Vec<(Key, Vec<Node>)>,
}

impl Planner {
    fn order(&mut self) -> Option<Vec<NodeIndex>> {
        if toposort(&self.graph, None).is_ok() {
            return Some(self.stable_order());
        }
        for component in tarjan_scc(&self.graph) {
            let node = component[0];
            if component.len() > 1 || self.graph.contains_edge(node, node) {
                let path = self.cycle(&component);
                let names: Vec<_> = path.iter().map(|&node| self.graph[node].id.to_string()).collect();
                let at = self.name_ids.get(&self.graph[path[0]].id.base).copied().unwrap_or_default();
                self.problems.push(
                    Problem::new(at, format!("stages need each other in a circle: {}", names.join(" → ")))
                        .label("it goes through here")
                        .help("cut the circle: one of these inputs must come from somewhere else"),
                );
            }
        }
        None
    }

    /// A topological order that keeps the order of the file where it may.
    fn stable_order(&self) -> Vec<NodeIndex> {
        let incoming = |node| self.graph.neighbors_directed(node, petgraph::Direction::Incoming).count();
        let mut waiting: Vec<usize> = self.graph.node_indices().map(incoming).collect();
        let mut ready: BTreeSet<NodeIndex> =
            self.graph.node_indices().filter(|node| waiting[node.index()] == 0).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for next in self.graph.neighbors(node) {
                waiting[next.index()] -= 1;
                if waiting[next.index()] == 0 {
                    ready.insert(next);
                }
            }
        }
        order
    }

    /// A shortest circle through the first stage of a strongly connected component, that stage at both ends.
    fn cycle(&self, component: &[NodeIndex]) -> Vec<NodeIndex> {
        let start = component.iter().copied().min().expect("a component has a node");
        let mut came_from = BTreeMap::new();
        let mut open = std::collections::VecDeque::from([start]);
        while let Some(node) = open.pop_front() {
            for next in self.graph.neighbors(node).filter(|next| component.contains(next)) {
                if next == start {
                    let mut path = vec![start, node];
                    let mut at = node;
                    while at != start {
                        at = came_from[&at];
                        path.push(at);
                    }
                    if node == start {
                        path.truncate(2);
                    }
                    path.reverse();
                    return path;
                }
                if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert(node);
                    open.push_back(next);
                }
            }
        }
        vec![start]
    }
}
