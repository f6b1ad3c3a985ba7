//! References to edges: every input finds the output that feeds it, and the types agree.

use super::{Edge, Planner};
use crate::problem::{At, Problem, did_you_mean, suggest};
use crate::reference::Reference;
use crate::yaml::{Node, NodeId};
use petgraph::graph::NodeIndex;
use pipe_stages::artifact::InputPort;
use std::collections::BTreeSet;

impl Planner {
    pub(super) fn connect_all(&mut self) {
        for (node, wires) in std::mem::take(&mut self.wires) {
            let inputs = self.graph[node].ports().inputs.clone();
            let id = self.graph[node].id.to_string();
            let wired = |port: &InputPort| {
                let found = wires.inputs.iter().find(|(key, _)| key.text == port.name);
                found.map(|(_, references)| references.as_slice()).filter(|references| !references.is_empty())
            };
            let mut missing: Vec<&InputPort> =
                inputs.iter().filter(|port| wired(port).is_none() && !port.arity.may_be_unwired()).collect();
            for (key, _) in &wires.inputs {
                if !inputs.iter().any(|port| port.name == key.text) {
                    // The port that was meant is wired, under a wrong name.
                    let meant = did_you_mean(&key.text, missing.iter().map(|port| port.name.as_ref()));
                    let meant = missing
                        .iter()
                        .position(|port| Some(port.name.as_ref()) == meant || missing.len() == 1);
                    meant.map(|at| missing.remove(at));
                    let message = format!("stage `{id}` has no input `{}`", key.text);
                    let help = suggest(&key.text, inputs.iter().map(|port| port.name.as_ref()), "inputs");
                    self.problems.push(Problem::new(key.id, message).label("no such input").help(help));
                }
            }
            for port in &inputs {
                if let Some(references) = wired(port) {
                    self.connect(node, port, references);
                }
            }
            for port in missing {
                let message = format!("stage `{id}` does not say where its input `{}` comes from", port.name);
                let help = self.givers(port, &self.graph[node].id.base);
                self.problems.push(Problem::new(wires.name.id, message).label("this stage").help(help));
            }
        }
        self.drop_repeated();
    }

    fn connect(&mut self, target: NodeIndex, port: &InputPort, references: &[Node]) {
        let id = self.graph[target].id.to_string();
        let mut found = Vec::new();
        for reference in references {
            let sources = match self.sources(target, reference, port) {
                Ok(sources) => sources,
                Err(problem) => {
                    self.problems.extend(problem);
                    continue;
                }
            };
            if !port.arity.takes_several() && found.len() + sources.len() > 1 {
                let message =
                    format!("input `{}` of `{id}` takes one artifact, but several are given", port.name);
                let help = "name one stage; for one of a matrix write `stage[axis=value]`";
                self.problems.push(Problem::new(reference.id, message).help(help));
                return;
            }
            found.extend(sources);
        }
        let alone =
            found.len() == 1 && port.artifact.is_none() && self.may_name_several(references, found[0].0);
        for (position, (source, output)) in found.into_iter().enumerate() {
            self.graph.add_edge(
                source,
                target,
                Edge { output, input: port.name.to_string(), position, alone },
            );
        }
    }

    /// Whether references that name this stage alone would name more if its matrix had more values.
    fn may_name_several(&self, references: &[Node], source: NodeIndex) -> bool {
        let all_axes = self.graph[source].id.axes.len();
        let is_pattern = |reference: &Node| {
            let axes = reference.text().and_then(|text| Reference::parse(text).ok()?.axes);
            axes.is_some_and(|axes| axes.is_empty() || axes.len() < all_axes)
        };
        references.iter().any(is_pattern)
    }

    /// The outputs that a reference names. An empty error for what was told elsewhere.
    fn sources(
        &self,
        target: NodeIndex,
        node: &Node,
        port: &InputPort,
    ) -> Result<Vec<(NodeIndex, String)>, Option<Problem>> {
        if self.problems.iter().any(|problem| problem.at == At::Node(node.id)) {
            // Its `${…}` could not be filled in.
            return Err(None);
        }
        let text = node.text().ok_or_else(|| {
            Problem::new(node.id, format!("an input comes from a stage, not from {}", node.describe()))
                .help("write the name of a stage, e.g. `cases: STAGE`")
        })?;
        let reference = Reference::parse(text).map_err(|message| {
            Problem::new(node.id, message).help("write `stage`, `stage.output` or `stage[axis=value]`")
        })?;
        let Some(instances) = self.instances.get(&reference.base) else {
            let help = suggest(&reference.base, self.instances.keys().map(String::as_str), "stages");
            return Err(Some(
                Problem::new(node.id, format!("there is no stage `{}`", reference.base)).help(help),
            ));
        };
        if self.broken.contains(&reference.base) {
            return Err(None);
        }
        let chosen: Vec<_> =
            instances.iter().copied().filter(|&node| reference.selects(&self.graph[node].id)).collect();
        if chosen.is_empty() {
            let (message, help) = self.no_such_instance(&reference, instances);
            return Err(Some(Problem::new(node.id, message).help(help)));
        }
        let output =
            |source| self.output(source, target, &reference, port, node).map(|output| (source, output));
        chosen.into_iter().map(output).collect::<Result<_, _>>().map_err(Some)
    }

    /// Why a reference selects none of the stages of its name.
    fn no_such_instance(&self, reference: &Reference, instances: &[NodeIndex]) -> (String, String) {
        let Reference { base, axes, .. } = reference;
        let ids: Vec<_> = instances.iter().map(|&node| &self.graph[node].id).collect();
        let Some(first) = ids.first().filter(|id| !id.axes.is_empty()) else {
            return (format!("stage `{base}` has no matrix"), format!("write `{base}`"));
        };
        let Some(axes) = axes else {
            let message = format!("`{base}` is a matrix of {} stages: say which are meant", ids.len());
            return (message, format!("`{base}[*]` names all of them, `{first}` one"));
        };
        for (axis, value) in axes {
            let known: Vec<&str> = first.axes.iter().map(|(name, _)| name.as_str()).collect();
            if !known.contains(&axis.as_str()) {
                return (
                    format!("the matrix of `{base}` has no axis `{axis}`"),
                    suggest(axis, known, "axes"),
                );
            }
            let axis_values = ids.iter().flat_map(|id| &id.axes).filter(|(name, _)| name == axis);
            let known: BTreeSet<&str> = axis_values.map(|(_, value)| value.as_str()).collect();
            if !known.contains(value.as_str()) {
                let message = format!("axis `{axis}` of `{base}` has no value `{value}`");
                return (message, suggest(value, known, "values"));
            }
        }
        let message = format!("no stage of the matrix of `{base}` has all of these values");
        (message, "give an axis one value only".into())
    }

    /// The output port of `source` that fits: the one named, or the only one of the right type.
    fn output(
        &self,
        source: NodeIndex,
        target: NodeIndex,
        reference: &Reference,
        port: &InputPort,
        at: &Node,
    ) -> Result<String, Problem> {
        let planned = &self.graph[source];
        let outputs = &planned.ports().outputs;
        let names = || outputs.iter().map(|output| output.name.as_ref());
        let wanted = port.artifact;
        let fits = |found| wanted.is_none_or(|wanted| wanted == found);
        let kind = wanted.map_or("any artifact", |artifact| artifact.name);
        if let Some(name) = &reference.port {
            let output = outputs.iter().find(|output| output.name == *name).ok_or_else(|| {
                Problem::new(at.id, format!("`{}` has no output `{name}`", planned.id)).help(suggest(
                    name,
                    names().collect::<Vec<_>>(),
                    "outputs",
                ))
            })?;
            return if fits(output.artifact) {
                Ok(output.name.to_string())
            } else {
                Err(Problem::new(
                    at.id,
                    format!(
                        "input `{}` takes {kind}, but `{}.{name}` is {}",
                        port.name, planned.id, output.artifact.name
                    ),
                )
                .help(self.givers(port, &self.graph[target].id.base)))
            };
        }
        let fitting: Vec<_> = outputs.iter().filter(|output| fits(output.artifact)).collect();
        match fitting.as_slice() {
            [output] => Ok(output.name.to_string()),
            [] => {
                let made: Vec<_> = outputs.iter().map(|output| output.artifact.name).collect();
                let message = format!(
                    "input `{}` takes {kind}, but `{}` makes {}",
                    port.name,
                    planned.id,
                    made.join(", ")
                );
                Err(Problem::new(at.id, message).help(self.givers(port, &self.graph[target].id.base)))
            }
            _ => {
                let choices: Vec<_> = names().map(|name| format!("`{}.{name}`", planned.id)).collect();
                let message = format!("`{}` has several outputs for input `{}`", planned.id, port.name);
                Err(Problem::new(at.id, message).help(format!("write one of {}", choices.join(", "))))
            }
        }
    }

    /// A help line that names the other stages whose output fits `port` of the stage `target`.
    fn givers(&self, port: &InputPort, target: &str) -> String {
        let fits = |node: &NodeIndex| {
            let outputs = &self.graph[*node].ports().outputs;
            outputs.iter().any(|output| port.artifact.is_none_or(|wanted| wanted == output.artifact))
        };
        let names: Vec<_> = self
            .instances
            .iter()
            .filter(|(name, nodes)| *name != target && nodes.first().is_some_and(fits))
            .map(|(name, nodes)| if nodes.len() > 1 { format!("{name}[*]") } else { name.clone() })
            .collect();
        let wanted = port.artifact.map_or("an artifact", |artifact| artifact.name);
        match names.as_slice() {
            [] => format!("no other stage of this file makes {wanted}"),
            names => {
                format!("add `{}: STAGE` under `in:`; {wanted} comes from {}", port.name, names.join(", "))
            }
        }
    }

    /// Combinations of one matrix repeat each other's problems.
    fn drop_repeated(&mut self) {
        let mut seen = BTreeSet::new();
        self.problems.retain(|problem| match problem.at {
            At::Node(id) if id != NodeId::NOWHERE => seen.insert((id, strip_axes(&problem.message))),
            _ => true,
        });
    }
}

/// A message without the `[axis=value]` of stages.
fn strip_axes(message: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    for c in message.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text
}
