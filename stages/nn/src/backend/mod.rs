//! The operations a network needs, over dfdx's tape. Every operation has a default body of public dfdx operations
//! that runs on any dfdx device; a backend overrides the ones it has kernels for.
//!
//! An activation is a channels-last matrix `(samples·z·y·x, channels)`; 2D has depth 1. Values carry no tape: one tape
//! is handed from operation to operation, so that a value may feed several of them.

mod cpu;
mod reference;
pub(crate) mod workspace;

pub use cpu::CpuBackend;
use dfdx::prelude::*;
pub use reference::Reference;

use crate::geometry::{self, Geometry, Window};
use crate::loss::{IGNORE, LossConfig};

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

    /// Instance norm, affine, leaky ReLU; see [`Op::NormAct`](crate::Op::NormAct).
    fn norm_act<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        scale: &Flat<Self::Device>,
        shift: &Flat<Self::Device>,
        epsilon: f32,
        slope: f32,
    ) -> Act<Self::Value> {
        let (geometry, channels) = (x.geometry, x.channels);
        let shape = (geometry.rows(), channels);
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, _| {
            let normalised = rows
                .reshape_like(&(geometry.samples, geometry.voxels(), channels))
                .normalize::<Axis<1>>(epsilon)
                .reshape_like(&shape);
            let scale: Rows<Self::Device, T> = scale.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            let shift: Rows<Self::Device, T> = shift.retaped::<T>().broadcast_like::<_, Axis<0>>(&shape);
            (normalised * scale + shift).prelu(slope)
        });
        Act { value: self.lift(tape, rows), geometry, channels }
    }

    /// Maximum over blocks of `factor`; a remainder at the far side is dropped.
    fn max_pool<T: Recorder<Self::Device>>(
        &self,
        tape: &mut T,
        x: &Act<Self::Value>,
        factor: [usize; 3],
    ) -> Act<Self::Value> {
        let geometry = geometry::pooled(x.geometry, factor);
        let window = Window { kernel: factor, stride: factor, padding: [0; 3] };
        let rows = self.record(tape, x, |rows: Rows<Self::Device, T>, device| {
            let index = window_index(x.geometry, geometry, &window);
            let index = device.tensor_from_vec(index, (geometry.rows() * window.taps(),));
            let blocks: Rows<Self::Device, T> = rows.gather(index);
            blocks
                .reshape_like(&(geometry.rows(), window.taps(), x.channels))
                .max::<(usize, usize), Axis<1>>()
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

    /// The loss of [`LossConfig`]; takes the tape, so that `backward` can be called on the result.
    fn dice_ce<T: Recorder<Self::Device>>(
        &self,
        mut tape: T,
        logits: &Act<Self::Value>,
        labels: &Labels,
        config: &LossConfig,
    ) -> Tensor<(), f32, Self::Device, T> {
        let (geometry, classes) = (logits.geometry, logits.channels);
        let shape = (geometry.rows(), classes);
        let groups = if config.batch_dice { 1 } else { geometry.samples };
        let grouped = (groups, geometry.rows() / groups, classes);
        let first_class = usize::from(!config.dice_includes_background);
        let counted = labels.iter().filter(|label| **label != IGNORE).count().max(1);
        let cells =
            labels.iter().flat_map(|label| (0..classes).map(move |class| (usize::from(*label), class)));
        let one_hot = cells.clone().map(|(label, class)| f32::from(label == class)).collect();
        let mask = cells.map(|(label, _)| f32::from(label != usize::from(IGNORE))).collect();
        let device = self.device();
        let one_hot: Rows<Self::Device> = device.tensor_from_vec(one_hot, shape);
        let mask: Rows<Self::Device> = device.tensor_from_vec(mask, shape);
        let weight = 1.0 / (groups * (classes - first_class)) as f32;
        let weights =
            (0..groups * classes).map(|cell| if cell % classes < first_class { 0.0 } else { weight });
        let weights: Rows<Self::Device> = device.tensor_from_vec(weights.collect(), (groups, classes));

        let rows = self.lower(&mut tape, logits).put_tape(tape);
        let log = rows.log_softmax::<Axis<1>>();
        let entropy = (log.with_empty_tape() * one_hot.clone()).sum::<(), Axes2<0, 1>>() / -(counted as f32);
        let softmax = log.exp() * mask;
        let overlap: Rows<Self::Device, T> =
            (softmax.with_empty_tape() * one_hot.clone()).reshape_like(&grouped).sum::<_, Axis<1>>();
        let sizes: Rows<Self::Device, T> = (softmax + one_hot).reshape_like(&grouped).sum::<_, Axis<1>>();
        let dice = (overlap * 2.0 + config.smooth) / (sizes + config.smooth);
        (entropy - (dice * weights).sum::<(), Axes2<0, 1>>()) + 1.0
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
