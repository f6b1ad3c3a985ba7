//! Parameter updates by dfdx's kernels, with moments that can be saved and restored on any device.

use dfdx::prelude::*;
use dfdx::tensor_ops::{AdamConfig, WeightDecay};
use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::backend::Flat;
use crate::network::{Network, Role};

/// How a gradient becomes an update.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019.
    AdamW { betas: [f64; 2], epsilon: f64 },
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::AdamW { betas: [0.9, 0.999], epsilon: 1e-8 }
    }
}

/// First and second moments of one parameter, in internal order.
pub(crate) type Moments = (Vec<f32>, Vec<f32>);

/// The optimiser's state over a list of parameters.
pub(crate) struct OptimizerState<D: Storage<f32>> {
    optimizer: Optimizer,
    weight_decay: f64,
    /// Updates made.
    step: usize,
    first: Gradients<f32, D>,
    second: Gradients<f32, D>,
    /// Whether weight decay applies: to weights, not to biases, scales and shifts.
    decays: Vec<bool>,
}

impl<D: Device<f32>> OptimizerState<D> {
    pub(crate) fn new(optimizer: Optimizer, weight_decay: f64, network: &Network) -> Self {
        let is_weight = |role| matches!(role, Role::ConvWeight | Role::TransposedConvWeight);
        let decays = network.parameters.iter().map(|spec| is_weight(spec.role)).collect();
        Self {
            optimizer,
            weight_decay,
            step: 0,
            first: Gradients::leaky(),
            second: Gradients::leaky(),
            decays,
        }
    }

    /// Applies one update and returns the Euclidean norm of the whole gradient.
    pub(crate) fn update(
        &mut self,
        rate: f64,
        parameters: &mut [Flat<D>],
        gradients: &mut Gradients<f32, D>,
    ) -> Result<f64, NnError> {
        let failed = |error: D::Err| NnError::device("updating parameters", error);
        let Optimizer::AdamW { betas, epsilon } = self.optimizer;
        self.step += 1;
        let step = i32::try_from(self.step).expect("fewer than 2^31 steps");
        let mut square = 0.0;
        for (parameter, decays) in parameters.iter_mut().zip(&self.decays) {
            let decay = decays.then_some(WeightDecay::Decoupled(self.weight_decay));
            let config = AdamConfig { lr: rate, betas, eps: epsilon, weight_decay: decay };
            let first = self.first.get_or_alloc_mut(parameter).map_err(failed)?;
            let second = self.second.get_or_alloc_mut(parameter).map_err(failed)?;
            gradients.get_or_alloc_mut(parameter).map_err(failed)?;
            square += gradients.get(parameter).as_vec().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            let gradient: &_ = gradients.get_or_alloc_mut(parameter).map_err(failed)?;
            config.try_update(step, parameter, first, second, gradient).map_err(failed)?;
        }
        Ok(square.sqrt())
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

    /// Takes back saved moments, bit for bit. The slots of dfdx's gradients cannot be written on every device, but
    /// `d/dp Σ p·c = c` puts any value there.
    pub(crate) fn restore(
        &mut self,
        step: usize,
        parameters: &[Flat<D>],
        moments: &[Moments],
    ) -> Result<(), NnError> {
        let failed = |error: D::Err| NnError::device("restoring moments", error);
        let put = |slots: Gradients<f32, D>, parameter: &Flat<D>, values: &[f32]| {
            let values = parameter.device().tensor_from_vec(values.to_vec(), *parameter.shape());
            (parameter.clone().traced(slots) * values).sum::<(), Axis<0>>().try_backward()
        };
        self.step = step;
        (self.first, self.second) = (Gradients::leaky(), Gradients::leaky());
        for (parameter, (first, second)) in parameters.iter().zip(moments) {
            let slots = std::mem::replace(&mut self.first, Gradients::leaky());
            self.first = put(slots, parameter, first).map_err(failed)?;
            let slots = std::mem::replace(&mut self.second, Gradients::leaky());
            self.second = put(slots, parameter, second).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Dims, Network, NodeId, ParameterSpec};
    use crate::weights::Parameters;

    #[test]
    fn a_hundred_steps_equal_those_of_pytorch() {
        let file =
            Parameters::from_safetensors(include_bytes!("../tests/reference/adamw.safetensors")).unwrap();
        let values = |name: &str| file.get(name).unwrap().1.to_vec();
        let device = Cpu::default();
        let spec = ParameterSpec { name: "w".into(), shape: vec![50], role: Role::ConvWeight };
        let (nodes, parameters, output) = (vec![], vec![spec], NodeId(0));
        let network = Network {
            dims: Dims::Two,
            in_channels: 1,
            classes: 2,
            multiple: [1; 3],
            nodes,
            parameters,
            output,
        };
        let mut state = OptimizerState::new(Optimizer::default(), 0.01, &network);
        let mut parameters = vec![device.tensor_from_vec(values("start"), (50,))];
        for (step, gradient) in values("gradients").chunks_exact(50).enumerate() {
            let slope = device.tensor_from_vec(gradient.to_vec(), (50,));
            let mut gradients = (parameters[0].leaky_trace() * slope).sum::<(), Axis<0>>().backward();
            let rate = 3e-3 * (1.0 - step as f64 / 100.0).powf(0.9);
            let norm = state.update(rate, &mut parameters, &mut gradients).unwrap();
            let expected = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!((norm - expected).abs() <= 1e-6 * expected, "norm {norm}, expected {expected}");
        }
        // Values move by at most 0.16; f32 arithmetic of 100 steps stays within 2e-6 of the float64 reference.
        for (found, expected) in parameters[0].as_vec().iter().zip(values("end")) {
            assert!((found - expected).abs() <= 2e-6, "{found}, expected {expected}");
        }
    }

    #[test]
    fn moments_survive_saving_bit_for_bit() {
        let network =
            crate::UNetConfig { dims: Dims::Two, in_channels: 1, classes: 2, base_features: 2, levels: 1 };
        let network = network.network().unwrap();
        let model = crate::Model::new(crate::CpuBackend::default(), network.clone(), 1);
        let moments: Vec<Moments> = network
            .parameters
            .iter()
            .map(|spec| ((0..spec.len()).map(|i| 0.1 / (i + 1) as f32).collect(), vec![1e-30; spec.len()]))
            .collect();
        let mut state = OptimizerState::<Cpu>::new(Optimizer::default(), 0.0, &network);
        state.restore(5, &model.parameters, &moments).unwrap();
        assert_eq!(state.save(&model.parameters).unwrap(), moments);
    }
}
