//! The loss of a batch: the kernels sum, the host makes the value of the sums as the CPU's loss does.
#![expect(unsafe_code, reason = "a plain struct goes to the kernels by value")]

use std::rc::Rc;

use cudarc::driver::DeviceRepr;
use dfdx::prelude::*;

use super::super::{Act, Labels, Recorder};
use super::DeviceValue;
use super::gpu::{Address, Buffer, Gpu, int};
use super::sums::Sums;
use crate::kernels::{LossShape, LossSums, loss_slopes, loss_value};
use crate::loss::{LossTerms, VoxelTerm};

/// `Loss` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct LossRows {
    rows: i32,
    classes: i32,
    term: i32,
    gamma: f32,
}

// SAFETY: plain numbers in the order of the kernels' struct.
unsafe impl DeviceRepr for LossRows {}

impl LossRows {
    fn new(rows: usize, classes: usize, terms: &LossTerms) -> Self {
        let (term, gamma) = match terms.voxel {
            None => (0, 0.0),
            Some(VoxelTerm::Softmax { gamma }) => (1, gamma),
            Some(VoxelTerm::Sigmoid) => (2, 0.0),
            Some(VoxelTerm::Square) => (3, 0.0),
        };
        Self { rows: int(rows), classes: int(classes), term, gamma }
    }
}

/// The loss, recorded on `tape`.
pub(super) fn loss<T: Recorder<Cuda>>(
    gpu: &Rc<Gpu>,
    mut tape: T,
    logits: &Act<DeviceValue>,
    labels: &Labels,
    terms: &LossTerms,
) -> Tensor<(), f32, Cuda, T> {
    let (geometry, classes) = (logits.geometry, logits.channels);
    let rows = geometry.rows();
    assert_eq!(labels.len(), rows, "internal error: labels length");
    let sizes = LossRows::new(rows, classes, terms);
    let gpu = gpu.clone();
    let on_device = gpu.upload::<u8>(labels);
    let weights: Vec<f32> = (0..classes).map(|class| terms.class_weight(class)).collect();
    let weights = gpu.upload(&weights);
    let (scores, voxels) = (gpu.take::<f32>(rows * classes), gpu.take::<f32>(rows * 3));
    let (logits_at, labels_at) = (logits.value.data.at(), on_device.at());
    let parameters = (sizes, logits_at, labels_at, weights.at(), scores.at(), voxels.at());
    gpu.each("loss_rows", rows, parameters);

    let shape = LossShape { terms, geometry, classes, labels };
    let totals = Sums::over(1, rows, 3).totals(&gpu, 1, |sums, grid, parts| {
        gpu.launch("column_sums", grid, 0, (sums, voxels.at(), parts));
    });
    let [loss, weight, _] = totals.read::<f64>()[..] else { unreachable!("three sums were asked for") };
    let mut sums = LossSums { loss, weight, ..LossSums::default() };
    let groups = shape.groups();
    if terms.region.is_some() {
        let totals = Sums::over(groups, rows / groups, classes).totals(&gpu, 3, |sums, grid, parts| {
            gpu.launch("region_sums", grid, 0, (sums, scores.at(), labels_at, parts));
        });
        for group in totals.read::<f64>().chunks_exact(3 * classes) {
            sums.overlap.extend(&group[..classes]);
            sums.predicted.extend(&group[classes..2 * classes]);
            sums.truth.extend(&group[2 * classes..]);
        }
    }
    let value = gpu.dfdx.tensor(loss_value(&shape, &sums));
    let (ghost, slot) = (value.ghost(), logits.value.slot.clone());
    let (labels, terms) = (labels.clone(), terms.clone());
    tape.add_backward_op(move |gradients| {
        let Some(slot) = slot else { return Ok(()) };
        gradients.get_or_alloc_mut(&ghost)?;
        let upstream = gradients.get(&ghost).as_vec()[0];
        let shape = LossShape { terms: &terms, geometry, classes, labels: &labels };
        let slopes = loss_slopes(&shape, &sums, upstream);
        let groups = slopes.everywhere.chunks_exact(classes).zip(slopes.at_label.chunks_exact(classes));
        let regions: Vec<f32> = groups.flat_map(|(all, label)| [all, label].concat()).collect();
        let regions = (!regions.is_empty()).then(|| gpu.upload(&regions));
        let regions_at = regions.as_ref().map_or(Address::NONE, Buffer::at);
        let group_rows = int(rows / shape.groups());
        let (each, per_class) = (slopes.each, slopes.per_class);
        let (labels, weights) = (on_device.at(), weights.at());
        let parameters = (sizes, group_rows, each, per_class, labels, weights, regions_at, scores.at());
        gpu.each("loss_slope", rows, parameters);
        slot.add(scores);
        Ok(())
    });
    value.put_tape(tape)
}
