//! The parameters of a training, as a pipeline file gives them.

use super::pretrained::Pretrained;
use crate::stage::ParamProblem;
use pipe_nn::{
    Architecture, Augment, Clip, Device, EarlyStopping, Initialization, Io, Loss, Network, NnError,
    Optimizer, Penalty, Schedule, Task, TrainConfig, Warmup,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod advice;

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
    /// Volumes (3D) or slices (2D) a forward pass; unless given 2 in 3D, 8 for classes of whole volumes, and 16 in 2D.
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
    /// So many of the first convolutions are not trained either, nor the norms and activations behind them.
    #[serde(default)]
    freeze_first: usize,
    /// A trained network to begin with, besides what the input `pretrained` gives.
    #[serde(default)]
    pub(super) pretrained: Option<Pretrained>,
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
    /// What the network trains on: `cpu`, `cuda` (the device that `resources: { gpu: 1 }` grants, else the first), `cuda:1`, or
    /// `auto`, which takes a CUDA device that works, else the processor. The processor gives the same bits on every machine;
    /// a CUDA device on devices of its kind.
    #[serde(default, with = "device")]
    #[schemars(schema_with = "device::schema")]
    pub(super) device: Device,
    /// Which weights become the model.
    #[serde(default)]
    pub(super) keep: Keep,
}

/// A device as text. Which of several CUDA devices it was is no part of what a result depends on.
mod device {
    use pipe_nn::Device;
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(device: &Device, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = if let Device::Cuda(_) = device { Device::Cuda(None) } else { *device };
        serializer.collect_str(&kind)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Device, D::Error> {
        deserializer.deserialize_str(Words)
    }

    /// Parses within the decoder, which then knows the place.
    struct Words;

    impl Visitor<'_> for Words {
        type Value = Device;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("auto, cpu, cuda or cuda:1")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Device, E> {
            text.parse().map_err(E::custom)
        }
    }

    pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(auto|cpu|cuda(:[0-9]+)?)$" })
    }
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
    /// Whether a part of the network is not trained.
    pub(super) fn freezes(&self) -> bool {
        !self.freeze.is_empty() || self.freeze_first > 0
    }

    pub(super) fn config(&self, seed: u64) -> TrainConfig {
        let usual = TrainConfig::for_dims(self.model.dims());
        let (loss, batch_size) = match self.model.task() {
            Task::Segmentation => (Loss::default(), usual.batch_size),
            // Batch normalisation, the default of classifiers, needs more than two samples.
            Task::Classification => {
                (Loss::CrossEntropy(pipe_nn::CrossEntropy::default()), usual.batch_size.max(8))
            }
        };
        TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch_size.unwrap_or(batch_size),
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
            freeze_first: self.freeze_first,
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

    /// The network for any images: the checks are of its own values.
    fn network(&self) -> Result<Network, NnError> {
        let size = if self.model.dims() == pipe_nn::Dims::Two { [1, 64, 64] } else { [64; 3] };
        self.model.network(Io { channels: 1, classes: 2, size })
    }

    /// What is wrong with the values beyond their types.
    pub(super) fn problems(&self) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let network = self.network();
        if let Err(error) = &network {
            problems.push(ParamProblem {
                parameter: "model",
                message: error.to_string(),
                help: HELP.to_owned(),
            });
        }
        let config = self.config(0);
        let own = config.check_values().and_then(|()| config.loss.check(None));
        let patch = || match (&network, self.patch) {
            (Ok(network), Some(Patch(size))) if network.fixed_size.is_none() => network.check_patch(size),
            _ => Ok(()),
        };
        let freeze = || match &network {
            Ok(network) => network.frozen(&self.freeze, self.freeze_first).map(|_| ()),
            Err(_) => Ok(()),
        };
        for (result, usual) in [(own, "epochs"), (patch(), "patch"), (freeze(), "freeze")] {
            let Err(error) = result else { continue };
            let parameter = match &error {
                NnError::Config { name, .. } => top_level(name),
                _ => usual,
            };
            problems.push(ParamProblem { parameter, message: error.to_string(), help: HELP.to_owned() });
        }
        if let (Ok(network), Some(pretrained)) = (&network, &self.pretrained) {
            problems.extend(pretrained.problems(network));
        }
        problems
    }
}

/// Where to read on, whatever is wrong.
const HELP: &str = "`pipe stages train` describes every parameter";

/// The parameter of the file that a name of the configuration belongs to: `schedule.factor` is below `schedule`.
fn top_level(name: &'static str) -> &'static str {
    name.split(['.', ' ']).next().unwrap_or(name)
}
