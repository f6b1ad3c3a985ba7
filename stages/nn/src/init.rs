//! Start values of parameters, fixed by the seed and the order of the parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::{Network, NodeId, Op, ParameterId, Role};
use crate::rng::{Rng, Stream};

/// How start values of weights are drawn.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// Normal, variance `gain / inputs per output` (He et al. 2015); the gain is that of the activation that follows.
    #[default]
    HeNormal,
    /// Uniform with the same variance.
    HeUniform,
    /// Normal, variance `2 / (inputs per output + outputs per input)` (Glorot and Bengio 2010).
    XavierNormal,
    /// Uniform with the same variance.
    XavierUniform,
}

/// Slope below zero at which a parametric ReLU starts.
const PRELU_START: f32 = 0.25;

/// Start values in the layout of PyTorch, one vector a parameter.
///
/// Weights: mean 0; He's gain is `2 / (1 + slope²)` before a (leaky, parametric) ReLU, 2 before a GELU and 1 elsewhere.
/// A transposed convolution whose kernel is its stride has `cin` inputs an output. Biases, shifts and running means 0;
/// scales and running variances 1; slopes of parametric ReLUs 0.25.
pub(crate) fn initial_values(network: &Network, how: Initialization, seed: u64) -> Vec<Vec<f32>> {
    let parameters = network.parameters.iter().enumerate();
    parameters
        .map(|(index, spec)| {
            let count = spec.len();
            let taps: usize = spec.shape.iter().skip(2).product();
            let (inputs, outputs) = match spec.role {
                Role::Bias | Role::Shift | Role::RunningMean => return vec![0.0; count],
                Role::Scale | Role::RunningVariance => return vec![1.0; count],
                Role::Slope => return vec![PRELU_START; count],
                Role::ConvWeight => (count / spec.shape[0], spec.shape[0] * taps),
                Role::TransposedConvWeight => (spec.shape[0], spec.shape[1] * taps),
            };
            let variance = match how {
                Initialization::HeNormal | Initialization::HeUniform => {
                    gain(network, ParameterId(index)) / inputs as f32
                }
                Initialization::XavierNormal | Initialization::XavierUniform => {
                    2.0 / (inputs + outputs) as f32
                }
            };
            let mut rng = Rng::new(seed, Stream::Initialise, [index as u64, 0]);
            let deviation = variance.sqrt();
            let bound = (3.0 * variance).sqrt();
            (0..count)
                .map(|_| match how {
                    Initialization::HeNormal | Initialization::XavierNormal => deviation * rng.normal(),
                    Initialization::HeUniform | Initialization::XavierUniform => rng.range(-bound, bound),
                })
                .collect()
        })
        .collect()
}

/// He's gain for the weights of a convolution: that of the first activation behind it.
fn gain(network: &Network, parameter: ParameterId) -> f32 {
    let uses = |op: &Op| matches!(op, Op::Conv { weight, .. } if *weight == parameter);
    let Some(mut node) = network.nodes.iter().position(|node| uses(&node.op)) else { return 1.0 };
    while let Some(next) = network.nodes.iter().position(|next| next.inputs.contains(&NodeId(node))) {
        match &network.nodes[next].op {
            // The identity: the activation stands behind it.
            Op::NormAct { slope, .. } if *slope == 1.0 => node = next,
            Op::Dropout { .. } | Op::Noise { .. } => node = next,
            Op::NormAct { slope, .. } => return 2.0 / (1.0 + slope * slope),
            Op::Activation { activation, .. } => {
                return activation.start_slope(PRELU_START).map_or(1.0, |slope| 2.0 / (1.0 + slope * slope));
            }
            _ => return 1.0,
        }
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Window;
    use crate::network::{Builder, Dims, Norm};

    /// Mean and variance of 8·16·9 weights before a ReLU.
    #[track_caller]
    fn check(how: Initialization, variance: f64, bound: Option<f64>) {
        let (mut build, input) = Builder::new(Dims::Two, 8);
        let x = build.conv("conv", input, Window::same([1, 3, 3]), [8, 16], false);
        let x = build.norm_act("norm", x, 16, Norm::Instance, 0.0);
        let network = build.finish(x, vec![], [8, 16], [1; 3]);
        let values = &initial_values(&network, how, 3)[0];
        let count = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let found = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
        // Four standard errors: of the mean √(v/n), of the variance of a normal v·√(2/n).
        assert!(mean.abs() < 4.0 * (variance / count).sqrt(), "mean {mean}");
        assert!(
            (found - variance).abs() < 4.0 * variance * (2.0 / count).sqrt(),
            "{found}, expected {variance}"
        );
        let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        match bound {
            Some(bound) => assert!(f64::from(largest) <= bound, "{largest} beyond {bound}"),
            None => assert!(f64::from(largest) > 2.5 * variance.sqrt(), "a normal has tails, not {largest}"),
        }
    }

    #[test]
    fn weights_have_the_variance_of_their_rule() {
        // 8·9 inputs an output, 16·9 outputs an input.
        check(Initialization::HeNormal, 2.0 / 72.0, None);
        check(Initialization::HeUniform, 2.0 / 72.0, Some((6.0_f64 / 72.0).sqrt()));
        check(Initialization::XavierNormal, 2.0 / 216.0, None);
        check(Initialization::XavierUniform, 2.0 / 216.0, Some((6.0_f64 / 216.0).sqrt()));
    }
}
