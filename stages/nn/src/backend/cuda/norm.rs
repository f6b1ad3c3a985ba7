//! Normalisation with affine and leaky ReLU, by what the values themselves hold or by given moments.

use std::rc::Rc;

use dfdx::prelude::*;

use super::super::{Act, Flat, Recorder};
use super::gpu::{Address, Buffer, Gpu, THREADS, at, int};
use super::sums::Sums;
use super::{CudaBackend, DeviceValue};
use crate::network::Norm;

/// How the values of one activation are normalised.
struct Pass {
    sums: Sums,
    samples: usize,
    /// Values of a sample.
    count: usize,
    /// Channels that share mean and variance; `None` where those were given.
    group: Option<usize>,
    slope: f32,
    /// Mean and inverse deviation of each channel: `[samples, 2, channels]`.
    statistics: Buffer,
}

/// Mean and biased variance of each channel of each sample, in f64: `[samples, 2, channels]`; `channels` are those of all
/// samples together.
pub(super) fn moments(gpu: &Rc<Gpu>, sums: Sums, channels: usize, x: &Buffer) -> Buffer {
    let totals = sums.totals(gpu, 2, |sums, grid, parts| {
        gpu.launch("moment_sums", grid, 0, (sums, x.at(), parts));
    });
    let moments = gpu.take::<f64>(2 * channels);
    gpu.each("moments", channels, (sums, x.at(), totals.at(), moments.at()));
    moments
}

/// See [`Backend::norm_act`](crate::Backend::norm_act).
pub(super) fn norm_act<T: Recorder<Cuda>>(
    gpu: &Rc<Gpu>,
    tape: &mut T,
    x: &Act<DeviceValue>,
    norm: Norm,
    affine: [&Flat<Cuda>; 2],
    [epsilon, slope]: [f32; 2],
) -> Act<DeviceValue> {
    let group = if let Norm::Group(groups) = norm { x.channels / groups } else { 1 };
    let samples = if norm == Norm::Batch { 1 } else { x.geometry.samples };
    let (sums, channels) =
        (Sums::over(samples, x.geometry.rows() / samples, x.channels), samples * x.channels);
    let moments = moments(gpu, sums, channels, &x.value.data);
    let statistics = gpu.take::<f32>(2 * channels);
    gpu.each("norm_statistics", channels, (sums, int(group), epsilon, moments.at(), statistics.at()));
    let count = x.value.data.len() / samples;
    normalise(gpu, tape, x, affine, Pass { sums, samples, count, group: Some(group), slope, statistics })
}

/// See [`Backend::norm_act_with`](crate::Backend::norm_act_with).
pub(super) fn norm_act_with<T: Recorder<Cuda>>(
    gpu: &Rc<Gpu>,
    tape: &mut T,
    x: &Act<DeviceValue>,
    [mean, variance]: [&Flat<Cuda>; 2],
    affine: [&Flat<Cuda>; 2],
    [epsilon, slope]: [f32; 2],
) -> Act<DeviceValue> {
    let statistics = gpu.take::<f32>(2 * x.channels);
    let (means, variances) = (gpu.values(mean), gpu.values(variance));
    let parameters = (int(x.channels), epsilon, at(&means), at(&variances), statistics.at());
    gpu.each("given_statistics", x.channels, parameters);
    let (sums, count) = (Sums::over(1, x.geometry.rows(), x.channels), x.value.data.len());
    normalise(gpu, tape, x, affine, Pass { sums, samples: 1, count, group: None, slope, statistics })
}

fn normalise<T: Recorder<Cuda>>(
    gpu: &Rc<Gpu>,
    tape: &mut T,
    x: &Act<DeviceValue>,
    [scale, shift]: [&Flat<Cuda>; 2],
    pass: Pass,
) -> Act<DeviceValue> {
    let Pass { sums, samples, count, group, slope, statistics } = pass;
    let (scales, shifts) = (gpu.values(scale), gpu.values(shift));
    let y = gpu.take::<f32>(samples * count);
    let grid = [count.div_ceil(THREADS), samples, 1];
    let at_x = x.value.data.at();
    let parameters = (sums, slope, at_x, statistics.at(), at(&scales), at(&shifts), y.at());
    gpu.launch("norm_apply", grid, 0, parameters);
    let (out, slot) = CudaBackend::output(y, x.geometry, x.channels);
    let (gpu, channels, scale, shift) = (gpu.clone(), samples * x.channels, scale.clone(), shift.clone());
    let x = x.value.clone();
    CudaBackend::on_backward(tape, slot, move |dy, gradients| {
        let (at_x, at_scales, at_shifts) = (x.data.at(), at(&scales), at(&shifts));
        let totals = sums.totals(&gpu, 2, |sums, grid, parts| {
            let parameters = (sums, slope, at_x, dy.at(), statistics.at(), at_scales, at_shifts, parts);
            gpu.launch("norm_slope_sums", grid, 0, parameters);
        });
        sums.add(&gpu, &totals, [0, 2], at(gradients.get_or_alloc_mut(&shift)?));
        sums.add(&gpu, &totals, [1, 2], at(gradients.get_or_alloc_mut(&scale)?));
        let Some(slot) = &x.slot else { return Ok(()) };
        let means = group.map(|group| {
            let means = gpu.take::<f32>(2 * channels);
            let parameters = (sums, int(group), totals.at(), statistics.at(), at_scales, means.at());
            gpu.each("norm_means", channels, parameters);
            means
        });
        let at_means = means.as_ref().map_or(Address::NONE, Buffer::at);
        let dx = gpu.take::<f32>(samples * count);
        let parameters =
            (sums, slope, at_x, dy.at(), statistics.at(), at_scales, at_shifts, at_means, dx.at());
        gpu.launch("norm_data_slope", grid, 0, parameters);
        slot.add(dx);
        Ok(())
    });
    out
}
