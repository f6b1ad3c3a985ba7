//! Parameter updates by dfdx's kernels, with moments that can be saved and restored on any device.

use dfdx::prelude::*;
use dfdx::tensor_ops::{AdamConfig, Momentum, SgdConfig, WeightDecay};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::backend::{Backend, Flat};
use crate::network::{Network, ParameterSpec};
use crate::words::names_alone;

/// How a gradient becomes an update. Formulas and defaults are PyTorch's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = names_alone)]
pub enum Optimizer {
    /// Gradient descent with momentum.
    Sgd(Sgd),
    /// Adam (Kingma and Ba 2015); weight decay joins the gradient.
    Adam(Adam),
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw(Adam),
    /// Gradient over its running root mean square.
    Rmsprop(Rmsprop),
}

/// Parameters of [`Optimizer::Sgd`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// 0 for none.
    pub momentum: f64,
    /// Looks ahead by one step of the momentum.
    pub nesterov: bool,
    /// Weight decay moves the weights themselves instead of joining the gradient.
    pub decoupled: bool,
}

/// Parameters of [`Optimizer::Adam`] and [`Optimizer::Adamw`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Adam {
    /// Decay of the mean of the gradient and of its square.
    pub betas: [f64; 2],
    /// Added to the root.
    pub epsilon: f64,
}

/// Parameters of [`Optimizer::Rmsprop`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Rmsprop {
    /// Decay of the mean of the squared gradient.
    pub alpha: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// 0 for none.
    pub momentum: f64,
    /// Weight decay moves the weights themselves instead of joining the gradient.
    pub decoupled: bool,
}

impl Default for Sgd {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: true, decoupled: false }
    }
}

impl Default for Adam {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8 }
    }
}

impl Default for Rmsprop {
    fn default() -> Self {
        Self { alpha: 0.99, epsilon: 1e-8, momentum: 0.0, decoupled: false }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw(Adam::default())
    }
}

impl Optimizer {
    pub(crate) fn check(&self) -> Result<(), NnError> {
        let refuse = |name, value: f64, rule: &str| {
            Err(NnError::Config { name, value: value.to_string(), rule: rule.to_owned() })
        };
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let positive = |value: f64| value > 0.0 && value.is_finite();
        match *self {
            Self::Sgd(Sgd { momentum, .. }) | Self::Rmsprop(Rmsprop { momentum, .. })
                if !below_one(momentum) =>
            {
                refuse("optimizer.momentum", momentum, "it must be 0 or more and below 1")
            }
            Self::Sgd(Sgd { momentum: 0.0, nesterov: true, .. }) => {
                refuse("optimizer.momentum", 0.0, "nesterov looks ahead by the momentum: give both or none")
            }
            Self::Adam(Adam { betas, .. }) | Self::Adamw(Adam { betas, .. })
                if !betas.iter().all(|beta| below_one(*beta)) =>
            {
                let wrong = betas.into_iter().find(|beta| !below_one(*beta)).unwrap_or_default();
                refuse("optimizer.betas", wrong, "each must be 0 or more and below 1")
            }
            Self::Rmsprop(Rmsprop { alpha, .. }) if !below_one(alpha) => {
                refuse("optimizer.alpha", alpha, "it must be 0 or more and below 1")
            }
            Self::Adam(Adam { epsilon, .. })
            | Self::Adamw(Adam { epsilon, .. })
            | Self::Rmsprop(Rmsprop { epsilon, .. })
                if !positive(epsilon) =>
            {
                refuse("optimizer.epsilon", epsilon, "it must be positive")
            }
            _ => Ok(()),
        }
    }
}

/// Bounds on a gradient before it is used; the value first, then the norm.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Clip {
    /// Largest Euclidean norm of the whole gradient; a longer one is shortened.
    pub norm: Option<f64>,
    /// Largest magnitude of each of its values.
    pub value: Option<f64>,
}

impl Clip {
    pub(crate) fn check(self) -> Result<(), NnError> {
        for (name, value) in [("clip.norm", self.norm), ("clip.value", self.value)] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                let rule = "it must be positive; leave it out for no bound".to_owned();
                return Err(NnError::Config { name, value: value.to_string(), rule });
            }
        }
        Ok(())
    }
}

/// First and second moments of one parameter, in internal order.
pub(crate) type Moments = (Vec<f32>, Vec<f32>);

/// The optimiser's state over a list of parameters.
pub(crate) struct OptimizerState<D: Storage<f32>> {
    optimizer: Optimizer,
    clip: Clip,
    weight_decay: f64,
    /// Updates made.
    step: usize,
    /// Mean gradient, or velocity.
    first: Gradients<f32, D>,
    /// Mean squared gradient.
    second: Gradients<f32, D>,
    /// Whether each parameter is updated, and whether weight decay applies to it.
    uses: Vec<Use>,
}

/// What happens to a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A running statistic, or frozen.
    Kept,
    Trained,
    /// Trained, and weight decay applies: to weights, not to biases, scales, shifts and slopes.
    Decayed,
}

/// What happens to each parameter of a network, where those that `frozen` marks stay as they are.
pub(crate) fn uses(network: &Network, frozen: &[bool]) -> Vec<Use> {
    let choose = |(spec, frozen): (&ParameterSpec, &bool)| {
        if *frozen || !spec.role.is_trained() {
            Use::Kept
        } else if spec.role.is_weight() {
            Use::Decayed
        } else {
            Use::Trained
        }
    };
    network.parameters.iter().zip(frozen).map(choose).collect()
}

impl<D: Device<f32>> OptimizerState<D> {
    pub(crate) fn new(optimizer: Optimizer, clip: Clip, weight_decay: f64, uses: Vec<Use>) -> Self {
        let (first, second) = (Gradients::leaky(), Gradients::leaky());
        Self { optimizer, clip, weight_decay, step: 0, first, second, uses }
    }

    /// Applies one update and returns the Euclidean norm of the whole gradient, before it was clipped.
    pub(crate) fn update<B: Backend<Device = D>>(
        &mut self,
        backend: &B,
        rate: f64,
        parameters: &mut [Flat<D>],
        gradients: &mut Gradients<f32, D>,
    ) -> Result<f64, NnError> {
        let failed = |error: D::Err| NnError::device("updating parameters", error);
        self.step += 1;
        let norm = self.clip_all(backend, parameters, gradients).map_err(failed)?;
        for (index, parameter) in parameters.iter_mut().enumerate() {
            if self.uses[index] != Use::Kept {
                self.update_one(index, rate, parameter, gradients).map_err(failed)?;
            }
        }
        Ok(norm)
    }

    /// Bounds the gradients of the trained parameters in place; returns their norm as it was.
    fn clip_all<B: Backend<Device = D>>(
        &self,
        backend: &B,
        parameters: &[Flat<D>],
        gradients: &mut Gradients<f32, D>,
    ) -> Result<f64, D::Err> {
        let Clip { norm, value } = self.clip;
        let uses = parameters.iter().zip(&self.uses);
        let trained: Vec<_> =
            uses.filter(|(_, used)| **used != Use::Kept).map(|(parameter, _)| parameter).collect();
        let before: f64 = backend.gradient_squares(&trained, gradients)?.iter().sum();
        let mut after = before;
        if let Some(bound) = value {
            for parameter in &trained {
                let clipped = gradients.get(*parameter).try_clamp(-bound, bound)?;
                replace(gradients, parameter, &clipped)?;
            }
            after = backend.gradient_squares(&trained, gradients)?.iter().sum();
        }
        if let Some(bound) = norm.filter(|bound| after.sqrt() > *bound) {
            // The addend is PyTorch's; it keeps the clipped norm just below the bound.
            let factor = (bound / (after.sqrt() + 1e-6)) as f32;
            backend.scale_gradients(&trained, gradients, factor)?;
        }
        Ok(before.sqrt())
    }

    fn update_one(
        &mut self,
        index: usize,
        rate: f64,
        parameter: &mut Flat<D>,
        gradients: &mut Gradients<f32, D>,
    ) -> Result<(), D::Err> {
        let decay = (self.uses[index] == Use::Decayed).then_some(self.weight_decay);
        let decay_of = |decoupled: bool| {
            decay.map(|decay| if decoupled { WeightDecay::Decoupled(decay) } else { WeightDecay::L2(decay) })
        };
        match self.optimizer {
            Optimizer::Sgd(Sgd { momentum, nesterov, decoupled }) => {
                let momentum = (momentum > 0.0).then_some(momentum);
                let momentum = momentum.map(if nesterov { Momentum::Nesterov } else { Momentum::Classic });
                let config = SgdConfig { lr: rate, momentum, weight_decay: decay_of(decoupled) };
                let velocity = self.first.get_or_alloc_mut(parameter)?;
                let gradient: &_ = gradients.get_or_alloc_mut(parameter)?;
                config.try_update(parameter, velocity, gradient)
            }
            Optimizer::Adam(Adam { betas, epsilon }) | Optimizer::Adamw(Adam { betas, epsilon }) => {
                let decoupled = matches!(self.optimizer, Optimizer::Adamw(_));
                let config = AdamConfig { lr: rate, betas, eps: epsilon, weight_decay: decay_of(decoupled) };
                let step = i32::try_from(self.step).expect("fewer than 2^31 steps");
                let first = self.first.get_or_alloc_mut(parameter)?;
                let second = self.second.get_or_alloc_mut(parameter)?;
                let gradient: &_ = gradients.get_or_alloc_mut(parameter)?;
                config.try_update(step, parameter, first, second, gradient)
            }
            // dfdx's own kernel adds epsilon below the root; PyTorch's formula divides by root plus epsilon.
            Optimizer::Rmsprop(Rmsprop { alpha, epsilon, momentum, decoupled }) => {
                let mut gradient = gradients.get(parameter);
                if let Some(decay) = decay.filter(|_| !decoupled) {
                    gradient = gradient.try_add(parameter.clone().try_mul(decay as f32)?)?;
                }
                self.second.get_or_alloc_mut(parameter)?;
                let square = self.second.get(parameter).try_mul(alpha as f32)?;
                let square = square.try_add(gradient.clone().try_square()?.try_mul((1.0 - alpha) as f32)?)?;
                replace(&mut self.second, parameter, &square)?;
                let direction = gradient.try_div(square.try_sqrt()?.try_add(epsilon as f32)?)?;
                replace(gradients, parameter, &direction)?;
                let momentum = (momentum > 0.0).then_some(Momentum::Classic(momentum));
                let weight_decay = decay_of(true).filter(|_| decoupled);
                let config = SgdConfig { lr: rate, momentum, weight_decay };
                let velocity = self.first.get_or_alloc_mut(parameter)?;
                let direction: &_ = gradients.get_or_alloc_mut(parameter)?;
                config.try_update(parameter, velocity, direction)
            }
        }
    }

    /// The moments of every parameter.
    pub(crate) fn save(&mut self, parameters: &[Flat<D>]) -> Result<Vec<Moments>, NnError> {
        let failed = |error: D::Err| NnError::device("reading moments", error);
        let mut moments = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            self.first.get_or_alloc_mut(parameter).map_err(failed)?;
            self.second.get_or_alloc_mut(parameter).map_err(failed)?;
            moments.push((self.first.get(parameter).as_vec(), self.second.get(parameter).as_vec()));
        }
        Ok(moments)
    }

    /// Takes back saved moments, bit for bit.
    pub(crate) fn restore(
        &mut self,
        step: usize,
        parameters: &[Flat<D>],
        moments: &[Moments],
    ) -> Result<(), NnError> {
        let failed = |error: D::Err| NnError::device("restoring moments", error);
        self.step = step;
        (self.first, self.second) = (Gradients::leaky(), Gradients::leaky());
        for (parameter, (first, second)) in parameters.iter().zip(moments) {
            let tensor =
                |values: &[f32]| parameter.device().tensor_from_vec(values.to_vec(), *parameter.shape());
            put(&mut self.first, parameter, &tensor(first)).map_err(failed)?;
            put(&mut self.second, parameter, &tensor(second)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Adds `values` to a slot that is empty, bit for bit. The slots of dfdx's gradients cannot be written on every
/// device, but `d/dp Σ p·c = c` puts any value there.
fn put<D: Device<f32>>(
    slots: &mut Gradients<f32, D>,
    parameter: &Flat<D>,
    values: &Flat<D>,
) -> Result<(), D::Err> {
    let held = std::mem::replace(slots, Gradients::leaky());
    *slots = (parameter.clone().traced(held) * values.clone()).sum::<(), Axis<0>>().try_backward()?;
    Ok(())
}

/// Puts `values` in place of what the slot of `parameter` holds.
pub(crate) fn replace<D: Device<f32>>(
    slots: &mut Gradients<f32, D>,
    parameter: &Flat<D>,
    values: &Flat<D>,
) -> Result<(), D::Err> {
    let mut fresh = Gradients::leaky();
    put(&mut fresh, parameter, values)?;
    std::mem::swap(slots.get_or_alloc_mut(parameter)?, fresh.get_or_alloc_mut(parameter)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuBackend;
    use crate::weights::Parameters;

    /// 100 steps of 50 values on given gradients, with a rate that falls and weight decay 0.01.
    #[track_caller]
    fn check(name: &str, optimizer: Optimizer, clip: Clip) {
        optimizer.check().unwrap();
        let file = Parameters::from_safetensors(include_bytes!("../tests/reference/optimizers.safetensors"))
            .unwrap();
        let values = |name: &str| file.get(name).unwrap().1.to_vec();
        let backend = CpuBackend::default();
        let device = backend.device();
        let mut state = OptimizerState::new(optimizer, clip, 0.01, vec![Use::Decayed]);
        let mut parameters = vec![device.tensor_from_vec(values("start"), (50,))];
        for (step, gradient) in values("gradients").chunks_exact(50).enumerate() {
            let slope = device.tensor_from_vec(gradient.to_vec(), (50,));
            let mut gradients = (parameters[0].leaky_trace() * slope).sum::<(), Axis<0>>().backward();
            let rate = 3e-3 * (1.0 - step as f64 / 100.0).powf(0.9);
            let norm = state.update(&backend, rate, &mut parameters, &mut gradients).unwrap();
            let expected = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!((norm - expected).abs() <= 1e-6 * expected, "norm {norm}, expected {expected}");
        }
        let (start, end) = (values("start"), values(name));
        let moved = start.iter().zip(&end).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        for (found, expected) in parameters[0].as_vec().iter().zip(&end) {
            // f32 arithmetic of 100 steps against float64, of values near 1 that move by `moved`.
            let tolerance = 4e-6 * moved.max(1.0);
            assert!((found - expected).abs() <= tolerance, "{name}: {found}, expected {expected} ({moved})");
        }
    }

    #[test]
    fn a_hundred_steps_equal_those_of_pytorch() {
        let sgd = |momentum, nesterov| Optimizer::Sgd(Sgd { momentum, nesterov, decoupled: false });
        let rmsprop =
            |momentum| Optimizer::Rmsprop(Rmsprop { momentum, epsilon: 1e-3, ..Rmsprop::default() });
        let none = Clip::default();
        check("sgd", sgd(0.0, false), none);
        check("momentum", sgd(0.9, false), none);
        check("nesterov", sgd(0.9, true), none);
        check("adam", Optimizer::Adam(Adam::default()), none);
        check("adamw", Optimizer::Adamw(Adam::default()), none);
        check("rmsprop", rmsprop(0.0), none);
        check("rmsprop-momentum", rmsprop(0.9), none);
        check("clip-norm", sgd(0.9, false), Clip { norm: Some(5.0), value: None });
        check("clip-value", sgd(0.9, false), Clip { norm: None, value: Some(0.5) });
    }

    #[test]
    fn decoupled_decay_shrinks_weights_by_its_share_of_the_rate() {
        for optimizer in [
            Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, decoupled: true }),
            Optimizer::Adamw(Adam::default()),
            Optimizer::Rmsprop(Rmsprop { decoupled: true, ..Rmsprop::default() }),
        ] {
            let device = Cpu::default();
            let mut state =
                OptimizerState::new(optimizer, Clip::default(), 0.5, vec![Use::Decayed, Use::Kept]);
            let mut parameters = vec![device.tensor_from_vec(vec![2.0, -4.0], (2,)); 2];
            let mut gradients = Gradients::leaky();
            state.update(&CpuBackend::default(), 0.1, &mut parameters, &mut gradients).unwrap();
            // Without a gradient only the decay moves: by 0.1 · 0.5.
            assert_eq!(parameters[0].as_vec(), [1.9, -3.8], "{optimizer:?}");
            assert_eq!(parameters[1].as_vec(), [2.0, -4.0], "kept, {optimizer:?}");
        }
    }

    #[test]
    fn moments_survive_saving_bit_for_bit() {
        let device = Cpu::default();
        let parameters: Vec<Flat<Cpu>> = [3, 50].map(|n| device.tensor_from_vec(vec![1.5; n], (n,))).into();
        let moments: Vec<Moments> =
            [3, 50].map(|n| ((0..n).map(|i| 0.1 / (i + 1) as f32).collect(), vec![1e-30; n])).into();
        let uses = vec![Use::Trained; 2];
        let mut state = OptimizerState::<Cpu>::new(Optimizer::default(), Clip::default(), 0.0, uses);
        state.restore(5, &parameters, &moments).unwrap();
        assert_eq!(state.save(&parameters).unwrap(), moments);
    }

    #[test]
    fn an_impossible_optimiser_is_refused() {
        let refused = |optimizer: Optimizer, expected: &str| {
            assert_eq!(optimizer.check().unwrap_err().to_string(), expected);
        };
        refused(
            Optimizer::Sgd(Sgd { momentum: 1.0, ..Sgd::default() }),
            "optimizer.momentum is 1, but it must be 0 or more and below 1",
        );
        refused(
            Optimizer::Adam(Adam { betas: [0.9, -0.1], epsilon: 1e-8 }),
            "optimizer.betas is -0.1, but each must be 0 or more and below 1",
        );
        let error = Clip { norm: Some(0.0), value: None }.check().unwrap_err().to_string();
        assert_eq!(error, "clip.norm is 0, but it must be positive; leave it out for no bound");
    }
}
