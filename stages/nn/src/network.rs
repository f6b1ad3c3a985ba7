//! The layer graph: a network as plain data, in execution order. [`Model`](crate::Model) runs it, an exporter walks
//! it. Holds no values and knows no device.

use crate::NnError;
use crate::geometry::{Geometry, Window};

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

/// One operation. Spatial axes are z, y, x; in 2D every z entry is the identity.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The image, `[n, channels, z, y, x]` (2D: `[n, channels, y, x]`).
    Input { channels: usize },
    /// Cross-correlation, as every framework's "convolution".
    Conv { window: Window, cin: usize, cout: usize, weight: ParameterId, bias: Option<ParameterId> },
    /// Instance normalisation over the voxels of each sample and channel (biased variance), affine, then leaky
    /// ReLU: `z = scale·(x - mean)/sqrt(variance + epsilon) + shift`, `z > 0 ? z : slope·z`.
    NormAct { channels: usize, scale: ParameterId, shift: ParameterId, epsilon: f32, slope: f32 },
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
    /// `[cout, cin, kz, ky, kx]` (2D: `[cout, cin, ky, kx]`).
    ConvWeight,
    /// `[cin, cout, kz, ky, kx]` (2D: `[cin, cout, ky, kx]`).
    TransposedConvWeight,
    /// `[cout]`.
    Bias,
    /// `[channels]`; multiplies a normalised activation.
    Scale,
    /// `[channels]`; is added to a normalised activation.
    Shift,
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
    pub nodes: Vec<Node>,
    pub parameters: Vec<ParameterSpec>,
    /// The node whose value is the logits.
    pub output: NodeId,
}

impl Network {
    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(ParameterSpec::len).sum()
    }

    /// Checks that `geometry` can run through the network.
    ///
    /// # Errors
    /// [`NnError::Shape`] when an axis is zero or no multiple of [`Network::multiple`], or z is not 1 in 2D.
    pub fn check_input(&self, geometry: Geometry) -> Result<(), NnError> {
        let size = geometry.size;
        let flat = self.dims == Dims::Three || size[0] == 1;
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

    pub(crate) fn norm_act(
        &mut self,
        name: &str,
        x: NodeId,
        channels: usize,
        epsilon: f32,
        slope: f32,
    ) -> NodeId {
        let scale = self.parameter(format!("{name}.weight"), vec![channels], Role::Scale);
        let shift = self.parameter(format!("{name}.bias"), vec![channels], Role::Shift);
        self.node(name, Op::NormAct { channels, scale, shift, epsilon, slope }, &[x])
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

    pub(crate) fn finish(
        self,
        output: NodeId,
        [in_channels, classes]: [usize; 2],
        multiple: [usize; 3],
    ) -> Network {
        let Self { dims, nodes, parameters } = self;
        Network { dims, in_channels, classes, multiple, nodes, parameters, output }
    }
}
