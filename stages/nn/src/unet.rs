//! The U-Net family: a small configuration that compiles to a [`Network`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::architecture::{Io, check_deviation, check_range, check_share};
use crate::geometry::Window;
use crate::network::{Activation, Builder, Dims, Network, NodeId, Norm};

/// A U-Net: levels of convolutions with norm and activation, the resolution falling from level to level and rising
/// again, joined by skip connections, and a 1×1(×1) head.
///
/// Convolutions before a norm have no bias: the norm subtracts it. Source: Ronneberger, Fischer, Brox 2015 (U-Net);
/// Çiçek et al. 2016 (3D); norm and activation as in Isensee et al. 2021 (nnU-Net).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct UNet {
    /// Resolutions, at least 1.
    pub levels: usize,
    /// Channels of the first level; each level has twice as many. 8 in 3D and 16 in 2D unless given.
    pub base_features: Option<usize>,
    /// No level has more channels.
    pub max_features: usize,
    /// Channels of each level, in place of the rule above.
    pub features: Option<Vec<usize>>,
    /// By how much each level but the first is coarser than the one above, z, y, x; 2 on every axis unless given. 2D: z
    /// is 1.
    pub strides: Option<Vec<[usize; 3]>>,
    /// Kernel of each level, z, y, x, odd; 3 on every axis unless given. 2D: z is 1.
    pub kernels: Option<Vec<[usize; 3]>>,
    /// Convolutions (plain) or blocks of two (residual) a level on the way down; the way up has plain convolutions.
    pub convolutions: usize,
    pub encoder: Encoder,
    pub down: Down,
    pub up: Up,
    pub norm: Norm,
    pub activation: Activation,
    /// Whether the way up sees each level of the way down.
    pub skips: bool,
    /// Trains an output at each level of the way up as well, half as heavy as the one above.
    pub deep_supervision: bool,
    /// Probability with which whole channels are dropped at the end of each level, in training.
    pub dropout: f32,
    /// Deviation of normal noise on the input, in training.
    pub noise: f32,
    /// Deviation of normal noise on the activations at the end of each level, in training; a norm makes them about 1.
    pub activation_noise: f32,
}

/// What a level of the way down is made of.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Encoder {
    /// Convolutions in a row.
    #[default]
    Plain,
    /// Blocks of two convolutions to whose output their input is added (He et al. 2016).
    Residual,
}

/// How the resolution falls.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// The largest value of each block.
    #[default]
    MaxPool,
    /// The mean of each block.
    AvgPool,
    /// The first convolution of a level moves by whole strides.
    Stride,
}

/// How the resolution rises.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Up {
    /// A transposed convolution.
    #[default]
    Transposed,
    /// Repeated voxels, then a convolution.
    Nearest,
}

impl Default for UNet {
    fn default() -> Self {
        Self {
            levels: 3,
            base_features: None,
            max_features: 512,
            features: None,
            strides: None,
            kernels: None,
            convolutions: 2,
            encoder: Encoder::Plain,
            down: Down::MaxPool,
            up: Up::Transposed,
            norm: Norm::Instance,
            activation: Activation::LeakyRelu,
            skips: true,
            deep_supervision: false,
            dropout: 0.0,
            noise: 0.0,
            activation_noise: 0.0,
        }
    }
}

/// Sizes of all levels, worked out.
struct Levels {
    features: Vec<usize>,
    /// Of each level but the first.
    strides: Vec<[usize; 3]>,
    kernels: Vec<[usize; 3]>,
}

impl UNet {
    /// Compiles the configuration to its layer graph.
    ///
    /// # Errors
    /// [`NnError::Config`] for a value out of range.
    pub fn network(&self, dims: Dims, io: Io) -> Result<Network, NnError> {
        io.check()?;
        let levels = self.levels(dims)?;
        let (mut build, input) = Builder::new(dims, io.channels);
        let mut x = build.noise("input.noise", input, self.noise);
        let mut skips = Vec::new();
        let mut cin = io.channels;
        for level in 0..self.levels {
            let name = format!("encoder.{level}");
            let mut stride = if level == 0 { [1; 3] } else { levels.strides[level - 1] };
            if level > 0 {
                skips.push(x);
                match self.down {
                    Down::MaxPool => x = build.max_pool(&format!("{name}.pool"), x, stride),
                    Down::AvgPool => x = build.avg_pool(&format!("{name}.pool"), x, stride),
                    Down::Stride => {}
                }
                if self.down != Down::Stride {
                    stride = [1; 3];
                }
            }
            let block =
                Block { kernel: levels.kernels[level], stride, features: [cin, levels.features[level]] };
            x = match self.encoder {
                Encoder::Plain => self.convolutions(&mut build, &name, x, &block),
                Encoder::Residual => (0..self.convolutions).fold(x, |x, index| {
                    let block = if index == 0 { block } else { block.inner() };
                    block.residual(&mut build, &format!("{name}.block{index}"), x, self.norm, self.activation)
                }),
            };
            x = self.disturb(&mut build, &name, x);
            cin = levels.features[level];
        }
        let mut auxiliary = Vec::new();
        for level in (0..self.levels - 1).rev() {
            let name = format!("decoder.{level}");
            let (below, here) = (levels.features[level + 1], levels.features[level]);
            let (factor, kernel) = (levels.strides[level], levels.kernels[level]);
            let up = format!("{name}.up");
            x = match self.up {
                Up::Transposed => build.transposed_conv(&up, x, factor, [below, here]),
                Up::Nearest => {
                    let x = build.upsample(&format!("{name}.nearest"), x, factor);
                    build.conv(&up, x, Window::same(kernel), [below, here], true)
                }
            };
            let skip = skips.pop().expect("one skip per level above the lowest");
            let mut features = [here, here];
            if self.skips {
                x = build.concat(&format!("{name}.concat"), x, skip);
                features[0] = 2 * here;
            }
            x = self.convolutions(&mut build, &name, x, &Block { kernel, stride: [1; 3], features });
            x = self.disturb(&mut build, &name, x);
            if level > 0 && self.deep_supervision {
                let head = Window::same([1; 3]);
                auxiliary.push(build.conv(&format!("{name}.head"), x, head, [here, io.classes], true));
            }
        }
        auxiliary.reverse();
        x = build.conv("head", x, Window::same([1; 3]), [levels.features[0], io.classes], true);
        let multiple =
            levels.strides.iter().fold([1; 3], |all, stride| [0, 1, 2].map(|a| all[a] * stride[a]));
        Ok(build.finish(x, auxiliary, [io.channels, io.classes], multiple))
    }

    /// Convolutions in a row, each with norm and activation; only the first changes size and channels.
    fn convolutions(&self, build: &mut Builder, name: &str, mut x: NodeId, block: &Block) -> NodeId {
        let mut block = *block;
        for index in 0..self.convolutions {
            x = build.conv(&format!("{name}.conv{index}"), x, block.window(), block.features, false);
            let names = [format!("{name}.norm{index}"), format!("{name}.act{index}")];
            let names = [names[0].as_str(), &names[1]];
            x = build.norm_then(names, x, block.features[1], self.norm, self.activation);
            block = block.inner();
        }
        x
    }

    /// What ends a level in training: noise, then dropout of whole channels, behind the last activation.
    fn disturb(&self, build: &mut Builder, name: &str, x: NodeId) -> NodeId {
        let x = build.noise(&format!("{name}.noise"), x, self.activation_noise);
        build.dropout(&format!("{name}.dropout"), x, self.dropout, true)
    }

    fn base(&self, dims: Dims) -> usize {
        self.base_features.unwrap_or(if dims == Dims::Two { 16 } else { 8 })
    }

    /// Channels of each level, finest first.
    pub fn level_features(&self, dims: Dims) -> Vec<usize> {
        let rule = |level: usize| (self.base(dims) << level).min(self.max_features);
        self.features.clone().unwrap_or_else(|| (0..self.levels).map(rule).collect())
    }

    /// Checks every value and works out the sizes of all levels.
    fn levels(&self, dims: Dims) -> Result<Levels, NnError> {
        check_range("levels", self.levels, 1, 8)?;
        check_range("convolutions", self.convolutions, 1, 8)?;
        check_range("max_features", self.max_features, 1, 4096)?;
        check_share("dropout", self.dropout)?;
        check_deviation("noise", self.noise)?;
        check_deviation("activation_noise", self.activation_noise)?;
        check_range("base_features", self.base(dims), 1, 1024)?;
        let features = self.level_features(dims);
        let strides = self.strides.clone().unwrap_or_else(|| vec![dims.axes(2); self.levels - 1]);
        let kernels = self.kernels.clone().unwrap_or_else(|| vec![dims.axes(3); self.levels]);
        let count = |name, found: usize, expected: usize, of: &str| {
            let rule = format!("{} levels need {expected}: one for each {of}", self.levels);
            if found == expected {
                return Ok(());
            }
            Err(NnError::Config { name, value: format!("a list of {found}"), rule })
        };
        count("features", features.len(), self.levels, "level")?;
        count("strides", strides.len(), self.levels - 1, "level but the first")?;
        count("kernels", kernels.len(), self.levels, "level")?;
        for value in &features {
            check_range("features", *value, 1, 4096)?;
            if let Norm::Group(groups) = self.norm
                && (groups == 0 || !value.is_multiple_of(groups))
            {
                let rule = format!("a level has {value} channels, which must be a multiple of it");
                return Err(NnError::Config { name: "norm.group", value: groups.to_string(), rule });
            }
        }
        let flat = |size: &[usize; 3]| dims == Dims::Three || size[0] == 1;
        let axes = |name, sizes: &[[usize; 3]], fits: &dyn Fn(usize) -> bool, rule: &str| match sizes
            .iter()
            .find(|size| !flat(size) || !size.iter().all(|value| fits(*value)))
        {
            None => Ok(()),
            Some(size) => Err(NnError::Config { name, value: format!("{size:?}"), rule: rule.to_owned() }),
        };
        axes(
            "strides",
            &strides,
            &|value| (1..=8).contains(&value),
            "each axis must lie in 1..=8, z 1 in 2D",
        )?;
        // Which voxel held the maximum is kept in a byte.
        if self.down == Down::MaxPool
            && let Some(stride) = strides.iter().find(|stride| stride.iter().product::<usize>() > 256)
        {
            let rule = "max pooling takes blocks of at most 256 voxels: smaller strides, or `down: stride`"
                .to_owned();
            return Err(NnError::Config { name: "strides", value: format!("{stride:?}"), rule });
        }
        axes(
            "kernels",
            &kernels,
            &|value| value % 2 == 1 && value <= 15,
            "each axis must be odd and at most 15, z 1 in 2D",
        )?;
        Ok(Levels { features, strides, kernels })
    }
}

/// Kernel, stride and channels of the first convolution of a block.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    /// In and out.
    pub(crate) features: [usize; 2],
}

impl Block {
    fn window(&self) -> Window {
        Window { stride: self.stride, ..Window::same(self.kernel) }
    }

    /// What follows the first convolution: no change of size or channels.
    pub(crate) fn inner(self) -> Self {
        Self { stride: [1; 3], features: [self.features[1]; 2], ..self }
    }

    /// Two convolutions, and their input added before the last activation; a pointwise convolution and a norm bring the
    /// input to shape where that differs.
    pub(crate) fn residual(
        self,
        build: &mut Builder,
        name: &str,
        x: NodeId,
        norm: Norm,
        activation: Activation,
    ) -> NodeId {
        let cout = self.features[1];
        let first = build.conv(&format!("{name}.conv0"), x, self.window(), self.features, false);
        let names = [format!("{name}.norm0"), format!("{name}.act0")];
        let first = build.norm_then([&names[0], &names[1]], first, cout, norm, activation);
        let inner = self.inner();
        let second = build.conv(&format!("{name}.conv1"), first, inner.window(), inner.features, false);
        let second = build.norm_act(&format!("{name}.norm1"), second, cout, norm, 1.0);
        let short = if self.stride == [1; 3] && self.features[0] == cout {
            x
        } else {
            let window = Window { stride: self.stride, ..Window::same([1; 3]) };
            let short = build.conv(&format!("{name}.shortcut"), x, window, self.features, false);
            build.norm_act(&format!("{name}.shortcut_norm"), short, cout, norm, 1.0)
        };
        let sum = build.add(&format!("{name}.sum"), second, short);
        build.activation(&format!("{name}.act1"), sum, cout, activation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_maximum_hold_256_voxels_at_most() {
        let network = |down, stride| {
            let unet = UNet { levels: 2, strides: Some(vec![stride]), down, ..UNet::default() };
            unet.network(Dims::Three, Io { channels: 1, classes: 2, size: [16; 3] })
        };
        assert!(network(Down::MaxPool, [4, 8, 8]).is_ok());
        assert!(network(Down::Stride, [8, 8, 8]).is_ok());
        let error = network(Down::MaxPool, [8, 8, 8]).expect_err("512 voxels").to_string();
        assert!(
            error.starts_with("strides is [8, 8, 8], but max pooling takes blocks of at most 256"),
            "{error}"
        );
    }
}
