//! What works but is seldom meant: where layers are placed and how choices go together. Told by `pipe check`.

use super::{Params, Patch};
use crate::stage::ParamProblem;
use pipe_nn::{
    Activation, Architecture, Augment, Down, Initialization, Loss, Norm, Optimizer, Schedule, Task,
};

/// Samples a forward pass below which the statistics of a batch are too uncertain to normalise by.
const FEW_SAMPLES: usize = 4;
/// Shares of values that are dropped beyond this leave too little to learn from.
const MUCH_DROPPED: f32 = 0.5;

/// What the rules look at, whatever the network is called.
struct Layers {
    norm: Option<Norm>,
    activation: Option<Activation>,
    dropout: f32,
    /// Dropout stands before further norms.
    dropout_inside: bool,
    noise: f32,
}

impl Layers {
    fn of(model: &Architecture) -> Self {
        match model {
            Architecture::Unet2d(unet) | Architecture::Unet3d(unet) => Self {
                norm: Some(unet.norm),
                activation: Some(unet.activation),
                dropout: unet.dropout,
                dropout_inside: true,
                noise: unet.noise,
            },
            Architecture::Classifier2d(classifier) | Architecture::Classifier3d(classifier) => Self {
                norm: Some(classifier.norm),
                activation: Some(classifier.activation),
                dropout: classifier.dropout.max(classifier.channel_dropout),
                dropout_inside: classifier.channel_dropout > 0.0,
                noise: classifier.noise,
            },
            Architecture::Linear2d(_) | Architecture::Linear3d(_) => {
                Self { norm: None, activation: None, dropout: 0.0, dropout_inside: false, noise: 0.0 }
            }
        }
    }
}

impl Params {
    /// All advice, in the order of the rules.
    pub(in crate::kinds::train) fn advice(&self) -> Vec<ParamProblem> {
        let mut advice = Vec::new();
        self.on_layers(&mut |parameter, message, help: &str| {
            advice.push(ParamProblem { parameter, message, help: help.to_owned() });
        });
        self.on_shape(&mut |parameter, message, help: &str| {
            advice.push(ParamProblem { parameter, message, help: help.to_owned() });
        });
        self.on_steps(&mut |parameter, message, help: &str| {
            advice.push(ParamProblem { parameter, message, help: help.to_owned() });
        });
        advice
    }

    /// Norms, dropout, noise and start values.
    fn on_layers(&self, tell: &mut dyn FnMut(&'static str, String, &str)) {
        let Layers { norm, activation, dropout, dropout_inside, noise } = Layers::of(&self.model);
        let samples = self.config(0).batch_size;
        if norm == Some(Norm::Batch) && samples < FEW_SAMPLES {
            tell(
                "model",
                format!("batch normalisation goes by the mean and variance of {samples} samples"),
                "they are uncertain in a batch so small (Wu and He 2018): use `norm: instance` or `norm: { group: 8 }`",
            );
        }
        if norm == Some(Norm::Batch) && dropout > 0.0 && dropout_inside {
            tell(
                "model",
                "dropout stands before batch normalisation, whose running variance it changes in training alone".into(),
                "leave one of them out, or use `norm: instance` (Li et al. 2019)",
            );
        }
        if dropout > MUCH_DROPPED {
            tell(
                "model",
                format!("dropout takes away {:.0} % of what a layer tells", 100.0 * dropout),
                "0.1 to 0.3 is usual for channels of a convolution, up to 0.5 before the last layer",
            );
        }
        let changed = matches!(&self.augment, Augment::Random(random) if random.noise.probability > 0.0);
        if noise > 0.0 && changed {
            tell(
                "model",
                format!("`noise: {noise}` is added to images that `augment` adds noise to as well"),
                "keep one: the layer changes every sample, `augment` a share of them",
            );
        }
        let he = matches!(self.initialization, Initialization::HeNormal | Initialization::HeUniform);
        let one_sided = match activation {
            Some(Activation::Sigmoid | Activation::Tanh) => false,
            Some(Activation::Relu | Activation::LeakyRelu | Activation::Prelu | Activation::Gelu) => true,
            None => he,
        };
        if he && !one_sided {
            tell(
                "initialization",
                "He's start values are for activations that are 0 on one side, and these are not".into(),
                "use `initialization: xavier-normal` with sigmoid and tanh (Glorot and Bengio 2010)",
            );
        }
        if !he && one_sided {
            tell(
                "initialization",
                "Xavier's start values lose half of the variance at every rectified layer".into(),
                "use `initialization: he-normal` with ReLU, its variants and GELU (He et al. 2015)",
            );
        }
    }

    /// Sizes of patch and network, and losses.
    fn on_shape(&self, tell: &mut dyn FnMut(&'static str, String, &str)) {
        if let Architecture::Unet2d(unet) | Architecture::Unet3d(unet) = &self.model {
            if unet.deep_supervision && unet.levels < 3 {
                tell(
                    "model",
                    format!("a U-Net of {} levels has no coarser output that could be trained", unet.levels),
                    "leave `deep_supervision` out, or use 3 levels or more",
                );
            }
            let sizes = self.patch.zip(self.network().ok()).map(|(Patch(patch), network)| {
                let [z, y, x] = [0, 1, 2].map(|axis| patch[axis] / network.multiple[axis]);
                z * y * x
            });
            if sizes == Some(1) && unet.norm == Norm::Instance && unet.levels > 1 {
                tell(
                    "patch",
                    "the lowest level sees a single voxel, which instance normalisation turns into a constant".into(),
                    "use a larger patch, fewer levels, or `norm: { group: 8 }`",
                );
            }
            let wide = unet.strides.is_none() && unet.down != Down::Stride && unet.levels > 6;
            if wide {
                tell(
                    "model",
                    format!("{} levels halve every axis {} times", unet.levels, unet.levels - 1),
                    "give `strides`, so that short axes stop halving first",
                );
            }
        }
        if self.foreground > 0.0 && self.patch.is_none() {
            tell(
                "foreground",
                "without `patch` a sample holds its case whole, so nothing is left to choose".into(),
                "give a `patch` that is smaller than the cases, or leave `foreground` out",
            );
        }
        if self.model.task() == Task::Classification {
            if matches!(self.loss, Some(Loss::Dice(_) | Loss::DiceCe(_) | Loss::Tversky(_))) {
                tell(
                    "loss",
                    "overlap is counted over voxels, and a class of a whole image is one".into(),
                    "use `loss: cross-entropy` or `loss: focal`",
                );
            }
            if self.foreground > 0.0 {
                tell(
                    "foreground",
                    "whole images with one class have no foreground".into(),
                    "leave `foreground` out",
                );
            }
        }
    }

    /// Optimiser, rate and when to stop.
    fn on_steps(&self, tell: &mut dyn FnMut(&'static str, String, &str)) {
        if self.penalty.weights_l2 > 0.0 && self.weight_decay > 0.0 {
            tell(
                "penalty",
                format!(
                    "`weights_l2: {}` and `weight_decay: {}` both shrink the weights",
                    self.penalty.weights_l2, self.weight_decay
                ),
                "keep `weight_decay`, which is cheaper; it is 0.01 unless given",
            );
        }
        if matches!(self.optimizer, Optimizer::Adam(_)) && self.weight_decay > 0.0 {
            tell(
                "optimizer",
                "Adam divides weight decay by the size of the gradient: weights that move much hardly decay"
                    .into(),
                "use `optimizer: adamw` (Loshchilov and Hutter 2019), or `weight_decay: 0`",
            );
        }
        let adaptive = !matches!(self.optimizer, Optimizer::Sgd(_));
        if adaptive && self.config(0).base_rate() > 0.02 {
            tell(
                "learning_rate",
                format!("{} is much for an optimiser that scales each value", self.config(0).base_rate()),
                "0.0003 to 0.005 is usual with Adam, AdamW and RMSprop; 0.01 with `optimizer: sgd`",
            );
        }
        if self.warmup.epochs > 0.0 && matches!(self.schedule, Schedule::OneCycle(_)) {
            tell(
                "warmup",
                "`one-cycle` begins with a rise of its own".into(),
                "leave `warmup` out, or set the `rise` of `one-cycle`",
            );
        }
        if self.warmup.epochs >= self.epochs as f64 {
            tell(
                "warmup",
                format!("the rate rises for {} of {} epochs", self.warmup.epochs, self.epochs),
                "a tenth of the epochs is usual",
            );
        }
        if let Some(stopping) = self.early_stopping
            && stopping.patience * self.validate_every >= self.epochs
        {
            tell(
                "early_stopping",
                format!(
                    "{} validations without a better score do not fit into {} epochs",
                    stopping.patience + 1,
                    self.epochs
                ),
                "lower `patience`, or leave `early_stopping` out",
            );
        }
        if let Augment::Random(random) = &self.augment
            && random.mixup.probability + random.cutmix.probability > 0.0
            && self.config(0).batch_size == 1
        {
            tell(
                "augment",
                "mixup and CutMix take from another sample of the batch, and there is none".into(),
                "use `batch_size: 2` or more",
            );
        }
        if self.overfit.is_some() && Layers::of(&self.model).dropout > 0.0 {
            tell(
                "overfit",
                "dropout keeps a network from learning cases by heart, which is what is checked here".into(),
                "set `dropout: 0` for this check",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The parameters that are advised on, in a training with these values besides the usual.
    #[track_caller]
    fn check(change: Value, expected: &[&str]) {
        let mut params = json!({ "fold": 0, "model": { "unet3d": {} } });
        let Value::Object(change) = change else { panic!("parameters by name") };
        for (name, value) in change {
            params[name] = value;
        }
        let params: Params = serde_json::from_value(params).expect("parameters parse");
        let found = params.advice();
        assert_eq!(found.iter().map(|advice| advice.parameter).collect::<Vec<_>>(), expected, "{found:?}");
        assert!(found.iter().all(|advice| !advice.help.is_empty()));
    }

    #[test]
    fn defaults_need_no_advice() {
        for model in ["unet2d", "unet3d", "classifier2d", "classifier3d", "linear2d", "linear3d"] {
            check(json!({ "model": { model: {} } }), &[]);
        }
    }

    #[test]
    fn layers_in_the_wrong_place_are_told() {
        check(json!({ "model": { "classifier3d": {} }, "batch_size": 2 }), &["model"]);
        check(json!({ "model": { "unet3d": { "norm": "batch" } }, "batch_size": 2 }), &["model"]);
        check(
            json!({ "model": { "unet3d": { "norm": "batch", "dropout": 0.1 } }, "batch_size": 8 }),
            &["model"],
        );
        check(json!({ "model": { "classifier2d": { "dropout": 0.2 } } }), &[]);
        check(json!({ "model": { "unet3d": { "dropout": 0.6 } } }), &["model"]);
        check(json!({ "model": { "unet3d": { "noise": 0.1 } } }), &["model"]);
        check(json!({ "model": { "unet3d": { "noise": 0.1 } }, "augment": { "none": {} } }), &[]);
        check(json!({ "model": { "unet3d": { "activation": "tanh" } } }), &["initialization"]);
        check(json!({ "initialization": "xavier-uniform" }), &["initialization"]);
        let tanh = json!({ "unet3d": { "activation": "tanh" } });
        check(json!({ "model": tanh, "initialization": "xavier-normal" }), &[]);
    }

    #[test]
    fn sizes_that_leave_nothing_to_see_are_told() {
        check(json!({ "patch": [4, 4, 4] }), &["patch"]);
        check(json!({ "patch": [8, 4, 4] }), &[]);
        check(json!({ "model": { "unet3d": { "levels": 2, "deep_supervision": true } } }), &["model"]);
        check(json!({ "foreground": 0.3 }), &["foreground"]);
        check(json!({ "foreground": 0.3, "patch": [16, 16, 16] }), &[]);
        check(json!({ "model": { "linear2d": {} }, "loss": { "dice": {} } }), &["loss"]);
    }

    #[test]
    fn choices_that_work_against_each_other_are_told() {
        check(json!({ "penalty": { "weights_l2": 0.1 } }), &["penalty"]);
        check(json!({ "penalty": { "weights_l2": 0.1 }, "weight_decay": 0 }), &[]);
        check(json!({ "optimizer": { "adam": {} } }), &["optimizer"]);
        check(json!({ "learning_rate": 0.1 }), &["learning_rate"]);
        check(json!({ "learning_rate": 0.1, "optimizer": { "sgd": {} } }), &[]);
        check(json!({ "schedule": { "one-cycle": {} }, "warmup": { "epochs": 2 } }), &["warmup"]);
        check(json!({ "epochs": 5, "warmup": { "epochs": 5 } }), &["warmup"]);
        check(json!({ "epochs": 8, "early_stopping": { "patience": 8 } }), &["early_stopping"]);
        check(
            json!({ "batch_size": 1, "augment": { "random": { "mixup": { "probability": 1 } } } }),
            &["augment"],
        );
        check(json!({ "overfit": 2, "model": { "unet3d": { "dropout": 0.1 } } }), &["overfit"]);
    }
}
