//! The CUDA backend: kernels of our own recorded on dfdx's tape. Owns activations and their gradients as recycled device
//! memory; parameters, their gradients and their updates stay dfdx's.
//!
//! Every sum has an order that its sizes fix, and nothing is added atomically: equal arguments give equal bits on devices of
//! one kind.
#![expect(unsafe_code, reason = "plain structs go to the kernels by value")]

mod correlation;
mod gpu;
mod loss;
mod norm;
mod sums;

use std::rc::Rc;

use correlation::Convolution;
use cudarc::driver::DeviceRepr;
use dfdx::prelude::*;
pub use gpu::DeviceFailure;
use gpu::{Address, Buffer, Gpu, at, int};
use sums::Sums;

use super::slot::Slot;
use super::{Act, Backend, Flat, Labels, Recorder, Rows};
use crate::geometry::{self, Geometry, Window};
use crate::loss::LossTerms;
use crate::network::{Activation, Norm};

/// Kernels on a CUDA device.
///
/// An operation that the device cannot do, as when its memory is full, unwinds with a [`DeviceFailure`]; a device that is past use
/// ends the process.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    gpu: Rc<Gpu>,
}

/// An activation in device memory.
#[derive(Clone, Debug)]
pub struct DeviceValue {
    data: Rc<Buffer>,
    /// Absent for a constant: nothing upstream wants its gradient.
    slot: Option<Rc<Slot<Buffer>>>,
}

/// `Blocks` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Blocks {
    samples: i32,
    fine: [i32; 3],
    coarse: [i32; 3],
    factor: [i32; 3],
    channels: i32,
}

// SAFETY: plain integers in the order of the kernels' struct.
unsafe impl DeviceRepr for Blocks {}

impl Blocks {
    fn new(fine: Geometry, coarse: Geometry, factor: [usize; 3], channels: usize) -> Self {
        int(fine.rows() * channels);
        Self {
            samples: int(fine.samples),
            fine: fine.size.map(int),
            coarse: coarse.size.map(int),
            factor: factor.map(int),
            channels: int(channels),
        }
    }
}

/// `Function` of the kernels.
fn function(activation: Activation) -> i32 {
    match activation {
        Activation::Relu | Activation::LeakyRelu | Activation::Prelu => 0,
        Activation::Gelu => 1,
        Activation::Sigmoid => 2,
        Activation::Tanh => 3,
    }
}

impl CudaBackend {
    /// Loads the kernels onto a device.
    ///
    /// # Errors
    /// Why they do not run there.
    pub fn new(device: Cuda) -> Result<Self, String> {
        Ok(Self { gpu: Rc::new(Gpu::open(device)?) })
    }

    /// A new activation, and the slot its gradient will gather in.
    fn output(data: Buffer, geometry: Geometry, channels: usize) -> (Act<DeviceValue>, Rc<Slot<Buffer>>) {
        let slot = Rc::new(Slot::default());
        let value = DeviceValue { data: Rc::new(data), slot: Some(slot.clone()) };
        (Act { value, geometry, channels }, slot)
    }

    /// Records `backward`, which gets the gradient of the output; it does not run where nothing reached the output.
    fn on_backward<T: Recorder<Cuda>>(
        tape: &mut T,
        slot: Rc<Slot<Buffer>>,
        backward: impl FnOnce(Buffer, &mut Gradients<f32, Cuda>) -> Result<(), CudaError> + 'static,
    ) {
        tape.add_backward_op(move |gradients| match slot.take() {
            Some(slope) => backward(slope, gradients),
            None => Ok(()),
        });
    }

    /// Records an operation whose gradient is `backward` of that of the output, for one input.
    fn through<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        slot: Rc<Slot<Buffer>>,
        backward: impl FnOnce(&Rc<Gpu>, Buffer) -> Buffer + 'static,
    ) {
        let (gpu, slot_x) = (self.gpu.clone(), x.value.slot.clone());
        Self::on_backward(tape, slot, move |dy, _| {
            if let Some(slot) = slot_x {
                slot.add(backward(&gpu, dy));
            }
            Ok(())
        });
    }

    fn convolve<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        weight: &Flat<Cuda>,
        bias: Option<&Flat<Cuda>>,
        convolution: Convolution,
        (geometry, channels): (Geometry, usize),
    ) -> Act<DeviceValue> {
        let (weights, biases) = (self.gpu.values(weight), bias.map(|bias| self.gpu.values(bias)));
        let y = convolution.forward(
            &self.gpu,
            x.value.data.at(),
            at(&weights),
            biases.as_ref().map_or(Address::NONE, at),
        );
        let (out, slot) = Self::output(y, geometry, channels);
        let (gpu, x, weight, bias) = (self.gpu.clone(), x.value.clone(), weight.clone(), bias.cloned());
        Self::on_backward(tape, slot, move |dy, gradients| {
            let gradient = at(gradients.get_or_alloc_mut(&weight)?);
            convolution.add_weight_slope(&gpu, x.data.at(), dy.at(), gradient);
            if let Some(bias) = &bias {
                let sums = Sums::over(1, geometry.rows(), channels);
                let totals = sums.totals(&gpu, 1, |sums, grid, parts| {
                    gpu.launch("column_sums", grid, 0, (sums, dy.at(), parts));
                });
                sums.add(&gpu, &totals, [0, 1], at(gradients.get_or_alloc_mut(bias)?));
            }
            if let Some(slot) = &x.slot {
                slot.add(convolution.data_slope(&gpu, dy.at(), at(&weights)));
            }
            Ok(())
        });
        out
    }

    /// `l1 · Σ |x| + l2 · Σ x²`.
    fn magnitude(&self, count: usize, x: Address<'_>, [l1, l2]: [f32; 2]) -> Tensor<(), f32, Cuda> {
        let totals = Sums::of_all(count).totals(&self.gpu, 2, |sums, grid, parts| {
            self.gpu.launch("magnitude_sums", grid, 0, (sums, x, parts));
        });
        let [magnitude, square] = totals.read::<f64>()[..] else { unreachable!("two sums were asked for") };
        self.gpu.dfdx.tensor((f64::from(l1) * magnitude + f64::from(l2) * square) as f32)
    }

    /// The slope of [`Self::magnitude`] by `x`, times what is at `upstream`.
    fn magnitude_slope(
        gpu: &Rc<Gpu>,
        count: usize,
        x: Address<'_>,
        [l1, l2]: [f32; 2],
        upstream: Address<'_>,
    ) -> Buffer {
        let slope = gpu.take::<f32>(count);
        gpu.each("penalty_slope", count, (int(count), l1, l2, upstream, x, slope.at()));
        slope
    }

    /// Two arrays by `kernel`, value by value.
    fn pairwise(gpu: &Rc<Gpu>, kernel: &str, a: Address<'_>, b: Address<'_>, count: usize) -> Buffer {
        let y = gpu.take::<f32>(count);
        gpu.each(kernel, count, (int(count), a, b, y.at()));
        y
    }
}

impl Backend for CudaBackend {
    type Device = Cuda;
    type Value = DeviceValue;

    fn device(&self) -> &Cuda {
        &self.gpu.dfdx
    }

    fn lift<T: Recorder<Cuda>>(&self, tape: &mut T, rows: Rows<Cuda>) -> DeviceValue {
        let count = rows.shape().num_elements();
        let data = self.gpu.take::<f32>(count);
        self.gpu.copy(at(&self.gpu.values(&rows)), data.at(), count);
        let slot = Rc::new(Slot::default());
        let gpu = self.gpu.clone();
        Self::on_backward(tape, slot.clone(), move |slope, gradients| {
            let sum = at(gradients.get_or_alloc_mut(&rows)?);
            gpu.each("add_assign", count, (int(count), sum, slope.at()));
            Ok(())
        });
        DeviceValue { data: Rc::new(data), slot: Some(slot) }
    }

    fn lower<T: Recorder<Cuda>>(&self, tape: &mut T, x: &Act<DeviceValue>) -> Rows<Cuda> {
        // A slot of gradients takes device memory and becomes a tensor.
        let like: Rows<Cuda> = self.gpu.dfdx.zeros_like(&(x.geometry.rows(), x.channels));
        let mut holder = Gradients::leaky();
        let held = gpu::done(holder.get_or_alloc_mut(&like));
        self.gpu.copy(x.value.data.at(), at(held), x.value.data.len());
        let rows = holder.get(&like);
        if let Some(slot) = x.value.slot.clone() {
            let (ghost, gpu, count) = (rows.ghost(), self.gpu.clone(), x.value.data.len());
            // Recorded before the operations that use `rows`, hence run after all of them.
            tape.add_backward_op(move |gradients| {
                let slope = gpu.take::<f32>(count);
                gpu.copy(at(gradients.get_or_alloc_mut(&ghost)?), slope.at(), count);
                slot.add(slope);
                Ok(())
            });
        }
        rows
    }

    fn input(&self, values: Vec<f32>, geometry: Geometry, channels: usize, traced: bool) -> Act<DeviceValue> {
        assert_eq!(values.len(), geometry.rows() * channels, "internal error: input length");
        let data = Rc::new(self.gpu.upload(&values));
        Act { value: DeviceValue { data, slot: traced.then(Rc::default) }, geometry, channels }
    }

    fn read(&self, x: &Act<DeviceValue>) -> Vec<f32> {
        x.value.data.read()
    }

    fn gradient(&self, x: &Act<DeviceValue>, _: &Gradients<f32, Cuda>) -> Vec<f32> {
        let held = x.value.slot.as_ref().and_then(|slot| slot.with(|held| held.as_ref().map(Buffer::read)));
        held.unwrap_or_else(|| vec![0.0; x.value.data.len()])
    }

    fn conv<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        weight: &Flat<Cuda>,
        bias: Option<&Flat<Cuda>>,
        window: &Window,
    ) -> Act<DeviceValue> {
        let geometry = window.output(x.geometry).expect("the network was checked against its input");
        let cout = weight.shape().0 / (window.taps() * x.channels);
        let convolution = if window.kernel == x.geometry.size && window.padding == [0; 3] {
            // All voxels of a sample are the channels of one.
            let channels = x.geometry.voxels() * x.channels;
            Convolution::plain(Window::same([1; 3]), geometry, geometry, channels, cout)
        } else {
            Convolution::plain(*window, x.geometry, geometry, x.channels, cout)
        };
        self.convolve(tape, x, weight, bias, convolution, (geometry, cout))
    }

    fn transposed_conv<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        weight: &Flat<Cuda>,
        bias: Option<&Flat<Cuda>>,
        factor: [usize; 3],
    ) -> Act<DeviceValue> {
        let cout = weight.shape().0 / (factor.iter().product::<usize>() * x.channels);
        let geometry = geometry::upsampled(x.geometry, factor);
        let convolution = Convolution::transposed(factor, x.geometry, geometry, x.channels, cout);
        self.convolve(tape, x, weight, bias, convolution, (geometry, cout))
    }

    fn norm_act<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        norm: Norm,
        affine: [&Flat<Cuda>; 2],
        epsilon: f32,
        slope: f32,
    ) -> Act<DeviceValue> {
        norm::norm_act(&self.gpu, tape, x, norm, affine, [epsilon, slope])
    }

    fn norm_act_with<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        moments: [&Flat<Cuda>; 2],
        affine: [&Flat<Cuda>; 2],
        epsilon: f32,
        slope: f32,
    ) -> Act<DeviceValue> {
        norm::norm_act_with(&self.gpu, tape, x, moments, affine, [epsilon, slope])
    }

    fn activation<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        activation: Activation,
        slope: Option<&Flat<Cuda>>,
    ) -> Act<DeviceValue> {
        let (function, below) = (function(activation), activation.fixed_slope().unwrap_or_default());
        let (count, channels) = (x.value.data.len(), x.channels);
        let slopes = slope.map(|slope| self.gpu.values(slope));
        let slopes_at = slopes.as_ref().map_or(Address::NONE, at);
        let y = self.gpu.take::<f32>(count);
        let sizes = (int(count), int(channels));
        let parameters = (function, sizes.0, sizes.1, below, slopes_at, x.value.data.at(), y.at());
        self.gpu.each("activate", count, parameters);
        let (out, slot) = Self::output(y, x.geometry, channels);
        let (gpu, x, slope, rows) = (self.gpu.clone(), x.value.clone(), slope.cloned(), x.geometry.rows());
        Self::on_backward(tape, slot, move |dy, gradients| {
            let slopes_at = slopes.as_ref().map_or(Address::NONE, at);
            if let Some(slope) = &slope {
                let sums = Sums::over(1, rows, channels);
                let totals = sums.totals(&gpu, 1, |sums, grid, parts| {
                    gpu.launch("prelu_sums", grid, 0, (sums, x.data.at(), dy.at(), parts));
                });
                sums.add(&gpu, &totals, [0, 1], at(gradients.get_or_alloc_mut(slope)?));
            }
            if let Some(slot) = &x.slot {
                let dx = gpu.take::<f32>(count);
                let (x, dy, dx_at) = (x.data.at(), dy.at(), dx.at());
                let parameters = (function, sizes.0, sizes.1, below, slopes_at, x, dy, dx_at);
                gpu.each("activation_slope", count, parameters);
                slot.add(dx);
            }
            Ok(())
        });
        out
    }

    fn avg_pool<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        factor: [usize; 3],
    ) -> Act<DeviceValue> {
        let geometry = geometry::pooled(x.geometry, factor);
        let (fine, coarse) = (x.value.data.len(), geometry.rows() * x.channels);
        let blocks = Blocks::new(x.geometry, geometry, factor, x.channels);
        let share = 1.0 / factor.iter().product::<usize>() as f32;
        let y = self.gpu.take::<f32>(coarse);
        if factor == x.geometry.size {
            // One thread would add up a whole volume.
            let sums = Sums::over(x.geometry.samples, x.geometry.voxels(), x.channels);
            let totals = sums.totals(&self.gpu, 1, |sums, grid, parts| {
                self.gpu.launch("column_sums", grid, 0, (sums, x.value.data.at(), parts));
            });
            self.gpu.each("scale_totals", coarse, (int(coarse), share, totals.at(), y.at()));
        } else {
            self.gpu.each("gather_blocks", coarse, (blocks, share, x.value.data.at(), y.at()));
        }
        let (out, slot) = Self::output(y, geometry, x.channels);
        self.through(tape, x, slot, move |gpu, dy| {
            let dx = gpu.take::<f32>(fine);
            gpu.each("spread_blocks", fine, (blocks, share, dy.at(), dx.at()));
            dx
        });
        out
    }

    fn upsample<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        factor: [usize; 3],
    ) -> Act<DeviceValue> {
        let geometry = geometry::upsampled(x.geometry, factor);
        let (fine, coarse) = (geometry.rows() * x.channels, x.value.data.len());
        let blocks = Blocks::new(geometry, x.geometry, factor, x.channels);
        let y = self.gpu.take::<f32>(fine);
        self.gpu.each("spread_blocks", fine, (blocks, 1.0_f32, x.value.data.at(), y.at()));
        let (out, slot) = Self::output(y, geometry, x.channels);
        self.through(tape, x, slot, move |gpu, dy| {
            let dx = gpu.take::<f32>(coarse);
            gpu.each("gather_blocks", coarse, (blocks, 1.0_f32, dy.at(), dx.at()));
            dx
        });
        out
    }

    fn add<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        first: &Act<DeviceValue>,
        second: &Act<DeviceValue>,
    ) -> Act<DeviceValue> {
        let count = first.value.data.len();
        let y = Self::pairwise(&self.gpu, "add", first.value.data.at(), second.value.data.at(), count);
        let (out, slot) = Self::output(y, first.geometry, first.channels);
        let slots = [first.value.slot.clone(), second.value.slot.clone()];
        Self::on_backward(tape, slot, move |dy, _| {
            let [first, second] = slots;
            if let Some(slot) = first {
                slot.add(dy.copied());
            }
            if let Some(slot) = second {
                slot.add(dy);
            }
            Ok(())
        });
        out
    }

    fn scale_by<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        factors: Vec<f32>,
    ) -> Act<DeviceValue> {
        let count = x.value.data.len();
        let factors = self.gpu.upload(&factors);
        let y = Self::pairwise(&self.gpu, "multiply_values", x.value.data.at(), factors.at(), count);
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        self.through(tape, x, slot, move |gpu, dy| {
            Self::pairwise(gpu, "multiply_values", dy.at(), factors.at(), count)
        });
        out
    }

    fn shift_by<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        addends: Vec<f32>,
    ) -> Act<DeviceValue> {
        let addends = self.gpu.upload(&addends);
        let y = Self::pairwise(&self.gpu, "add", x.value.data.at(), addends.at(), x.value.data.len());
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        self.through(tape, x, slot, |_, dy| dy);
        out
    }

    fn penalty<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        weights: [f32; 2],
    ) -> Tensor<(), f32, Cuda> {
        let count = x.value.data.len();
        let weights = weights.map(|weight| weight / count as f32);
        let value = x.value.clone();
        let sum = self.magnitude(count, x.value.data.at(), weights);
        let (ghost, gpu) = (sum.ghost(), self.gpu.clone());
        tape.add_backward_op(move |gradients| {
            if let Some(slot) = &value.slot {
                let upstream = at(gradients.get_or_alloc_mut(&ghost)?);
                slot.add(Self::magnitude_slope(&gpu, count, value.data.at(), weights, upstream));
            }
            Ok(())
        });
        sum
    }

    fn weight_penalty<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        weight: &Flat<Cuda>,
        weights: [f32; 2],
    ) -> Tensor<(), f32, Cuda> {
        let (count, values) = (weight.shape().0, self.gpu.values(weight));
        let sum = self.magnitude(count, at(&values), weights);
        let (ghost, gpu, weight) = (sum.ghost(), self.gpu.clone(), weight.clone());
        tape.add_backward_op(move |gradients| {
            let upstream = at(gradients.get_or_alloc_mut(&ghost)?);
            let slope = Self::magnitude_slope(&gpu, count, at(&values), weights, upstream);
            let gradient = at(gradients.get_or_alloc_mut(&weight)?);
            gpu.each("add_assign", count, (int(count), gradient, slope.at()));
            Ok(())
        });
        sum
    }

    fn max_pool<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        x: &Act<DeviceValue>,
        factor: [usize; 3],
    ) -> Act<DeviceValue> {
        let geometry = geometry::pooled(x.geometry, factor);
        let (fine, coarse) = (x.value.data.len(), geometry.rows() * x.channels);
        let blocks = Blocks::new(x.geometry, geometry, factor, x.channels);
        let (y, places) = (self.gpu.take::<f32>(coarse), self.gpu.take::<u8>(coarse));
        self.gpu.each("max_pool", coarse, (blocks, x.value.data.at(), y.at(), places.at()));
        let (out, slot) = Self::output(y, geometry, x.channels);
        self.through(tape, x, slot, move |gpu, dy| {
            let dx = gpu.take::<f32>(fine);
            gpu.each("max_pool_slope", fine, (blocks, dy.at(), places.at(), dx.at()));
            dx
        });
        out
    }

    fn concat<T: Recorder<Cuda>>(
        &self,
        tape: &mut T,
        first: &Act<DeviceValue>,
        second: &Act<DeviceValue>,
    ) -> Act<DeviceValue> {
        let rows = first.geometry.rows();
        let channels = [first.channels, second.channels];
        let count = rows * (channels[0] + channels[1]);
        int(count);
        let sizes = (int(rows), int(channels[0]), int(channels[1]));
        let y = self.gpu.take::<f32>(count);
        let (a, b) = (first.value.data.at(), second.value.data.at());
        self.gpu.each("concat", count, (sizes.0, sizes.1, sizes.2, a, b, y.at()));
        let (out, slot) = Self::output(y, first.geometry, channels[0] + channels[1]);
        let slots = [first.value.slot.clone(), second.value.slot.clone()];
        let gpu = self.gpu.clone();
        Self::on_backward(tape, slot, move |dy, _| {
            let parts = channels.map(|channels| gpu.take::<f32>(rows * channels));
            let parameters = (sizes.0, sizes.1, sizes.2, dy.at(), parts[0].at(), parts[1].at());
            gpu.each("split", count, parameters);
            for (slot, part) in slots.iter().zip(parts) {
                if let Some(slot) = slot {
                    slot.add(part);
                }
            }
            Ok(())
        });
        out
    }

    fn loss<T: Recorder<Cuda>>(
        &self,
        tape: T,
        logits: &Act<DeviceValue>,
        labels: &Labels,
        terms: &LossTerms,
    ) -> Tensor<(), f32, Cuda, T> {
        loss::loss(&self.gpu, tape, logits, labels, terms)
    }

    fn gradient_squares(
        &self,
        parameters: &[&Flat<Cuda>],
        gradients: &mut Gradients<f32, Cuda>,
    ) -> Result<Vec<f64>, CudaError> {
        // One wait for all of them.
        let all = self.gpu.take::<f64>(parameters.len());
        for (index, parameter) in parameters.iter().enumerate() {
            let gradient = at(gradients.get_or_alloc_mut(*parameter)?);
            let total = Sums::of_all(parameter.shape().0).totals(&self.gpu, 1, |sums, grid, parts| {
                self.gpu.launch("square_sums", grid, 0, (sums, gradient, parts));
            });
            self.gpu.each("put_total", 1, (int(index), total.at(), all.at()));
        }
        Ok(all.read())
    }

    fn scale_gradients(
        &self,
        parameters: &[&Flat<Cuda>],
        gradients: &mut Gradients<f32, Cuda>,
        factor: f32,
    ) -> Result<(), CudaError> {
        for parameter in parameters {
            let gradient = at(gradients.get_or_alloc_mut(*parameter)?);
            let count = parameter.shape().0;
            self.gpu.each("scale_assign", count, (int(count), factor, gradient));
        }
        Ok(())
    }

    fn moments(&self, x: &Act<DeviceValue>) -> Vec<(f64, f64)> {
        let sums = Sums::over(1, x.geometry.rows(), x.channels);
        let moments = norm::moments(&self.gpu, sums, x.channels, &x.value.data).read::<f64>();
        let (means, variances) = moments.split_at(x.channels);
        means.iter().copied().zip(variances.iter().copied()).collect()
    }
}
