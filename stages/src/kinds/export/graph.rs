//! A layer graph with its parameters as an ONNX model. Knows no file and no runtime.

use crate::error::StageError;
use pipe_nn::{Activation, Dims, Network, Norm, Op, ParameterId, Parameters};
use pipe_onnx::{BuildError, GraphBuilder, Value, Weights, Window};
use std::collections::BTreeMap;

/// Writes a network as an ONNX model: input `[n, channels, (z), y, x]`, output logits `[n, classes, (z), y, x]`, of
/// whole images `[n, classes]`; every size but the channels open. What only trains (coarser outputs, dropout, noise) is
/// left out.
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
    let mut values: Vec<Option<Value>> = Vec::with_capacity(network.nodes.len());
    let layers = Layers { network, parameters };
    let needed = network.needed_for(&[network.output]);
    for (node, needed) in network.nodes.iter().zip(needed) {
        if !needed {
            values.push(None);
            continue;
        }
        let inputs: Vec<&Value> = node.inputs.iter().filter_map(|input| values[input.0].as_ref()).collect();
        let value = layers.add(&mut graph, &node.name, &node.op, &inputs)?.map_err(doing(&node.name))?;
        values.push(Some(value));
    }
    for (key, value) in metadata {
        graph.metadata(key, value).map_err(whole())?;
    }
    let output = values[network.output.0].as_ref().expect("the output is needed for itself");
    graph.build(output).map_err(whole())
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
            // A kernel as large as the image: a linear map of all voxels.
            Op::Conv { window, cin, cout, weight, bias } if self.network.fixed_size.is_some() => {
                let values = self.weights(*weight)?.values;
                let bias = self.bias(*bias)?;
                let shape = [*cout, cin * window.taps()];
                graph
                    .flatten(inputs[0], &spatial(&window.kernel))
                    .and_then(|flat| graph.dense(name, &flat, Weights { shape: &shape, values }, bias))
            }
            Op::Conv { weight, bias, .. } if self.weights(*weight)?.shape.len() == 2 => {
                graph.dense(name, inputs[0], self.weights(*weight)?, self.bias(*bias)?)
            }
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
            Op::NormAct { norm, scale, shift, running, epsilon, slope, .. } => {
                let (scale, shift) = (self.weights(*scale)?.values, self.weights(*shift)?.values);
                let normal = match (norm, running) {
                    (Norm::Group(groups), _) => {
                        graph.group_norm(name, inputs[0], *groups, [scale, shift], *epsilon)
                    }
                    (Norm::Batch, Some([mean, variance])) => {
                        let (mean, variance) = (self.weights(*mean)?.values, self.weights(*variance)?.values);
                        graph.batch_norm(name, inputs[0], [scale, shift, mean, variance], *epsilon)
                    }
                    _ => graph.instance_norm(name, inputs[0], scale, shift, *epsilon),
                };
                normal.and_then(|normal| leaky(graph, &normal, *slope))
            }
            Op::Activation { activation, slope } => match (activation, slope) {
                (Activation::Prelu, Some(slope)) => {
                    graph.prelu(name, inputs[0], self.weights(*slope)?.values)
                }
                (Activation::Gelu, _) => graph.gelu(inputs[0]),
                (Activation::Sigmoid, _) => graph.sigmoid(inputs[0]),
                (Activation::Tanh, _) => graph.tanh(inputs[0]),
                (other, _) => leaky(graph, inputs[0], other.fixed_slope().unwrap_or_default()),
            },
            Op::Add => graph.add(inputs[0], inputs[1]),
            Op::AvgPool { factor } => graph.average_pool(inputs[0], &spatial(factor)),
            Op::GlobalPool => graph.global_average_pool(inputs[0]),
            Op::Upsample { factor } => graph.resize_nearest(inputs[0], &spatial(factor)),
            Op::Dropout { .. } | Op::Noise { .. } => Ok(inputs[0].clone()),
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

/// A leaky ReLU; the identity and the plain ReLU have slopes too.
fn leaky(graph: &mut GraphBuilder, x: &Value, slope: f32) -> Result<Value, BuildError> {
    match slope {
        1.0 => Ok(x.clone()),
        0.0 => graph.relu(x),
        slope => graph.leaky_relu(x, slope),
    }
}
