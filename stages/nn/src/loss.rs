//! What is minimised: cross-entropy plus soft Dice, and which voxels and classes count.

use serde::{Deserialize, Serialize};

use crate::NnError;

/// The label of a voxel that counts nowhere: neither in the loss nor in a metric.
pub const IGNORE: u8 = 255;

/// Mean cross-entropy over the counted voxels, plus one minus the mean soft Dice.
///
/// Soft Dice of one group and class: `(2·Σ p·t + smooth) / (Σ p + Σ t + smooth)`, with `p` the softmax and `t` the
/// one-hot label; a group is a sample, or the whole batch with `batch_dice`. Source: Drozdzal et al. 2016 (soft Dice);
/// Isensee et al. 2021 (the sum with cross-entropy).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Sums overlaps and sizes over the batch before dividing; steadier where a sample may lack a class, as slices do.
    pub batch_dice: bool,
    /// Averages the Dice of class 0 too.
    pub dice_includes_background: bool,
    /// Added to numerator and denominator, in voxels.
    pub smooth: f32,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { batch_dice: true, dice_includes_background: false, smooth: 1e-5 }
    }
}

impl LossConfig {
    pub(crate) fn check(&self) -> Result<(), NnError> {
        if self.smooth > 0.0 && self.smooth.is_finite() {
            return Ok(());
        }
        let rule = "it must be positive: an absent class divides by it".to_owned();
        Err(NnError::Config { name: "loss.smooth", value: self.smooth.to_string(), rule })
    }
}
