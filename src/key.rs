//! The manifest and key of a planned stage, given the outputs of the stages that it reads from.

use crate::external::Externals;
use crate::plan::{Edge, Plan};
use petgraph::graph::NodeIndex;
use pipe_cache::{
    ActionKey, ArtifactType, Cache, CacheError, Digest, InputRecord, Manifest, StatCache, input_element,
};
use pipe_stages::artifact::OutputPort;
use std::collections::BTreeMap;

/// A stage with all that its result depends on.
pub struct Keyed {
    pub manifest: Manifest,
    pub key: ActionKey,
    pub externals: Externals,
}

impl Keyed {
    /// Hashes what the stage reads from outside of the cache; `output` gives the tree that flows along an edge.
    pub fn new(
        plan: &Plan,
        node: NodeIndex,
        cache: &Cache,
        stats: &StatCache,
        output: impl Fn(NodeIndex, &Edge) -> Digest,
    ) -> Result<Self, CacheError> {
        let planned = &plan.graph[node];
        let externals = Externals::read(planned, cache, stats)?;
        let mut inputs = BTreeMap::new();
        for (source, edge) in plan.inputs(node) {
            let name = if takes_several(plan, node, edge) {
                // Where it lies is told by the label of an element; of several it is always the same.
                let folder = if edge.alone { "/" } else { "" };
                input_element(&edge.input, edge.position, &format!("{}{folder}", plan.graph[source].id))
            } else {
                edge.input.clone()
            };
            let artifact = artifact_type(&plan.graph[source].ports().outputs, &edge.output);
            inputs.insert(name, InputRecord { artifact, digest: output(source, edge) });
        }
        let outputs = &planned.ports().outputs;
        let manifest = Manifest {
            kind: planned.kind().to_owned(),
            version: planned.stage().version(),
            params: planned.stage().params(),
            inputs,
            external: externals.manifest_records(),
            outputs: outputs
                .iter()
                .map(|port| (port.name.to_string(), artifact_type(outputs, &port.name)))
                .collect(),
            seed: planned.seed,
            device: None,
            environment: planned
                .ports()
                .environment
                .iter()
                .map(|name| (name.clone(), std::env::var(name).ok()))
                .collect(),
        };
        Ok(Self { key: manifest.key(), manifest, externals })
    }
}

/// Input port with one source → the stage that it is read from. Elements of a many-port tell theirs in the manifest.
pub fn sources(plan: &Plan, node: NodeIndex) -> BTreeMap<String, String> {
    plan.inputs(node)
        .into_iter()
        .filter(|(_, edge)| !takes_several(plan, node, edge))
        .map(|(source, edge)| (edge.input.clone(), plan.graph[source].id.to_string()))
        .collect()
}

fn takes_several(plan: &Plan, node: NodeIndex, edge: &Edge) -> bool {
    let ports = &plan.graph[node].ports().inputs;
    ports.iter().any(|port| port.name == edge.input && port.arity.takes_several())
}

fn artifact_type(outputs: &[OutputPort], name: &str) -> ArtifactType {
    let artifact =
        outputs.iter().find(|port| port.name == name).expect("the plan checked every output").artifact;
    ArtifactType { name: artifact.name.to_owned(), format: artifact.format }
}
