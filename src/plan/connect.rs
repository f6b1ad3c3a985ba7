//! References to edges: every input finds the output that feeds it, and the types agree.

use super::{Edge, Planner};
use crate::problem::{At, Problem, suggest};
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
            for (key, _) in &wires.inputs {
                if !inputs.iter().any(|port| port.name == key.text) {
                    let message = format!("stage `{id}` has no input `{}`", key.text);
                    let help = suggest(&key.text, inputs.iter().map(|port| port.name.as_ref()), "inputs");
                    self.problems.push(Problem::new(key.id, message).label("no such input").help(help));
                }
            }
            for port in &inputs {
                let wired = wires.inputs.iter().find(|(key, _)| key.text == port.name);
                match wired.filter(|(_, references)| !references.is_empty()) {
                    Some((_, references)) => self.connect(node, port, references),
                    None if port.arity.may_be_unwired() => {}
                    None => {
                        let message =
                            format!("stage `{id}` does not say where its input `{}` comes from", port.name);
                        self.problems.push(
                            Problem::new(wires.name.id, message).label("this stage").help(self.givers(port)),
                        );
                    }
                }
            }
        }
        self.drop_repeated();
    }

    fn connect(&mut self, target: NodeIndex, port: &InputPort, references: &[Node]) {
        let id = self.graph[target].id.to_string();
        let mut position = 0;
        for reference in references {
            let sources = match self.sources(reference, port) {
                Ok(sources) => sources,
                Err(problem) => {
                    self.problems.extend(problem);
                    continue;
                }
            };
            if !port.arity.takes_several() && position + sources.len() > 1 {
                let message =
                    format!("input `{}` of `{id}` takes one artifact, but several are given", port.name);
                let help = "name one stage; for one of a matrix write `stage[axis=value]`";
                self.problems.push(Problem::new(reference.id, message).help(help));
                return;
            }
            for (source, output) in sources {
                let edge = Edge { output, input: port.name.to_string(), position };
                self.graph.add_edge(source, target, edge);
                position += 1;
            }
        }
    }

    /// The outputs that a reference names. An empty error for what was told elsewhere.
    fn sources(&self, node: &Node, port: &InputPort) -> Result<Vec<(NodeIndex, String)>, Option<Problem>> {
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
            let names: Vec<_> =
                instances.iter().take(4).map(|&node| format!("`{}`", self.graph[node].id)).collect();
            let more = if instances.len() > 4 { ", …" } else { "" };
            let help =
                format!("there is {}{more}; `{}[*]` names all of them", names.join(", "), reference.base);
            return Err(Some(
                Problem::new(node.id, format!("`{text}` names no stage of the matrix")).help(help),
            ));
        }
        let output = |source| self.output(source, &reference, port, node).map(|output| (source, output));
        chosen.into_iter().map(output).collect::<Result<_, _>>().map_err(Some)
    }

    /// The output port of `source` that fits: the one named, or the only one of the right type.
    fn output(
        &self,
        source: NodeIndex,
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
                .help(self.givers(port)))
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
                Err(Problem::new(at.id, message).help(self.givers(port)))
            }
            _ => {
                let choices: Vec<_> = names().map(|name| format!("`{}.{name}`", planned.id)).collect();
                let message = format!("`{}` has several outputs for input `{}`", planned.id, port.name);
                Err(Problem::new(at.id, message).help(format!("write one of {}", choices.join(", "))))
            }
        }
    }

    /// A help line that names the stages whose output fits `port`.
    fn givers(&self, port: &InputPort) -> String {
        let fits = |node: &NodeIndex| {
            let outputs = &self.graph[*node].ports().outputs;
            outputs.iter().any(|output| port.artifact.is_none_or(|wanted| wanted == output.artifact))
        };
        let names: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, nodes)| nodes.first().is_some_and(fits))
            .map(|(name, nodes)| if nodes.len() > 1 { format!("{name}[*]") } else { name.clone() })
            .collect();
        let wanted = port.artifact.map_or("an artifact", |artifact| artifact.name);
        match names.as_slice() {
            [] => format!("no stage of this file makes {wanted}"),
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
