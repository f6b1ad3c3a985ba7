//! A network with values: runs the layer graph on a backend, and gives and takes its parameters as plain data.

use dfdx::prelude::*;

use crate::backend::{Act, Backend, CpuBackend, Flat, Labels, Recorder};
use crate::geometry::Geometry;
use crate::loss::LossConfig;
use crate::network::{Network, Op, ParameterId};
use crate::weights::{Parameter, Parameters};
use crate::{NnError, init, layout};

/// Logits, loss and its derivatives at one batch.
#[derive(Clone, Debug)]
pub struct Derivatives {
    /// `[n, classes, z, y, x]`.
    pub logits: Vec<f32>,
    pub loss: f32,
    /// With respect to the input: `[n, in_channels, z, y, x]`.
    pub input: Vec<f32>,
    /// With respect to each parameter, in the layout of PyTorch.
    pub parameters: Parameters,
}

/// A network and its parameters on a backend.
pub struct Model<B: Backend = CpuBackend> {
    backend: B,
    network: Network,
    pub(crate) parameters: Vec<Flat<B::Device>>,
}

impl<B: Backend> Model<B> {
    /// A model with start values drawn from `seed`: the same seed gives the same bits.
    pub fn new(backend: B, network: Network, seed: u64) -> Self {
        let values = init::initial_values(&network, seed);
        Self::from_values(backend, network, &values)
    }

    /// A model with given parameters, matched by name.
    ///
    /// # Errors
    /// [`NnError::Parameter`] or [`NnError::Shape`] where names or shapes differ from those of `network`.
    pub fn from_parameters(backend: B, network: Network, parameters: &Parameters) -> Result<Self, NnError> {
        let values = parameters.ordered_for(&network)?;
        Ok(Self::from_values(backend, network, &values))
    }

    fn from_values(backend: B, network: Network, values: &[Vec<f32>]) -> Self {
        let tensors = network.parameters.iter().zip(values).map(|(spec, values)| {
            let values = layout::to_internal(spec, values);
            let count = values.len();
            backend.device().tensor_from_vec(values, (count,))
        });
        let parameters = tensors.collect();
        Self { backend, network, parameters }
    }

    /// The layer graph.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the model runs.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// A copy of all parameters, in the layout of PyTorch.
    pub fn parameters(&self) -> Parameters {
        self.named(self.parameters.iter().map(Tensor::as_vec))
    }

    /// Names values that are in internal order.
    fn named(&self, values: impl Iterator<Item = Vec<f32>>) -> Parameters {
        let entries = self.network.parameters.iter().zip(values).map(|(spec, values)| Parameter {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            values: layout::to_external(spec, &values),
        });
        Parameters::new(entries.collect())
    }

    /// Logits `[n, classes, z, y, x]` of `input`: `[n, in_channels, z, y, x]`; `geometry` holds n and z, y, x. A 2D
    /// network takes `[n, in_channels, y, x]` as depth 1.
    ///
    /// # Errors
    /// [`NnError::Shape`] when the length does not fit or an axis is no multiple of [`Network::multiple`].
    pub fn forward(&self, input: &[f32], geometry: Geometry) -> Result<Vec<f32>, NnError> {
        let input = self.checked_input(input, geometry, false)?;
        let logits = self.run(&mut NoneTape, input);
        Ok(channels_first(&self.backend.read(&logits), geometry, logits.channels))
    }

    /// Loss and derivatives of one batch; `input` as for [`Model::forward`], `labels`: `[n, z, y, x]`.
    ///
    /// # Errors
    /// Those of [`Model::forward`]; [`NnError::Device`].
    pub fn differentiate(
        &self,
        input: &[f32],
        labels: &Labels,
        geometry: Geometry,
        loss: &LossConfig,
    ) -> Result<Derivatives, NnError> {
        let input = self.checked_input(input, geometry, true)?;
        if labels.len() != geometry.rows() {
            let (found, expected) = (vec![labels.len()], vec![geometry.rows()]);
            return Err(NnError::Shape { what: "labels (values)".to_owned(), found, expected });
        }
        let mut tape = OwnedTape::default();
        let logits = self.run(&mut tape, input.clone());
        let values = channels_first(&self.backend.read(&logits), geometry, logits.channels);
        let loss = self.backend.dice_ce(tape, &logits, labels, loss);
        let value = loss.as_vec()[0];
        let gradients = loss.try_backward().map_err(|error| NnError::device("going back", error))?;
        let input_gradient = self.backend.gradient(&input, &gradients);
        Ok(Derivatives {
            logits: values,
            loss: value,
            input: channels_first(&input_gradient, geometry, self.network.in_channels),
            parameters: self.named(self.parameters.iter().map(|tensor| gradients.get(tensor).as_vec())),
        })
    }

    fn checked_input(
        &self,
        input: &[f32],
        geometry: Geometry,
        traced: bool,
    ) -> Result<Act<B::Value>, NnError> {
        self.network.check_input(geometry)?;
        let channels = self.network.in_channels;
        if input.len() != geometry.rows() * channels {
            let (found, expected) = (vec![input.len()], vec![geometry.rows() * channels]);
            return Err(NnError::Shape { what: "network input (values)".to_owned(), found, expected });
        }
        Ok(self.backend.input(channels_last(input, geometry, channels), geometry, channels, traced))
    }

    /// Runs the graph and records it on `tape`; `input` was checked. The gradients of the input and of all
    /// parameters follow from the tape.
    pub fn run<T: Recorder<B::Device>>(&self, tape: &mut T, input: Act<B::Value>) -> Act<B::Value> {
        let nodes = &self.network.nodes;
        let mut last_use = vec![0; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| last_use[input.0] = index);
        }
        last_use[self.network.output.0] = nodes.len();
        let mut values: Vec<Option<Act<B::Value>>> = Vec::with_capacity(nodes.len());
        let mut input = Some(input);
        for (index, node) in nodes.iter().enumerate() {
            let value =
                |k: usize| values[node.inputs[k].0].as_ref().expect("inputs stand earlier and are kept");
            let tensor = |id: &ParameterId| &self.parameters[id.0];
            let next = match &node.op {
                Op::Input { .. } => input.take().expect("a network has one input node"),
                Op::Conv { window, weight, bias, .. } => {
                    self.backend.conv(tape, value(0), tensor(weight), bias.as_ref().map(tensor), window)
                }
                Op::TransposedConv { factor, weight, bias, .. } => {
                    let bias = bias.as_ref().map(tensor);
                    self.backend.transposed_conv(tape, value(0), tensor(weight), bias, *factor)
                }
                Op::NormAct { scale, shift, epsilon, slope, .. } => {
                    self.backend.norm_act(tape, value(0), tensor(scale), tensor(shift), *epsilon, *slope)
                }
                Op::MaxPool { factor } => self.backend.max_pool(tape, value(0), *factor),
                Op::Concat => self.backend.concat(tape, value(0), value(1)),
            };
            values.push(Some(next));
            for input in &node.inputs {
                if last_use[input.0] == index {
                    values[input.0] = None;
                }
            }
        }
        values[self.network.output.0].take().expect("the output is kept to the end")
    }
}

/// `[n, c, voxels]` to `[n, voxels, c]`.
pub(crate) fn channels_last(values: &[f32], geometry: Geometry, channels: usize) -> Vec<f32> {
    transpose(values, channels, geometry.voxels())
}

/// `[n, voxels, c]` to `[n, c, voxels]`.
pub(crate) fn channels_first(values: &[f32], geometry: Geometry, channels: usize) -> Vec<f32> {
    transpose(values, geometry.voxels(), channels)
}

/// Transposes each `[rows, columns]` matrix of a batch.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    if rows == 1 || columns == 1 {
        return values.to_vec();
    }
    let mut turned = vec![0.0; values.len()];
    for (from, to) in values.chunks_exact(rows * columns).zip(turned.chunks_exact_mut(rows * columns)) {
        for (r, row) in from.chunks_exact(columns).enumerate() {
            row.iter().enumerate().for_each(|(c, value)| to[c * rows + r] = *value);
        }
    }
    turned
}
