//! Stages of the file to configured stages: kind found, matrix expanded, `${…}` filled in, parameters typed.

use super::{PlannedStage, Planner, Wires};
use crate::decode::Decoder;
use crate::matrix::{self, StageId};
use crate::params::Scope;
use crate::pipeline::{Pipeline, StageDecl};
use crate::problem::{At, Problem, suggest};
use crate::yaml::{Node, NodeId, Value};
use petgraph::graph::NodeIndex;
use pipe_stages::artifact::Ports;
use pipe_stages::registry;
use pipe_stages::stage::{AnyStage, ConfiguredStage};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// What file systems take as one name, in bytes.
const LONGEST_NAME: usize = 255;

impl Planner {
    pub(super) fn configure_all(&mut self, pipeline: &Pipeline) {
        self.default_seed(pipeline);
        for key in &pipeline.unread {
            self.broken.insert(key.text.clone());
            self.instances.entry(key.text.clone()).or_default();
        }
        for decl in &pipeline.stages {
            let before = self.problems.len();
            let nodes = self.configure(decl, pipeline);
            self.instances.insert(decl.name.text.clone(), nodes);
            self.name_ids.insert(decl.name.text.clone(), decl.name.id);
            if self.problems.len() > before {
                self.broken.insert(decl.name.text.clone());
            }
        }
    }

    fn configure(&mut self, decl: &StageDecl, pipeline: &Pipeline) -> Vec<NodeIndex> {
        let kind = decl.uses.text().unwrap_or_default();
        let Some(entry) = registry::find(kind) else {
            let known: Vec<_> = registry::STAGES.iter().map(|stage| stage.kind()).collect();
            let (message, help) = match decl.uses.text() {
                Some(kind) => (
                    format!("stage `{}` uses the unknown kind `{kind}`", decl.name.text),
                    suggest(kind, known, "kinds"),
                ),
                None => (
                    format!(
                        "`uses` of stage `{}` must be one word, not {}",
                        decl.name.text,
                        decl.uses.describe()
                    ),
                    format!("known kinds: {}", known.join(", ")),
                ),
            };
            self.problems.push(Problem::new(decl.uses.id, message).label("no such kind").help(help));
            return Vec::new();
        };
        let combinations = matrix::expand(decl.matrix.as_ref(), &pipeline.scope, &mut self.problems);
        let mut nodes = Vec::new();
        for combination in &combinations {
            let (id, scope) = matrix::instance(&decl.name, combination, &pipeline.scope);
            let before = self.problems.len();
            if id.folder().split('/').any(|part| part.len() > LONGEST_NAME) {
                let message = format!("the name of `{id}` is too long for that of a folder");
                self.problems.push(Problem::new(decl.name.id, message).help("use shorter matrix values"));
                break;
            }
            if let Some(planned) = self.instance(id, entry, decl, &scope, &pipeline.seed) {
                let node = self.graph.add_node(planned);
                // Inputs that cannot be read were told; that they are missing would be told twice.
                if let Some(inputs) = &decl.inputs {
                    let inputs = inputs.iter().map(|(key, references)| {
                        let filled =
                            references.iter().map(|node| scope.fill(node, &mut self.problems)).collect();
                        (key.clone(), filled)
                    });
                    let wires = Wires { name: decl.name.clone(), inputs: inputs.collect() };
                    self.wires.insert(node, wires);
                }
                nodes.push(node);
            }
            if self.problems.len() > before {
                // The other combinations would only repeat it.
                break;
            }
        }
        nodes
    }

    fn instance(
        &mut self,
        id: StageId,
        entry: &'static dyn AnyStage,
        decl: &StageDecl,
        scope: &Scope,
        default_seed: &Node,
    ) -> Option<PlannedStage> {
        let before = self.problems.len();
        let mut with = scope.fill(&decl.with, &mut self.problems);
        // What could not be filled in is told; that it then has the wrong type would be told twice.
        let mut unfilled = false;
        for problem in &self.problems[before..] {
            if let At::Node(node) = problem.at {
                unfilled |= remove_holding(&mut with, node);
            }
        }
        let declared = decl.resources.as_ref().map(|node| scope.fill(node, &mut self.problems));
        let declared = declared.map(|node| self.resources(&id, &node)).unwrap_or_default();
        let limits = self.limits(&id, decl, scope);
        let stage = self.typed_params(&id, entry, with.clone(), decl, scope, unfilled)?;
        let mut ports = stage.ports();
        let mut open_inputs = Vec::new();
        if ports.open_inputs {
            open_inputs.extend(decl.inputs.iter().flatten().map(|(key, _)| key.text.clone()));
        }
        ports.open(open_inputs.iter().cloned());
        declared.apply(&mut ports.resources);
        let seed = self.seed(&id, decl, scope, default_seed, &ports);
        let resources = ports.resources;
        let configured = OnceLock::from((stage, ports));
        Some(PlannedStage { id, seed, resources, limits, kind: entry, with, open_inputs, configured })
    }

    /// Decodes parameters. After each problem the parameter it lies in is left out and the rest is tried again, so
    /// that all problems are told at once.
    fn typed_params(
        &mut self,
        id: &StageId,
        entry: &'static dyn AnyStage,
        mut with: Node,
        decl: &StageDecl,
        scope: &Scope,
        unfilled: bool,
    ) -> Option<Box<dyn ConfiguredStage>> {
        let before = self.problems.len();
        let name = decl.name.id;
        self.unknown_params(id, entry, &mut with);
        loop {
            let failed = Cell::new(None);
            let mut decoder = <dyn erased_serde::Deserializer>::erase(Decoder::new(&with, &failed));
            let error = match entry.configure(&mut decoder) {
                Ok(stage) => {
                    for problem in stage.check() {
                        let at = field(&with, problem.parameter).unwrap_or(name);
                        let message = format!("stage `{id}` ({}): {}", entry.kind(), problem.message);
                        let help = with_origin(problem.help, at, decl, scope);
                        self.problems.push(Problem::new(at, message).help(help));
                    }
                    if self.problems.len() > before {
                        return None;
                    }
                    self.advise(&*stage, entry, decl, &with);
                    return Some(stage);
                }
                Err(error) => error,
            };
            let at = failed.get().unwrap_or(with.id);
            let missing = error.to_string().starts_with("missing parameter");
            let left_out = with.value != Value::Null && remove_holding(&mut with, at);
            let help = format!("`pipe stages {}` describes every parameter", entry.kind());
            let not_given = if missing { not_given(entry, decl) } else { Vec::new() };
            if not_given.len() > 1 {
                let message =
                    format!("stage `{id}` ({}): missing parameters {}", entry.kind(), not_given.join(", "));
                self.problems.push(Problem::new(name, message).help(help));
                return None;
            }
            if missing && not_given.is_empty() && (unfilled || self.problems.len() > before) {
                // It may be missing only because it was left out before.
                return None;
            }
            let message = format!("stage `{id}` ({}): {error}", entry.kind());
            let help = with_origin(help, at, decl, scope);
            let at = if at == NodeId::NOWHERE || missing { name } else { at };
            self.problems.push(Problem::new(at, message).help(help));
            if !left_out {
                return None;
            }
        }
    }

    /// Keeps what is seldom meant; the same of several combinations once.
    fn advise(&mut self, stage: &dyn ConfiguredStage, entry: &dyn AnyStage, decl: &StageDecl, with: &Node) {
        for advice in stage.advise() {
            let at = field(with, advice.parameter).unwrap_or(decl.name.id);
            let message = format!("stage `{}` ({}): {}", decl.name.text, entry.kind(), advice.message);
            let advice = Problem::new(at, message).help(advice.help);
            if !self.advice.contains(&advice) {
                self.advice.push(advice);
            }
        }
    }

    fn unknown_params(&mut self, id: &StageId, entry: &'static dyn AnyStage, with: &mut Node) {
        let Value::Map(pairs) = &mut with.value else { return };
        let schema = entry.params_schema();
        let properties = schema.get("properties").and_then(|value| value.as_object());
        let known: Vec<&str> = properties.iter().flat_map(|map| map.keys()).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        pairs.retain(|(key, _)| {
            let unknown = !known.contains(&key.text.as_str());
            if unknown {
                let message = format!("stage `{id}` ({}) has no parameter `{}`", entry.kind(), key.text);
                let help = suggest(&key.text, known.iter().copied(), "parameters");
                self.problems.push(Problem::new(key.id, message).label("no such parameter").help(help));
            } else if !seen.insert(key.text.clone()) {
                let message = format!("stage `{id}` has the parameter `{}` twice", key.text);
                self.problems
                    .push(Problem::new(key.id, message).label("this one again").help("remove one of them"));
                return false;
            }
            !unknown
        });
    }

    fn seed(
        &mut self,
        id: &StageId,
        decl: &StageDecl,
        scope: &Scope,
        default: &Node,
        ports: &Ports,
    ) -> Option<u64> {
        let node =
            decl.seed.as_ref().map_or_else(|| default.clone(), |node| scope.fill(node, &mut self.problems));
        let seed = node.text().and_then(|text| text.parse().ok());
        if seed.is_none() && decl.seed.is_some() {
            let message =
                format!("the seed of `{id}` must be a whole number, 0 or more, not {}", node.describe());
            self.problems.push(Problem::new(node.id, message).help("write e.g. `seed: 7`"));
        } else if decl.seed.is_some() && !ports.seeded {
            let message =
                format!("stage `{id}` has a seed but {} draws no random numbers", decl.uses.describe());
            self.problems.push(Problem::new(node.id, message).help("remove `seed`"));
        }
        seed.filter(|_| ports.seeded)
    }

    /// The seed of the file is checked once, not by each stage that uses it.
    fn default_seed(&mut self, pipeline: &Pipeline) {
        let seed = &pipeline.seed;
        if seed.text().and_then(|text| text.parse::<u64>().ok()).is_none() {
            let message = format!("`seed` must be a whole number, 0 or more, not {}", seed.describe());
            self.problems.push(Problem::new(seed.id, message).help("write e.g. `seed: 7`"));
        }
    }
}

/// Required parameters that the stage does not give at all, in quotes.
fn not_given(entry: &dyn AnyStage, decl: &StageDecl) -> Vec<String> {
    let given = |name: &str| match &decl.with.value {
        Value::Map(pairs) => pairs.iter().any(|(key, _)| key.text == name),
        // `with: ${…}` may give anything.
        Value::Scalar(_) => true,
        Value::Null | Value::List(_) => false,
    };
    let schema = entry.params_schema();
    let required = schema.get("required").and_then(|value| value.as_array()).into_iter().flatten();
    required
        .filter_map(|name| name.as_str())
        .filter(|name| !given(name))
        .map(|name| format!("`{name}`"))
        .collect()
}

/// A help line that begins with where the value at `at` comes from, where the stage does not say it itself.
fn with_origin(help: String, at: NodeId, decl: &StageDecl, scope: &Scope) -> String {
    match find(&decl.with, at).and_then(|node| scope.origin(node)) {
        Some(origin) => format!("the value comes from {origin}; {help}"),
        None => help,
    }
}

fn find(node: &Node, at: NodeId) -> Option<&Node> {
    if node.id == at && at != NodeId::NOWHERE {
        return Some(node);
    }
    match &node.value {
        Value::List(items) => items.iter().find_map(|item| find(item, at)),
        Value::Map(pairs) => pairs.iter().find_map(|(_, value)| find(value, at)),
        Value::Null | Value::Scalar(_) => None,
    }
}

/// The node of a top-level parameter.
fn field(with: &Node, name: &str) -> Option<NodeId> {
    let Value::Map(pairs) = &with.value else { return None };
    pairs.iter().find(|(key, _)| key.text == name).map(|(_, node)| node.id)
}

/// Removes the top-level parameter that holds `at`. False if none does.
fn remove_holding(with: &mut Node, at: NodeId) -> bool {
    fn holds(node: &Node, at: NodeId) -> bool {
        node.id == at
            || match &node.value {
                Value::List(items) => items.iter().any(|item| holds(item, at)),
                Value::Map(pairs) => pairs.iter().any(|(key, value)| key.id == at || holds(value, at)),
                _ => false,
            }
    }
    let Value::Map(pairs) = &mut with.value else { return false };
    let before = pairs.len();
    if let Some(found) = pairs.iter().position(|(key, value)| key.id == at || holds(value, at)) {
        pairs.remove(found);
    }
    pairs.len() < before
}
