//! The operations a network needs, over dfdx's tape. Every operation has a default body of public dfdx operations
//! that runs on any dfdx device; a backend overrides the ones it has kernels for.
//!
//! An activation is a channels-last matrix `(samples·z·y·x, channels)`; 2D has depth 1. Values carry no tape: one tape
//! is handed from operation to operation, so that a value may feed several of them.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod reference;
mod slot;
pub(crate) mod workspace;

pub use cpu::CpuBackend;
#[cfg(feature = "cuda")]
pub use cuda::{CudaBackend, DeviceFailure};
use dfdx::prelude::*;
use rayon::prelude::*;
pub use reference::Reference;

use crate::geometry::{self, Geometry, Window};
use crate::loss::{IGNORE, LossTerms, VoxelTerm};
use crate::network::{Activation, Norm};

/// A parameter: its values in internal order, shaped where they are used.
pub type Flat<D> = Tensor<(usize,), f32, D>;
/// An activation as a dfdx tensor: `(rows, channels)`.
pub type Rows<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;

/// A dfdx tape that operations can be recorded on, or none.
pub trait Recorder<D: Storage<f32>>: Tape<f32, D> + Merge<NoneTape> + 'static {}
impl<D: Storage<f32>, T: Tape<f32, D> + 'static> Recorder<D> for T {}

/// An activation and its size.
#[derive(Clone, Debug)]
pub struct Act<V> {
    pub value: V,
    pub geometry: Geometry,
    pub channels: usize,
}

/// One voxel's label each, in the order of the rows; [`IGNORE`] counts nowhere.
pub type Labels = std::sync::Arc<[u8]>;

/// A device with the operations of a network.
pub trait Backend: Clone + 'static {
    /// Where parameters, moments and the default bodies live.
    type Device: Device<f32>;
    /// An activation of this backend; cheap to clone.
    type Value: Clone;

    fn device(&self) -> &Self::Device;

    /// Takes over a dfdx tensor as an activation.
    fn lift<T: Recorder<Self::Device>>(&self, tape: &mut T, rows: Rows<Self::Device>) -> Self::Value;

    /// Gives an activation to dfdx operations; their gradient flows back into it.
    fn lower<T: Recorder<Self::Device>>(&self, tape: &mut T, x: &Act<Self::Value>) -> Rows<Self::Device>;

    /// An activation from `values`: `(rows, channels)`. Its gradient is only kept where `traced`.
    fn input(&self, values: Vec<f32>, geometry: Geometry, channels: usize, traced: bool) -> Act<Self::Value>;

    /// The values of an activation, `(rows, channels)`.
    fn read(&self, x: &Act<Self::Value>) -> Vec<f32>;

    /// The gradient of a traced input after the backward pass, `(rows, channels)`.
    fn gradient(&self, x: &Act<Self::Value>, gradients: &Gradients<f32, Self::Device>) -> Vec<f32>;

    /// Cross-correlation; `weight`: `[kz, ky, kx, cin, cout]`, `bias`: `[cout]`. The window must fit.
    fn conv<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        weight: &Flat<Self::Device>,
        bias: Option<&Flat<Self::Device>>,
        window: &Window,
    ) -> Act<Self::Value> {
        let geometry = window.output(x.geometry).expect("the network was checked against its input");
        let inputs = window.taps() * x.channels;
        let cout = weight.shape().0 / inputs;
        // dfdx's kernels for CUDA count in 32 bits and would wrap.
        let gathered = geometry.rows() * inputs;
        assert!(
            u32::try_from(gathered).is_ok(),
            "a convolution gathers {gathered} values at once, and more than 2^32 cannot be counted: use a smaller patch or batch"
        );
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            let zero: Rows<Self::Device> = device.zeros_like(&(1, x.channels));
            let index = device.tensor_from_vec(
                window_index(x.geometry, geometry, window),
                (geometry.rows() * window.taps(),),
            );
            let columns = (rows, zero.put_tape(T::default())).concat_along(Axis::<0>).gather(index);
            let y = columns
                .reshape_like(&(geometry.rows(), inputs))
                .matmul(weight.retaped::<T>().reshape_like(&(inputs, cout)));
            add_bias(y, bias)
        });
        Act { value: self.lift(tape, rows), geometry, channels: cout }
    }

    /// Transposed convolution, kernel = stride = `factor`; `weight`: `[kz, ky, cin, kx, cout]`, `bias`: `[cout]`.
    fn transposed_conv<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        weight: &Flat<Self::Device>,
        bias: Option<&Flat<Self::Device>>,
        factor: [usize; 3],
    ) -> Act<Self::Value> {
        let taps = factor.iter().product::<usize>();
        let (rows, outer, cin) = (x.geometry.rows(), factor[0] * factor[1], x.channels);
        let cout = weight.shape().0 / (taps * cin);
        let geometry = geometry::upsampled(x.geometry, factor);
        let y = self.record(tape, x, |x_rows: Rows<Self::Device, T>, device| {
            let weight = weight
                .retaped::<T>()
                .reshape_like(&(outer, cin, factor[2] * cout))
                .permute::<_, Axes3<1, 0, 2>>()
                .reshape_like(&(cin, taps * cout));
            let index = device.tensor_from_vec(block_index(x.geometry, factor), (rows * taps,));
            let y: Rows<Self::Device, T> =
                x_rows.matmul(weight).reshape_like(&(rows * taps, cout)).gather(index);
            add_bias(y, bias)
        });
        Act { value: self.lift(tape, y), geometry, channels: cout }
    }

    /// Normalisation by what the values themselves hold, affine, leaky ReLU; see [`Op::NormAct`](crate::Op::NormAct).
    fn norm_act<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        norm: Norm,
        [scale, shift]: [&Flat<Self::Device>; 2],
        epsilon: f32,
        slope: f32,
    ) -> Act<Self::Value> {
        let (geometry, channels) = (x.geometry, x.channels);
        let shape = (geometry.rows(), channels);
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, _| {
            let normalised = match norm {
                Norm::Instance => rows
                    .reshape_like(&(geometry.samples, geometry.voxels(), channels))
                    .normalize::<Axis<1>>(epsilon)
                    .reshape_like(&shape),
                Norm::Batch => rows.normalize::<Axis<0>>(epsilon),
                Norm::Group(groups) => rows
                    .reshape_like(&(geometry.samples, geometry.voxels(), groups, channels / groups))
                    .normalize::<Axes2<1, 3>>(epsilon)
                    .reshape_like(&shape),
            };
            let scale: Rows<Self::Device, T> = scale.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            let shift: Rows<Self::Device, T> = shift.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            (normalised * scale + shift).prelu(slope)
        });
        Act { value: self.lift(tape, rows), geometry, channels }
    }

    /// The same with given `mean` and `variance` of each channel.
    fn norm_act_with<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        [mean, variance]: [&Flat<Self::Device>; 2],
        [scale, shift]: [&Flat<Self::Device>; 2],
        epsilon: f32,
        slope: f32,
    ) -> Act<Self::Value> {
        let shape = (x.geometry.rows(), x.channels);
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, _| {
            let inverse = (variance.clone() + epsilon).sqrt().recip();
            let gain = scale.retaped::<T>() * inverse;
            let centred = rows - mean.clone().broadcast_like::<_, Axis<0>>(&shape);
            let gain: Rows<Self::Device, T> = gain.broadcast_like::<_, Axis<0>>(&shape);
            let shift: Rows<Self::Device, T> = shift.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            (centred * gain + shift).prelu(slope)
        });
        Act { value: self.lift(tape, rows), geometry: x.geometry, channels: x.channels }
    }

    /// A function of each value; `slope`: that of a parametric ReLU, one a channel.
    fn activation<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        activation: Activation,
        slope: Option<&Flat<Self::Device>>,
    ) -> Act<Self::Value> {
        let shape = (x.geometry.rows(), x.channels);
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| match activation {
            Activation::Prelu => {
                let slope = slope.expect("a parametric ReLU has slopes");
                let slope: Rows<Self::Device, T> = slope.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
                let below = rows.with_empty_tape().minimum(device.zeros_like(&shape));
                rows.relu() + below * slope
            }
            Activation::Relu => rows.relu(),
            Activation::LeakyRelu => rows.prelu(activation.fixed_slope().unwrap_or_default()),
            // dfdx's derivative of it has x·exp(-x²/2)/√π where x·exp(-x²/2)/√(2π) is right: a term of value 0 adds the
            // difference.
            Activation::Gelu => {
                let held: Rows<Self::Device> = device.tensor_from_vec(rows.as_vec(), shape);
                let missing = (1.0 / std::f64::consts::TAU.sqrt() - 1.0 / std::f64::consts::PI.sqrt()) as f32;
                let slope = (held.clone().square() * -0.5).exp() * held.clone() * missing;
                rows.with_empty_tape().accurate_gelu() + (rows - held) * slope
            }
            Activation::Sigmoid => rows.sigmoid(),
            Activation::Tanh => rows.tanh(),
        });
        Act { value: self.lift(tape, rows), geometry: x.geometry, channels: x.channels }
    }

    /// Mean over blocks of `factor`; a remainder at the far side is dropped.
    fn avg_pool<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factor: [usize; 3],
    ) -> Act<Self::Value> {
        self.pool(tape, x, factor, MeanTo::mean::<(usize, usize), Axis<1>>)
    }

    /// Repeats each voxel by `factor` along each axis.
    fn upsample<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factor: [usize; 3],
    ) -> Act<Self::Value> {
        let geometry = geometry::upsampled(x.geometry, factor);
        let [depth, height, width] = x.geometry.size;
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            let mut index = Vec::with_capacity(geometry.rows());
            for_each_voxel(geometry, |sample, place| {
                let [z, y, x] = std::array::from_fn(|a| place[a] / factor[a]);
                index.push(((sample * depth + z) * height + y) * width + x);
            });
            let index = device.tensor_from_vec(index, (geometry.rows(),));
            rows.gather(index)
        });
        Act { value: self.lift(tape, rows), geometry, channels: x.channels }
    }

    /// Sum of two activations of the same shape.
    fn add<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        first: &Act<Self::Value>,
        second: &Act<Self::Value>,
    ) -> Act<Self::Value> {
        let second_rows = self.lower(tape, second);
        let rows = self.record(tape, first, |rows: Rows<Self::Device, T>, _| rows + second_rows);
        Act { value: self.lift(tape, rows), geometry: first.geometry, channels: first.channels }
    }

    /// Product with constants, `(rows, channels)`.
    fn scale_by<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factors: Vec<f32>,
    ) -> Act<Self::Value> {
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            rows * device.tensor_from_vec(factors, (x.geometry.rows(), x.channels))
        });
        Act { value: self.lift(tape, rows), geometry: x.geometry, channels: x.channels }
    }

    /// Sum with constants, `(rows, channels)`.
    fn shift_by<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        addends: Vec<f32>,
    ) -> Act<Self::Value> {
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            rows + device.tensor_from_vec(addends, (x.geometry.rows(), x.channels))
        });
        Act { value: self.lift(tape, rows), geometry: x.geometry, channels: x.channels }
    }

    /// `l1 · mean |x| + l2 · mean x²`; its gradient flows into `x` when it is part of what is minimised.
    fn penalty<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        [l1, l2]: [f32; 2],
    ) -> Tensor<(), f32, Self::Device> {
        let count = (x.geometry.rows() * x.channels) as f32;
        let rows = self.lower(tape, x).put_tape(std::mem::take(tape));
        let first = rows.with_empty_tape().abs().sum::<(), Axes2<0, 1>>() * (l1 / count);
        let (sum, recorded) = (rows.square().sum::<(), Axes2<0, 1>>() * (l2 / count) + first).split_tape();
        *tape = recorded;
        sum
    }

    /// `l1 · Σ |w| + l2 · Σ w²` of a parameter; its gradient flows into it when it is part of what is minimised.
    fn weight_penalty<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        weight: &Flat<Self::Device>,
        [l1, l2]: [f32; 2],
    ) -> Tensor<(), f32, Self::Device> {
        let weight = weight.clone().put_tape(std::mem::take(tape));
        let first = weight.with_empty_tape().abs().sum::<(), Axis<0>>() * l1;
        let (sum, recorded) = (first + weight.square().sum::<(), Axis<0>>() * l2).split_tape();
        *tape = recorded;
        sum
    }

    /// Maximum over blocks of `factor`; a remainder at the far side is dropped.
    fn max_pool<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factor: [usize; 3],
    ) -> Act<Self::Value> {
        self.pool(tape, x, factor, MaxTo::max::<(usize, usize), Axis<1>>)
    }

    /// Brings each block of `factor` to one row; a remainder at the far side is dropped. `reduce` gets
    /// `(blocks, voxels of a block, channels)`.
    fn pool<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factor: [usize; 3],
        reduce: impl FnOnce(Tensor<(usize, usize, usize), f32, Self::Device, T>) -> Rows<Self::Device, T>,
    ) -> Act<Self::Value> {
        let geometry = geometry::pooled(x.geometry, factor);
        let window = Window { kernel: factor, stride: factor, padding: [0; 3] };
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            let index = window_index(x.geometry, geometry, &window);
            let index = device.tensor_from_vec(index, (geometry.rows() * window.taps(),));
            let blocks: Rows<Self::Device, T> = rows.gather(index);
            reduce(blocks.reshape_like(&(geometry.rows(), window.taps(), x.channels)))
        });
        Act { value: self.lift(tape, rows), geometry, channels: x.channels }
    }

    /// Joins two activations of the same size along the channels.
    fn concat<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        first: &Act<Self::Value>,
        second: &Act<Self::Value>,
    ) -> Act<Self::Value> {
        let second_rows = self.lower(tape, second);
        let rows = self.record(tape, first, |rows: Rows<Self::Device, T>, _| {
            (rows, second_rows.put_tape(T::default())).concat_along(Axis::<1>)
        });
        Act {
            value: self.lift(tape, rows),
            geometry: first.geometry,
            channels: first.channels + second.channels,
        }
    }

    /// A loss; takes the tape, so that `backward` can be called on the result.
    fn loss<T: Recorder<Self::Device>>(
        &self,
        mut tape: T,
        logits: &Act<Self::Value>,
        labels: &Labels,
        terms: &LossTerms,
    ) -> Tensor<(), f32, Self::Device, T> {
        let (geometry, classes) = (logits.geometry, logits.channels);
        let shape = (geometry.rows(), classes);
        let device = self.device();
        let cells =
            || labels.iter().flat_map(|label| (0..classes).map(move |class| (usize::from(*label), class)));
        let table = |value: &dyn Fn(usize, usize) -> f32| -> Rows<Self::Device> {
            device.tensor_from_vec(cells().map(|(label, class)| value(label, class)).collect(), shape)
        };
        let one_hot = table(&|label, class| f32::from(label == class));
        let mask = table(&|label, _| f32::from(label != usize::from(IGNORE)));
        let counted = labels.iter().filter(|label| **label != IGNORE);
        let voxels = counted.clone().count().max(1) as f32;

        let rows = self.lower(&mut tape, logits).put_tape(tape);
        if terms.voxel == Some(VoxelTerm::Sigmoid) {
            // max(z, 0) - z·t + ln(1 + exp(-|z|))
            let tail = (rows.with_empty_tape().abs().negate().exp() + 1.0).ln();
            let entropy = rows.with_empty_tape().relu() - rows * one_hot + tail;
            return (entropy * mask).sum::<(), Axes2<0, 1>>() / (voxels * classes as f32);
        }
        let log = rows.log_softmax::<Axis<1>>();
        let (softmax, recorded) = log.with_empty_tape().exp().split_tape();
        let (log, tape) = log.split_tape();
        let log = log.put_tape(Merge::<T>::merge(tape, recorded));
        let softmax = || softmax.retaped::<T>();
        let weighed = |class| terms.class_weight(class);
        let mut loss = match terms.voxel {
            Some(VoxelTerm::Softmax { gamma }) => {
                let total: f32 = counted.map(|label| weighed(usize::from(*label))).sum();
                let total = if total > 0.0 { total } else { 1.0 };
                let at_label = table(&|label, class| if label == class { weighed(class) } else { 0.0 });
                let entropy = log * at_label;
                let entropy =
                    if gamma == 0.0 { entropy } else { entropy * (softmax().negate() + 1.0).powf(gamma) };
                entropy.sum::<(), Axes2<0, 1>>() / -total
            }
            Some(VoxelTerm::Square) => {
                let difference = (softmax() - one_hot.clone()) * mask.clone();
                // The logarithm's tape is passed on by a sum that adds nothing.
                difference.square().sum::<(), Axes2<0, 1>>() / (voxels * classes as f32)
                    + log.sum::<(), Axes2<0, 1>>() * 0.0
            }
            Some(VoxelTerm::Sigmoid) | None => log.sum::<(), Axes2<0, 1>>() * 0.0,
        };
        if let Some(region) = terms.region {
            let groups = if region.batch { 1 } else { geometry.samples };
            let grouped = (groups, geometry.rows() / groups, classes);
            let first_class = usize::from(!region.background);
            let weight = 1.0 / (groups * (classes - first_class)) as f32;
            let weights =
                (0..groups * classes).map(|cell| if cell % classes < first_class { 0.0 } else { weight });
            let weights: Rows<Self::Device> = device.tensor_from_vec(weights.collect(), (groups, classes));
            let softmax = softmax() * mask;
            let overlap: Rows<Self::Device, T> =
                (softmax.with_empty_tape() * one_hot.clone()).reshape_like(&grouped).sum::<_, Axis<1>>();
            let predicted: Rows<Self::Device, T> = softmax.reshape_like(&grouped).sum::<_, Axis<1>>();
            let truth: Rows<Self::Device> = one_hot.reshape_like(&grouped).sum::<_, Axis<1>>();
            let (alpha, beta) = (2.0 * region.alpha, 2.0 * region.beta);
            let below = predicted * alpha
                + overlap.with_empty_tape() * (2.0 - alpha - beta)
                + (truth * beta + region.smooth);
            let index = (overlap * 2.0 + region.smooth) / below;
            loss = (loss - (index * weights).sum::<(), Axes2<0, 1>>()) + 1.0;
        }
        loss
    }

    /// The sum of the squares of the gradient of each parameter, in f64.
    ///
    /// # Errors
    /// Those of the device.
    fn gradient_squares(
        &self,
        parameters: &[&Flat<Self::Device>],
        gradients: &mut Gradients<f32, Self::Device>,
    ) -> Result<Vec<f64>, <Self::Device as HasErr>::Err> {
        let square = |parameter: &&Flat<Self::Device>| {
            gradients.get_or_alloc_mut(*parameter)?;
            let values = gradients.get(*parameter).as_vec();
            Ok(values.iter().map(|value| f64::from(*value).powi(2)).sum())
        };
        parameters.iter().map(square).collect()
    }

    /// Multiplies the gradient of each parameter.
    ///
    /// # Errors
    /// Those of the device.
    fn scale_gradients(
        &self,
        parameters: &[&Flat<Self::Device>],
        gradients: &mut Gradients<f32, Self::Device>,
        factor: f32,
    ) -> Result<(), <Self::Device as HasErr>::Err> {
        for parameter in parameters {
            let scaled = gradients.get(*parameter).try_mul(factor)?;
            crate::optimizer::replace(gradients, parameter, &scaled)?;
        }
        Ok(())
    }

    /// Mean and biased variance of each channel over all rows, in f64.
    fn moments(&self, x: &Act<Self::Value>) -> Vec<(f64, f64)> {
        moments_of(&self.read(x), x.channels)
    }

    /// Runs dfdx operations on an activation with the tape in place.
    fn record<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        operations: impl FnOnce(Rows<Self::Device, T>, &Self::Device) -> Rows<Self::Device, T>,
    ) -> Rows<Self::Device> {
        let rows = self.lower(tape, x).put_tape(std::mem::take(tape));
        let (rows, recorded) = operations(rows, self.device()).split_tape();
        *tape = recorded;
        rows
    }
}

/// Mean and biased variance of each column of `values`: `[rows, columns]`; sums in parts that the size alone defines.
pub(crate) fn moments_of(values: &[f32], columns: usize) -> Vec<(f64, f64)> {
    let rows = (values.len() / columns) as f64;
    let centre: Vec<f64> = values[..columns].iter().map(|value| f64::from(*value)).collect();
    let parts: Vec<Vec<[f64; 2]>> = values
        .par_chunks(4096 * columns)
        .map(|part| {
            let mut sums = vec![[0.0; 2]; columns];
            for row in part.chunks_exact(columns) {
                for ((value, centre), [first, second]) in row.iter().zip(&centre).zip(&mut sums) {
                    let difference = f64::from(*value) - centre;
                    *first += difference;
                    *second += difference * difference;
                }
            }
            sums
        })
        .collect();
    let moment = |(column, centre): (usize, &f64)| {
        let first = parts.iter().map(|part| part[column][0]).sum::<f64>() / rows;
        let second = parts.iter().map(|part| part[column][1]).sum::<f64>() / rows;
        (centre + first, (second - first * first).max(0.0))
    };
    centre.iter().enumerate().map(moment).collect()
}

fn add_bias<D: Device<f32>, T: Recorder<D>>(rows: Rows<D, T>, bias: Option<&Flat<D>>) -> Rows<D, T> {
    let Some(bias) = bias else { return rows };
    let shape = *rows.shape();
    rows + bias.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape)
}

/// For each output row and kernel position, the input row under it; one past the last row where there is none.
fn window_index(input: Geometry, output: Geometry, window: &Window) -> Vec<usize> {
    let outside = input.rows();
    let [depth, height, width] = input.size;
    let mut index = Vec::with_capacity(output.rows() * window.taps());
    for_each_voxel(output, |sample, place| {
        for tap in 0..window.taps() {
            let [_, ky, kx] = window.kernel;
            let k = [tap / (ky * kx), tap / kx % ky, tap % kx];
            // Wraps to a huge index where padding is meant, which the comparison refuses.
            let [z, y, x] =
                std::array::from_fn(|a| (place[a] * window.stride[a] + k[a]).wrapping_sub(window.padding[a]));
            let inside = z < depth && y < height && x < width;
            index.push(if inside { ((sample * depth + z) * height + y) * width + x } else { outside });
        }
    });
    index
}

/// For each row upsampled by `factor`, the row of the `(input rows · taps)` matrix that holds it.
fn block_index(input: Geometry, factor: [usize; 3]) -> Vec<usize> {
    let taps: usize = factor.iter().product();
    let [depth, height, width] = input.size;
    let output = geometry::upsampled(input, factor);
    let mut index = Vec::with_capacity(output.rows());
    for_each_voxel(output, |sample, place| {
        let [z, y, x] = std::array::from_fn(|a| place[a] / factor[a]);
        let [kz, ky, kx] = std::array::from_fn(|a| place[a] % factor[a]);
        let row = ((sample * depth + z) * height + y) * width + x;
        index.push(row * taps + (kz * factor[1] + ky) * factor[2] + kx);
    });
    index
}

fn for_each_voxel(geometry: Geometry, mut visit: impl FnMut(usize, [usize; 3])) {
    let [depth, height, width] = geometry.size;
    for row in 0..geometry.rows() {
        let place = [row / (height * width) % depth, row / width % height, row % width];
        visit(row / geometry.voxels(), place);
    }
}
