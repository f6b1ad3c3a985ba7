//! Writes networks as ONNX files: layers in, bytes out. Checks channels, weight shapes and spatial sizes while the
//! graph is built, so that a file that was written also runs. Must not know how a network is trained or run.
//!
//! The file has one input [`INPUT`] and one output [`OUTPUT`], both float32 with an open batch axis and open spatial
//! axes; operator set [`OPSET`], IR version [`IR_VERSION`]. The same calls give the same bytes.

mod attribute;
mod ops;
mod value;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use crate::proto::{
    DATA_TYPE_FLOAT, DATA_TYPE_INT64, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
pub use value::{Dims, Value};
pub(crate) use value::{Scale, least_common_multiple};
pub use window::Window;

/// Name of the network's input: `[batch, channels, (z), y, x]`, float32.
pub const INPUT: &str = "input";
/// Name of the network's output, before any softmax: `[batch, classes, (z), y, x]` or `[batch, classes]`, float32.
pub const OUTPUT: &str = "logits";
/// Version of the standard operator set that the files use.
pub const OPSET: i64 = 17;
/// Version of the file format.
pub const IR_VERSION: i64 = 8;
/// Metadata key, written by [`GraphBuilder::build`]: what each spatial size of the input must divide by, e.g. `8,8,8`
/// in the order `(z), y, x`.
pub const DIVISOR_KEY: &str = "spatial_divisor";

/// Protobuf refuses messages of 2 GiB and more.
const MAX_FILE_BYTES: usize = i32::MAX as usize;

/// A weight in PyTorch's layout, C order.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Convolution `[out, in / groups, (kz), ky, kx]`; transposed convolution `[in, out / groups, (kz), ky, kx]`;
    /// dense `[out, in]`.
    pub shape: &'a [usize],
    /// As many values as the product of `shape`.
    pub values: &'a [f32],
}

/// What is wrong with a layer that was asked for; names the node and both sides of the contradiction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Number of values against shape.
    #[error("`{name}` has {found} values but its shape {shape:?} holds {expected}")]
    Length { name: String, shape: Vec<usize>, found: usize, expected: usize },
    /// Weight shape against the input it is applied to.
    #[error("`{node}`: the weight's shape is {found:?} but {expected} is needed")]
    WeightShape { node: String, found: Vec<usize>, expected: String },
    /// Channels of two values, or of a value and its parameters.
    #[error("`{node}`: {what} has {found} channels but {expected} are needed")]
    Channels { node: String, what: String, found: usize, expected: usize },
    /// Spatial sizes of values that are combined.
    #[error("`{node}`: {reason}")]
    Size { node: String, reason: String },
    /// A value with the wrong number of spatial axes.
    #[error("`{node}`: {what} has {found} spatial axes but {expected} are needed")]
    Axes { node: String, what: String, found: usize, expected: usize },
    /// A window whose output size is no exact ratio.
    #[error("`{node}`: {reason} on spatial axis {axis}")]
    Window { node: String, axis: usize, reason: String },
    /// A weight or setting that is NaN or infinite.
    #[error("`{name}` is {value} at index {index}; only finite weights can be exported")]
    NotFinite { name: String, index: usize, value: String },
    /// A setting outside its range.
    #[error("`{node}`: {what} is {found} but must be {expected}")]
    Setting { node: String, what: &'static str, found: String, expected: &'static str },
    /// Two things of one name.
    #[error("the name `{0}` is used twice")]
    Duplicate(String),
    /// A value that this graph did not make.
    #[error("the value `{0}` is not part of this graph")]
    Foreign(String),
    /// A file beyond what protobuf can hold.
    #[error("the model takes {found} bytes but an ONNX file can hold at most {limit}")]
    TooLarge { found: usize, limit: usize },
}

/// Builds one ONNX graph, layer by layer.
///
/// ```
/// use pipe_onnx::{Dims, GraphBuilder, Weights, Window};
///
/// let mut graph = GraphBuilder::new("threshold", 1, Dims::Three)?;
/// let input = graph.input();
/// let weight = Weights { shape: &[2, 1, 1, 1, 1], values: &[-1.0, 1.0] };
/// let window = Window::same(&[1, 1, 1], &[1, 1, 1]);
/// let head = graph.conv("head", &input, weight, Some(&[0.5, -0.5]), &window)?;
/// graph.metadata("labels", "background,bright")?;
/// let bytes: Vec<u8> = graph.build(&head)?;
/// # assert!(!bytes.is_empty());
/// # Ok::<(), pipe_onnx::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    name: String,
    dims: Dims,
    channels: usize,
    scope: String,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Names of nodes, values and weights: one space, so that no viewer shows two things under one name.
    names: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
    /// Least common multiple of every value's `down`, a spatial axis each.
    divisor: Vec<usize>,
}

impl GraphBuilder {
    /// Starts a graph with the input `[batch, channels, (z), y, x]`.
    pub fn new(name: &str, channels: usize, dims: Dims) -> Result<Self, BuildError> {
        if channels == 0 {
            return Err(setting(INPUT, "the number of channels", &channels, "at least 1"));
        }
        let names = [INPUT, OUTPUT].map(str::to_owned).into();
        Ok(Self {
            name: name.to_owned(),
            dims,
            channels,
            scope: String::new(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            names,
            metadata: BTreeMap::new(),
            divisor: vec![1; dims.count()],
        })
    }

    /// Returns the network's input.
    pub fn input(&self) -> Value {
        Value { name: INPUT.to_owned(), channels: self.channels, scales: vec![Scale::ONE; self.dims.count()] }
    }

    /// Puts `scope.` before the names of all layers that follow; an empty scope ends it. Several networks in one
    /// graph (an ensemble) may then use the same layer names.
    pub fn scope(&mut self, scope: &str) {
        self.scope = if scope.is_empty() { String::new() } else { format!("{scope}.") };
    }

    /// Adds a metadata entry to the file; a key may be set once, and [`DIVISOR_KEY`] is the builder's own.
    pub fn metadata(&mut self, key: &str, value: &str) -> Result<(), BuildError> {
        if key == DIVISOR_KEY || self.metadata.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(BuildError::Duplicate(key.to_owned()));
        }
        Ok(())
    }

    /// Ends the graph at `output`, which becomes [`OUTPUT`], and returns the bytes of the `.onnx` file.
    pub fn build(mut self, output: &Value) -> Result<Vec<u8>, BuildError> {
        self.own(output)?;
        if output.name == INPUT {
            self.nodes.push(NodeProto {
                input: vec![INPUT.to_owned()],
                output: vec![OUTPUT.to_owned()],
                name: Some(OUTPUT.to_owned()),
                op_type: Some("Identity".to_owned()),
                attribute: Vec::new(),
            });
        } else {
            let values = self.nodes.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
            values.filter(|name| **name == output.name).for_each(|name| OUTPUT.clone_into(name));
        }

        let divisor: Vec<String> = self.divisor.iter().map(ToString::to_string).collect();
        self.metadata.insert(DIVISOR_KEY.to_owned(), divisor.join(","));
        let input = self.input();
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("pipe".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            metadata_props: self
                .metadata
                .into_iter()
                .map(|(key, value)| StringStringEntryProto { key: Some(key), value: Some(value) })
                .collect(),
            graph: Some(GraphProto {
                node: self.nodes,
                name: Some(self.name),
                initializer: self.initializers,
                input: vec![value_info(INPUT, &input, self.dims)],
                output: vec![value_info(OUTPUT, output, self.dims)],
            }),
        };
        let found = model.encoded_len();
        if found > MAX_FILE_BYTES {
            return Err(BuildError::TooLarge { found, limit: MAX_FILE_BYTES });
        }
        Ok(model.encode_to_vec())
    }

    /// Adds a weight and returns its name.
    fn initializer(&mut self, name: String, weights: Weights<'_>) -> Result<String, BuildError> {
        let expected = weights.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let found = weights.values.len();
        if expected != Some(found) || found == 0 {
            let expected = expected.unwrap_or(usize::MAX);
            return Err(BuildError::Length { name, shape: weights.shape.to_vec(), found, expected });
        }
        if let Some(index) = weights.values.iter().position(|value| !value.is_finite()) {
            let value = weights.values[index].to_string();
            return Err(BuildError::NotFinite { name, index, value });
        }
        self.claim(&name)?;
        self.initializers.push(TensorProto {
            dims: to_i64(weights.shape),
            data_type: Some(DATA_TYPE_FLOAT),
            name: Some(name.clone()),
            raw_data: Some(weights.values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        });
        Ok(name)
    }

    /// Adds a list of sizes, as `Reshape` takes it, and returns its name.
    fn sizes(&mut self, name: String, sizes: &[i64]) -> Result<String, BuildError> {
        self.claim(&name)?;
        self.initializers.push(TensorProto {
            dims: vec![sizes.len() as i64],
            data_type: Some(DATA_TYPE_INT64),
            name: Some(name.clone()),
            raw_data: Some(sizes.iter().flat_map(|size| size.to_le_bytes()).collect()),
        });
        Ok(name)
    }

    /// Takes a name, which must be free.
    fn claim(&mut self, name: &str) -> Result<(), BuildError> {
        if !self.names.insert(name.to_owned()) {
            return Err(BuildError::Duplicate(name.to_owned()));
        }
        Ok(())
    }

    /// Refuses a value of another graph.
    fn own(&self, value: &Value) -> Result<(), BuildError> {
        if value.name == INPUT || self.nodes.iter().any(|node| node.output.contains(&value.name)) {
            return Ok(());
        }
        Err(BuildError::Foreign(value.name.clone()))
    }
}

fn value_info(name: &str, value: &Value, dims: Dims) -> ValueInfoProto {
    let open = |name: &str| DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) };
    let mut dim =
        vec![open("batch"), DimensionProto { dim_value: Some(value.channels as i64), dim_param: None }];
    for (scale, axis) in value.scales.iter().zip(dims.names()) {
        // A name stands for one size in the whole graph, so an axis of another size stays without one.
        dim.push(if *scale == Scale::ONE { open(axis) } else { DimensionProto::default() });
    }
    let tensor_type =
        TensorTypeProto { elem_type: Some(DATA_TYPE_FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), kind: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn to_i64(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|size| *size as i64).collect()
}

fn setting(node: &str, what: &'static str, found: &dyn ToString, expected: &'static str) -> BuildError {
    BuildError::Setting { node: node.to_owned(), what, found: found.to_string(), expected }
}
