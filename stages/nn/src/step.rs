//! One update of a model: forward and backward passes over the batches of a step, the optimiser, running means.

use std::collections::BTreeSet;

use dfdx::prelude::*;

use crate::NnError;
use crate::backend::{Backend, Flat};
use crate::batch::Batch;
use crate::config::{Penalty, TrainConfig};
use crate::loss::LossTerms;
use crate::model::Model;
use crate::optimizer::{Moments, OptimizerState};
use crate::pass::TrainingPass;
use crate::progress::{LayerRow, Quantity};
use crate::weights::Parameters;

/// Share of a batch in the running means of batch normalisation, as in PyTorch.
const BATCH_SHARE: f64 = 0.1;

/// A layer, what was looked at, and its mean, variance and share of zeros.
type LayerSeen = (String, Quantity, [f64; 3]);

/// What a step gave.
pub(crate) struct Watched {
    pub(crate) loss: f32,
    /// Of the gradient, before it was clipped.
    pub(crate) norm: f64,
    /// Empty unless asked for.
    pub(crate) layers: Vec<LayerSeen>,
}

/// A model with all that changes when it learns.
pub(crate) struct Stepper<'a, B: Backend> {
    model: Model<B>,
    optimizer: OptimizerState<B::Device>,
    config: &'a TrainConfig,
    frozen: Vec<bool>,
    /// Running mean of all parameters.
    average: Option<Vec<Flat<B::Device>>>,
    warnings: Vec<String>,
    /// Layers that were warned of.
    warned: BTreeSet<String>,
}

impl<'a, B: Backend> Stepper<'a, B> {
    pub(crate) fn new(
        model: Model<B>,
        optimizer: OptimizerState<B::Device>,
        config: &'a TrainConfig,
        frozen: Vec<bool>,
    ) -> Self {
        let average = config.ema.map(|_| model.parameters.clone());
        let (warnings, warned) = (Vec::new(), BTreeSet::new());
        Self { model, optimizer, config, frozen, average, warnings, warned }
    }

    /// Takes back what [`Stepper::moments`] and [`Stepper::average`] gave.
    pub(crate) fn restore(
        &mut self,
        step: usize,
        moments: &[Moments],
        average: Option<&Parameters>,
    ) -> Result<(), NnError> {
        self.optimizer.restore(step, &self.model.parameters, moments)?;
        if let Some(average) = average {
            let backend = self.model.backend().clone();
            let model = Model::from_parameters(backend, self.model.network().clone(), average)?;
            self.average = Some(model.parameters);
        }
        Ok(())
    }

    pub(crate) fn model(&self) -> &Model<B> {
        &self.model
    }

    /// The model that is validated and kept: the running mean where there is one.
    pub(crate) fn kept(&self) -> Model<B> {
        self.model.with_values(self.average.clone().unwrap_or_else(|| self.model.parameters.clone()))
    }

    pub(crate) fn moments(&mut self) -> Result<Vec<Moments>, NnError> {
        self.optimizer.save(&self.model.parameters)
    }

    pub(crate) fn average(&self) -> Option<Parameters> {
        self.average.as_ref().map(|average| self.model.with_values(average.clone()).parameters())
    }

    /// One update by the mean gradient of `batches`, weighed by their samples. With a loss or a gradient that is no
    /// number, nothing is updated.
    pub(crate) fn step(
        &mut self,
        batches: &[Batch],
        rate: f64,
        terms: &LossTerms,
        number: usize,
        watch: bool,
    ) -> Result<Watched, NnError> {
        let samples: usize = batches.iter().map(|batch| batch.geometry.samples).sum();
        let mut gradients = Gradients::leaky();
        let (mut total, mut layers) = (0.0_f64, Vec::new());
        for (index, batch) in batches.iter().enumerate() {
            let share = batch.geometry.samples as f32 / samples as f32;
            let number = number * self.config.accumulate + index;
            let watch = watch && index == 0;
            let (loss, seen) = self.pass(batch, share, terms, number, watch, &mut gradients)?;
            if !loss.is_finite() {
                return Ok(Watched { loss, norm: f64::NAN, layers });
            }
            total += f64::from(loss * share);
            layers.extend(seen);
        }
        if watch {
            layers.extend(self.gradient_statistics(&mut gradients)?);
        }
        let backend = self.model.backend().clone();
        let norm = self.optimizer.update(&backend, rate, &mut self.model.parameters, &mut gradients)?;
        self.move_average(number);
        Ok(Watched { loss: total as f32, norm, layers })
    }

    /// A forward and a backward pass; adds `share` of the gradient.
    fn pass(
        &mut self,
        batch: &Batch,
        share: f32,
        terms: &LossTerms,
        number: usize,
        watch: bool,
        gradients: &mut Gradients<f32, B::Device>,
    ) -> Result<(f32, Vec<LayerSeen>), NnError> {
        let Self { model, config, .. } = self;
        let Penalty { weights_l1, weights_l2, activations_l1, activations_l2 } = config.penalty;
        let channels = model.network().in_channels;
        let penalty = [activations_l1, activations_l2];
        let mut pass = TrainingPass::new(config.seed, number, self.frozen.clone(), penalty, watch);
        let input = model.backend().input(batch.image.clone(), batch.geometry, channels, false);
        let held = std::mem::replace(gradients, Gradients::leaky());
        // A tape that goes on with the gradients so far.
        let (_, mut tape) = model.parameters[0].clone().traced(held).split_tape();
        let outputs = model.run_training(&mut tape, input, &mut pass);
        let mut loss = match &batch.mixed {
            None => model.total_loss(tape, &outputs, &batch.labels, terms),
            Some((second, mixed)) => {
                let first = model.total_loss(tape, &outputs, &batch.labels, terms) * (1.0 - mixed);
                let (held, tape) = first.split_tape();
                model.total_loss(tape, &outputs, second, terms) * *mixed + held
            }
        };
        drop(outputs);
        for penalty in pass.penalties {
            loss = loss + penalty;
        }
        if weights_l1 > 0.0 || weights_l2 > 0.0 {
            for (spec, weight) in model.network().parameters.iter().zip(&model.parameters) {
                if spec.role.is_weight() {
                    let (held, mut tape) = loss.split_tape();
                    let penalty = model.backend().weight_penalty(&mut tape, weight, [weights_l1, weights_l2]);
                    loss = held.put_tape(tape) + penalty;
                }
            }
        }
        let value = loss.as_vec()[0];
        if !value.is_finite() {
            return Ok((value, Vec::new()));
        }
        *gradients = (loss * share).try_backward().map_err(|error| NnError::device("going back", error))?;
        let device = self.model.backend().device().clone();
        for ([mean, variance], moments, rows) in pass.batches {
            // The running variance is unbiased, as PyTorch's.
            let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
            let news = [
                (mean, moments.iter().map(|(mean, _)| *mean).collect::<Vec<_>>()),
                (variance, moments.iter().map(|(_, variance)| variance * unbiased).collect()),
            ];
            for (id, news) in news {
                let running = &mut self.model.parameters[id.0];
                let old = running.as_vec();
                let moved = old
                    .iter()
                    .zip(&news)
                    .map(|(old, new)| ((1.0 - BATCH_SHARE) * f64::from(*old) + BATCH_SHARE * new) as f32);
                *running = device.tensor_from_vec(moved.collect(), (old.len(),));
            }
        }
        let seen = pass.seen.into_iter();
        let seen = seen.map(|seen| (seen.name, Quantity::Activation, [seen.mean, seen.variance, seen.zeros]));
        Ok((value, seen.collect()))
    }

    /// Mean, variance and share of zeros of the gradient of each weight that is trained.
    fn gradient_statistics(
        &self,
        gradients: &mut Gradients<f32, B::Device>,
    ) -> Result<Vec<LayerSeen>, NnError> {
        let failed = |error| NnError::device("reading gradients", error);
        let specs = self.model.network().parameters.iter().zip(&self.model.parameters).zip(&self.frozen);
        let mut seen = Vec::new();
        for ((spec, tensor), frozen) in specs {
            if !spec.role.is_weight() || *frozen {
                continue;
            }
            gradients.get_or_alloc_mut(tensor).map_err(failed)?;
            let values = gradients.get(tensor).as_vec();
            let (mean, variance) = crate::backend::moments_of(&values, 1)[0];
            let zeros = values.iter().filter(|value| value.abs() < 1e-6).count() as f64 / values.len() as f64;
            seen.push((spec.name.clone(), Quantity::Gradient, [mean, variance, zeros]));
        }
        Ok(seen)
    }

    fn move_average(&mut self, updates: usize) {
        let (Some(limit), Some(average)) = (self.config.ema, &mut self.average) else { return };
        let decay = average_decay(limit, updates);
        for (held, new) in average.iter_mut().zip(&self.model.parameters) {
            *held = held.clone() * decay as f32 + new.clone() * (1.0 - decay) as f32;
        }
    }

    /// Remembers the layers that an earlier run warned of.
    pub(crate) fn watch_from(&mut self, layers: &[LayerRow]) {
        let last = layers.iter().map(|row| row.epoch).max().unwrap_or_default();
        (1..=last).for_each(|epoch| self.judge(layers, epoch));
        self.warnings.clear();
    }

    /// Warns of each layer that looks wrong in `epoch`, once.
    pub(crate) fn judge(&mut self, layers: &[LayerRow], epoch: usize) {
        for row in layers.iter().filter(|row| row.epoch == epoch) {
            let same = |first: &&LayerRow| first.layer == row.layer && first.quantity == row.quantity;
            if let Some(problem) = row.problem(layers.iter().find(same))
                && self.warned.insert(row.layer.clone())
            {
                self.warnings.push(problem);
            }
        }
    }

    /// What came up since the last call.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// The share of itself that the running mean keeps at an update which `updates` others went before. It starts at 0.1 and
/// rises to `limit`, so that the random start is forgotten within the first updates (TensorFlow's
/// `ExponentialMovingAverage` with `num_updates`).
fn average_decay(limit: f64, updates: usize) -> f64 {
    let updates = updates as f64;
    limit.min((1.0 + updates) / (10.0 + updates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_of_the_running_mean_rises_to_its_limit() {
        let check = |limit, updates, expected: f64| {
            let decay = average_decay(limit, updates);
            assert!(
                (decay - expected).abs() < 1e-12,
                "limit {limit} after {updates}: {decay}, not {expected}"
            );
        };
        check(0.999, 0, 0.1);
        check(0.999, 8, 0.5);
        check(0.999, 990, 0.991);
        check(0.999, 8989, 8990.0 / 8999.0);
        check(0.999, 10_000, 0.999);
        check(0.05, 0, 0.05);
    }

    #[test]
    fn random_start_is_forgotten_in_fifty_updates() {
        let left: f64 = (0..50).map(|updates| average_decay(0.999, updates)).product();
        assert!(left < 1e-6, "{left} of the start is left");
    }
}
