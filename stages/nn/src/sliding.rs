//! Logits of volumes that are too large to run whole: tiles of the patch that overlap by half, each voxel the mean of all
//! that show it. What a prediction does as well, so that memory does not grow with the volume.

use dfdx::prelude::*;

use crate::backend::Backend;
use crate::batch::{Cut, copy_cut};
use crate::data::Case;
use crate::geometry::Geometry;
use crate::loss::IGNORE;
use crate::model::Model;

/// Where tiles begin on an axis: as few as overlap by half, spread evenly from end to end.
fn starts(size: usize, tile: usize) -> Vec<usize> {
    let room = size.saturating_sub(tile);
    let steps = room.div_ceil((tile / 2).max(1));
    (0..=steps).map(|index| (index * room + steps / 2).checked_div(steps).unwrap_or(0)).collect()
}

/// Logits and labels of a 3D case: `(rows, classes)` and `(rows)` of a volume of the returned size, which is that of the case,
/// where it is smaller that of `patch`.
pub(crate) fn tell_in_tiles<B: Backend>(
    model: &Model<B>,
    case: &Case,
    patch: [usize; 3],
) -> (Vec<f32>, Vec<u8>, [usize; 3]) {
    let (channels, classes) = (model.network().in_channels, model.network().classes);
    let size: [usize; 3] = std::array::from_fn(|axis| case.shape[axis].max(patch[axis]));
    let voxels: usize = size.iter().product();
    let (mut sums, mut counts) = (vec![0.0_f32; voxels * classes], vec![0.0_f32; voxels]);
    let geometry = Geometry { samples: 1, size: patch };
    let axes: [Vec<usize>; 3] = std::array::from_fn(|axis| starts(size[axis], patch[axis]));
    for &z in &axes[0] {
        for &y in &axes[1] {
            for &x in &axes[2] {
                let start = [z, y, x];
                let mut image = vec![0.0; geometry.voxels() * channels];
                let mut labels = vec![IGNORE; geometry.voxels()];
                let region = [0, 1, 2].map(|a| start[a]..(start[a] + patch[a]).min(case.shape[a]));
                let cut = Cut { region, offset: [0; 3], flips: [false; 3] };
                copy_cut(case, channels, &cut, patch, &mut image, &mut labels);
                let input = model.backend().input(image, geometry, channels, false);
                let logits = model.backend().read(&model.run(&mut NoneTape, input));
                for (voxel, logits) in logits.chunks_exact(classes).enumerate() {
                    let at = [voxel / (patch[1] * patch[2]), voxel / patch[2] % patch[1], voxel % patch[2]];
                    let [z, y, x] = [0, 1, 2].map(|a| start[a] + at[a]);
                    let row = (z * size[1] + y) * size[2] + x;
                    counts[row] += 1.0;
                    sums[row * classes..][..classes].iter_mut().zip(logits).for_each(|(sum, v)| *sum += v);
                }
            }
        }
    }
    for (sums, count) in sums.chunks_exact_mut(classes).zip(&counts) {
        for sum in sums {
            *sum /= count;
        }
    }
    let mut labels = vec![IGNORE; voxels];
    let region = case.shape.map(|size| 0..size);
    let cut = Cut { region, offset: [0; 3], flips: [false; 3] };
    copy_cut(case, 0, &cut, size, &mut [], &mut labels);
    (sums, labels, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, CpuBackend, Dims, Initialization, Io, Norm, UNet};

    #[track_caller]
    fn check(size: usize, tile: usize, expected: &[usize]) {
        assert_eq!(starts(size, tile), expected);
    }

    #[test]
    fn tiles_reach_both_ends_and_overlap_by_half() {
        check(8, 8, &[0]);
        check(5, 8, &[0]);
        check(12, 8, &[0, 4]);
        check(13, 8, &[0, 3, 5]);
        check(20, 8, &[0, 4, 8, 12]);
        check(3, 1, &[0, 1, 2]);
    }

    #[test]
    fn a_network_that_sees_one_voxel_tells_the_same_in_tiles_as_whole() {
        // Nothing depends on neighbours: pointwise, and batch normalisation by its running means.
        let unet = UNet {
            levels: 1,
            kernels: Some(vec![[1; 3]]),
            base_features: Some(3),
            norm: Norm::Batch,
            activation: Activation::Tanh,
            ..UNet::default()
        };
        let network = unet.network(Dims::Three, Io { channels: 2, classes: 3, size: [1; 3] }).unwrap();
        let model = Model::new(CpuBackend::default(), network, Initialization::XavierNormal, 1);
        let shape = [5, 9, 3];
        let image: Vec<f32> = (0..270).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let label: Vec<u8> = (0..135).map(|i| (i % 3) as u8).collect();
        let case = Case { id: "c".into(), shape, image: image.clone().into(), label: label.clone().into() };
        let (logits, labels, size) = tell_in_tiles(&model, &case, [4, 4, 4]);
        assert_eq!(size, [5, 9, 4]);
        let whole = model.forward(&image, Geometry { samples: 1, size: shape }).unwrap();
        for row in 0..180 {
            let [z, y, x] = [row / 36, row / 4 % 9, row % 4];
            let inside = (z * 9 + y) * 3 + x;
            assert_eq!(labels[row], if x < 3 { label[inside] } else { IGNORE });
            for class in (0..3).filter(|_| x < 3) {
                let (found, expected) = (logits[row * 3 + class], whole[class * 135 + inside]);
                // A mean of equal values, rounded once for each.
                assert!((found - expected).abs() < 1e-6, "{found} at {row}, expected {expected}");
            }
        }
    }
}
