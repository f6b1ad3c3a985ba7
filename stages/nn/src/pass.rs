//! What a forward pass in training does besides computing: draws of dropout and noise, statistics of batches and
//! layers, penalties on activations.

use dfdx::prelude::*;
use rayon::prelude::*;

use crate::backend::{Act, Backend, Recorder};
use crate::network::{Node, Op, ParameterId};
use crate::rng::{Rng, Stream};

/// Moments that one batch normalisation met: where their running means live, mean and variance of each channel, and over
/// how many values.
pub(crate) type BatchMoments = ([ParameterId; 2], Vec<(f64, f64)>, usize);

/// Mean, variance and share of zeros of one activation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) mean: f64,
    pub(crate) variance: f64,
    /// Share of values that are 0 or next to it: below 1e-6 in magnitude.
    pub(crate) zeros: f64,
}

/// One pass in training, and what it met.
pub(crate) struct TrainingPass<B: Backend> {
    /// Seed and number of the pass, which all draws follow from; `None` draws nothing.
    draws: Option<[u64; 2]>,
    /// Parameters that stay as they are: their batch normalisation does too.
    frozen: Vec<bool>,
    /// Weights of mean magnitude and mean square of activations.
    penalty: [f32; 2],
    /// Whether to look at activations.
    watch: bool,
    pub(crate) batches: Vec<BatchMoments>,
    pub(crate) penalties: Vec<Tensor<(), f32, B::Device>>,
    pub(crate) seen: Vec<Seen>,
}

impl<B: Backend> TrainingPass<B> {
    pub(crate) fn new(seed: u64, number: usize, frozen: Vec<bool>, penalty: [f32; 2], watch: bool) -> Self {
        let (batches, penalties, seen) = (Vec::new(), Vec::new(), Vec::new());
        Self { draws: Some([seed, number as u64]), frozen, penalty, watch, batches, penalties, seen }
    }

    /// A pass that is the same every time.
    pub(crate) fn without_draws() -> Self {
        Self { draws: None, ..Self::new(0, 0, Vec::new(), [0.0; 2], false) }
    }

    /// Whether a batch normalisation with this scale goes by the batch.
    pub(crate) fn renews(&self, scale: ParameterId) -> bool {
        !self.frozen.get(scale.0).copied().unwrap_or(false)
    }

    /// Factors of a dropout: 0, or what keeps the mean.
    pub(crate) fn mask(&self, node: usize, x: &Act<B::Value>, rate: f32, channels: bool) -> Option<Vec<f32>> {
        let [seed, number] = self.draws?;
        let (rows, columns) = (x.geometry.rows(), x.channels);
        let kept = 1.0 / (1.0 - rate);
        // One stream a row, so that rows can be drawn in parallel.
        let row = |index: usize| {
            let counters = [number, ((node as u64) << 40) | index as u64];
            let mut rng = Rng::new(seed, Stream::Dropout, counters);
            (0..columns).map(move |_| if rng.uniform() < rate { 0.0 } else { kept }).collect::<Vec<f32>>()
        };
        if !channels {
            return Some((0..rows).into_par_iter().flat_map_iter(row).collect());
        }
        let samples: Vec<Vec<f32>> = (0..x.geometry.samples).map(row).collect();
        let voxels = x.geometry.voxels();
        Some(
            (0..rows)
                .into_par_iter()
                .flat_map_iter(|index| samples[index / voxels].iter().copied())
                .collect(),
        )
    }

    /// Addends of a noise layer.
    pub(crate) fn noise(&self, node: usize, x: &Act<B::Value>, deviation: f32) -> Option<Vec<f32>> {
        let [seed, number] = self.draws?;
        let columns = x.channels;
        let row = |index: usize| {
            let counters = [number, ((node as u64) << 40) | index as u64];
            let mut rng = Rng::new(seed, Stream::Noise, counters);
            (0..columns).map(move |_| deviation * rng.normal()).collect::<Vec<f32>>()
        };
        Some((0..x.geometry.rows()).into_par_iter().flat_map_iter(row).collect())
    }

    /// Looks at what a node gave, where it is an activation.
    pub(crate) fn look<T: Recorder<B::Device>>(
        &mut self,
        backend: &B,
        tape: &mut T,
        node: &Node,
        value: &Act<B::Value>,
    ) {
        let is_activation = match node.op {
            // With slope 1 it is a norm alone.
            Op::NormAct { slope, .. } => slope != 1.0,
            Op::Activation { .. } => true,
            _ => false,
        };
        if !is_activation {
            return;
        }
        if self.penalty != [0.0; 2] {
            self.penalties.push(backend.penalty(tape, value, self.penalty));
        }
        if self.watch {
            let values = backend.read(value);
            let (mean, variance) = crate::backend::moments_of(&values, 1)[0];
            let zeros = values.iter().filter(|value| value.abs() < 1e-6).count();
            let zeros = zeros as f64 / values.len() as f64;
            self.seen.push(Seen { name: node.name.clone(), mean, variance, zeros });
        }
    }
}
