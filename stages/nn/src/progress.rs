//! What a training tells while it runs, and what it leaves.

use serde::{Deserialize, Serialize};

use crate::weights::Parameters;

/// One finished epoch: a row of the training log.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EpochRow {
    /// Counted from 1.
    pub epoch: usize,
    /// Steps done in all.
    pub step: usize,
    /// Samples seen in all.
    pub samples: usize,
    /// Mean over the steps of the epoch.
    pub train_loss: f64,
    /// Rate of the last step.
    pub learning_rate: f64,
    /// Mean over the steps of the Euclidean norm of the gradient, before it was clipped.
    pub gradient_norm: f64,
    /// What the validation cases gave; `None` when the epoch was not validated.
    pub validation: Option<Validation>,
    /// Wall-clock seconds since the training began, interruptions left out.
    pub seconds: f64,
}

/// What the validation cases gave, over all of them: never the mean of batches.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Validation {
    /// Mean over the cases of the loss of each, without penalties.
    pub loss: f64,
    pub score: Score,
}

/// How well the validation cases were told.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// Dice of labels 1, 2, …, each the mean over whole validation volumes; `None` for a label that neither occurs nor
    /// is predicted.
    Dice(Vec<Option<f64>>),
    /// Of whole images: share of right answers, and the area under the ROC curve (for more than two classes the mean
    /// of each class against the others); `None` where a class does not occur.
    Classes { accuracy: f64, auc: Option<f64> },
}

impl Validation {
    /// The number that decides which epoch is best, larger is better: mean Dice of the labels that have one, or the area
    /// under the ROC curve, else the accuracy.
    pub fn key(&self) -> Option<f64> {
        match &self.score {
            Score::Dice(labels) => {
                let present: Vec<f64> = labels.iter().copied().flatten().collect();
                (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
            }
            Score::Classes { accuracy, auc } => Some(auc.unwrap_or(*accuracy)),
        }
    }

    /// Mean Dice of the labels that have one.
    pub fn mean_dice(&self) -> Option<f64> {
        match self.score {
            Score::Dice(_) => self.key(),
            Score::Classes { .. } => None,
        }
    }
}

impl EpochRow {
    /// [`Validation::key`] of an epoch that was validated.
    pub fn key(&self) -> Option<f64> {
        self.validation.as_ref().and_then(Validation::key)
    }
}

/// Mean and variance of an activation, or of the gradient of a weight, at the first step of an epoch.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LayerRow {
    /// Counted from 1.
    pub epoch: usize,
    pub layer: String,
    pub quantity: Quantity,
    pub mean: f64,
    pub variance: f64,
    /// Share of values below 1e-6 in magnitude.
    pub zeros: f64,
}

/// What a [`LayerRow`] is about.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    Activation,
    Gradient,
}

/// A dead layer has at least this share of zeros.
const DEAD: f64 = 0.999;
/// A layer has drifted when its variance is so many times that of the first epoch, or its share.
const DRIFT: f64 = 1e3;

impl LayerRow {
    /// What is wrong with the layer, given its row of the first epoch.
    pub(crate) fn problem(&self, first: Option<&Self>) -> Option<String> {
        let Self { epoch, layer, quantity, mean, variance, zeros } = self;
        match quantity {
            Quantity::Activation if *zeros >= DEAD => Some(format!(
                "layer `{layer}` is dead in epoch {epoch}: {:.1} % of its values are 0; try a smaller learning rate \
                 or a leaky activation",
                100.0 * zeros
            )),
            Quantity::Gradient if *variance + mean * mean < 1e-24 => Some(format!(
                "no gradient reaches `{layer}` in epoch {epoch}: mean square {:.1e}",
                variance + mean * mean
            )),
            Quantity::Activation => {
                let before = first?.variance;
                let drifted = before > 0.0 && !(before / DRIFT..=before * DRIFT).contains(variance);
                drifted.then(|| {
                    format!(
                        "layer `{layer}` has drifted: the variance of its values is {variance:.2e} in epoch {epoch} and \
                         was {before:.2e} in epoch 1; try a norm, a smaller learning rate or clipping"
                    )
                })
            }
            Quantity::Gradient => None,
        }
    }
}

/// What the observer of a training is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// All cases were looked at: the classes that no training case has, and the samples of an epoch.
    Surveyed { absent: Vec<usize>, samples: usize },
    /// A step is done; epoch and step are counted from 1.
    Step {
        epoch: usize,
        step: usize,
        steps: usize,
        loss: f32,
        learning_rate: f64,
        gradient_norm: f64,
        seconds: f64,
    },
    /// An epoch is done and, where due, validated.
    Epoch(EpochRow),
    /// The training goes on, but something looks wrong.
    Warning(String),
    /// The training ends before its last epoch: so many validations brought no better score.
    StoppedEarly { epoch: usize, best_epoch: usize },
}

/// The outcome of a training.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Parameters of the epoch with the largest score (the first of equals); the last ones where nothing was validated.
    /// With a running mean of the parameters, that mean.
    pub best: Parameters,
    /// The epoch of `best`, counted from 1.
    pub best_epoch: usize,
    pub last: Parameters,
    pub log: Vec<EpochRow>,
    /// Activations and gradients of each layer at the first step of each epoch.
    pub layers: Vec<LayerRow>,
    /// Voxels of a training sample along z, y, x.
    pub patch: [usize; 3],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(quantity: Quantity, epoch: usize, variance: f64, zeros: f64) -> LayerRow {
        LayerRow { epoch, layer: "norm0".into(), quantity, mean: 0.0, variance, zeros }
    }

    #[track_caller]
    fn check(row: &LayerRow, first: Option<&LayerRow>, expected: Option<&str>) {
        let found = row.problem(first);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }

    #[test]
    fn a_layer_that_dies_or_drifts_is_told_and_a_healthy_one_is_not() {
        use Quantity::{Activation, Gradient};
        let first = row(Activation, 1, 1.0, 0.5);
        check(&row(Activation, 2, 0.5, 0.6), Some(&first), None);
        check(&row(Activation, 2, 0.5, 1.0), Some(&first), Some("layer `norm0` is dead in epoch 2: 100.0 %"));
        check(&row(Activation, 3, 2e3, 0.5), Some(&first), Some("layer `norm0` has drifted"));
        check(&row(Activation, 3, 2e-4, 0.5), Some(&first), Some("layer `norm0` has drifted"));
        check(&row(Gradient, 1, 0.0, 1.0), None, Some("no gradient reaches `norm0` in epoch 1"));
        check(&row(Gradient, 1, 1e-9, 0.9), None, None);
    }
}
