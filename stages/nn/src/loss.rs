//! What is minimised: losses by name, and the terms they are made of, which backends compute.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::words::names_alone;

/// The label of a voxel that counts nowhere: neither in the loss nor in a metric.
pub const IGNORE: u8 = 255;

/// A loss by name. Every mean is over voxels that count; for whole images, a sample is one voxel.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = names_alone)]
pub enum Loss {
    /// Mean negative logarithm of the softmax at the label.
    CrossEntropy(CrossEntropy),
    /// One minus the mean soft Dice of the classes (Drozdzal et al. 2016).
    Dice(Dice),
    /// Sum of both (Isensee et al. 2021).
    DiceCe(DiceCe),
    /// Cross-entropy in which voxels that are right already count less (Lin et al. 2017).
    Focal(Focal),
    /// Dice that weighs false positives and false negatives apart (Salehi et al. 2017).
    Tversky(Tversky),
    /// Mean binary cross-entropy of a sigmoid for each class against the others.
    Bce(Bce),
    /// Mean squared difference between the softmax and the one-hot label (Brier score, mean over classes).
    Mse(Mse),
}

/// Parameters of [`Loss::CrossEntropy`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropy {
    /// Weight of each class, background first; empty for equal ones. The mean is over the sum of the weights.
    pub class_weights: Vec<f32>,
}

/// Parameters of [`Loss::Dice`]. Soft Dice of a class: `(2·Σ p·t + smooth) / (Σ p + Σ t + smooth)`, with `p` the
/// softmax and `t` the one-hot label.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Dice {
    /// Sums over the batch before dividing; steadier where a sample may lack a class, as slices do.
    pub batch_dice: bool,
    /// Averages class 0 too.
    pub background: bool,
    /// Added to numerator and denominator, in voxels.
    pub smooth: f32,
}

/// Parameters of [`Loss::DiceCe`]: those of its parts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DiceCe {
    /// Sums over the batch before dividing; steadier where a sample may lack a class, as slices do.
    pub batch_dice: bool,
    /// Averages the Dice of class 0 too.
    pub background: bool,
    /// Added to numerator and denominator, in voxels.
    pub smooth: f32,
    /// Weight of each class in the cross-entropy, background first; empty for equal ones.
    pub class_weights: Vec<f32>,
}

/// Parameters of [`Loss::Focal`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Focal {
    /// Power of `1 - p`; 0 is the cross-entropy.
    pub gamma: f32,
    /// Weight of each class, background first; empty for equal ones.
    pub class_weights: Vec<f32>,
}

/// Parameters of [`Loss::Tversky`]: `(2·TP + smooth) / (2·TP + 2·alpha·FP + 2·beta·FN + smooth)`; halves are Dice.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Tversky {
    /// Weight of false positives.
    pub alpha: f32,
    /// Weight of false negatives.
    pub beta: f32,
    /// Sums over the batch before dividing.
    pub batch_dice: bool,
    /// Averages class 0 too.
    pub background: bool,
    /// Added to numerator and denominator, in voxels.
    pub smooth: f32,
}

/// Parameters of [`Loss::Bce`]: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Bce {}

/// Parameters of [`Loss::Mse`]: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Mse {}

const SMOOTH: f32 = 1e-5;

impl Default for Dice {
    fn default() -> Self {
        Self { batch_dice: true, background: false, smooth: SMOOTH }
    }
}

impl Default for DiceCe {
    fn default() -> Self {
        Self { batch_dice: true, background: false, smooth: SMOOTH, class_weights: Vec::new() }
    }
}

impl Default for Focal {
    fn default() -> Self {
        Self { gamma: 2.0, class_weights: Vec::new() }
    }
}

impl Default for Tversky {
    fn default() -> Self {
        Self { alpha: 0.3, beta: 0.7, batch_dice: true, background: false, smooth: SMOOTH }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self::DiceCe(DiceCe::default())
    }
}

/// A loss as backends compute it: a mean over voxels, plus one minus a mean over classes.
#[derive(Clone, Debug, PartialEq)]
pub struct LossTerms {
    pub voxel: Option<VoxelTerm>,
    /// Never beside [`VoxelTerm::Sigmoid`].
    pub region: Option<RegionTerm>,
    /// Weight of each class in [`VoxelTerm::Softmax`]; empty for equal ones.
    pub class_weights: Vec<f32>,
}

/// What each voxel that counts adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VoxelTerm {
    /// `-(1 - p)^gamma · ln p`, with `p` the softmax at the label.
    Softmax { gamma: f32 },
    /// Mean over classes of the binary cross-entropy of the sigmoid.
    Sigmoid,
    /// Mean over classes of the squared difference between the softmax and the one-hot label.
    Square,
}

/// How well each class overlaps its label; see [`Tversky`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionTerm {
    pub alpha: f32,
    pub beta: f32,
    pub smooth: f32,
    /// One value a class for the whole batch, not one a sample.
    pub batch: bool,
    /// Averages class 0 too.
    pub background: bool,
}

impl Loss {
    /// The terms of the loss.
    pub fn terms(&self) -> LossTerms {
        let region = |alpha, beta, batch, background, smooth| {
            Some(RegionTerm { alpha, beta, smooth, batch, background })
        };
        let only = |voxel| LossTerms { voxel: Some(voxel), region: None, class_weights: Vec::new() };
        match self {
            Self::CrossEntropy(CrossEntropy { class_weights }) => {
                LossTerms { class_weights: class_weights.clone(), ..only(VoxelTerm::Softmax { gamma: 0.0 }) }
            }
            Self::Focal(Focal { gamma, class_weights }) => LossTerms {
                class_weights: class_weights.clone(),
                ..only(VoxelTerm::Softmax { gamma: *gamma })
            },
            Self::Bce(Bce {}) => only(VoxelTerm::Sigmoid),
            Self::Mse(Mse {}) => only(VoxelTerm::Square),
            Self::Dice(Dice { batch_dice, background, smooth }) => LossTerms {
                voxel: None,
                region: region(0.5, 0.5, *batch_dice, *background, *smooth),
                class_weights: Vec::new(),
            },
            Self::Tversky(Tversky { alpha, beta, batch_dice, background, smooth }) => LossTerms {
                voxel: None,
                region: region(*alpha, *beta, *batch_dice, *background, *smooth),
                class_weights: Vec::new(),
            },
            Self::DiceCe(DiceCe { batch_dice, background, smooth, class_weights }) => LossTerms {
                voxel: Some(VoxelTerm::Softmax { gamma: 0.0 }),
                region: region(0.5, 0.5, *batch_dice, *background, *smooth),
                class_weights: class_weights.clone(),
            },
        }
    }

    /// Checks the values; `classes` where it is known.
    ///
    /// # Errors
    /// [`NnError::Config`] for the first value that cannot work.
    pub fn check(&self, classes: Option<usize>) -> Result<(), NnError> {
        let refuse =
            |name, value: String, rule: &str| Err(NnError::Config { name, value, rule: rule.to_owned() });
        let LossTerms { voxel, region, class_weights } = self.terms();
        let positive = |value: f32| value > 0.0 && value.is_finite();
        let not_negative = |value: f32| value >= 0.0 && value.is_finite();
        if let Some(VoxelTerm::Softmax { gamma }) = voxel
            && !not_negative(gamma)
        {
            return refuse("loss.gamma", gamma.to_string(), "it must be 0 or more");
        }
        if let Some(RegionTerm { alpha, beta, smooth, .. }) = region {
            if !positive(smooth) {
                let rule = "it must be positive: an absent class divides by it";
                return refuse("loss.smooth", smooth.to_string(), rule);
            }
            if !(not_negative(alpha) && not_negative(beta) && alpha + beta > 0.0) {
                let rule = "both must be 0 or more, and one of them above 0";
                return refuse("loss.alpha and loss.beta", format!("{alpha} and {beta}"), rule);
            }
        }
        if class_weights.is_empty() {
            return Ok(());
        }
        if !class_weights.iter().all(|weight| not_negative(*weight))
            || !class_weights.iter().any(|w| *w > 0.0)
        {
            let rule = "each must be 0 or more, and one of them above 0";
            return refuse("loss.class_weights", format!("{class_weights:?}"), rule);
        }
        match classes {
            Some(classes) if classes != class_weights.len() => {
                let rule =
                    format!("the network has {classes} classes (background included), one weight each");
                refuse("loss.class_weights", format!("{class_weights:?}"), &rule)
            }
            _ => Ok(()),
        }
    }
}

impl LossTerms {
    /// The weight of a class in the voxel term.
    pub fn class_weight(&self, class: usize) -> f32 {
        self.class_weights.get(class).copied().unwrap_or(1.0)
    }
}
