//! The CPU backend: fused kernels recorded on dfdx's tape. Owns activations and their gradients as recycled buffers;
//! parameters and their gradients stay dfdx's.

use std::sync::Arc;

use dfdx::prelude::*;

use super::slot::{Gather, Slot};
use super::workspace::{Buffer, Workspace};
use super::{Act, Backend, Flat, Labels, Recorder, Rows};
use crate::geometry::{self, Geometry, Window};
use crate::kernels::{self, Correlation, Isa, LossShape, NormShape, Transposed};
use crate::loss::LossTerms;
use crate::network::{Activation, Norm};

/// Fused kernels on rayon's current pool. The same bits for every thread count and every [`Isa`].
#[derive(Clone, Debug)]
pub struct CpuBackend {
    device: Cpu,
    isa: Isa,
    workspace: Workspace,
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self { device: Cpu::default(), isa: Isa::detect(), workspace: Workspace::default() }
    }
}

impl Gather for Buffer {
    fn add_assign(&mut self, more: &Self) {
        kernels::add_assign(self, more);
    }
}

/// An activation in main memory.
#[derive(Clone, Debug)]
pub struct HostValue {
    data: Arc<Buffer>,
    /// Absent for a constant: nothing upstream wants its gradient.
    slot: Option<Arc<Slot<Buffer>>>,
}

impl CpuBackend {
    /// Kernels of a chosen instruction set, for tests and measurements; `None` where the processor lacks it.
    pub fn with_isa(isa: Isa) -> Option<Self> {
        isa.available().then(|| Self { isa, ..Self::default() })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    fn values(&self, parameter: &Flat<Cpu>) -> Buffer {
        let mut values = self.workspace.take(parameter.shape().0);
        parameter.copy_into(&mut values);
        values
    }

    /// A new activation, and the slot its gradient will gather in.
    fn output(data: Buffer, geometry: Geometry, channels: usize) -> (Act<HostValue>, Arc<Slot<Buffer>>) {
        let slot = Arc::new(Slot::default());
        let value = HostValue { data: Arc::new(data), slot: Some(slot.clone()) };
        (Act { value, geometry, channels }, slot)
    }

    /// Records `backward`, which gets the gradient of the output; it does not run where nothing reached the output.
    fn on_backward<T: Recorder<Cpu>>(
        tape: &mut T,
        slot: Arc<Slot<Buffer>>,
        backward: impl FnOnce(Buffer, &mut Gradients<f32, Cpu>) -> Result<(), CpuError> + 'static,
    ) {
        tape.add_backward_op(move |gradients| match slot.take() {
            Some(slope) => backward(slope, gradients),
            None => Ok(()),
        });
    }
}

impl Backend for CpuBackend {
    type Device = Cpu;
    type Value = HostValue;

    fn device(&self) -> &Cpu {
        &self.device
    }

    fn lift<T: Recorder<Cpu>>(&self, tape: &mut T, rows: Rows<Cpu>) -> HostValue {
        let mut data = self.workspace.take(rows.shape().0 * rows.shape().1);
        rows.copy_into(&mut data);
        let slot = Arc::new(Slot::default());
        Self::on_backward(tape, slot.clone(), move |slope, gradients| {
            let sum = gradients.get_or_alloc_mut(&rows)?;
            kernels::add_assign(sum, &slope);
            Ok(())
        });
        HostValue { data: Arc::new(data), slot: Some(slot) }
    }

    fn lower<T: Recorder<Cpu>>(&self, tape: &mut T, x: &Act<HostValue>) -> Rows<Cpu> {
        let rows = self.device.tensor_from_vec(x.value.data.to_vec(), (x.geometry.rows(), x.channels));
        if let Some(slot) = x.value.slot.clone() {
            let (ghost, workspace) = (rows.ghost(), self.workspace.clone());
            // Recorded before the operations that use `rows`, hence run after all of them.
            tape.add_backward_op(move |gradients| {
                slot.add(workspace.take_copy(gradients.get_or_alloc_mut(&ghost)?));
                Ok(())
            });
        }
        rows
    }

    fn input(&self, values: Vec<f32>, geometry: Geometry, channels: usize, traced: bool) -> Act<HostValue> {
        assert_eq!(values.len(), geometry.rows() * channels, "internal error: input length");
        let data = Arc::new(self.workspace.take_copy(&values));
        Act { value: HostValue { data, slot: traced.then(Arc::default) }, geometry, channels }
    }

    fn read(&self, x: &Act<HostValue>) -> Vec<f32> {
        x.value.data.to_vec()
    }

    fn gradient(&self, x: &Act<HostValue>, _: &Gradients<f32, Cpu>) -> Vec<f32> {
        let held =
            x.value.slot.as_ref().and_then(|slot| slot.with(|held| held.as_ref().map(|sum| sum.to_vec())));
        held.unwrap_or_else(|| vec![0.0; x.value.data.len()])
    }

    fn conv<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        weight: &Flat<Cpu>,
        bias: Option<&Flat<Cpu>>,
        window: &Window,
    ) -> Act<HostValue> {
        let geometry = window.output(x.geometry).expect("the network was checked against its input");
        let cout = weight.shape().0 / (window.taps() * x.channels);
        let shape = Correlation::forward(window, x.geometry, geometry, x.channels, cout);
        let mut y = self.workspace.take(geometry.rows() * cout);
        let (weights, bias_values) = (self.values(weight), bias.map(|bias| self.values(bias)));
        let (isa, data) = (self.isa, &x.value.data);
        kernels::correlate(isa, &self.workspace, &shape, data, &weights, bias_values.as_deref(), &mut y);
        let (out, slot) = Self::output(y, geometry, cout);
        let (this, x, weight, bias) = (self.clone(), x.value.clone(), weight.clone(), bias.cloned());
        Self::on_backward(tape, slot, move |dy, gradients| {
            let (isa, workspace) = (this.isa, &this.workspace);
            let sums = gradients.get_or_alloc_mut(&weight)?;
            kernels::correlate_weight(isa, workspace, &shape, &x.data, &dy, sums);
            if let Some(bias) = &bias {
                kernels::column_sums(&dy, gradients.get_or_alloc_mut(bias)?);
            }
            if let Some(slot) = &x.slot {
                let mut dx = workspace.take(x.data.len());
                kernels::correlate_data(isa, workspace, &shape, &dy, &this.values(&weight), &mut dx);
                slot.add(dx);
            }
            Ok(())
        });
        out
    }

    fn transposed_conv<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        weight: &Flat<Cpu>,
        bias: Option<&Flat<Cpu>>,
        factor: [usize; 3],
    ) -> Act<HostValue> {
        let cout = weight.shape().0 / (factor.iter().product::<usize>() * x.channels);
        let shape = Transposed { input: x.geometry, factor, cin: x.channels, cout };
        let geometry = geometry::upsampled(x.geometry, factor);
        let mut y = self.workspace.take(geometry.rows() * cout);
        let (weights, bias_values) = (self.values(weight), bias.map(|bias| self.values(bias)));
        let (isa, data) = (self.isa, &x.value.data);
        kernels::transposed_forward(
            isa,
            &self.workspace,
            &shape,
            data,
            &weights,
            bias_values.as_deref(),
            &mut y,
        );
        let (out, slot) = Self::output(y, geometry, cout);
        let (this, x, weight, bias) = (self.clone(), x.value.clone(), weight.clone(), bias.cloned());
        Self::on_backward(tape, slot, move |dy, gradients| {
            let workspace = &this.workspace;
            let sums = gradients.get_or_alloc_mut(&weight)?;
            kernels::transposed_weight_gradient(this.isa, workspace, &shape, &x.data, &dy, sums);
            if let Some(bias) = &bias {
                kernels::column_sums(&dy, gradients.get_or_alloc_mut(bias)?);
            }
            if let Some(slot) = &x.slot {
                let mut dx = workspace.take(x.data.len());
                let weights = this.values(&weight);
                kernels::transposed_data_gradient(this.isa, workspace, &shape, &dy, &weights, &mut dx);
                slot.add(dx);
            }
            Ok(())
        });
        out
    }

    fn norm_act<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        norm: Norm,
        [scale, shift]: [&Flat<Cpu>; 2],
        epsilon: f32,
        slope: f32,
    ) -> Act<HostValue> {
        let channels_per_group = if let Norm::Group(groups) = norm { x.channels / groups } else { 1 };
        let samples = if norm == Norm::Batch { 1 } else { x.geometry.samples };
        let shape = NormShape { samples, channels_per_group, epsilon, slope };
        let (scales, shifts) = (self.values(scale), self.values(shift));
        let mut y = self.workspace.take(x.value.data.len());
        let affine = [&*scales, &*shifts];
        let saved = kernels::norm_act_forward(self.isa, shape, &x.value.data, affine, &mut y);
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        let (isa, x, scale, shift) = (self.isa, x.value.clone(), scale.clone(), shift.clone());
        Self::on_backward(tape, slot, move |mut dy, gradients| {
            let (mut d_scale, mut d_shift) = (vec![0.0; scales.len()], vec![0.0; shifts.len()]);
            let (affine, sums) = ([&*scales, &*shifts], [&mut *d_scale, &mut *d_shift]);
            kernels::norm_act_backward(isa, shape, &x.data, affine, &saved, &mut dy, sums);
            kernels::add_assign(gradients.get_or_alloc_mut(&scale)?, &d_scale);
            kernels::add_assign(gradients.get_or_alloc_mut(&shift)?, &d_shift);
            if let Some(slot) = &x.slot {
                slot.add(dy);
            }
            Ok(())
        });
        out
    }

    fn activation<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        activation: Activation,
        slope: Option<&Flat<Cpu>>,
    ) -> Act<HostValue> {
        let fixed = activation.fixed_slope().unwrap_or_default();
        let slopes = slope.map_or_else(|| vec![fixed; x.channels], |slope| self.values(slope).to_vec());
        let mut y = self.workspace.take(x.value.data.len());
        kernels::activation_forward(activation, &slopes, &x.value.data, &mut y);
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        let (x, slope) = (x.value.clone(), slope.cloned());
        Self::on_backward(tape, slot, move |mut dy, gradients| {
            let sums = kernels::activation_backward(activation, &slopes, &x.data, &mut dy);
            if let Some(slope) = &slope {
                kernels::add_assign(gradients.get_or_alloc_mut(slope)?, &sums);
            }
            if let Some(slot) = &x.slot {
                slot.add(dy);
            }
            Ok(())
        });
        out
    }

    fn avg_pool<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        factor: [usize; 3],
    ) -> Act<HostValue> {
        let (input, channels) = (x.geometry, x.channels);
        let geometry = geometry::pooled(input, factor);
        let mut y = self.workspace.take(geometry.rows() * channels);
        kernels::avg_pool_forward(input, factor, channels, &x.value.data, &mut y);
        let (out, slot) = Self::output(y, geometry, channels);
        let (workspace, slot_x) = (self.workspace.clone(), x.value.slot.clone());
        Self::on_backward(tape, slot, move |dy, _| {
            let Some(slot) = slot_x else { return Ok(()) };
            let mut dx = workspace.take(input.rows() * channels);
            let share = 1.0 / factor.iter().product::<usize>() as f32;
            kernels::spread(input, factor, channels, share, &dy, &mut dx);
            slot.add(dx);
            Ok(())
        });
        out
    }

    fn upsample<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        factor: [usize; 3],
    ) -> Act<HostValue> {
        let channels = x.channels;
        let (coarse, fine) = (x.geometry, geometry::upsampled(x.geometry, factor));
        let mut y = self.workspace.take(fine.rows() * channels);
        kernels::spread(fine, factor, channels, 1.0, &x.value.data, &mut y);
        let (out, slot) = Self::output(y, fine, channels);
        let (workspace, slot_x) = (self.workspace.clone(), x.value.slot.clone());
        Self::on_backward(tape, slot, move |dy, _| {
            let Some(slot) = slot_x else { return Ok(()) };
            let mut dx = workspace.take(coarse.rows() * channels);
            kernels::gather_blocks(fine, factor, channels, &dy, &mut dx);
            slot.add(dx);
            Ok(())
        });
        out
    }

    fn add<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        first: &Act<HostValue>,
        second: &Act<HostValue>,
    ) -> Act<HostValue> {
        let mut y = self.workspace.take(first.value.data.len());
        kernels::combine(&first.value.data, &second.value.data, &mut y, |a, b| a + b);
        let (out, slot) = Self::output(y, first.geometry, first.channels);
        let slots = [first.value.slot.clone(), second.value.slot.clone()];
        let workspace = self.workspace.clone();
        Self::on_backward(tape, slot, move |dy, _| {
            let [first, second] = slots;
            if let Some(slot) = first {
                slot.add(workspace.take_copy(&dy));
            }
            if let Some(slot) = second {
                slot.add(dy);
            }
            Ok(())
        });
        out
    }

    fn scale_by<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        factors: Vec<f32>,
    ) -> Act<HostValue> {
        let mut y = self.workspace.take(x.value.data.len());
        kernels::combine(&x.value.data, &factors, &mut y, |a, b| a * b);
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        let (workspace, slot_x) = (self.workspace.clone(), x.value.slot.clone());
        Self::on_backward(tape, slot, move |dy, _| {
            let Some(slot) = slot_x else { return Ok(()) };
            let mut dx = workspace.take(dy.len());
            kernels::combine(&dy, &factors, &mut dx, |a, b| a * b);
            slot.add(dx);
            Ok(())
        });
        out
    }

    fn shift_by<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        addends: Vec<f32>,
    ) -> Act<HostValue> {
        let mut y = self.workspace.take(x.value.data.len());
        kernels::combine(&x.value.data, &addends, &mut y, |a, b| a + b);
        let (out, slot) = Self::output(y, x.geometry, x.channels);
        let slot_x = x.value.slot.clone();
        Self::on_backward(tape, slot, move |dy, _| {
            if let Some(slot) = slot_x {
                slot.add(dy);
            }
            Ok(())
        });
        out
    }

    fn max_pool<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        x: &Act<HostValue>,
        factor: [usize; 3],
    ) -> Act<HostValue> {
        let (input, channels) = (x.geometry, x.channels);
        let geometry = geometry::pooled(input, factor);
        let mut y = self.workspace.take(geometry.rows() * channels);
        let mut place = vec![0_u8; y.len()];
        kernels::max_pool_forward(self.isa, input, factor, channels, &x.value.data, &mut y, &mut place);
        let (out, slot) = Self::output(y, geometry, channels);
        let (isa, workspace, slot_x) = (self.isa, self.workspace.clone(), x.value.slot.clone());
        Self::on_backward(tape, slot, move |dy, _| {
            let Some(slot) = slot_x else { return Ok(()) };
            slot.with(|held| {
                let fresh = held.is_none();
                let dx = held.get_or_insert_with(|| workspace.take(input.rows() * channels));
                kernels::max_pool_backward(isa, input, factor, channels, &dy, &place, dx, fresh);
            });
            Ok(())
        });
        out
    }

    fn concat<T: Recorder<Cpu>>(
        &self,
        tape: &mut T,
        first: &Act<HostValue>,
        second: &Act<HostValue>,
    ) -> Act<HostValue> {
        let rows = first.geometry.rows();
        let channels = [first.channels, second.channels];
        let mut y = self.workspace.take(rows * (channels[0] + channels[1]));
        kernels::concat([&first.value.data, &second.value.data], channels, &mut y);
        let (out, slot) = Self::output(y, first.geometry, channels[0] + channels[1]);
        let slots = [first.value.slot.clone(), second.value.slot.clone()];
        let workspace = self.workspace.clone();
        Self::on_backward(tape, slot, move |dy, _| {
            let mut parts = channels.map(|channels| workspace.take(rows * channels));
            let [first, second] = &mut parts;
            kernels::split(&dy, [first, second], channels);
            for (slot, part) in slots.iter().zip(parts) {
                if let Some(slot) = slot {
                    slot.add(part);
                }
            }
            Ok(())
        });
        out
    }

    fn loss<T: Recorder<Cpu>>(
        &self,
        mut tape: T,
        logits: &Act<HostValue>,
        labels: &Labels,
        terms: &LossTerms,
    ) -> Tensor<(), f32, Cpu, T> {
        let (geometry, classes) = (logits.geometry, logits.channels);
        let mut scores = self.workspace.take(logits.value.data.len());
        let shape = LossShape { terms, geometry, classes, labels };
        let (value, sums) = kernels::loss_forward(&shape, &logits.value.data, &mut scores);
        let value = self.device.tensor(value);
        let (ghost, slot) = (value.ghost(), logits.value.slot.clone());
        let (labels, terms) = (labels.clone(), terms.clone());
        tape.add_backward_op(move |gradients| {
            let upstream = gradients.get_or_alloc_mut(&ghost)?[0];
            let shape = LossShape { terms: &terms, geometry, classes, labels: &labels };
            kernels::loss_backward(&shape, &sums, upstream, &mut scores);
            if let Some(slot) = slot {
                slot.add(scores);
            }
            Ok(())
        });
        value.put_tape(tape)
    }

    fn moments(&self, x: &Act<HostValue>) -> Vec<(f64, f64)> {
        super::moments_of(&x.value.data, x.channels)
    }
}
