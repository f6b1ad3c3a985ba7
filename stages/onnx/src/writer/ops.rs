//! The layers: each method checks its arguments, adds one node (and its weights) and returns the node's value.
//! Operator meanings: <https://onnx.ai/onnx/operators/>, operator set 17; they match the PyTorch layers named.

use super::attribute::{float, int, ints, string};
use super::value::{Scale, least_common_multiple};
use super::window::{Window, enlarge, overflow, scaled, shrink};
use super::{BuildError, GraphBuilder, Value, Weights, setting};
use crate::proto::{AttributeProto, NodeProto};

impl GraphBuilder {
    /// Adds a convolution (`torch.nn.functional.conv2d` / `conv3d`). `weight`: `[out, in / groups, (kz), ky, kx]`,
    /// `bias`: `[out]`.
    pub fn conv(
        &mut self,
        name: &str,
        input: &Value,
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        window: &Window,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        let axes = self.spatial(&node, input)?;
        window.check(&node, axes)?;
        let fits = weight.shape.len() == axes + 2
            && weight.shape.iter().all(|size| *size > 0)
            && weight.shape[0].is_multiple_of(window.groups)
            && weight.shape[1].checked_mul(window.groups) == Some(input.channels);
        if !fits {
            let expected =
                format!("[out, {} / {}, {}]", input.channels, window.groups, vec!["kernel"; axes].join(", "));
            return Err(BuildError::WeightShape { node, found: weight.shape.to_vec(), expected });
        }
        let kernel = &weight.shape[2..];
        let scales = shrink(&node, input, kernel, window)?;
        let out = weight.shape[0];
        let inputs = self.parameters(&node, input, weight, bias, out)?;
        let attributes = vec![
            ints("dilations", &window.dilation),
            int("group", window.groups as i64),
            ints("kernel_shape", kernel),
            ints("pads", &[window.padding.as_slice(), &window.padding].concat()),
            ints("strides", &window.stride),
        ];
        self.node(node, "Conv", inputs, attributes, out, scales)
    }

    /// Adds a transposed convolution (`torch.nn.functional.conv_transpose2d` / `conv_transpose3d`), which enlarges
    /// by the stride. `weight`: `[in, out / groups, (kz), ky, kx]`, `bias`: `[out]`.
    pub fn conv_transpose(
        &mut self,
        name: &str,
        input: &Value,
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        window: &Window,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        let axes = self.spatial(&node, input)?;
        window.check(&node, axes)?;
        let fits = weight.shape.len() == axes + 2
            && weight.shape.iter().all(|size| *size > 0)
            && weight.shape[0] == input.channels
            && input.channels.is_multiple_of(window.groups);
        if !fits {
            let expected = format!("[{}, out, {}]", input.channels, vec!["kernel"; axes].join(", "));
            return Err(BuildError::WeightShape { node, found: weight.shape.to_vec(), expected });
        }
        let kernel = &weight.shape[2..];
        let scales = enlarge(&node, input, kernel, window)?;
        let out = weight.shape[1] * window.groups;
        let inputs = self.parameters(&node, input, weight, bias, out)?;
        let attributes = vec![
            ints("dilations", &window.dilation),
            int("group", window.groups as i64),
            ints("kernel_shape", kernel),
            ints("pads", &[window.padding.as_slice(), &window.padding].concat()),
            ints("strides", &window.stride),
        ];
        self.node(node, "ConvTranspose", inputs, attributes, out, scales)
    }

    /// Adds an instance normalisation with scale and shift (`torch.nn.functional.instance_norm`): mean and biased
    /// variance of each channel of each case. `weight`, `bias`: `[channels]`.
    pub fn instance_norm(
        &mut self,
        name: &str,
        input: &Value,
        weight: &[f32],
        bias: &[f32],
        epsilon: f32,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        self.spatial(&node, input)?;
        check_epsilon(&node, epsilon)?;
        let channels = input.channels;
        let mut inputs = vec![input.name.clone()];
        for (part, values) in [("weight", weight), ("bias", bias)] {
            inputs.push(self.per_channel(&node, part, values, channels)?);
        }
        let scales = input.scales.clone();
        self.node(node, "InstanceNormalization", inputs, vec![float("epsilon", epsilon)], channels, scales)
    }

    /// Adds a batch normalisation in inference form (`torch.nn.functional.batch_norm` with `training=False`).
    /// `parameters`: weight, bias, running mean, running variance (not negative), each `[channels]`.
    pub fn batch_norm(
        &mut self,
        name: &str,
        input: &Value,
        parameters: [&[f32]; 4],
        epsilon: f32,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        self.own(input)?;
        check_epsilon(&node, epsilon)?;
        if let Some(variance) = parameters[3].iter().find(|variance| **variance < 0.0) {
            return Err(setting(&node, "a running variance", variance, "at least 0"));
        }
        let channels = input.channels;
        let mut inputs = vec![input.name.clone()];
        for (part, values) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(parameters) {
            inputs.push(self.per_channel(&node, part, values, channels)?);
        }
        let scales = input.scales.clone();
        self.node(node, "BatchNormalization", inputs, vec![float("epsilon", epsilon)], channels, scales)
    }

    /// Adds a group normalisation (`torch.nn.functional.group_norm`): mean and biased variance of each group of
    /// neighbouring channels of each case. `weight`, `bias`: `[channels]`.
    pub fn group_norm(
        &mut self,
        name: &str,
        input: &Value,
        groups: usize,
        [weight, bias]: [&[f32]; 2],
        epsilon: f32,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        let axes = self.spatial(&node, input)?;
        check_epsilon(&node, epsilon)?;
        if groups == 0 || !input.channels.is_multiple_of(groups) {
            return Err(setting(&node, "the number of groups", &groups, "a divisor of the channels"));
        }
        // Operator set 17 has none: instance norm over groups laid out as channels, back to shape, affine.
        let (channels, scales) = (input.channels, input.scales.clone());
        let part = |part: &str| format!("{node}.{part}");
        let shape = self.node(part("shape"), "Shape", vec![input.name.clone()], Vec::new(), 1, Vec::new())?;
        let laid = self.sizes(part("groups"), &[0, groups as i64, -1])?;
        let inputs = vec![input.name.clone(), laid];
        let value = self.node(part("laid"), "Reshape", inputs, Vec::new(), groups, Vec::new())?;
        let ones = Weights { shape: &[groups], values: &vec![1.0; groups] };
        let zeros = Weights { shape: &[groups], values: &vec![0.0; groups] };
        let inputs =
            vec![value.name, self.initializer(part("ones"), ones)?, self.initializer(part("zeros"), zeros)?];
        let attributes = vec![float("epsilon", epsilon)];
        let value =
            self.node(part("unit"), "InstanceNormalization", inputs, attributes, groups, Vec::new())?;
        let inputs = vec![value.name, shape.name];
        let value = self.node(part("back"), "Reshape", inputs, Vec::new(), channels, scales.clone())?;
        let gain = self.spread(&part("weight"), weight, channels, axes)?;
        let value =
            self.node(part("scaled"), "Mul", vec![value.name, gain], Vec::new(), channels, scales.clone())?;
        let shift = self.spread(&part("bias"), bias, channels, axes)?;
        self.node(node, "Add", vec![value.name, shift], Vec::new(), channels, scales)
    }

    /// Adds a parametric ReLU (`torch.nn.functional.prelu`). `slope`: `[channels]`.
    pub fn prelu(&mut self, name: &str, input: &Value, slope: &[f32]) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        self.own(input)?;
        let slope = self.spread(&format!("{node}.weight"), slope, input.channels, input.scales.len())?;
        let inputs = vec![input.name.clone(), slope];
        self.node(node, "PRelu", inputs, Vec::new(), input.channels, input.scales.clone())
    }

    /// Adds `x` times the normal distribution function of `x` (`torch.nn.functional.gelu`).
    pub fn gelu(&mut self, input: &Value) -> Result<Value, BuildError> {
        let node = self.counted("gelu");
        self.own(input)?;
        let (channels, scales) = (input.channels, input.scales.clone());
        let part = |part: &str| format!("{node}.{part}");
        let number = |graph: &mut Self, name: &str, value: f32| {
            graph.initializer(part(name), Weights { shape: &[1], values: &[value] })
        };
        // Operator set 17 has none: 0.5·x·(1 + erf(x/√2)).
        let root = number(self, "root", std::f32::consts::FRAC_1_SQRT_2)?;
        let (one, half) = (number(self, "one", 1.0)?, number(self, "half", 0.5)?);
        let mut step = |name: &str, operator: &str, inputs: Vec<String>| {
            let value = self.node(part(name), operator, inputs, Vec::new(), channels, scales.clone())?;
            Ok(value.name)
        };
        let scaled = step("scaled", "Mul", vec![input.name.clone(), root])?;
        let erf = step("erf", "Erf", vec![scaled])?;
        let share = step("share", "Add", vec![erf, one])?;
        let doubled = step("doubled", "Mul", vec![input.name.clone(), share])?;
        self.node(node.clone(), "Mul", vec![doubled, half], Vec::new(), channels, scales.clone())
    }

    /// Adds the hyperbolic tangent.
    pub fn tanh(&mut self, input: &Value) -> Result<Value, BuildError> {
        self.elementwise("Tanh", input, Vec::new())
    }

    /// Adds a mean pooling over blocks of `factors`, one a spatial axis.
    pub fn average_pool(&mut self, input: &Value, factors: &[usize]) -> Result<Value, BuildError> {
        let node = self.counted("AveragePool");
        let axes = self.spatial(&node, input)?;
        let window = Window::tight(factors);
        window.check(&node, axes)?;
        let scales = shrink(&node, input, factors, &window)?;
        let attributes = vec![ints("kernel_shape", factors), ints("strides", factors)];
        self.node(node, "AveragePool", vec![input.name.clone()], attributes, input.channels, scales)
    }

    /// Lays all values of an image of `size` out as channels, in C order: the value becomes `[batch, channels · size]`.
    /// The file then takes images of that size alone.
    pub fn flatten(&mut self, input: &Value, size: &[usize]) -> Result<Value, BuildError> {
        let node = self.counted("Flatten");
        let axes = self.spatial(&node, input)?;
        if size.len() != axes {
            let (what, found) = ("the size".to_owned(), size.len());
            return Err(BuildError::Axes { node, what, found, expected: axes });
        }
        let channels = input.channels * size.iter().product::<usize>();
        self.node(node, "Flatten", vec![input.name.clone()], vec![int("axis", 1)], channels, Vec::new())
    }

    /// Adds `max(x, 0)`.
    pub fn relu(&mut self, input: &Value) -> Result<Value, BuildError> {
        self.elementwise("Relu", input, Vec::new())
    }

    /// Adds `x` where positive, else `slope * x`.
    pub fn leaky_relu(&mut self, input: &Value, slope: f32) -> Result<Value, BuildError> {
        if !slope.is_finite() {
            return Err(setting("leaky_relu", "the slope", &slope, "finite"));
        }
        self.elementwise("LeakyRelu", input, vec![float("alpha", slope)])
    }

    /// Adds `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, input: &Value) -> Result<Value, BuildError> {
        self.elementwise("Sigmoid", input, Vec::new())
    }

    /// Adds the softmax over the channels (axis 1).
    pub fn softmax(&mut self, input: &Value) -> Result<Value, BuildError> {
        self.elementwise("Softmax", input, vec![int("axis", 1)])
    }

    /// Adds the natural logarithm. The logarithm of probabilities is a valid `logits` output: its softmax gives them
    /// back, which is how an ensemble of softmaxes becomes one file.
    pub fn log(&mut self, input: &Value) -> Result<Value, BuildError> {
        self.elementwise("Log", input, Vec::new())
    }

    /// Adds a max pooling (`torch.nn.functional.max_pool2d` / `max_pool3d`); `window.groups` must be 1.
    pub fn max_pool(
        &mut self,
        input: &Value,
        kernel: &[usize],
        window: &Window,
    ) -> Result<Value, BuildError> {
        let node = self.counted("MaxPool");
        let axes = self.spatial(&node, input)?;
        window.check(&node, axes)?;
        if kernel.len() != axes {
            let found = kernel.len();
            return Err(BuildError::Axes { node, what: "the kernel".to_owned(), found, expected: axes });
        }
        if window.groups != 1 {
            return Err(setting(&node, "the number of groups", &window.groups, "1"));
        }
        let scales = shrink(&node, input, kernel, window)?;
        if let Some(axis) = (0..axes).find(|axis| window.padding[*axis] * 2 > kernel[*axis]) {
            let reason = format!("padding {} is more than half the kernel", window.padding[axis]);
            return Err(BuildError::Window { node, axis, reason });
        }
        let attributes = vec![
            ints("dilations", &window.dilation),
            ints("kernel_shape", kernel),
            ints("pads", &[window.padding.as_slice(), &window.padding].concat()),
            ints("strides", &window.stride),
        ];
        let inputs = vec![input.name.clone()];
        self.node(node, "MaxPool", inputs, attributes, input.channels, scales)
    }

    /// Adds an enlargement by whole factors that repeats voxels (`torch.nn.functional.interpolate`, nearest).
    /// `factors`: one a spatial axis, `(z), y, x`.
    pub fn resize_nearest(&mut self, input: &Value, factors: &[usize]) -> Result<Value, BuildError> {
        let node = self.counted("Resize");
        let axes = self.spatial(&node, input)?;
        if factors.len() != axes {
            let found = factors.len();
            return Err(BuildError::Axes {
                node,
                what: "the list of factors".to_owned(),
                found,
                expected: axes,
            });
        }
        let scales = scaled(&node, input, |axis| (factors[axis], 1))?;
        let values: Vec<f32> =
            [1.0, 1.0].into_iter().chain(factors.iter().map(|factor| *factor as f32)).collect();
        let weights = Weights { shape: &[axes + 2], values: &values };
        let factors = self.initializer(format!("{node}.scales"), weights)?;
        // The empty name omits the region of interest.
        let inputs = vec![input.name.clone(), String::new(), factors];
        let attributes = vec![
            string("coordinate_transformation_mode", "asymmetric"),
            string("mode", "nearest"),
            string("nearest_mode", "floor"),
        ];
        self.node(node, "Resize", inputs, attributes, input.channels, scales)
    }

    /// Adds the concatenation along the channels; all inputs must have the same spatial size.
    pub fn concat(&mut self, inputs: &[&Value]) -> Result<Value, BuildError> {
        let node = self.counted("Concat");
        let first = self.same_size(&node, inputs)?;
        let channels = inputs.iter().map(|value| value.channels).sum();
        let names = inputs.iter().map(|value| value.name.clone()).collect();
        let scales = first.scales.clone();
        self.node(node, "Concat", names, vec![int("axis", 1)], channels, scales)
    }

    /// Adds the sum of two values of one shape.
    pub fn add(&mut self, a: &Value, b: &Value) -> Result<Value, BuildError> {
        self.combine("Add", &[a, b])
    }

    /// Adds the elementwise mean of one or more values of one shape.
    pub fn mean(&mut self, inputs: &[&Value]) -> Result<Value, BuildError> {
        self.combine("Mean", inputs)
    }

    /// Adds the mean over all spatial axes; the value becomes `[batch, channels]`.
    pub fn global_average_pool(&mut self, input: &Value) -> Result<Value, BuildError> {
        let node = self.counted("GlobalAveragePool");
        self.spatial(&node, input)?;
        let scales = vec![Scale::ONE; input.scales.len()];
        let inputs = vec![input.name.clone()];
        let pooled = self.node(node, "GlobalAveragePool", inputs, Vec::new(), input.channels, scales)?;
        let node = self.counted("Flatten");
        let inputs = vec![pooled.name];
        self.node(node, "Flatten", inputs, vec![int("axis", 1)], pooled.channels, Vec::new())
    }

    /// Adds `x · weightᵀ + bias` (`torch.nn.functional.linear`) to a value without spatial axes. `weight`:
    /// `[out, in]`, `bias`: `[out]`.
    pub fn dense(
        &mut self,
        name: &str,
        input: &Value,
        weight: Weights<'_>,
        bias: Option<&[f32]>,
    ) -> Result<Value, BuildError> {
        let node = self.scoped(name);
        self.own(input)?;
        if !input.scales.is_empty() {
            let (what, found) = (format!("`{}`", input.name), input.scales.len());
            return Err(BuildError::Axes { node, what, found, expected: 0 });
        }
        if weight.shape.len() != 2 || weight.shape[1] != input.channels {
            let expected = format!("[out, {}]", input.channels);
            return Err(BuildError::WeightShape { node, found: weight.shape.to_vec(), expected });
        }
        let out = weight.shape[0];
        let inputs = self.parameters(&node, input, weight, bias, out)?;
        self.node(node, "Gemm", inputs, vec![int("transB", 1)], out, Vec::new())
    }

    fn elementwise(
        &mut self,
        operator: &str,
        input: &Value,
        attributes: Vec<AttributeProto>,
    ) -> Result<Value, BuildError> {
        let node = self.counted(operator);
        self.own(input)?;
        let inputs = vec![input.name.clone()];
        self.node(node, operator, inputs, attributes, input.channels, input.scales.clone())
    }

    fn combine(&mut self, operator: &str, inputs: &[&Value]) -> Result<Value, BuildError> {
        let node = self.counted(operator);
        let first = self.same_size(&node, inputs)?;
        let (channels, scales) = (first.channels, first.scales.clone());
        if let Some(other) = inputs.iter().find(|value| value.channels != channels) {
            let (what, found) = (format!("`{}`", other.name), other.channels);
            return Err(BuildError::Channels { node, what, found, expected: channels });
        }
        let names = inputs.iter().map(|value| value.name.clone()).collect();
        self.node(node, operator, names, Vec::new(), channels, scales)
    }

    /// Appends a node whose only output carries the node's name, and folds its scale into the divisor.
    fn node(
        &mut self,
        name: String,
        operator: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
        channels: usize,
        scales: Vec<Scale>,
    ) -> Result<Value, BuildError> {
        self.claim(&name)?;
        for (axis, (divisor, scale)) in self.divisor.iter_mut().zip(&scales).enumerate() {
            *divisor = least_common_multiple(*divisor, scale.down).ok_or_else(|| overflow(&name, axis))?;
        }
        self.nodes.push(NodeProto {
            input,
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(operator.to_owned()),
            attribute,
        });
        Ok(Value { name, channels, scales })
    }

    /// Returns the names of an input, its weight and its optional bias, after adding both.
    fn parameters(
        &mut self,
        node: &str,
        input: &Value,
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        out: usize,
    ) -> Result<Vec<String>, BuildError> {
        let mut inputs = vec![input.name.clone(), self.initializer(format!("{node}.weight"), weight)?];
        if let Some(bias) = bias {
            inputs.push(self.per_channel(node, "bias", bias, out)?);
        }
        Ok(inputs)
    }

    fn per_channel(
        &mut self,
        node: &str,
        part: &str,
        values: &[f32],
        channels: usize,
    ) -> Result<String, BuildError> {
        self.initializer(format!("{node}.{part}"), Weights { shape: &[channels], values })
    }

    /// A value a channel, shaped so that it meets values with `axes` spatial axes.
    fn spread(
        &mut self,
        name: &str,
        values: &[f32],
        channels: usize,
        axes: usize,
    ) -> Result<String, BuildError> {
        let shape = [&[channels], vec![1; axes].as_slice()].concat();
        self.initializer(name.to_owned(), Weights { shape: &shape, values })
    }

    fn scoped(&self, name: &str) -> String {
        format!("{}{name}", self.scope)
    }

    /// Names a layer without weights by its kind and place.
    fn counted(&self, operator: &str) -> String {
        format!("{}{}_{}", self.scope, operator.to_lowercase(), self.nodes.len())
    }

    /// Returns the number of spatial axes of a value, which must still have them.
    fn spatial(&self, node: &str, input: &Value) -> Result<usize, BuildError> {
        self.own(input)?;
        let (found, expected) = (input.scales.len(), self.dims.count());
        if found != expected {
            let what = format!("`{}`", input.name);
            return Err(BuildError::Axes { node: node.to_owned(), what, found, expected });
        }
        Ok(found)
    }

    /// Returns the first of some values of one spatial size.
    fn same_size<'v>(&self, node: &str, inputs: &[&'v Value]) -> Result<&'v Value, BuildError> {
        let Some((first, rest)) = inputs.split_first() else {
            return Err(setting(node, "the number of inputs", &0, "at least 1"));
        };
        self.own(first)?;
        for other in rest {
            self.own(other)?;
            let (found, expected) = (other.scales.len(), first.scales.len());
            if found != expected {
                let what = format!("`{}`", other.name);
                return Err(BuildError::Axes { node: node.to_owned(), what, found, expected });
            }
            if let Some(axis) = (0..expected).find(|axis| first.scales[*axis] != other.scales[*axis]) {
                let reason = format!(
                    "on spatial axis {axis}, `{}` is {} of the input's size but `{}` is {}",
                    first.name, first.scales[axis], other.name, other.scales[axis]
                );
                return Err(BuildError::Size { node: node.to_owned(), reason });
            }
        }
        Ok(first)
    }
}

fn check_epsilon(node: &str, epsilon: f32) -> Result<(), BuildError> {
    if epsilon.is_finite() && epsilon > 0.0 {
        return Ok(());
    }
    Err(setting(node, "epsilon", &epsilon, "finite and above 0"))
}
