//! The U-Net family: a small configuration that compiles to a [`Network`].

use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::geometry::Window;
use crate::network::{Builder, Dims, Network, NodeId};

/// Added to the variance by instance normalisation, as in nnU-Net.
const NORM_EPSILON: f32 = 1e-5;
/// Negative slope of the leaky ReLU, as in nnU-Net.
const LEAKY_SLOPE: f32 = 0.01;

/// A U-Net with two 3×3(×3) convolutions a level, instance norm and leaky ReLU after each, max-pooling down,
/// transposed convolution up, skip connections by concatenation and a 1×1(×1) head.
///
/// Level `l` has `base_features · 2^l` channels; each level halves every axis. Convolutions before a norm have no
/// bias: the norm subtracts it.
///
/// Source: Ronneberger, Fischer, Brox 2015 (U-Net); Çiçek et al. 2016 (3D); norm and activation as in Isensee et al.
/// 2021 (nnU-Net).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// 2D (slices along z) or 3D (volumes).
    pub dims: Dims,
    /// Image channels.
    pub in_channels: usize,
    /// Labels with background, at most 255.
    pub classes: usize,
    /// Channels of the first level.
    pub base_features: usize,
    /// Resolutions, at least 1; `levels - 1` halvings.
    pub levels: usize,
}

impl UNetConfig {
    /// Compiles the configuration to its layer graph.
    ///
    /// # Errors
    /// [`NnError::Config`] for a value out of range.
    pub fn network(&self) -> Result<Network, NnError> {
        for (name, value, low, high) in [
            ("in_channels", self.in_channels, 1, 1024),
            ("classes", self.classes, 2, 255),
            ("base_features", self.base_features, 1, 1024),
            ("levels", self.levels, 1, 8),
        ] {
            if !(low..=high).contains(&value) {
                let rule = format!("it must lie in {low}..={high}");
                return Err(NnError::Config { name, value: value.to_string(), rule });
            }
        }
        let factor = self.dims.axes(2);
        let features = |level: usize| self.base_features << level;
        let (mut build, mut x) = Builder::new(self.dims, self.in_channels);
        let mut skips = Vec::new();
        for level in 0..self.levels {
            let cin = if level == 0 { self.in_channels } else { features(level - 1) };
            if level > 0 {
                skips.push(x);
                x = build.max_pool(&format!("encoder.{level}.pool"), x, factor);
            }
            x = self.block(&mut build, &format!("encoder.{level}"), x, [cin, features(level)]);
        }
        for level in (0..self.levels - 1).rev() {
            let (below, here) = (features(level + 1), features(level));
            x = build.transposed_conv(&format!("decoder.{level}.up"), x, factor, [below, here]);
            let skip = skips.pop().expect("one skip per level above the lowest");
            x = build.concat(&format!("decoder.{level}.concat"), x, skip);
            x = self.block(&mut build, &format!("decoder.{level}"), x, [2 * here, here]);
        }
        let head = Window::same([1; 3]);
        x = build.conv("head", x, head, [features(0), self.classes], true);
        let multiple = self.dims.axes(1 << (self.levels - 1));
        Ok(build.finish(x, [self.in_channels, self.classes], multiple))
    }

    fn block(&self, build: &mut Builder, name: &str, mut x: NodeId, [cin, cout]: [usize; 2]) -> NodeId {
        let window = Window::same(self.dims.axes(3));
        for (index, cin) in [cin, cout].into_iter().enumerate() {
            x = build.conv(&format!("{name}.conv{index}"), x, window, [cin, cout], false);
            x = build.norm_act(&format!("{name}.norm{index}"), x, cout, NORM_EPSILON, LEAKY_SLOPE);
        }
        x
    }
}
