//! How a network is trained: every choice with its default, and what cannot work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::augment::Augment;
use crate::init::Initialization;
use crate::loss::Loss;
use crate::network::{Dims, Network};
use crate::optimizer::{Clip, Optimizer};
use crate::schedule::{Schedule, Warmup};

/// How a network is trained. [`TrainConfig::for_dims`] has the defaults of 2D and of 3D.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training cases.
    pub epochs: usize,
    /// Volumes (3D) or slices (2D) a forward pass; the last one of an epoch takes what is left.
    pub batch_size: usize,
    /// Forward passes a step: their gradients are averaged.
    pub accumulate: usize,
    pub learning_rate: f64,
    /// The samples a step for which `learning_rate` was chosen: with more or fewer, the rate is scaled in proportion
    /// (Goyal et al. 2017). `None` takes the rate as it is.
    pub rate_for_batch: Option<usize>,
    /// Share of weights (not of biases, scales and shifts) that is taken away, times the rate; how is the optimiser's.
    pub weight_decay: f64,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub warmup: Warmup,
    pub clip: Clip,
    /// Decay of a running mean of all values, which is validated and kept in place of the last ones.
    pub ema: Option<f64>,
    pub loss: Loss,
    pub penalty: Penalty,
    pub initialization: Initialization,
    /// Parts of the network that are not trained, as the names of parameters begin: `encoder`, `encoder.0`.
    pub freeze: Vec<String>,
    /// So many of the first convolutions are not trained either, nor the norms and activations behind them.
    pub freeze_first: usize,
    /// Voxels of a sample along z, y, x; z is 1 in 2D. Larger cases are cropped at random, smaller ones zero-padded,
    /// which after a z-score is the mean intensity; padding counts neither in the loss nor in the metrics. `None`: the
    /// smallest patch that holds every training case and that the network takes.
    pub patch: Option<[usize; 3]>,
    /// All random numbers follow from it.
    pub seed: u64,
    pub augmentation: Augment,
    /// Share of the samples that hold a voxel of a class besides the background, drawn anew for each (nnU-Net: 0.33).
    pub foreground: f32,
    /// Epochs between validations; the last epoch is always validated.
    pub validate_every: usize,
    pub early_stopping: Option<EarlyStopping>,
    /// Trains on the first cases alone, validates on the same and changes none: a network that cannot learn those by
    /// heart has a mistake somewhere.
    pub overfit: Option<usize>,
    /// Seconds between two checkpoints within an epoch; each epoch ends with one. No part of the results.
    #[serde(skip)]
    pub checkpoint_seconds: f64,
}

/// What is added to the loss for the size of weights and activations.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Penalty {
    /// Times the sum of the magnitudes of all weights.
    pub weights_l1: f32,
    /// Times the sum of the squares of all weights.
    pub weights_l2: f32,
    /// Times the mean magnitude of each activation.
    pub activations_l1: f32,
    /// Times the mean square of each activation.
    pub activations_l2: f32,
}

/// When a training ends before its last epoch.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopping {
    /// Validations without a better score that are borne.
    pub patience: usize,
    /// A score is better when it is above the best one by more than this.
    pub margin: f64,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { patience: 10, margin: 0.0 }
    }
}

impl EarlyStopping {
    /// Whether the scores so far call for an end.
    pub(crate) fn is_due(self, scores: impl Iterator<Item = f64>) -> bool {
        let (mut best, mut waited) = (f64::NEG_INFINITY, 0);
        for score in scores {
            if score > best + self.margin || best == f64::NEG_INFINITY {
                (best, waited) = (score, 0);
            } else {
                waited += 1;
            }
        }
        waited > self.patience
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self::for_dims(Dims::Three)
    }
}

impl TrainConfig {
    /// Defaults for slices (batches of 16) or volumes (batches of 2).
    pub fn for_dims(dims: Dims) -> Self {
        Self {
            epochs: 20,
            batch_size: if dims == Dims::Two { 16 } else { 2 },
            accumulate: 1,
            learning_rate: 3e-3,
            rate_for_batch: None,
            weight_decay: 1e-2,
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            warmup: Warmup::default(),
            clip: Clip::default(),
            ema: None,
            loss: Loss::default(),
            penalty: Penalty::default(),
            initialization: Initialization::default(),
            freeze: Vec::new(),
            freeze_first: 0,
            patch: None,
            seed: 0,
            augmentation: Augment::default(),
            foreground: 0.0,
            validate_every: 1,
            early_stopping: None,
            overfit: None,
            checkpoint_seconds: 60.0,
        }
    }

    /// Samples whose gradients make one update.
    pub fn samples_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// The rate that the schedule starts from.
    pub fn base_rate(&self) -> f64 {
        let samples = self.samples_per_step() as f64;
        self.learning_rate * self.rate_for_batch.map_or(1.0, |batch| samples / batch as f64)
    }

    /// Checks all that does not depend on the network.
    ///
    /// # Errors
    /// [`NnError::Config`] for the first value that cannot work.
    pub fn check_values(&self) -> Result<(), NnError> {
        let config =
            |name, value: String, rule: &str| Err(NnError::Config { name, value, rule: rule.to_owned() });
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("rate_for_batch", self.rate_for_batch.unwrap_or(1)),
            ("validate_every", self.validate_every),
            ("overfit", self.overfit.unwrap_or(1)),
        ] {
            if value == 0 {
                return config(name, value.to_string(), "it must be at least 1");
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return config("learning_rate", self.learning_rate.to_string(), "it must be positive");
        }
        let Penalty { weights_l1, weights_l2, activations_l1, activations_l2 } = self.penalty;
        for (name, value) in [
            ("weight_decay", self.weight_decay),
            ("penalty.weights_l1", f64::from(weights_l1)),
            ("penalty.weights_l2", f64::from(weights_l2)),
            ("penalty.activations_l1", f64::from(activations_l1)),
            ("penalty.activations_l2", f64::from(activations_l2)),
            ("early_stopping.margin", self.early_stopping.map_or(0.0, |stopping| stopping.margin)),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return config(name, value.to_string(), "it must be 0 or more");
            }
        }
        if let Some(ema) = self.ema.filter(|ema| !(0.0..1.0).contains(ema)) {
            return config("ema", ema.to_string(), "it must be 0 or more and below 1");
        }
        if !(0.0..=1.0).contains(&self.foreground) {
            return config("foreground", self.foreground.to_string(), "it must lie in 0..=1");
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        self.warmup.check()?;
        self.clip.check()?;
        self.augmentation.check()
    }

    pub(crate) fn check(&self, network: &Network) -> Result<(), NnError> {
        self.check_values()?;
        self.loss.check(Some(network.classes))?;
        self.patch.map_or(Ok(()), |patch| network.check_patch(patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scores: &[f64], expected: bool) {
        let stopping = EarlyStopping { patience: 2, margin: 0.01 };
        assert_eq!(stopping.is_due(scores.iter().copied()), expected, "{scores:?}");
    }

    #[test]
    fn a_training_stops_when_more_than_patience_scores_were_no_better() {
        check(&[], false);
        check(&[0.5, 0.4, 0.4], false);
        check(&[0.5, 0.4, 0.4, 0.4], true);
        check(&[0.5, 0.505, 0.505, 0.509], true);
        check(&[0.5, 0.4, 0.4, 0.52, 0.4, 0.4], false);
    }

    #[test]
    fn the_rate_grows_with_the_samples_a_step() {
        let config = TrainConfig {
            learning_rate: 0.01,
            rate_for_batch: Some(8),
            batch_size: 4,
            accumulate: 6,
            ..TrainConfig::default()
        };
        assert!((config.base_rate() - 0.03).abs() < 1e-15);
        assert_eq!(TrainConfig { rate_for_batch: None, ..config }.base_rate(), 0.01);
    }
}
