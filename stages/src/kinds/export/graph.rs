//! A layer graph with its parameters as an ONNX model. Knows no file and no runtime.

use crate::error::StageError;
use pipe_nn::{Dims, Network, Op, ParameterId, Parameters};
use pipe_onnx::{BuildError, GraphBuilder, Value, Weights, Window};
use std::collections::BTreeMap;

/// Writes a network as an ONNX model: input `[n, channels, (z), y, x]`, output logits `[n, classes, (z), y, x]`, every
/// size but the channels open.
///
/// Equal arguments give equal bytes. A 2D network becomes a 2D model: its z entries, which change nothing, are left
/// out.
pub(crate) fn network_to_onnx(
    network: &Network,
    parameters: &Parameters,
    metadata: &BTreeMap<&str, String>,
) -> Result<Vec<u8>, StageError> {
    let doing = |name: &str| StageError::inner(format!("writing layer `{name}` as ONNX"));
    let dims = match network.dims {
        Dims::Two => pipe_onnx::Dims::Two,
        Dims::Three => pipe_onnx::Dims::Three,
    };
    let whole = || StageError::inner("writing the network as ONNX");
    let mut graph = GraphBuilder::new("network", network.in_channels, dims).map_err(whole())?;
    let mut values: Vec<Value> = Vec::with_capacity(network.nodes.len());
    let layers = Layers { network, parameters };
    for node in &network.nodes {
        let inputs: Vec<&Value> = node.inputs.iter().map(|input| &values[input.0]).collect();
        let value = layers.add(&mut graph, &node.name, &node.op, &inputs)?.map_err(doing(&node.name))?;
        values.push(value);
    }
    for (key, value) in metadata {
        graph.metadata(key, value).map_err(whole())?;
    }
    graph.build(&values[network.output.0]).map_err(whole())
}

struct Layers<'a> {
    network: &'a Network,
    parameters: &'a Parameters,
}

impl<'a> Layers<'a> {
    /// Adds one operation. The outer error is a parameter that is not there, the inner one the layer's.
    fn add(
        &self,
        graph: &mut GraphBuilder,
        name: &str,
        op: &Op,
        inputs: &[&Value],
    ) -> Result<Result<Value, BuildError>, StageError> {
        let spatial = |sizes: &[usize; 3]| sizes[3 - self.network.dims.count()..].to_vec();
        Ok(match op {
            Op::Input { .. } => Ok(graph.input()),
            Op::Conv { window, weight, bias, .. } => {
                let window = Window {
                    stride: spatial(&window.stride),
                    padding: spatial(&window.padding),
                    ..Window::tight(&spatial(&window.stride))
                };
                graph.conv(name, inputs[0], self.weights(*weight)?, self.bias(*bias)?, &window)
            }
            Op::TransposedConv { factor, weight, bias, .. } => {
                let window = Window::tight(&spatial(factor));
                graph.conv_transpose(name, inputs[0], self.weights(*weight)?, self.bias(*bias)?, &window)
            }
            Op::NormAct { scale, shift, epsilon, slope, .. } => {
                let (scale, shift) = (self.weights(*scale)?.values, self.weights(*shift)?.values);
                graph
                    .instance_norm(name, inputs[0], scale, shift, *epsilon)
                    .and_then(|normal| graph.leaky_relu(&normal, *slope))
            }
            Op::MaxPool { factor } => {
                let factor = spatial(factor);
                graph.max_pool(inputs[0], &factor, &Window::tight(&factor))
            }
            Op::Concat => graph.concat(inputs),
        })
    }

    fn weights(&self, id: ParameterId) -> Result<Weights<'a>, StageError> {
        let name = &self.network.parameters[id.0].name;
        let missing =
            || StageError::Data(format!("parameter `{name}` of the network is not in the file of weights"));
        let (shape, values) = self.parameters.get(name).ok_or_else(missing)?;
        Ok(Weights { shape, values })
    }

    fn bias(&self, id: Option<ParameterId>) -> Result<Option<&'a [f32]>, StageError> {
        id.map(|id| self.weights(id).map(|bias| bias.values)).transpose()
    }
}
