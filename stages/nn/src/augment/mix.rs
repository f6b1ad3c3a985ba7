//! Changes that join samples of one batch.

use super::Random;
use super::intensity::{draw_box, for_each_in};
use crate::backend::Labels;
use crate::batch::Batch;
use crate::network::Task;
use crate::rng::{Rng, Stream};

/// Mixes each sample with another one of the batch where the draws call for it; `first` is the place of the batch's first
/// sample in its epoch.
pub(crate) fn mix(random: &Random, seed: u64, epoch: usize, first: usize, task: Task, batch: &mut Batch) {
    let samples = batch.geometry.samples;
    if samples < 2 {
        return;
    }
    let rng = |what: u64| Rng::new(seed, Stream::Mix, [((epoch as u64) << 32) | first as u64, what]);
    let partner = 1 + rng(0).below(samples - 1);
    if let Some(share) = random.mixup.draw(&mut rng(1)) {
        mixup(batch, partner, share);
    }
    let mut rng = rng(2);
    if let Some(share) = random.cutmix.draw(&mut rng) {
        let region = draw_box(&mut rng, batch.geometry.size, share);
        cutmix(batch, partner, &region, task);
    }
}

/// The labels of the samples `partner` places on.
fn turned(labels: &Labels, samples: usize, partner: usize) -> Labels {
    let mut turned = labels.to_vec();
    turned.rotate_left(labels.len() / samples * partner);
    turned.into()
}

/// Every sample becomes `1 - share` of itself and `share` of its partner, and so does the loss.
fn mixup(batch: &mut Batch, partner: usize, share: f32) {
    let samples = batch.geometry.samples;
    let mut other = batch.image.clone();
    other.rotate_left(batch.image.len() / samples * partner);
    batch.image.iter_mut().zip(&other).for_each(|(value, other)| *value += share * (other - *value));
    batch.mixed = Some((turned(&batch.labels, samples, partner), share));
}

/// A box of every sample becomes that of its partner, with its labels; the class of a whole image is shared by volume.
fn cutmix(batch: &mut Batch, partner: usize, region: &[std::ops::Range<usize>; 3], task: Task) {
    let geometry = batch.geometry;
    let (samples, voxels) = (geometry.samples, geometry.voxels());
    let channels = batch.image.len() / geometry.rows();
    let (image, labels) = (batch.image.clone(), batch.labels.clone());
    let mut new_labels = labels.to_vec();
    for sample in 0..samples {
        let other = (sample + partner) % samples;
        for_each_in(region, geometry.size, |voxel| {
            let (to, from) = (sample * voxels + voxel, other * voxels + voxel);
            batch.image[to * channels..][..channels].copy_from_slice(&image[from * channels..][..channels]);
            if task == Task::Segmentation {
                new_labels[to] = labels[from];
            }
        });
    }
    match task {
        // Where the batch was mixed before, the second labels are cut too.
        Task::Segmentation => {
            batch.labels = new_labels.into();
            if let Some((second, _)) = &mut batch.mixed {
                let before = second.clone();
                let mut cut = before.to_vec();
                for sample in 0..samples {
                    let other = (sample + partner) % samples;
                    for_each_in(region, geometry.size, |voxel| {
                        cut[sample * voxels + voxel] = before[other * voxels + voxel];
                    });
                }
                *second = cut.into();
            }
        }
        Task::Classification => {
            let share = region.iter().map(std::ops::Range::len).product::<usize>() as f32 / voxels as f32;
            batch.mixed = Some((turned(&labels, samples, partner), share));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    fn batch(labels: &[u8]) -> Batch {
        Batch {
            geometry: Geometry { samples: 2, size: [1, 2, 2] },
            image: vec![1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0],
            labels: labels.to_vec().into(),
            mixed: None,
            ids: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn mixup_shares_values_and_keeps_both_labels() {
        let mut batch = batch(&[0, 1]);
        mixup(&mut batch, 1, 0.25);
        assert_eq!(batch.image[..2], [0.75 + 2.5, 1.5 + 5.0]);
        assert_eq!(batch.mixed, Some((vec![1, 0].into(), 0.25)));
    }

    #[test]
    fn cutmix_of_a_segmentation_moves_labels_with_their_voxels() {
        let mut batch = batch(&[0, 0, 0, 0, 1, 1, 1, 1]);
        cutmix(&mut batch, 1, &[0..1, 1..2, 0..2], Task::Segmentation);
        assert_eq!(batch.image, [1.0, 2.0, 30.0, 40.0, 10.0, 20.0, 3.0, 4.0]);
        assert_eq!(*batch.labels, [0, 0, 1, 1, 1, 1, 0, 0]);
        assert_eq!(batch.mixed, None);
    }

    #[test]
    fn cutmix_of_whole_images_shares_the_class_by_volume() {
        let mut batch = batch(&[0, 1]);
        cutmix(&mut batch, 1, &[0..1, 1..2, 1..2], Task::Classification);
        assert_eq!(batch.image, [1.0, 2.0, 3.0, 40.0, 10.0, 20.0, 30.0, 4.0]);
        assert_eq!((&*batch.labels, batch.mixed), (&[0, 1][..], Some((vec![1, 0].into(), 0.25))));
    }
}
