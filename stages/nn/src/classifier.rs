//! Networks that give one class for the whole image: residual blocks with global pooling, and a linear baseline.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::architecture::{Io, check_deviation, check_range, check_share};
use crate::geometry::Window;
use crate::network::{Activation, Builder, Dims, Network, Norm, Task};
use crate::unet::Block;

/// A convolution, residual blocks on falling resolutions, the mean over all voxels, and a linear head (after He et al.
/// 2016).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Classifier {
    /// Resolutions, at least 1; each but the first halves every axis.
    pub levels: usize,
    /// Channels of the first level; each level has twice as many.
    pub base_features: usize,
    /// Residual blocks a level.
    pub blocks: usize,
    pub norm: Norm,
    pub activation: Activation,
    /// Probability with which each value before the head is dropped, in training.
    pub dropout: f32,
    /// Probability with which whole channels are dropped at the end of each level, in training.
    pub channel_dropout: f32,
    /// Deviation of normal noise on the input, in training.
    pub noise: f32,
    /// Deviation of normal noise on the activations at the end of each level, in training; a norm makes them about 1.
    pub activation_noise: f32,
}

impl Default for Classifier {
    fn default() -> Self {
        Self {
            levels: 3,
            base_features: 16,
            blocks: 1,
            norm: Norm::Batch,
            activation: Activation::Relu,
            dropout: 0.0,
            channel_dropout: 0.0,
            noise: 0.0,
            activation_noise: 0.0,
        }
    }
}

impl Classifier {
    /// Compiles the configuration to its layer graph.
    ///
    /// # Errors
    /// [`NnError::Config`] for a value out of range.
    pub fn network(&self, dims: Dims, io: Io) -> Result<Network, NnError> {
        io.check()?;
        check_range("levels", self.levels, 1, 8)?;
        check_range("base_features", self.base_features, 1, 1024)?;
        check_range("blocks", self.blocks, 1, 16)?;
        check_share("dropout", self.dropout)?;
        if let Norm::Group(groups) = self.norm
            && (groups == 0 || !self.base_features.is_multiple_of(groups))
        {
            let rule = format!("base_features is {}, which must be a multiple of it", self.base_features);
            return Err(NnError::Config { name: "norm.group", value: groups.to_string(), rule });
        }
        check_share("channel_dropout", self.channel_dropout)?;
        check_deviation("noise", self.noise)?;
        check_deviation("activation_noise", self.activation_noise)?;
        let kernel = dims.axes(3);
        let (mut build, input) = Builder::new(dims, io.channels);
        let mut x = build.noise("input.noise", input, self.noise);
        x = build.conv("stem.conv", x, Window::same(kernel), [io.channels, self.base_features], false);
        x = build.norm_then(["stem.norm", "stem.act"], x, self.base_features, self.norm, self.activation);
        let mut cin = self.base_features;
        for level in 0..self.levels {
            let cout = self.base_features << level;
            for index in 0..self.blocks {
                let coarser = level > 0 && index == 0;
                let stride = if coarser { dims.axes(2) } else { [1; 3] };
                let block = Block { kernel, stride, features: [cin, cout] };
                let name = format!("stage.{level}.block{index}");
                x = block.residual(&mut build, &name, x, self.norm, self.activation);
                cin = cout;
            }
            x = build.noise(&format!("stage.{level}.noise"), x, self.activation_noise);
            x = build.dropout(&format!("stage.{level}.dropout"), x, self.channel_dropout, true);
        }
        x = build.global_pool("pool", x);
        x = build.dropout("head.dropout", x, self.dropout, false);
        x = build.dense("head", x, [cin, io.classes]);
        let multiple = dims.axes(1 << (self.levels - 1));
        let network = build.finish(x, Vec::new(), [io.channels, io.classes], multiple);
        Ok(Network { task: Task::Classification, ..network })
    }
}

/// A weighted sum of all voxels for each class: the baseline that a network must beat.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Linear {}

impl Linear {
    /// Compiles the configuration to its layer graph, for images of the size of `io`.
    ///
    /// # Errors
    /// [`NnError::Config`] for a size without voxels.
    pub fn network(&self, dims: Dims, io: Io) -> Result<Network, NnError> {
        let Self {} = self;
        io.check()?;
        if io.size.contains(&0) || (dims == Dims::Two && io.size[0] != 1) {
            let rule = "a linear model needs the size of its images (z, y, x; z is 1 in 2D)".to_owned();
            return Err(NnError::Config { name: "size", value: format!("{:?}", io.size), rule });
        }
        let (mut build, input) = Builder::new(dims, io.channels);
        let window = Window { kernel: io.size, stride: [1; 3], padding: [0; 3] };
        let x = build.conv("head", input, window, [io.channels, io.classes], true);
        let network = build.finish(x, Vec::new(), [io.channels, io.classes], [1; 3]);
        Ok(Network { task: Task::Classification, fixed_size: Some(io.size), ..network })
    }
}
