//! [`Pipeline`] to [`Plan`]: kinds found, parameters typed, references resolved, edges type-checked, cycles refused.

use crate::matrix::StageId;
use crate::pipeline::Pipeline;
use crate::problem::{Problem, Problems};
use crate::reference::Reference;
use crate::yaml::{Key, Node, NodeId};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use pipe_stages::artifact::{Ports, Resources};
use pipe_stages::stage::{AnyStage, ConfiguredStage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

mod configure;
mod connect;

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
}

pub struct PlannedStage {
    pub id: StageId,
    pub seed: Option<u64>,
    pub resources: Resources,
    kind: &'static dyn AnyStage,
    /// Parameters as JSON and the names of open inputs, until somebody asks for more.
    unread: Option<(String, Vec<String>)>,
    configured: OnceLock<(Box<dyn ConfiguredStage>, Ports)>,
}

impl PlannedStage {
    pub fn new(
        id: StageId,
        kind: &'static dyn AnyStage,
        stage: Box<dyn ConfiguredStage>,
        ports: Ports,
        seed: Option<u64>,
    ) -> Self {
        let resources = ports.resources;
        Self { id, seed, resources, kind, unread: None, configured: OnceLock::from((stage, ports)) }
    }

    /// A stage that was planned before, by this very program: `params` is what [`ConfiguredStage::params`] gave.
    pub fn restore(
        id: StageId,
        kind: &'static dyn AnyStage,
        params: String,
        open_inputs: Vec<String>,
        seed: Option<u64>,
        resources: Resources,
    ) -> Self {
        let unread = Some((params, open_inputs));
        Self { id, seed, resources, kind, unread, configured: OnceLock::new() }
    }

    /// All that [`PlannedStage::restore`] needs.
    pub fn to_stored(&self) -> (StageId, &'static str, String, Vec<String>, Option<u64>, Resources) {
        let (params, open_inputs) = self.unread.clone().unwrap_or_else(|| {
            let open: Vec<String> = self
                .ports()
                .inputs
                .iter()
                .filter(|port| port.artifact.is_none())
                .map(|port| port.name.to_string())
                .collect();
            (self.stage().params().to_string(), open)
        });
        (self.id.clone(), self.kind(), params, open_inputs, self.seed, self.resources)
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
            let (params, open_inputs) = self.unread.as_ref().expect("a stage is configured or unread");
            let mut json = serde_json::Deserializer::from_str(params);
            let mut decoder = <dyn erased_serde::Deserializer>::erase(&mut json);
            let stage =
                self.kind.configure(&mut decoder).expect("a stage reads the parameters that it wrote");
            let mut ports = stage.ports();
            ports.open(open_inputs.iter().cloned());
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
                let Planner { graph, .. } = planner;
                let params = pipeline.scope.params.iter().map(|(name, node)| (name.clone(), node.to_json()));
                Ok(Self {
                    name: pipeline.name.clone(),
                    file: pipeline.file.clone(),
                    params: params.collect(),
                    overrides: pipeline.overrides.clone(),
                    graph,
                    order,
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
