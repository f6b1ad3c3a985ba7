//! Networks by name: what a pipeline file says, and what a model's card keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::classifier::{Classifier, Linear};
use crate::network::{Dims, Network, Task};
use crate::unet::UNet;
use crate::words::names_alone;

/// A network by name, with its parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = names_alone)]
pub enum Architecture {
    /// U-Net on slices along z: a class for each voxel.
    Unet2d(UNet),
    /// U-Net on volumes: a class for each voxel.
    Unet3d(UNet),
    /// Residual network on slices: one class an image.
    Classifier2d(Classifier),
    /// Residual network on volumes: one class an image.
    Classifier3d(Classifier),
    /// Weighted sum of the pixels of a slice: one class an image.
    Linear2d(Linear),
    /// Weighted sum of the voxels of a volume: one class an image.
    Linear3d(Linear),
}

/// What goes into a network and what comes out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Image channels.
    pub channels: usize,
    /// Classes; of voxels with background. At most 255.
    pub classes: usize,
    /// Voxels along z, y, x of the images; only linear models depend on it.
    pub size: [usize; 3],
}

impl Io {
    pub(crate) fn check(self) -> Result<(), NnError> {
        check_range("in_channels", self.channels, 1, 1024)?;
        check_range("classes", self.classes, 2, 255)
    }
}

pub(crate) fn check_range(name: &'static str, value: usize, low: usize, high: usize) -> Result<(), NnError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(NnError::Config { name, value: value.to_string(), rule: format!("it must lie in {low}..={high}") })
}

/// The deviation of noise.
pub(crate) fn check_deviation(name: &'static str, value: f32) -> Result<(), NnError> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    let rule = "it must be 0 or more".to_owned();
    Err(NnError::Config { name, value: value.to_string(), rule })
}

/// A probability that leaves something over.
pub(crate) fn check_share(name: &'static str, value: f32) -> Result<(), NnError> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(NnError::Config {
        name,
        value: value.to_string(),
        rule: "it must be 0 or more and below 1".to_owned(),
    })
}

impl Architecture {
    /// Whether it sees slices or volumes.
    pub fn dims(&self) -> Dims {
        match self {
            Self::Unet2d(_) | Self::Classifier2d(_) | Self::Linear2d(_) => Dims::Two,
            Self::Unet3d(_) | Self::Classifier3d(_) | Self::Linear3d(_) => Dims::Three,
        }
    }

    /// Whether it tells a class for each voxel or for the whole image.
    pub fn task(&self) -> Task {
        match self {
            Self::Unet2d(_) | Self::Unet3d(_) => Task::Segmentation,
            Self::Classifier2d(_) | Self::Classifier3d(_) | Self::Linear2d(_) | Self::Linear3d(_) => {
                Task::Classification
            }
        }
    }

    /// Channels of each level, finest first; none for a linear model.
    pub fn level_features(&self) -> Vec<usize> {
        match self {
            Self::Unet2d(unet) | Self::Unet3d(unet) => unet.level_features(self.dims()),
            Self::Classifier2d(classifier) | Self::Classifier3d(classifier) => {
                (0..classifier.levels).map(|level| classifier.base_features << level).collect()
            }
            Self::Linear2d(_) | Self::Linear3d(_) => Vec::new(),
        }
    }

    /// Compiles the layer graph.
    ///
    /// # Errors
    /// [`NnError::Config`] for a value out of range.
    pub fn network(&self, io: Io) -> Result<Network, NnError> {
        match self {
            Self::Unet2d(unet) | Self::Unet3d(unet) => unet.network(self.dims(), io),
            Self::Classifier2d(classifier) | Self::Classifier3d(classifier) => {
                classifier.network(self.dims(), io)
            }
            Self::Linear2d(linear) | Self::Linear3d(linear) => linear.network(self.dims(), io),
        }
    }
}
