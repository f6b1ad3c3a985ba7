//! A network with values: runs the layer graph on a backend, and gives and takes its parameters as plain data.

use dfdx::prelude::*;

use crate::backend::{Act, Backend, CpuBackend, Flat, Labels, Recorder};
use crate::geometry::Geometry;
use crate::init::Initialization;
use crate::loss::LossTerms;
use crate::network::{Network, NodeId, Norm, Op, ParameterId, Task};
use crate::pass::TrainingPass;
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
    pub fn new(backend: B, network: Network, how: Initialization, seed: u64) -> Self {
        let values = init::initial_values(&network, how, seed);
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

    /// Takes over values by name; what `start` does not have stays as it is.
    ///
    /// # Errors
    /// [`NnError::Parameter`] for a name that is not the network's, [`NnError::Shape`] for another shape.
    pub(crate) fn take_over(&mut self, start: &Parameters) -> Result<(), NnError> {
        for entry in start.iter() {
            let place = self.network.parameters.iter().position(|spec| spec.name == entry.name);
            let problem = || "is among the start values, but the network has none of that name".to_owned();
            let unknown = || NnError::Parameter { name: entry.name.clone(), problem: problem() };
            let place = place.ok_or_else(unknown)?;
            let spec = &self.network.parameters[place];
            if entry.shape != spec.shape || entry.values.len() != spec.len() {
                let what = format!("start value `{}`", spec.name);
                let (found, expected) = (entry.shape.clone(), spec.shape.clone());
                return Err(NnError::Shape { what, found, expected });
            }
            let values = layout::to_internal(spec, &entry.values);
            let count = values.len();
            self.parameters[place] = self.backend.device().tensor_from_vec(values, (count,));
        }
        Ok(())
    }

    /// The same network with other values, which share no memory with these.
    pub(crate) fn with_values(&self, parameters: Vec<Flat<B::Device>>) -> Self {
        Self { backend: self.backend.clone(), network: self.network.clone(), parameters }
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

    /// Logits `[n, classes, z, y, x]`, for whole images `[n, classes]`, of `input`: `[n, in_channels, z, y, x]`; `geometry` holds n and z, y, x. A 2D
    /// network takes `[n, in_channels, y, x]` as depth 1.
    ///
    /// # Errors
    /// [`NnError::Shape`] when the length does not fit or an axis is no multiple of [`Network::multiple`].
    pub fn forward(&self, input: &[f32], geometry: Geometry) -> Result<Vec<f32>, NnError> {
        let input = self.checked_input(input, geometry, false)?;
        let logits = self.run(&mut NoneTape, input);
        Ok(channels_first(&self.backend.read(&logits), logits.geometry, logits.channels))
    }

    /// Loss and derivatives of one batch; `input` as for [`Model::forward`], `labels`: `[n, z, y, x]`, for whole images
    /// `[n]`. With `training`, batch normalisation is by the batch and coarser outputs count, but nothing is drawn at
    /// random; without, the network is the one that predicts.
    ///
    /// # Errors
    /// Those of [`Model::forward`]; [`NnError::Device`].
    pub fn differentiate(
        &self,
        input: &[f32],
        labels: &Labels,
        geometry: Geometry,
        terms: &LossTerms,
        training: bool,
    ) -> Result<Derivatives, NnError> {
        let input = self.checked_input(input, geometry, true)?;
        let expected = self.output_geometry(geometry).rows();
        if labels.len() != expected {
            let (found, expected) = (vec![labels.len()], vec![expected]);
            return Err(NnError::Shape { what: "labels (values)".to_owned(), found, expected });
        }
        let mut tape = OwnedTape::default();
        let mut pass = TrainingPass::without_draws();
        let outputs = if training {
            self.run_training(&mut tape, input.clone(), &mut pass)
        } else {
            vec![self.run(&mut tape, input.clone())]
        };
        let logits = &outputs[0];
        let values = channels_first(&self.backend.read(logits), logits.geometry, logits.channels);
        let loss = self.total_loss(tape, &outputs, labels, terms);
        let value = loss.as_vec()[0];
        let gradients = loss.try_backward().map_err(|error| NnError::device("going back", error))?;
        let input_gradient = self.backend.gradient(&input, &gradients);
        let parameters = self.network.parameters.iter().zip(&self.parameters).map(|(spec, tensor)| {
            if spec.role.is_trained() { gradients.get(tensor).as_vec() } else { vec![0.0; spec.len()] }
        });
        Ok(Derivatives {
            logits: values,
            loss: value,
            input: channels_first(&input_gradient, geometry, self.network.in_channels),
            parameters: self.named(parameters),
        })
    }

    /// The loss of the output, and of coarser ones at half the weight of the one before each; the weights add up to 1.
    pub(crate) fn total_loss<T: Recorder<B::Device>>(
        &self,
        tape: T,
        outputs: &[Act<B::Value>],
        labels: &Labels,
        terms: &LossTerms,
    ) -> Tensor<(), f32, B::Device, T> {
        let weight = |index: usize| 0.5_f32.powi(i32::try_from(index).expect("few outputs"));
        let all: f32 = (0..outputs.len()).map(weight).sum();
        let fine = outputs[0].geometry;
        let mut total = self.backend.loss(tape, &outputs[0], labels, terms) * (1.0 / all);
        for (index, output) in outputs.iter().enumerate().skip(1) {
            let (held, tape) = total.split_tape();
            let labels = coarser(labels, fine, output.geometry);
            total = self.backend.loss(tape, output, &labels, terms) * (weight(index) / all) + held;
        }
        total
    }

    /// Size of the output for an input of `geometry`.
    pub fn output_geometry(&self, geometry: Geometry) -> Geometry {
        match self.network.task {
            Task::Segmentation => geometry,
            Task::Classification => Geometry { size: [1; 3], ..geometry },
        }
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

    /// Runs the graph as it predicts and records it on `tape`; `input` was checked. The gradients of the input and of
    /// all parameters follow from the tape.
    pub fn run<T: Recorder<B::Device>>(&self, tape: &mut T, input: Act<B::Value>) -> Act<B::Value> {
        self.execute(tape, input, None, &[self.network.output]).swap_remove(0)
    }

    /// Runs the graph as it trains: with draws, statistics of the batch, and coarser outputs behind the first.
    pub(crate) fn run_training<T: Recorder<B::Device>>(
        &self,
        tape: &mut T,
        input: Act<B::Value>,
        pass: &mut TrainingPass<B>,
    ) -> Vec<Act<B::Value>> {
        let outputs = [&[self.network.output], &*self.network.auxiliary].concat();
        self.execute(tape, input, Some(pass), &outputs)
    }

    fn execute<T: Recorder<B::Device>>(
        &self,
        tape: &mut T,
        input: Act<B::Value>,
        mut pass: Option<&mut TrainingPass<B>>,
        outputs: &[NodeId],
    ) -> Vec<Act<B::Value>> {
        let nodes = &self.network.nodes;
        let needed = self.network.needed_for(outputs);
        let mut last_use = vec![0; nodes.len()];
        for (index, node) in nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            node.inputs.iter().for_each(|input| last_use[input.0] = index);
        }
        for output in outputs {
            last_use[output.0] = nodes.len();
        }
        let mut values: Vec<Option<Act<B::Value>>> = Vec::with_capacity(nodes.len());
        let mut input = Some(input);
        for (index, node) in nodes.iter().enumerate() {
            if !needed[index] {
                values.push(None);
                continue;
            }
            let value =
                |k: usize| values[node.inputs[k].0].as_ref().expect("inputs stand earlier and are kept");
            let next = match &node.op {
                Op::Input { .. } => input.take().expect("a network has one input node"),
                Op::Concat => self.backend.concat(tape, value(0), value(1)),
                Op::Add => self.backend.add(tape, value(0), value(1)),
                op => self.apply(tape, op, index, value(0), pass.as_deref_mut()),
            };
            if let Some(pass) = pass.as_deref_mut() {
                pass.look(&self.backend, tape, node, &next);
            }
            values.push(Some(next));
            for input in &node.inputs {
                if last_use[input.0] == index {
                    values[input.0] = None;
                }
            }
        }
        outputs.iter().map(|output| values[output.0].take().expect("outputs are kept to the end")).collect()
    }

    /// An operation of one input.
    fn apply<T: Recorder<B::Device>>(
        &self,
        tape: &mut T,
        op: &Op,
        node: usize,
        x: &Act<B::Value>,
        pass: Option<&mut TrainingPass<B>>,
    ) -> Act<B::Value> {
        let backend = &self.backend;
        let tensor = |id: &ParameterId| &self.parameters[id.0];
        match op {
            Op::Input { .. } | Op::Concat | Op::Add => unreachable!("handled by the caller"),
            Op::Conv { window, weight, bias, .. } => {
                backend.conv(tape, x, tensor(weight), bias.as_ref().map(tensor), window)
            }
            Op::TransposedConv { factor, weight, bias, .. } => {
                backend.transposed_conv(tape, x, tensor(weight), bias.as_ref().map(tensor), *factor)
            }
            Op::NormAct { norm, scale, shift, running, epsilon, slope, .. } => {
                let affine = [tensor(scale), tensor(shift)];
                match (norm, running, pass) {
                    (Norm::Batch, Some(running), Some(pass)) if pass.renews(*scale) => {
                        pass.batches.push((*running, backend.moments(x), x.geometry.rows()));
                        backend.norm_act(tape, x, *norm, affine, *epsilon, *slope)
                    }
                    (Norm::Batch, Some(running), _) => {
                        let running = [tensor(&running[0]), tensor(&running[1])];
                        backend.norm_act_with(tape, x, running, affine, *epsilon, *slope)
                    }
                    _ => backend.norm_act(tape, x, *norm, affine, *epsilon, *slope),
                }
            }
            Op::Activation { activation, slope } => {
                backend.activation(tape, x, *activation, slope.as_ref().map(tensor))
            }
            Op::MaxPool { factor } => backend.max_pool(tape, x, *factor),
            Op::AvgPool { factor } => backend.avg_pool(tape, x, *factor),
            Op::GlobalPool => backend.avg_pool(tape, x, x.geometry.size),
            Op::Upsample { factor } => backend.upsample(tape, x, *factor),
            Op::Dropout { rate, channels } => {
                match pass.and_then(|pass| pass.mask(node, x, *rate, *channels)) {
                    Some(factors) => backend.scale_by(tape, x, factors),
                    None => x.clone(),
                }
            }
            Op::Noise { deviation } => match pass.and_then(|pass| pass.noise(node, x, *deviation)) {
                Some(addends) => backend.shift_by(tape, x, addends),
                None => x.clone(),
            },
        }
    }
}

/// The labels of every so many voxels, as nearest-neighbour interpolation takes them.
fn coarser(labels: &Labels, fine: Geometry, coarse: Geometry) -> Labels {
    let [depth, height, width] = coarse.size;
    let step: [usize; 3] = std::array::from_fn(|axis| fine.size[axis] / coarse.size[axis]);
    let places = (0..coarse.rows()).map(|row| {
        let (sample, voxel) = (row / coarse.voxels(), row % coarse.voxels());
        let [z, y, x] = [voxel / (height * width) % depth, voxel / width % height, voxel % width];
        ((sample * fine.size[0] + z * step[0]) * fine.size[1] + y * step[1]) * fine.size[2] + x * step[2]
    });
    places.map(|place| labels[place]).collect()
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
