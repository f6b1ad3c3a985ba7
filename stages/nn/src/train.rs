//! The training loop: epochs, steps, validation, checkpoints. Owns the order of events; what an event does lives in
//! the other modules.

use std::path::Path;
use std::time::Instant;

use dfdx::prelude::*;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::augment::Augmentation;
use crate::backend::{Backend, CpuBackend};
use crate::batch::{Batch, Cutter, Loader, covering_patch, epoch_samples};
use crate::checkpoint::{Checkpoint, Position};
use crate::data::{CaseSource, survey};
use crate::loss::LossConfig;
use crate::model::Model;
use crate::network::{Dims, Network};
use crate::optimizer::{Optimizer, OptimizerState};
use crate::schedule::Schedule;
use crate::validate::dice_per_label;
use crate::weights::Parameters;

/// How a network is trained. [`TrainConfig::for_dims`] has the defaults of 2D and of 3D.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training cases.
    pub epochs: usize,
    /// Volumes (3D) or slices (2D) a step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// Rate of the first step.
    pub learning_rate: f64,
    /// Decoupled decay of weights (not of biases, scales and shifts), times the learning rate.
    pub weight_decay: f64,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub loss: LossConfig,
    /// Voxels of a sample along z, y, x; z is 1 in 2D. Larger cases are cropped at random, smaller ones zero-padded,
    /// which after a z-score is the mean intensity; padding counts neither in the loss nor in the metrics. `None`: the
    /// smallest patch that holds every training case and that the network takes.
    pub patch: Option<[usize; 3]>,
    /// All random numbers follow from it.
    pub seed: u64,
    pub augmentation: Augmentation,
    /// Epochs between validations; the last epoch is always validated.
    pub validate_every: usize,
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
            learning_rate: 3e-3,
            weight_decay: 1e-2,
            optimizer: Optimizer::default(),
            schedule: Schedule::Poly { power: 0.9 },
            loss: LossConfig::default(),
            patch: None,
            seed: 0,
            augmentation: Augmentation::default(),
            validate_every: 1,
        }
    }

    fn check(&self, network: &Network) -> Result<(), NnError> {
        let config =
            |name, value: String, rule: &str| Err(NnError::Config { name, value, rule: rule.to_owned() });
        for (name, value) in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("validate_every", self.validate_every),
        ] {
            if value == 0 {
                return config(name, value.to_string(), "it must be at least 1");
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return config("learning_rate", self.learning_rate.to_string(), "it must be positive");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return config("weight_decay", self.weight_decay.to_string(), "it must be 0 or more");
        }
        self.loss.check()?;
        let Some(patch) = self.patch else { return Ok(()) };
        let fits = (0..3).all(|a| patch[a] > 0 && patch[a].is_multiple_of(network.multiple[a]));
        if !fits || (network.dims == Dims::Two && patch[0] != 1) {
            let rule =
                format!("each axis (z, y, x) must be a multiple of {:?}, and z 1 in 2D", network.multiple);
            return config("patch", format!("{patch:?}"), &rule);
        }
        Ok(())
    }
}

/// One finished epoch: a row of the training log.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EpochRow {
    /// Counted from 1.
    pub epoch: usize,
    /// Steps done in all.
    pub step: usize,
    /// Mean over the steps of the epoch.
    pub train_loss: f64,
    /// Rate of the last step.
    pub learning_rate: f64,
    /// Mean over the steps of the Euclidean norm of the gradient.
    pub gradient_norm: f64,
    /// Dice of labels 1, 2, …, each the mean over whole validation volumes; `None` for a label that neither occurs nor
    /// is predicted. Empty when the epoch was not validated.
    pub validation_dice: Vec<Option<f64>>,
    /// Mean of `validation_dice` over the labels that have one.
    pub mean_dice: Option<f64>,
    /// Wall-clock seconds since the training began, interruptions left out.
    pub seconds: f64,
}

/// What the observer of a training is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
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
}

/// The outcome of a training.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Parameters of the epoch with the largest mean validation Dice (the first of equals); the last ones where
    /// nothing was validated.
    pub best: Parameters,
    /// The epoch of `best`, counted from 1.
    pub best_epoch: usize,
    pub last: Parameters,
    pub log: Vec<EpochRow>,
    /// Voxels of a training sample along z, y, x.
    pub patch: [usize; 3],
}

/// Trains `network` from start values drawn from `config.seed`, on the CPU, on rayon's current pool.
///
/// Equal arguments give equal bits, whatever the thread count. With `checkpoint_dir`, the state is saved there after
/// every epoch and when interrupted, and a training that finds its own state there continues from it to the same bits
/// as one that was never interrupted (only `seconds` differ).
///
/// # Errors
/// [`NnError::Interrupted`] when `should_stop` returned true (asked before each step); [`NnError::Diverged`] when the
/// loss is not finite; [`NnError::Case`] and [`NnError::Load`] for cases; [`NnError::Config`] for the configuration;
/// [`NnError::ForeignCheckpoint`] when `checkpoint_dir` holds the state of another training.
pub fn train(
    network: &Network,
    train: &dyn CaseSource,
    validation: &dyn CaseSource,
    config: &TrainConfig,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
    checkpoint_dir: Option<&Path>,
) -> Result<Trained, NnError> {
    train_on(CpuBackend::default(), network, train, validation, config, observer, should_stop, checkpoint_dir)
}

/// [`train`] on a given backend.
///
/// # Errors
/// Those of [`train`].
pub fn train_on<B: Backend>(
    backend: B,
    network: &Network,
    train: &dyn CaseSource,
    validation: &dyn CaseSource,
    config: &TrainConfig,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
    checkpoint_dir: Option<&Path>,
) -> Result<Trained, NnError> {
    config.check(network)?;
    if train.is_empty() {
        let rule = "training needs at least one".to_owned();
        return Err(NnError::Config { name: "number of training cases", value: "0".to_owned(), rule });
    }
    let cases = survey(train, "training", network)?;
    let checked = survey(validation, "validation", network)?;
    let patch = config.patch.unwrap_or_else(|| covering_patch(network, &cases.shapes));
    let run = describe_run(network, config, patch, &cases.ids, &checked.ids);
    let (model, state) = match checkpoint_dir.map(|dir| Checkpoint::load(dir, &run)).transpose()?.flatten() {
        Some(checkpoint) => {
            let model = Model::from_parameters(backend, network.clone(), &checkpoint.parameters)?;
            (model, Some(checkpoint))
        }
        None => (Model::new(backend, network.clone(), config.seed), None),
    };
    let mut optimizer = OptimizerState::new(config.optimizer, config.weight_decay, network);
    let (position, best) = match state {
        Some(Checkpoint { position, parameters, best, moments }) => {
            // The file lists tensors by name, the optimiser by place.
            let by_name = parameters.iter().map(|entry| entry.name.as_str()).zip(moments);
            let by_name: std::collections::BTreeMap<_, _> = by_name.collect();
            let ordered: Vec<_> =
                network.parameters.iter().map(|spec| by_name[spec.name.as_str()].clone()).collect();
            optimizer.restore(position.step, &model.parameters, &ordered)?;
            (position, best.map(|best| best.in_order_of(network)))
        }
        None => (Position::start(run), None),
    };
    let cutter = Cutter { network, patch, seed: config.seed, augmentation: config.augmentation };
    let training = Training {
        model,
        optimizer,
        position,
        best,
        config,
        cutter,
        shapes: &cases.shapes,
        validation,
        checkpoint_dir,
        started: Instant::now(),
    };
    training.run(train, observer, should_stop)
}

/// Everything that decides the bits of a training, one fact a line, in the order a reader would ask.
fn describe_run(
    network: &Network,
    config: &TrainConfig,
    patch: [usize; 3],
    train: &[String],
    validation: &[String],
) -> String {
    let shapes: Vec<String> =
        network.parameters.iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect();
    let config = serde_json::to_string(config).expect("a configuration is plain data");
    format!(
        "config {config}\npatch {patch:?}\nnetwork {}\ntraining cases {}\nvalidation cases {}",
        shapes.join(", "),
        train.join(", "),
        validation.join(", ")
    )
}

struct Training<'a, B: Backend> {
    model: Model<B>,
    optimizer: OptimizerState<B::Device>,
    position: Position,
    best: Option<Parameters>,
    config: &'a TrainConfig,
    cutter: Cutter<'a>,
    shapes: &'a [[usize; 3]],
    validation: &'a dyn CaseSource,
    checkpoint_dir: Option<&'a Path>,
    started: Instant,
}

impl<B: Backend> Training<'_, B> {
    fn run(
        mut self,
        train: &dyn CaseSource,
        observer: &mut dyn FnMut(&Progress),
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Trained, NnError> {
        let before = self.position.seconds;
        let mut loader = Loader::new(train, "training");
        let dims = self.model.network().dims;
        let samples = |epoch| epoch_samples(dims, self.shapes, self.config.seed, epoch);
        let steps_per_epoch = samples(0).len().div_ceil(self.config.batch_size);
        let steps = steps_per_epoch * self.config.epochs;
        while self.position.epoch < self.config.epochs {
            let epoch = self.position.epoch;
            let samples = samples(epoch);
            let done = self.position.batch;
            for (index, chunk) in samples.chunks(self.config.batch_size).enumerate().skip(done) {
                if should_stop() {
                    return Err(self.interrupt()?);
                }
                let first = index * self.config.batch_size;
                let batch = self.cutter.batch(&mut loader, chunk, epoch, first)?;
                let rate = self.rate(self.position.step, steps);
                let (loss, norm) = self.step(&batch, rate)?;
                self.position.batch += 1;
                self.position.step += 1;
                add(&mut self.position.loss_sum, f64::from(loss));
                add(&mut self.position.norm_sum, norm);
                self.position.seconds = before + self.started.elapsed().as_secs_f64();
                observer(&Progress::Step {
                    epoch: epoch + 1,
                    step: self.position.step,
                    steps,
                    loss,
                    learning_rate: rate,
                    gradient_norm: norm,
                    seconds: self.position.seconds,
                });
            }
            let Some(validation_dice) = self.validate(should_stop)? else {
                return Err(self.interrupt()?);
            };
            self.position.seconds = before + self.started.elapsed().as_secs_f64();
            let row = self.finish_epoch(validation_dice, steps);
            self.save()?;
            observer(&Progress::Epoch(row));
        }
        let last = self.model.parameters();
        let best_epoch = self.position.best_epoch.map_or(self.config.epochs, |epoch| epoch + 1);
        let best = self.best.unwrap_or_else(|| last.clone());
        Ok(Trained { best, best_epoch, last, log: self.position.log, patch: self.cutter.patch })
    }

    fn rate(&self, step: usize, steps: usize) -> f64 {
        self.config.schedule.rate(self.config.learning_rate, step, steps)
    }

    /// One update; returns the loss and the norm of the gradient.
    fn step(&mut self, batch: &Batch, rate: f64) -> Result<(f32, f64), NnError> {
        let Self { model, optimizer, .. } = self;
        let channels = model.network().in_channels;
        let input = model.backend().input(batch.image.clone(), batch.geometry, channels, false);
        let mut tape = OwnedTape::default();
        let logits = model.run(&mut tape, input);
        let loss = model.backend().dice_ce(tape, &logits, &batch.labels, &self.config.loss);
        let value = loss.as_vec()[0];
        let (epoch, step) = (self.position.epoch + 1, self.position.step + 1);
        if !value.is_finite() {
            return Err(NnError::Diverged { loss: value, epoch, step, cases: batch.ids.clone() });
        }
        drop(logits);
        let mut gradients = loss.try_backward().map_err(|error| NnError::device("going back", error))?;
        let norm = optimizer.update(rate, &mut model.parameters, &mut gradients)?;
        Ok((value, norm))
    }

    /// Dice of each label; empty when none is due, `None` when interrupted.
    fn validate(&self, should_stop: &dyn Fn() -> bool) -> Result<Option<Vec<Option<f64>>>, NnError> {
        let epoch = self.position.epoch + 1;
        let due = epoch.is_multiple_of(self.config.validate_every) || epoch == self.config.epochs;
        if !due || self.validation.is_empty() {
            return Ok(Some(Vec::new()));
        }
        dice_per_label(&self.model, self.validation, self.cutter.patch, should_stop)
    }

    fn finish_epoch(&mut self, validation_dice: Vec<Option<f64>>, steps: usize) -> EpochRow {
        let present: Vec<f64> = validation_dice.iter().copied().flatten().collect();
        let mean_dice = (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64);
        let batches = self.position.batch.max(1) as f64;
        let row = EpochRow {
            epoch: self.position.epoch + 1,
            step: self.position.step,
            train_loss: f64::from_bits(self.position.loss_sum) / batches,
            learning_rate: self.rate(self.position.step - 1, steps),
            gradient_norm: f64::from_bits(self.position.norm_sum) / batches,
            validation_dice,
            mean_dice,
            seconds: self.position.seconds,
        };
        let held = self.position.best_epoch.and_then(|epoch| self.position.log[epoch].mean_dice);
        if mean_dice.is_some_and(|dice| held.is_none_or(|held| dice > held)) {
            self.position.best_epoch = Some(self.position.epoch);
            self.best = Some(self.model.parameters());
        }
        self.position.log.push(row.clone());
        self.position.epoch += 1;
        self.position.batch = 0;
        (self.position.loss_sum, self.position.norm_sum) = (0, 0);
        row
    }

    fn save(&mut self) -> Result<(), NnError> {
        let Some(directory) = self.checkpoint_dir else { return Ok(()) };
        let moments = self.optimizer.save(&self.model.parameters)?;
        let (position, parameters, best) =
            (self.position.clone(), self.model.parameters(), self.best.clone());
        Checkpoint { position, parameters, best, moments }.save(directory)
    }

    /// Saves and returns what to report.
    fn interrupt(&mut self) -> Result<NnError, NnError> {
        self.save()?;
        Ok(NnError::Interrupted { epoch: self.position.epoch + 1, step: self.position.step })
    }
}

/// Adds to a sum kept as bits.
fn add(bits: &mut u64, value: f64) {
    *bits = (f64::from_bits(*bits) + value).to_bits();
}
