//! Start values of parameters, fixed by the seed and the order of the parameters.

use crate::network::{Network, NodeId, Op, ParameterId, Role};
use crate::rng::{Rng, Stream};

/// Start values in the layout of PyTorch, one vector a parameter.
///
/// Weights: normal with variance `gain / inputs per output`; the gain is `2 / (1 + slope²)` before a leaky ReLU (He et
/// al. 2015, eq. 15) and 1 elsewhere. A transposed convolution whose kernel is its stride has `cin` inputs an output.
/// Biases and shifts 0, scales 1.
pub(crate) fn initial_values(network: &Network, seed: u64) -> Vec<Vec<f32>> {
    let parameters = network.parameters.iter().enumerate();
    parameters
        .map(|(index, spec)| {
            let count = spec.len();
            let inputs = match spec.role {
                Role::Bias | Role::Shift => return vec![0.0; count],
                Role::Scale => return vec![1.0; count],
                Role::ConvWeight => count / spec.shape[0],
                Role::TransposedConvWeight => spec.shape[0],
            };
            let deviation = (gain(network, ParameterId(index)) / inputs as f32).sqrt();
            let mut rng = Rng::new(seed, Stream::Initialise, [index as u64, 0]);
            (0..count).map(|_| deviation * rng.normal()).collect()
        })
        .collect()
}

fn gain(network: &Network, parameter: ParameterId) -> f32 {
    let uses = |op: &Op| matches!(op, Op::Conv { weight, .. } if *weight == parameter);
    let Some(node) = network.nodes.iter().position(|node| uses(&node.op)) else { return 1.0 };
    let follower = network.nodes.iter().find(|next| next.inputs.contains(&NodeId(node)));
    match follower.map(|next| &next.op) {
        Some(Op::NormAct { slope, .. }) => 2.0 / (1.0 + slope * slope),
        _ => 1.0,
    }
}
