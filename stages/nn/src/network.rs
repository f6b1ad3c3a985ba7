//! The layer graph: a network as plain data, in execution order. [`Model`](crate::Model) runs it, an exporter walks
//! it. Holds no values and knows no device.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::geometry::{Geometry, Window, round_up};

/// Added to the variance by every normalisation, as in PyTorch and nnU-Net.
const NORM_EPSILON: f32 = 1e-5;
/// Negative slope of the leaky ReLU, as in nnU-Net.
const LEAKY_SLOPE: f32 = 0.01;

/// Position of a node in [`Network::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// Position of a parameter in [`Network::parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(pub usize);

/// Whether a network sees slices or volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Dims {
    #[serde(rename = "2d")]
    Two,
    #[serde(rename = "3d")]
    Three,
}

impl Dims {
    /// Number of spatial axes.
    pub fn count(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// `value` on the axes the network sees, 1 on z in 2D.
    pub fn axes(self, value: usize) -> [usize; 3] {
        match self {
            Self::Two => [1, value, value],
            Self::Three => [value; 3],
        }
    }
}

/// What a normalisation takes mean and (biased) variance over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// The voxels of each sample and channel.
    #[default]
    Instance,
    /// The voxels of all samples, for each channel; running means of both when it is used.
    Batch,
    /// The voxels of each sample and group of channels; the number of groups.
    Group(usize),
}

/// A function of each value.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    Relu,
    /// Slope 0.01 below zero.
    #[default]
    LeakyRelu,
    /// A slope below zero that is trained, one a channel.
    Prelu,
    /// `x` times the normal distribution function of `x`.
    Gelu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// The slope below zero of a (leaky) ReLU.
    pub fn fixed_slope(self) -> Option<f32> {
        match self {
            Self::Relu => Some(0.0),
            Self::LeakyRelu => Some(LEAKY_SLOPE),
            Self::Prelu | Self::Gelu | Self::Sigmoid | Self::Tanh => None,
        }
    }

    /// The slope below zero before any training, where the function is like a ReLU.
    pub(crate) fn start_slope(self, prelu: f32) -> Option<f32> {
        match self {
            Self::Prelu => Some(prelu),
            Self::Gelu => Some(0.0),
            other => other.fixed_slope(),
        }
    }
}

/// One operation. Spatial axes are z, y, x; in 2D every z entry is the identity.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The image, `[n, channels, z, y, x]` (2D: `[n, channels, y, x]`).
    Input { channels: usize },
    /// Cross-correlation, as every framework's "convolution".
    Conv { window: Window, cin: usize, cout: usize, weight: ParameterId, bias: Option<ParameterId> },
    /// Normalisation, affine, then leaky ReLU:
    /// `z = scale·(x - mean)/sqrt(variance + epsilon) + shift`, `z > 0 ? z : slope·z`.
    NormAct {
        norm: Norm,
        channels: usize,
        scale: ParameterId,
        shift: ParameterId,
        /// Running mean and variance of [`Norm::Batch`].
        running: Option<[ParameterId; 2]>,
        epsilon: f32,
        slope: f32,
    },
    /// A function of each value; the slopes of a parametric ReLU.
    Activation { activation: Activation, slope: Option<ParameterId> },
    /// Maximum over non-overlapping blocks; a remainder at the far side is dropped.
    MaxPool { factor: [usize; 3] },
    /// Transposed convolution whose kernel equals its stride: each voxel becomes one block.
    TransposedConv {
        factor: [usize; 3],
        cin: usize,
        cout: usize,
        weight: ParameterId,
        bias: Option<ParameterId>,
    },
    /// Joins two inputs of the same size along the channels, first input first.
    Concat,
    /// Sum of two inputs of the same shape.
    Add,
    /// Mean over non-overlapping blocks; a remainder at the far side is dropped.
    AvgPool { factor: [usize; 3] },
    /// Mean over all voxels of a sample.
    GlobalPool,
    /// Repeats each voxel along each axis.
    Upsample { factor: [usize; 3] },
    /// In training sets values to 0 with probability `rate` and divides the others by `1 - rate`: one by one, or whole
    /// channels of a sample.
    Dropout { rate: f32, channels: bool },
    /// In training adds normal noise.
    Noise { deviation: f32 },
}

/// One operation and where its inputs come from; inputs stand earlier in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique, for example `decoder.0.conv1`.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<NodeId>,
}

/// What a parameter is for; decides its start value, its layout and whether weight decay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[cout, cin, kz, ky, kx]` (2D: `[cout, cin, ky, kx]`; of a linear layer on a pooled image: `[cout, cin]`).
    ConvWeight,
    /// `[cin, cout, kz, ky, kx]` (2D: `[cin, cout, ky, kx]`).
    TransposedConvWeight,
    /// `[cout]`.
    Bias,
    /// `[channels]`; multiplies a normalised activation.
    Scale,
    /// `[channels]`; is added to a normalised activation.
    Shift,
    /// `[channels]`; slope of a parametric ReLU below zero.
    Slope,
    /// `[channels]`; what batch normalisation subtracts when it does not train. Not trained.
    RunningMean,
    /// `[channels]`; biased variance as batch normalisation uses it when it does not train. Not trained.
    RunningVariance,
}

impl Role {
    /// Whether gradients change the parameter.
    pub fn is_trained(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }

    /// Whether weight decay and penalties apply.
    pub fn is_weight(self) -> bool {
        matches!(self, Self::ConvWeight | Self::TransposedConvWeight)
    }
}

/// Name and shape of one parameter, in the layout of PyTorch and ONNX.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// For example `encoder.0.conv0.weight`.
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
}

impl ParameterSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the parameter holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A network as data. Nodes are in execution order; the first is the only [`Op::Input`].
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub dims: Dims,
    pub in_channels: usize,
    pub classes: usize,
    /// Every input axis must be a multiple of this (z, y, x).
    pub multiple: [usize; 3],
    /// The only size that the network takes, where there is only one.
    pub fixed_size: Option<[usize; 3]>,
    /// What the output tells: a class for each voxel, or one for the whole image.
    pub task: Task,
    pub nodes: Vec<Node>,
    pub parameters: Vec<ParameterSpec>,
    /// The node whose value is the logits.
    pub output: NodeId,
    /// Logits at coarser sizes that are trained as well, finest first. Each halves the weight of the one before.
    pub auxiliary: Vec<NodeId>,
}

/// What a network tells.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A class for each voxel.
    Segmentation,
    /// A class for the whole image.
    Classification,
}

impl Network {
    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(ParameterSpec::len).sum()
    }

    /// Number of values that gradients change.
    pub fn trained_count(&self) -> usize {
        self.parameters.iter().filter(|spec| spec.role.is_trained()).map(ParameterSpec::len).sum()
    }

    /// Which nodes `outputs` depend on.
    pub fn needed_for(&self, outputs: &[NodeId]) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for output in outputs {
            needed[output.0] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                self.nodes[index].inputs.iter().for_each(|input| needed[input.0] = true);
            }
        }
        needed
    }

    /// Checks the size of a sample.
    ///
    /// # Errors
    /// [`NnError::Config`] when an axis is zero or no multiple of [`Network::multiple`], or z is not 1 in 2D.
    pub fn check_patch(&self, patch: [usize; 3]) -> Result<(), NnError> {
        let flat = self.dims == Dims::Three || patch[0] == 1;
        let multiple = self.multiple;
        if flat && (0..3).all(|axis| patch[axis] > 0 && patch[axis].is_multiple_of(multiple[axis])) {
            return Ok(());
        }
        let mut next = round_up(patch, multiple);
        let mut rule = format!("each axis (z, y, x) must be a multiple of {multiple:?}");
        if self.dims == Dims::Two {
            next[0] = 1;
            rule.push_str(", and z 1 in 2D");
        }
        rule.push_str(&format!("; {next:?} would do"));
        Err(NnError::Config { name: "patch", value: format!("{patch:?}"), rule })
    }

    /// Checks that `geometry` can run through the network.
    ///
    /// # Errors
    /// [`NnError::Shape`] when an axis is zero or no multiple of [`Network::multiple`], or z is not 1 in 2D.
    pub fn check_input(&self, geometry: Geometry) -> Result<(), NnError> {
        let size = geometry.size;
        let flat = self.dims == Dims::Three || size[0] == 1;
        if let Some(fixed) = self.fixed_size.filter(|fixed| *fixed != size) {
            let what = "input of a network of one size (z, y, x)".to_owned();
            return Err(NnError::Shape { what, found: size.to_vec(), expected: fixed.to_vec() });
        }
        let fits = (0..3).all(|a| size[a] > 0 && size[a].is_multiple_of(self.multiple[a]));
        if fits && flat && geometry.samples > 0 {
            return Ok(());
        }
        let what = match self.dims {
            Dims::Two => "2D network input (samples, z, y, x; z is 1, the others multiples)",
            Dims::Three => "3D network input (samples, z, y, x; the axes are multiples)",
        };
        let found = [geometry.samples].into_iter().chain(size).collect();
        Err(NnError::Shape {
            what: what.to_owned(),
            found,
            expected: [1].into_iter().chain(self.multiple).collect(),
        })
    }
}

/// Builds a [`Network`] node by node; each method returns the new node.
pub(crate) struct Builder {
    dims: Dims,
    nodes: Vec<Node>,
    parameters: Vec<ParameterSpec>,
}

impl Builder {
    pub(crate) fn new(dims: Dims, channels: usize) -> (Self, NodeId) {
        let mut builder = Self { dims, nodes: Vec::new(), parameters: Vec::new() };
        let input = builder.node("input", Op::Input { channels }, &[]);
        (builder, input)
    }

    fn node(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        self.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec() });
        NodeId(self.nodes.len() - 1)
    }

    fn parameter(&mut self, name: String, shape: Vec<usize>, role: Role) -> ParameterId {
        self.parameters.push(ParameterSpec { name, shape, role });
        ParameterId(self.parameters.len() - 1)
    }

    /// The spatial part of a weight's shape: z is left out in 2D.
    fn weight_shape(&self, first: usize, second: usize, kernel: [usize; 3]) -> Vec<usize> {
        [first, second].into_iter().chain(kernel[3 - self.dims.count()..].iter().copied()).collect()
    }

    pub(crate) fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        window: Window,
        [cin, cout]: [usize; 2],
        bias: bool,
    ) -> NodeId {
        let shape = self.weight_shape(cout, cin, window.kernel);
        let weight = self.parameter(format!("{name}.weight"), shape, Role::ConvWeight);
        let bias = bias.then(|| self.parameter(format!("{name}.bias"), vec![cout], Role::Bias));
        self.node(name, Op::Conv { window, cin, cout, weight, bias }, &[x])
    }

    /// A normalisation with a slope below zero of its own: 1 for none, 0 for a ReLU.
    pub(crate) fn norm_act(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        norm: Norm,
        slope: f32,
    ) -> NodeId {
        let mut own = |part: &str, role| self.parameter(format!("{name}.{part}"), vec![channels], role);
        let (scale, shift) = (own("weight", Role::Scale), own("bias", Role::Shift));
        let running = (norm == Norm::Batch)
            .then(|| [own("running_mean", Role::RunningMean), own("running_var", Role::RunningVariance)]);
        let epsilon = NORM_EPSILON;
        self.node(name, Op::NormAct { norm, channels, scale, shift, running, epsilon, slope }, &[x])
    }

    /// A normalisation and the activation behind it, in one node where that can be.
    pub(crate) fn norm_then(
        &mut self,
        [norm_name, activation_name]: [&str; 2],
        x: NodeId,
        channels: usize,
        norm: Norm,
        activation: Activation,
    ) -> NodeId {
        if let Some(slope) = activation.fixed_slope() {
            return self.norm_act(norm_name, x, channels, norm, slope);
        }
        let x = self.norm_act(norm_name, x, channels, norm, 1.0);
        self.activation(activation_name, x, channels, activation)
    }

    pub(crate) fn activation(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        activation: Activation,
    ) -> NodeId {
        let slope = (activation == Activation::Prelu)
            .then(|| self.parameter(format!("{name}.weight"), vec![channels], Role::Slope));
        self.node(name, Op::Activation { activation, slope }, &[x])
    }

    pub(crate) fn max_pool(&mut self, name: &str, x: NodeId, factor: [usize; 3]) -> NodeId {
        self.node(name, Op::MaxPool { factor }, &[x])
    }

    pub(crate) fn transposed_conv(
        &mut self,
        name: &str,
        x: NodeId,
        factor: [usize; 3],
        [cin, cout]: [usize; 2],
    ) -> NodeId {
        let shape = self.weight_shape(cin, cout, factor);
        let weight = self.parameter(format!("{name}.weight"), shape, Role::TransposedConvWeight);
        let bias = Some(self.parameter(format!("{name}.bias"), vec![cout], Role::Bias));
        self.node(name, Op::TransposedConv { factor, cin, cout, weight, bias }, &[x])
    }

    pub(crate) fn concat(&mut self, name: &str, first: NodeId, second: NodeId) -> NodeId {
        self.node(name, Op::Concat, &[first, second])
    }

    pub(crate) fn add(&mut self, name: &str, first: NodeId, second: NodeId) -> NodeId {
        self.node(name, Op::Add, &[first, second])
    }

    pub(crate) fn global_pool(&mut self, name: &str, x: NodeId) -> NodeId {
        self.node(name, Op::GlobalPool, &[x])
    }

    /// A linear map of the channels of a pooled image, `weight`: `[cout, cin]`.
    pub(crate) fn dense(&mut self, name: &str, x: NodeId, [cin, cout]: [usize; 2]) -> NodeId {
        let weight = self.parameter(format!("{name}.weight"), vec![cout, cin], Role::ConvWeight);
        let bias = Some(self.parameter(format!("{name}.bias"), vec![cout], Role::Bias));
        self.node(name, Op::Conv { window: Window::same([1; 3]), cin, cout, weight, bias }, &[x])
    }

    pub(crate) fn upsample(&mut self, name: &str, x: NodeId, factor: [usize; 3]) -> NodeId {
        self.node(name, Op::Upsample { factor }, &[x])
    }

    pub(crate) fn avg_pool(&mut self, name: &str, x: NodeId, factor: [usize; 3]) -> NodeId {
        self.node(name, Op::AvgPool { factor }, &[x])
    }

    /// Dropout, or nothing where the rate is 0.
    pub(crate) fn dropout(&mut self, name: &str, x: NodeId, rate: f32, channels: bool) -> NodeId {
        if rate == 0.0 { x } else { self.node(name, Op::Dropout { rate, channels }, &[x]) }
    }

    /// Noise, or nothing where its deviation is 0.
    pub(crate) fn noise(&mut self, name: &str, x: NodeId, deviation: f32) -> NodeId {
        if deviation == 0.0 { x } else { self.node(name, Op::Noise { deviation }, &[x]) }
    }

    /// A segmentation network with its output first, then coarser ones.
    pub(crate) fn finish(
        self,
        output: NodeId,
        auxiliary: Vec<NodeId>,
        [in_channels, classes]: [usize; 2],
        multiple: [usize; 3],
    ) -> Network {
        let Self { dims, nodes, parameters } = self;
        let task = Task::Segmentation;
        let fixed_size = None;
        Network {
            dims,
            in_channels,
            classes,
            multiple,
            fixed_size,
            task,
            nodes,
            parameters,
            output,
            auxiliary,
        }
    }
}
