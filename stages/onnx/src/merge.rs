//! Several models of one input as one: an ensemble that any program can run. Knows graphs and bytes, not what they mean.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::proto::{
    AttributeProto, DATA_TYPE_FLOAT, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    attribute_type,
};
use crate::writer::{DIVISOR_KEY, INPUT, OUTPUT};

/// What the logits of the whole are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mean {
    /// The weighted mean of the members' probabilities: their softmax is that mean.
    Probabilities,
    /// The weighted mean of the members' logits.
    Logits,
}

/// Why models cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// No model.
    #[error("there is no model to merge")]
    Empty,
    /// Bytes that are no model, or parts of ONNX that would be lost.
    #[error("model {index} {reason}")]
    Model { index: usize, reason: String },
    /// Two models that do not take or give the same.
    #[error("model {index} has {what} {found} but model 0 has {expected}")]
    Different { index: usize, what: &'static str, found: String, expected: String },
}

/// Joins models, each with its weight, into one with the same input and output.
///
/// All must have been written by [`GraphBuilder`](crate::GraphBuilder): what this crate does not know of ONNX would be
/// lost, so models that hold more are refused. `metadata` replaces that of the members; [`DIVISOR_KEY`] becomes the
/// least common multiple.
pub fn merge(
    models: &[(&[u8], f64)],
    mean: Mean,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, MergeError> {
    let members: Vec<(ModelProto, GraphProto)> = models
        .iter()
        .enumerate()
        .map(|(index, (bytes, _))| decode(index, bytes))
        .collect::<Result<_, _>>()?;
    let (first, first_graph) = members.first().ok_or(MergeError::Empty)?;
    for (index, (model, graph)) in members.iter().enumerate() {
        let same = |what, found: String, expected: String| {
            if found == expected {
                return Ok(());
            }
            Err(MergeError::Different { index, what, found, expected })
        };
        let shape = |graph: &GraphProto, output: bool| {
            let values = if output { &graph.output } else { &graph.input };
            format!("{:?}", values.iter().map(axes).collect::<Vec<_>>())
        };
        same("the operator set", format!("{:?}", model.opset_import), format!("{:?}", first.opset_import))?;
        same("an input of", shape(graph, false), shape(first_graph, false))?;
        same("an output of", shape(graph, true), shape(first_graph, true))?;
    }
    let total: f64 = models.iter().map(|(_, weight)| weight).sum();
    let mut whole = GraphProto {
        name: Some("ensemble".to_owned()),
        input: first_graph.input.clone(),
        output: first_graph.output.clone(),
        ..GraphProto::default()
    };
    let mut shares = Vec::new();
    for (index, ((_, graph), (_, weight))) in members.iter().zip(models).enumerate() {
        let mut logits = add_member(&mut whole, graph, index);
        if mean == Mean::Probabilities {
            let axis = AttributeProto {
                name: Some("axis".to_owned()),
                i: Some(1),
                kind: Some(attribute_type::INT),
                ..AttributeProto::default()
            };
            logits =
                add_node(&mut whole, "Softmax", vec![logits], format!("{index}.probabilities"), vec![axis]);
        }
        let share = format!("{index}.share");
        whole.initializer.push(TensorProto {
            dims: vec![1],
            data_type: Some(DATA_TYPE_FLOAT),
            name: Some(share.clone()),
            raw_data: Some(((weight / total) as f32).to_le_bytes().to_vec()),
        });
        shares.push(add_node(&mut whole, "Mul", vec![logits, share], format!("{index}.part"), Vec::new()));
    }
    match mean {
        Mean::Logits => drop(add_node(&mut whole, "Sum", shares, OUTPUT.to_owned(), Vec::new())),
        Mean::Probabilities => {
            let sum = add_node(&mut whole, "Sum", shares, "mean".to_owned(), Vec::new());
            add_node(&mut whole, "Log", vec![sum], OUTPUT.to_owned(), Vec::new());
        }
    }
    let mut metadata = metadata.clone();
    metadata.insert(DIVISOR_KEY.to_owned(), divisor(&members)?);
    let entry = |(key, value)| StringStringEntryProto { key: Some(key), value: Some(value) };
    let model = ModelProto {
        metadata_props: metadata.into_iter().map(entry).collect(),
        graph: Some(whole),
        ..first.clone()
    };
    Ok(model.encode_to_vec())
}

/// Reads a model of which nothing is lost when it is written again.
fn decode(index: usize, bytes: &[u8]) -> Result<(ModelProto, GraphProto), MergeError> {
    let refuse = |reason: &str| MergeError::Model { index, reason: reason.to_owned() };
    let mut model =
        ModelProto::decode(bytes).map_err(|error| refuse(&format!("is no ONNX model: {error}")))?;
    if model.encoded_len() != bytes.len() {
        return Err(refuse(
            "holds parts of ONNX that pipe does not write, and they would be lost: only models that pipe exported can be \
             merged",
        ));
    }
    let graph = model.graph.take().ok_or_else(|| refuse("has no graph"))?;
    let named = |values: &[crate::proto::ValueInfoProto], name: &str| {
        values.len() == 1 && values[0].name.as_deref() == Some(name)
    };
    if named(&graph.input, INPUT) && named(&graph.output, OUTPUT) {
        return Ok((model, graph));
    }
    Err(refuse(&format!("does not have the one input `{INPUT}` and the one output `{OUTPUT}`")))
}

/// Sizes of a value, `None` where open.
fn axes(value: &crate::proto::ValueInfoProto) -> Vec<Option<i64>> {
    let shape = value.kind.iter().filter_map(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
    shape.flat_map(|shape| shape.dim.iter().map(|dim| dim.dim_value)).collect()
}

/// Copies the nodes and weights of a member under names of their own, and returns the name of its logits.
fn add_member(whole: &mut GraphProto, graph: &GraphProto, index: usize) -> String {
    let own = |name: &String| match name.as_str() {
        // An omitted optional input has no name.
        "" | INPUT => name.clone(),
        _ => format!("{index}.{name}"),
    };
    for weight in &graph.initializer {
        whole.initializer.push(TensorProto { name: weight.name.as_ref().map(own), ..weight.clone() });
    }
    for node in &graph.node {
        whole.node.push(NodeProto {
            input: node.input.iter().map(own).collect(),
            output: node.output.iter().map(own).collect(),
            name: node.name.as_ref().map(own),
            ..node.clone()
        });
    }
    own(&OUTPUT.to_owned())
}

fn add_node(
    whole: &mut GraphProto,
    kind: &str,
    input: Vec<String>,
    output: String,
    attribute: Vec<AttributeProto>,
) -> String {
    whole.node.push(NodeProto {
        input,
        output: vec![output.clone()],
        name: Some(output.clone()),
        op_type: Some(kind.to_owned()),
        attribute,
    });
    output
}

/// What the sizes of every member divide by.
fn divisor(members: &[(ModelProto, GraphProto)]) -> Result<String, MergeError> {
    let mut whole: Vec<usize> = Vec::new();
    for (index, (model, _)) in members.iter().enumerate() {
        let entry = model.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(DIVISOR_KEY));
        let text = entry.and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        let own: Option<Vec<usize>> = text.split(',').map(|size| size.parse().ok()).collect();
        let own = own.filter(|own| index == 0 || own.len() == whole.len());
        let Some(own) = own.filter(|own| own.iter().all(|size| *size > 0)) else {
            let reason = format!("has `{text}` for its metadata `{DIVISOR_KEY}`");
            return Err(MergeError::Model { index, reason });
        };
        if index == 0 {
            whole = own;
            continue;
        }
        let both: Option<Vec<usize>> =
            whole.iter().zip(own).map(|(a, b)| crate::writer::least_common_multiple(*a, b)).collect();
        whole = both.ok_or_else(|| {
            let reason = format!("has the divisor {text}, which has no common multiple with the others");
            MergeError::Model { index, reason }
        })?;
    }
    Ok(whole.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}
