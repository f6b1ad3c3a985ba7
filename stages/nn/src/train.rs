//! The training loop: epochs, steps, validation, checkpoints. Owns the order of events; what an event does lives in
//! the other modules.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::NnError;
use crate::augment::Augment;
use crate::backend::{Backend, CpuBackend};
use crate::batch::{Batch, Cutter, Loader, Sample, covering_patch, epoch_samples};
use crate::checkpoint::{Checkpoint, Position};
use crate::config::TrainConfig;
use crate::data::{Case, CaseSource, LoadError, survey};
use crate::loss::{IGNORE, LossTerms};
use crate::model::Model;
use crate::network::Network;
use crate::optimizer::{OptimizerState, uses};
use crate::progress::{EpochRow, LayerRow, Progress, Trained, Validation};
use crate::schedule::Clock;
use crate::step::{Stepper, Watched};
use crate::validate::validate;
use crate::weights::Parameters;

/// A loss beyond this is a training that has diverged, though it is a number still.
const DIVERGED: f32 = 1e4;

/// What is trained, on what and how.
#[derive(Clone, Copy)]
pub struct TrainJob<'a> {
    pub network: &'a Network,
    pub training: &'a dyn CaseSource,
    pub validation: &'a dyn CaseSource,
    pub config: &'a TrainConfig,
    /// Values to begin with, by name; what is not there is drawn from the seed.
    pub start: Option<&'a Parameters>,
    /// Where the state is kept.
    pub checkpoint_dir: Option<&'a Path>,
}

/// Trains a network on the CPU, on rayon's current pool, from start values drawn from the seed or given.
///
/// Equal arguments give equal bits, whatever the thread count. With a checkpoint directory, the state is saved there
/// after every epoch, every so many seconds and when interrupted, and a training that finds its own state there continues
/// from it to the same bits as one that was never interrupted (only `seconds` differ).
///
/// # Errors
/// [`NnError::Interrupted`] when `should_stop` returned true (asked before each step); [`NnError::Diverged`] when the
/// loss or its gradient is not finite; [`NnError::Case`] and [`NnError::Load`] for cases; [`NnError::Config`] for the
/// configuration; [`NnError::ForeignCheckpoint`] when the directory holds the state of another training.
pub fn train(
    job: &TrainJob<'_>,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
) -> Result<Trained, NnError> {
    train_on(CpuBackend::default(), job, observer, should_stop)
}

/// [`train`] on a given backend.
///
/// # Errors
/// Those of [`train`].
pub fn train_on<B: Backend>(
    backend: B,
    job: &TrainJob<'_>,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
) -> Result<Trained, NnError> {
    let TrainJob { network, config, .. } = *job;
    config.check(network)?;
    if job.training.is_empty() {
        let rule = "training needs at least one".to_owned();
        return Err(NnError::Config { name: "number of training cases", value: "0".to_owned(), rule });
    }
    match config.overfit {
        None => train_cases(backend, job, observer, should_stop),
        Some(count) => {
            let first = First { source: job.training, count };
            let config = TrainConfig { augmentation: Augment::none(), ..config.clone() };
            let job = TrainJob { training: &first, validation: &first, config: &config, ..*job };
            train_cases(backend, &job, observer, should_stop)
        }
    }
}

/// The first cases of a source.
struct First<'a> {
    source: &'a dyn CaseSource,
    count: usize,
}

impl CaseSource for First<'_> {
    fn len(&self) -> usize {
        self.source.len().min(self.count)
    }

    fn load(&self, index: usize) -> Result<Case, LoadError> {
        self.source.load(index)
    }
}

fn train_cases<B: Backend>(
    backend: B,
    job: &TrainJob<'_>,
    observer: &mut dyn FnMut(&Progress),
    should_stop: &dyn Fn() -> bool,
) -> Result<Trained, NnError> {
    let TrainJob { network, config, checkpoint_dir, .. } = *job;
    let cases = survey(job.training, "training", network)?;
    let checked = survey(job.validation, "validation", network)?;
    let present: Vec<u8> = (0..IGNORE).filter(|class| cases.present[usize::from(*class)]).collect();
    if let [class] = present[..] {
        return Err(NnError::OneClass { class, cases: cases.ids.len() });
    }
    let absent = (0..network.classes).filter(|class| !cases.present[*class]).collect();
    observer(&Progress::Surveyed { absent, samples: epoch_samples(network.dims, &cases.shapes, 0, 0).len() });
    let patch = config.patch.unwrap_or_else(|| covering_patch(network, &cases.shapes));
    let run = describe_run(job, patch, &cases.ids, &checked.ids);
    let frozen = network.frozen(&config.freeze, config.freeze_first)?;
    let found = checkpoint_dir.map(|dir| Checkpoint::load(dir, &run)).transpose()?.flatten();
    let optimizer =
        OptimizerState::new(config.optimizer, config.clip, config.weight_decay, uses(network, &frozen));
    let (mut stepper, position, best) = if let Some(checkpoint) = found {
        let Checkpoint { position, parameters, best, average, moments } = checkpoint;
        let model = Model::from_parameters(backend, network.clone(), &parameters)?;
        let mut stepper = Stepper::new(model, optimizer, config, frozen);
        // The file lists tensors by name, the optimiser by place.
        let by_name = parameters.iter().map(|entry| entry.name.as_str()).zip(moments);
        let by_name: BTreeMap<_, _> = by_name.collect();
        let ordered: Vec<_> =
            network.parameters.iter().map(|spec| by_name[spec.name.as_str()].clone()).collect();
        stepper.restore(position.step, &ordered, average.as_ref())?;
        (stepper, position, best.map(|best| best.in_order_of(network)))
    } else {
        let mut model = Model::new(backend, network.clone(), config.initialization, config.seed);
        if let Some(start) = job.start {
            model.take_over(start)?;
        }
        (Stepper::new(model, optimizer, config, frozen), Position::start(run), None)
    };
    stepper.watch_from(&position.layers);
    let cutter = Cutter {
        network,
        patch,
        seed: config.seed,
        augmentation: config.augmentation.clone(),
        foreground: config.foreground,
    };
    let terms = config.loss.terms();
    let shapes = &cases.shapes;
    let (started, before) = (Instant::now(), position.seconds);
    let training =
        Training { stepper, position, best, job, terms, cutter, shapes, started, before, saved: started };
    training.run(observer, should_stop)
}

/// Everything that decides the bits of a training, one fact a line, in the order a reader would ask.
fn describe_run(job: &TrainJob<'_>, patch: [usize; 3], train: &[String], validation: &[String]) -> String {
    let specs = job.network.parameters.iter();
    let shapes: Vec<String> = specs.map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect();
    let config = serde_json::to_string(job.config).expect("a configuration is plain data");
    format!(
        "config {config}\npatch {patch:?}\nnetwork {}\nstart values {}\ntraining cases {}\nvalidation cases {}",
        shapes.join(", "),
        if job.start.is_some() { "given" } else { "drawn" },
        train.join(", "),
        validation.join(", ")
    )
}

struct Training<'a, B: Backend> {
    stepper: Stepper<'a, B>,
    position: Position,
    best: Option<Parameters>,
    job: &'a TrainJob<'a>,
    terms: LossTerms,
    cutter: Cutter<'a>,
    shapes: &'a [[usize; 3]],
    started: Instant,
    /// Seconds of earlier runs.
    before: f64,
    /// When the last checkpoint was written.
    saved: Instant,
}

/// The batches of one step.
type Batches = Result<Vec<Batch>, NnError>;

impl<B: Backend> Training<'_, B> {
    fn run(
        mut self,
        observer: &mut dyn FnMut(&Progress),
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Trained, NnError> {
        let config = self.job.config;
        let mut loader = Loader::new(self.job.training, "training");
        let dims = self.job.network.dims;
        let steps_per_epoch = epoch_samples(dims, self.shapes, config.seed, 0)
            .len()
            .div_ceil(self.job.config.samples_per_step());
        let steps = steps_per_epoch * config.epochs;
        while self.position.epoch < config.epochs {
            if self.is_over() {
                let best = self.position.best_epoch.map_or(0, |epoch| epoch + 1);
                observer(&Progress::StoppedEarly { epoch: self.position.epoch, best_epoch: best });
                break;
            }
            let samples = epoch_samples(dims, self.shapes, config.seed, self.position.epoch);
            self.epoch(&mut loader, &samples, [steps_per_epoch, steps], observer, should_stop)?;
            let mut found = None;
            if self.validation_is_due() {
                found = self.validate(should_stop)?;
                if found.is_none() {
                    return Err(self.interrupt()?);
                }
            }
            let rate = self.rate(self.position.step - 1, [steps_per_epoch, steps]);
            let row = self.finish_epoch(found, rate);
            self.save()?;
            observer(&Progress::Epoch(row));
        }
        let last = self.stepper.kept().parameters();
        let best_epoch = self.position.best_epoch.map_or(self.position.epoch, |epoch| epoch + 1);
        let best = self.best.unwrap_or_else(|| last.clone());
        let Position { log, layers, .. } = self.position;
        Ok(Trained { best, best_epoch, last, log, layers, patch: self.cutter.patch })
    }

    /// All steps of an epoch that are not done; the batches of each are made while the step before runs.
    fn epoch(
        &mut self,
        loader: &mut Loader<'_>,
        samples: &[Sample],
        counts: [usize; 2],
        observer: &mut dyn FnMut(&Progress),
        should_stop: &dyn Fn() -> bool,
    ) -> Result<(), NnError> {
        let (epoch, size) = (self.position.epoch, self.job.config.samples_per_step());
        let batch_size = self.job.config.batch_size;
        // A cutter of its own, as `self` is busy with the step.
        let cutter = Cutter { augmentation: self.cutter.augmentation.clone(), ..self.cutter };
        let mut chunks = samples.chunks(size).enumerate().skip(self.position.batch);
        let cut = |loader: &mut Loader<'_>, index: usize, chunk: &[Sample]| -> Batches {
            let parts = chunk.chunks(batch_size).enumerate();
            parts
                .map(|(part, samples)| cutter.batch(loader, samples, epoch, index * size + part * batch_size))
                .collect()
        };
        let mut ready: Option<Batches> = chunks.next().map(|(index, chunk)| cut(loader, index, chunk));
        while let Some(batches) = ready.take() {
            if should_stop() {
                return Err(self.interrupt()?);
            }
            let batches = batches?;
            let next = chunks.next();
            let rate = self.rate(self.position.step, counts);
            let (loader, ready) = (&mut *loader, &mut ready);
            let done = rayon::in_place_scope(|scope| {
                if let Some((index, chunk)) = next {
                    scope.spawn(move |_| *ready = Some(cut(loader, index, chunk)));
                }
                self.step(&batches, rate)
            });
            let (loss, norm) = done?;
            for text in self.stepper.warnings() {
                observer(&Progress::Warning(text));
            }
            observer(&Progress::Step {
                epoch: epoch + 1,
                step: self.position.step,
                steps: counts[1],
                loss,
                learning_rate: rate,
                gradient_norm: norm,
                seconds: self.position.seconds,
            });
            if self.saved.elapsed().as_secs_f64() > self.job.config.checkpoint_seconds {
                self.save()?;
            }
        }
        Ok(())
    }

    fn rate(&self, step: usize, [steps_per_epoch, steps]: [usize; 2]) -> f64 {
        let config = self.job.config;
        let clock = Clock { step, steps, steps_per_epoch };
        let loss = |row: &EpochRow| row.validation.as_ref().map_or(row.train_loss, |found| found.loss);
        let losses: Vec<f64> = self.position.log.iter().map(loss).collect();
        config.schedule.rate(config.base_rate(), clock, &losses) * config.warmup.factor(clock)
    }

    /// One update; returns the loss and the norm of the gradient.
    fn step(&mut self, batches: &[Batch], rate: f64) -> Result<(f32, f64), NnError> {
        let first = self.position.batch == 0;
        let Watched { loss, norm, layers } =
            self.stepper.step(batches, rate, &self.terms, self.position.step, first)?;
        let position = &mut self.position;
        if !loss.is_finite() || loss.abs() > DIVERGED || !norm.is_finite() {
            return Err(NnError::Diverged {
                loss,
                gradient_norm: norm,
                epoch: position.epoch + 1,
                step: position.step + 1,
                cases: batches.iter().flat_map(|batch| batch.ids.clone()).collect(),
            });
        }
        position.layers.extend(layers.into_iter().map(|(layer, quantity, seen)| LayerRow {
            epoch: position.epoch + 1,
            layer,
            quantity,
            mean: seen[0],
            variance: seen[1],
            zeros: seen[2],
        }));
        if first {
            let epoch = position.epoch + 1;
            self.stepper.judge(&position.layers, epoch);
        }
        position.batch += 1;
        position.step += 1;
        position.samples += batches.iter().map(|batch| batch.geometry.samples).sum::<usize>();
        add(&mut position.loss_sum, f64::from(loss));
        add(&mut position.norm_sum, norm);
        position.seconds = self.before + self.started.elapsed().as_secs_f64();
        Ok((loss, norm))
    }

    /// Whether the scores so far call for an end.
    fn is_over(&self) -> bool {
        let scores = self.position.log.iter().filter_map(EpochRow::key);
        self.job.config.early_stopping.is_some_and(|stopping| stopping.is_due(scores))
    }

    fn validation_is_due(&self) -> bool {
        let (epoch, config) = (self.position.epoch + 1, self.job.config);
        let due = epoch.is_multiple_of(config.validate_every) || epoch == config.epochs;
        due && !self.job.validation.is_empty()
    }

    /// What the validation cases give; `None` when interrupted.
    fn validate(&self, should_stop: &dyn Fn() -> bool) -> Result<Option<Validation>, NnError> {
        validate(&self.stepper.kept(), self.job.validation, self.cutter.patch, &self.terms, should_stop)
    }

    fn finish_epoch(&mut self, validation: Option<Validation>, rate: f64) -> EpochRow {
        let batches = self.position.batch.max(1) as f64;
        self.position.seconds = self.before + self.started.elapsed().as_secs_f64();
        let row = EpochRow {
            epoch: self.position.epoch + 1,
            step: self.position.step,
            samples: self.position.samples,
            train_loss: f64::from_bits(self.position.loss_sum) / batches,
            learning_rate: rate,
            gradient_norm: f64::from_bits(self.position.norm_sum) / batches,
            validation,
            seconds: self.position.seconds,
        };
        let held = self.position.best_epoch.and_then(|epoch| self.position.log[epoch].key());
        if row.key().is_some_and(|key| held.is_none_or(|held| key > held)) {
            self.position.best_epoch = Some(self.position.epoch);
            self.best = Some(self.stepper.kept().parameters());
        }
        self.position.log.push(row.clone());
        self.position.epoch += 1;
        self.position.batch = 0;
        (self.position.loss_sum, self.position.norm_sum) = (0, 0);
        row
    }

    fn save(&mut self) -> Result<(), NnError> {
        self.saved = Instant::now();
        let Some(directory) = self.job.checkpoint_dir else { return Ok(()) };
        let moments = self.stepper.moments()?;
        let (parameters, average) = (self.stepper.model().parameters(), self.stepper.average());
        let (position, best) = (self.position.clone(), self.best.clone());
        Checkpoint { position, parameters, best, average, moments }.save(directory)
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
