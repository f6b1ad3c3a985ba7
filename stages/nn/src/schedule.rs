//! The learning rate as a function of the step and of the epochs behind it. Pure: nothing to save, nothing to resume.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::words::names_alone;

/// How the learning rate moves over a training. By step unless it says epochs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = names_alone)]
pub enum Schedule {
    /// The same rate throughout.
    Constant(Constant),
    /// Times `factor` every so many epochs.
    Step(Step),
    /// Times `factor` every epoch.
    Exponential(Exponential),
    /// Half a cosine from the rate to its floor, once or several times (Loshchilov and Hutter 2017).
    Cosine(Cosine),
    /// `(1 - step/steps)^power` (nnU-Net: 0.9).
    Poly(Poly),
    /// Up to the rate and down to almost nothing, by cosines (Smith and Topin 2019).
    OneCycle(OneCycle),
    /// Times `factor` when the validation loss (else the training loss) no longer falls.
    Plateau(Plateau),
}

/// Parameters of [`Schedule::Constant`]: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Constant {}

/// Parameters of [`Schedule::Step`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// Epochs between two falls.
    pub every: usize,
    pub factor: f64,
}

/// Parameters of [`Schedule::Exponential`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Exponential {
    pub factor: f64,
}

/// Parameters of [`Schedule::Cosine`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Cosine {
    /// How often the rate starts anew, with the first time.
    pub cycles: usize,
    /// Each cycle is so many times as long as the one before.
    pub lengthen: f64,
    /// Where each cycle ends, as a share of the rate.
    pub floor: f64,
}

/// Parameters of [`Schedule::Poly`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Poly {
    pub power: f64,
}

/// Parameters of [`Schedule::OneCycle`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OneCycle {
    /// Share of the steps in which the rate rises.
    pub rise: f64,
    /// The first rate is the learning rate divided by this.
    pub start_divisor: f64,
    /// The last rate is the first one divided by this.
    pub end_divisor: f64,
}

/// Parameters of [`Schedule::Plateau`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Plateau {
    pub factor: f64,
    /// Epochs without a better loss that are borne.
    pub patience: usize,
    /// A loss is better when it is below the best one by this share of it.
    pub threshold: f64,
    /// The rate never falls below this share of the first.
    pub floor: f64,
}

impl Default for Step {
    fn default() -> Self {
        Self { every: 10, factor: 0.1 }
    }
}

impl Default for Exponential {
    fn default() -> Self {
        Self { factor: 0.95 }
    }
}

impl Default for Cosine {
    fn default() -> Self {
        Self { cycles: 1, lengthen: 1.0, floor: 0.0 }
    }
}

impl Default for Poly {
    fn default() -> Self {
        Self { power: 0.9 }
    }
}

impl Default for OneCycle {
    fn default() -> Self {
        Self { rise: 0.3, start_divisor: 25.0, end_divisor: 1e4 }
    }
}

impl Default for Plateau {
    fn default() -> Self {
        Self { factor: 0.5, patience: 5, threshold: 1e-4, floor: 1e-3 }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Poly(Poly::default())
    }
}

/// A rise to the scheduled rate over the first epochs; it multiplies the schedule.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Warmup {
    /// How long; parts of an epoch are allowed, and 0 is none.
    pub epochs: f64,
    /// The first rate, as a share of the scheduled one.
    pub start: f64,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { epochs: 0.0, start: 0.01 }
    }
}

impl Warmup {
    /// What the scheduled rate is multiplied by.
    pub fn factor(self, clock: Clock) -> f64 {
        let steps = self.epochs * clock.steps_per_epoch as f64;
        if clock.step as f64 >= steps {
            return 1.0;
        }
        self.start + (1.0 - self.start) * clock.step as f64 / steps
    }

    pub(crate) fn check(self) -> Result<(), NnError> {
        let share = (0.0..=1.0).contains(&self.start);
        if self.epochs >= 0.0 && self.epochs.is_finite() && share {
            return Ok(());
        }
        let value = format!("{} epochs from {}", self.epochs, self.start);
        let rule = "it must be 0 or more epochs, from 0 to 1 of the rate".to_owned();
        Err(NnError::Config { name: "warmup", value, rule })
    }
}

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Steps done.
    pub step: usize,
    /// Steps of the whole training.
    pub steps: usize,
    pub steps_per_epoch: usize,
}

impl Clock {
    fn epoch(self) -> usize {
        self.step / self.steps_per_epoch.max(1)
    }

    fn progress(self) -> f64 {
        self.step as f64 / self.steps.max(1) as f64
    }
}

/// Half a cosine from `high` (at 0) to `low` (at 1).
fn cosine(high: f64, low: f64, progress: f64) -> f64 {
    low + (high - low) * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
}

impl Schedule {
    /// The rate of the next step; `losses` are those of the epochs done.
    pub fn rate(&self, base: f64, clock: Clock, losses: &[f64]) -> f64 {
        match *self {
            Self::Constant(Constant {}) => base,
            Self::Step(Step { every, factor }) => {
                base * factor.powi(i32::try_from(clock.epoch() / every.max(1)).unwrap_or(i32::MAX))
            }
            Self::Exponential(Exponential { factor }) => {
                base * factor.powi(i32::try_from(clock.epoch()).unwrap_or(i32::MAX))
            }
            Self::Cosine(shape) => shape.rate(base, clock),
            Self::Poly(Poly { power }) => base * (1.0 - clock.progress()).max(0.0).powf(power),
            Self::OneCycle(OneCycle { rise, start_divisor, end_divisor }) => {
                let start = base / start_divisor;
                let last = clock.steps.saturating_sub(1) as f64;
                let (top, step) = ((rise * clock.steps as f64 - 1.0).max(0.0), clock.step as f64);
                if step < top {
                    cosine(start, base, step / top)
                } else {
                    cosine(base, start / end_divisor, ((step - top) / (last - top).max(1.0)).min(1.0))
                }
            }
            Self::Plateau(shape) => base * shape.factor_after(losses),
        }
    }

    pub(crate) fn check(&self) -> Result<(), NnError> {
        let refuse = |name, value: f64, rule: &str| {
            Err(NnError::Config { name, value: value.to_string(), rule: rule.to_owned() })
        };
        let falls = |factor: f64| factor > 0.0 && factor <= 1.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        match *self {
            Self::Step(Step { every: 0, .. }) => refuse("schedule.every", 0.0, "it must be at least 1"),
            Self::Step(Step { factor, .. })
            | Self::Exponential(Exponential { factor })
            | Self::Plateau(Plateau { factor, .. })
                if !falls(factor) =>
            {
                refuse("schedule.factor", factor, "it must be above 0 and at most 1")
            }
            Self::Cosine(Cosine { cycles: 0, .. }) => refuse("schedule.cycles", 0.0, "it must be at least 1"),
            Self::Cosine(Cosine { lengthen, .. }) if !(lengthen > 0.0 && lengthen.is_finite()) => {
                refuse("schedule.lengthen", lengthen, "it must be positive")
            }
            Self::Cosine(Cosine { floor, .. }) | Self::Plateau(Plateau { floor, .. }) if !share(floor) => {
                refuse("schedule.floor", floor, "it must lie in 0..=1")
            }
            Self::Plateau(Plateau { threshold, .. }) if !share(threshold) => {
                refuse("schedule.threshold", threshold, "it must lie in 0..=1")
            }
            Self::Poly(Poly { power }) if !(power >= 0.0 && power.is_finite()) => {
                refuse("schedule.power", power, "it must be 0 or more")
            }
            Self::OneCycle(OneCycle { rise, .. }) if !share(rise) => {
                refuse("schedule.rise", rise, "it must lie in 0..=1")
            }
            Self::OneCycle(OneCycle { start_divisor, .. })
                if start_divisor.is_nan() || start_divisor < 1.0 =>
            {
                refuse("schedule.start_divisor", start_divisor, "it must be at least 1")
            }
            Self::OneCycle(OneCycle { end_divisor, .. }) if end_divisor.is_nan() || end_divisor < 1.0 => {
                refuse("schedule.end_divisor", end_divisor, "it must be at least 1")
            }
            _ => Ok(()),
        }
    }
}

impl Cosine {
    fn rate(self, base: f64, clock: Clock) -> f64 {
        // Lengths relative to the first cycle.
        let length = |cycle: usize| self.lengthen.powi(i32::try_from(cycle).unwrap_or(i32::MAX));
        let total: f64 = (0..self.cycles).map(length).sum();
        let mut place = clock.progress() * total;
        let mut cycle = 0;
        // Half a step of tolerance: sums of lengths round.
        let tolerance = 0.5 * total / clock.steps.max(1) as f64;
        while cycle + 1 < self.cycles && place + tolerance >= length(cycle) {
            place -= length(cycle);
            cycle += 1;
        }
        cosine(base, base * self.floor, (place / length(cycle)).clamp(0.0, 1.0))
    }
}

impl Plateau {
    /// The product of all falls that `losses` brought.
    fn factor_after(self, losses: &[f64]) -> f64 {
        let (mut rate, mut best, mut waited) = (1.0_f64, f64::INFINITY, 0);
        for loss in losses {
            if *loss < best * (1.0 - self.threshold) || best.is_infinite() {
                (best, waited) = (*loss, 0);
            } else {
                waited += 1;
            }
            if waited > self.patience {
                (rate, waited) = ((rate * self.factor).max(self.floor), 0);
            }
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Parameters;

    /// Ten steps an epoch; `losses` where the schedule looks at them.
    #[track_caller]
    fn check(name: &str, schedule: Schedule, losses: Option<&[f64]>) {
        schedule.check().unwrap();
        let file = include_bytes!("../tests/reference/schedules.safetensors");
        let file = Parameters::from_safetensors(file).unwrap();
        let expected = file.get(name).unwrap().1;
        assert_eq!(expected.len(), 100);
        for (step, expected) in expected.iter().enumerate() {
            let clock = Clock { step, steps: 100, steps_per_epoch: 10 };
            let done = losses.map_or(&[][..], |losses| &losses[..step / 10]);
            let found = schedule.rate(0.1, clock, done);
            // The reference is rounded to f32.
            let error = (found - f64::from(*expected)).abs();
            assert!(error <= 1e-8 + 1e-7 * found, "step {step} of {name}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_hundred_steps_equal_those_of_pytorch() {
        check("constant", Schedule::Constant(Constant {}), None);
        check("step", Schedule::Step(Step { every: 3, factor: 0.5 }), None);
        check("exponential", Schedule::Exponential(Exponential { factor: 0.9 }), None);
        check("cosine", Schedule::Cosine(Cosine { floor: 0.01, ..Cosine::default() }), None);
        check("restarts", Schedule::Cosine(Cosine { cycles: 4, lengthen: 1.0, floor: 0.0 }), None);
        check("poly", Schedule::Poly(Poly::default()), None);
        check("one-cycle", Schedule::OneCycle(OneCycle::default()), None);
        let losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.8, 0.85, 0.85, 0.85, 0.7];
        let plateau = Plateau { factor: 0.3, patience: 1, threshold: 1e-4, floor: 0.2 };
        check("plateau", Schedule::Plateau(plateau), Some(&losses));
    }

    #[test]
    fn cycles_that_lengthen_equal_those_of_pytorch() {
        let file = include_bytes!("../tests/reference/schedules.safetensors");
        let file = Parameters::from_safetensors(file).unwrap();
        let schedule = Schedule::Cosine(Cosine { cycles: 3, lengthen: 2.0, floor: 0.0 });
        for (step, expected) in file.get("lengthening").unwrap().1.iter().enumerate() {
            let found = schedule.rate(0.1, Clock { step, steps: 70, steps_per_epoch: 10 }, &[]);
            assert!(
                (found - f64::from(*expected)).abs() <= 1e-8,
                "step {step}: {found}, expected {expected}"
            );
        }
    }

    #[test]
    fn a_warm_up_equals_that_of_pytorch() {
        let file = include_bytes!("../tests/reference/schedules.safetensors");
        let file = Parameters::from_safetensors(file).unwrap();
        let warmup = Warmup { epochs: 2.5, start: 0.1 };
        for (step, expected) in file.get("warmup").unwrap().1.iter().enumerate() {
            let found = 0.1 * warmup.factor(Clock { step, steps: 100, steps_per_epoch: 10 });
            assert!(
                (found - f64::from(*expected)).abs() <= 1e-8,
                "step {step}: {found}, expected {expected}"
            );
        }
    }

    #[track_caller]
    fn refused(schedule: Schedule, expected: &str) {
        assert_eq!(schedule.check().unwrap_err().to_string(), expected);
    }

    #[test]
    fn an_impossible_schedule_is_refused() {
        refused(
            Schedule::Step(Step { every: 0, factor: 0.1 }),
            "schedule.every is 0, but it must be at least 1",
        );
        refused(
            Schedule::Exponential(Exponential { factor: 1.5 }),
            "schedule.factor is 1.5, but it must be above 0 and at most 1",
        );
        refused(
            Schedule::OneCycle(OneCycle { rise: f64::NAN, ..OneCycle::default() }),
            "schedule.rise is NaN, but it must lie in 0..=1",
        );
    }
}
