//! The parameters of a training, as a pipeline file gives them.

use crate::stage::ParamProblem;
use pipe_nn::{
    Architecture, Augment, Clip, EarlyStopping, Initialization, Io, Loss, NnError, Optimizer, Penalty,
    Schedule, TrainConfig, Warmup,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The fold that is left out for validation, counted from 0.
    pub(super) fold: usize,
    /// The network: its name, or its name with parameters.
    pub(super) model: Architecture,
    /// Passes over the training cases.
    #[serde(default = "default_epochs")]
    pub(super) epochs: usize,
    /// Volumes (3D) or slices (2D) a forward pass; 2 in 3D and 16 in 2D unless given.
    #[serde(default)]
    batch_size: Option<usize>,
    /// Forward passes a step, whose gradients are averaged: a larger batch in the memory of a small one.
    #[serde(default = "one")]
    accumulate: usize,
    /// Rate that the schedule starts from, or peaks at.
    #[serde(default = "default_learning_rate")]
    learning_rate: f64,
    /// Samples a step for which `learning_rate` was chosen: with more or fewer, the rate is scaled in proportion.
    #[serde(default)]
    rate_for_batch: Option<usize>,
    /// Share of weights that is taken away, times the rate; on weights only. Decoupled with `adamw`.
    #[serde(default = "default_weight_decay")]
    weight_decay: f64,
    /// How a gradient becomes an update; formulas and defaults are PyTorch's.
    #[serde(default)]
    optimizer: Optimizer,
    /// How the rate moves over the training.
    #[serde(default)]
    schedule: Schedule,
    /// A rise to the scheduled rate over the first epochs.
    #[serde(default)]
    warmup: Warmup,
    /// Bounds on the gradient.
    #[serde(default)]
    clip: Clip,
    /// Decay of a running mean of the weights, such as 0.999, which is validated and kept in their place. It starts lower
    /// and rises, so that the mean soon forgets where training began.
    #[serde(default)]
    ema: Option<f64>,
    /// What is minimised; Dice with cross-entropy for voxels and cross-entropy for whole images unless given.
    #[serde(default)]
    loss: Option<Loss>,
    /// What is added to the loss for the size of weights and activations.
    #[serde(default)]
    penalty: Penalty,
    /// How start values are drawn.
    #[serde(default)]
    initialization: Initialization,
    /// Parts of the network that are not trained, as their parameters begin: `encoder`, `encoder.0`, `stem`.
    #[serde(default)]
    freeze: Vec<String>,
    /// Voxels of a training sample along z, y, x; in 2D also along y, x alone. Unless given: the smallest that holds every
    /// training case.
    #[serde(default)]
    pub(super) patch: Option<Patch>,
    /// Random changes to training samples.
    #[serde(default)]
    augment: Augment,
    /// Share of the samples that are cut around a voxel of a class besides the background.
    #[serde(default)]
    foreground: f32,
    /// Epochs between validations; the last is always validated.
    #[serde(default = "one")]
    validate_every: usize,
    /// Ends the training when the validation score no longer rises.
    #[serde(default)]
    early_stopping: Option<EarlyStopping>,
    /// Trains on so many cases alone and validates on the same: a check that the network can learn at all.
    #[serde(default)]
    pub(super) overfit: Option<usize>,
    /// Which weights become the model.
    #[serde(default)]
    pub(super) keep: Keep,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Keep {
    /// Those of the epoch with the best validation score: mean Dice, or area under the ROC curve.
    #[default]
    Best,
    /// Those of the last epoch.
    Last,
}

/// Voxels of a sample along z, y, x; `[64, 64]` is read as `[1, 64, 64]`, also for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<usize>")]
#[schemars(with = "Vec<usize>", extend("minItems" = 2, "maxItems" = 3))]
pub(super) struct Patch(pub(super) [usize; 3]);

impl TryFrom<Vec<usize>> for Patch {
    type Error = String;

    fn try_from(written: Vec<usize>) -> Result<Self, String> {
        match written[..] {
            [z, y, x] => Ok(Self([z, y, x])),
            [y, x] => Ok(Self([1, y, x])),
            _ => Err(format!("expected three sizes (z, y, x), or two (y, x) in 2D, found {}", written.len())),
        }
    }
}

fn default_epochs() -> usize {
    20
}

fn default_learning_rate() -> f64 {
    3e-3
}

fn default_weight_decay() -> f64 {
    1e-2
}

fn one() -> usize {
    1
}

impl Params {
    pub(super) fn config(&self, seed: u64) -> TrainConfig {
        let usual = TrainConfig::for_dims(self.model.dims());
        let loss = match self.model.task() {
            pipe_nn::Task::Segmentation => Loss::default(),
            pipe_nn::Task::Classification => Loss::CrossEntropy(pipe_nn::CrossEntropy::default()),
        };
        TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch_size.unwrap_or(usual.batch_size),
            accumulate: self.accumulate,
            learning_rate: self.learning_rate,
            rate_for_batch: self.rate_for_batch,
            weight_decay: self.weight_decay,
            optimizer: self.optimizer,
            schedule: self.schedule,
            warmup: self.warmup,
            clip: self.clip,
            ema: self.ema,
            loss: self.loss.clone().unwrap_or(loss),
            penalty: self.penalty,
            initialization: self.initialization,
            freeze: self.freeze.clone(),
            patch: self.patch.map(|patch| patch.0),
            seed,
            augmentation: self.augment.clone(),
            foreground: self.foreground,
            validate_every: self.validate_every,
            early_stopping: self.early_stopping,
            overfit: self.overfit,
            ..usual
        }
    }

    /// What is wrong with the values beyond their types.
    pub(super) fn problems(&self) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        // Sizes that every network takes: the checks are of its own values.
        let size = if self.model.dims() == pipe_nn::Dims::Two { [1, 64, 64] } else { [64; 3] };
        let network = self.model.network(Io { channels: 1, classes: 2, size });
        if let Err(error) = &network {
            problems.push(ParamProblem {
                parameter: "model",
                message: error.to_string(),
                help: String::new(),
            });
        }
        let config = self.config(0);
        let own = config.check_values().and_then(|()| config.loss.check(None));
        let patch = || match (&network, self.patch) {
            (Ok(network), Some(Patch(size))) if network.fixed_size.is_none() => {
                network.check_input(pipe_nn::Geometry { samples: 1, size })
            }
            _ => Ok(()),
        };
        let freeze = || match &network {
            Ok(network) => network.parameters_below(&self.freeze).map(|_| ()),
            Err(_) => Ok(()),
        };
        for (result, usual) in [(own, "epochs"), (patch(), "patch"), (freeze(), "freeze")] {
            let Err(error) = result else { continue };
            let parameter = match &error {
                NnError::Config { name, .. } => top_level(name),
                _ => usual,
            };
            problems.push(ParamProblem { parameter, message: error.to_string(), help: String::new() });
        }
        problems
    }
}

/// The parameter of the file that a name of the configuration belongs to: `schedule.factor` is below `schedule`.
fn top_level(name: &'static str) -> &'static str {
    name.split(['.', ' ']).next().unwrap_or(name)
}
