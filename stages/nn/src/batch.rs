//! Cuts samples out of cases and stacks them into batches: which samples an epoch visits, in which order, and where
//! each is cropped, padded and mirrored. Everything follows from (seed, epoch, place in the epoch).

use std::collections::VecDeque;

use rayon::prelude::*;

use crate::NnError;
use crate::augment::spatial::Warp;
use crate::augment::{Augment, Draw, Place, intensity, mix};
use crate::backend::Labels;
use crate::data::{self, Case, CaseSource};
use crate::geometry::{Geometry, round_up};
use crate::loss::IGNORE;
use crate::network::{Dims, Network, Task};
use crate::rng::{Rng, Stream};

/// Cases whose slices are shuffled together in 2D, and half the cases kept loaded: memory is bounded, and each case
/// is loaded about once an epoch.
const SHUFFLE_CASES: usize = 32;

/// A whole volume (3D) or one slice along z (2D) of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) case: usize,
    /// The slice; `None` in 3D.
    pub(crate) slice: Option<usize>,
}

/// Samples stacked for one forward pass.
pub(crate) struct Batch {
    pub(crate) geometry: Geometry,
    /// `[n, z, y, x, channels]`.
    pub(crate) image: Vec<f32>,
    /// `[n, z, y, x]`, padding is [`IGNORE`]; `[n]` for classes of whole images.
    pub(crate) labels: Labels,
    /// Labels of the samples that were mixed in, and their share of the loss.
    pub(crate) mixed: Option<(Labels, f32)>,
    pub(crate) ids: Vec<String>,
}

/// The samples of one epoch in the order they are visited.
pub(crate) fn epoch_samples(dims: Dims, shapes: &[[usize; 3]], seed: u64, epoch: usize) -> Vec<Sample> {
    let mut cases: Vec<usize> = (0..shapes.len()).collect();
    Rng::new(seed, Stream::Shuffle, [epoch as u64, 0]).shuffle(&mut cases);
    if dims == Dims::Three {
        return cases.into_iter().map(|case| Sample { case, slice: None }).collect();
    }
    let mut samples = Vec::new();
    for (group, cases) in cases.chunks(SHUFFLE_CASES).enumerate() {
        let slices =
            cases.iter().flat_map(|&case| (0..shapes[case][0]).map(move |z| Sample { case, slice: Some(z) }));
        let mut slices: Vec<Sample> = slices.collect();
        Rng::new(seed, Stream::Shuffle, [epoch as u64, 1 + group as u64]).shuffle(&mut slices);
        samples.extend(slices);
    }
    samples
}

/// The patch that holds every case whole: per axis the largest size, rounded up to a multiple the network takes. In
/// 2D its depth is 1.
pub(crate) fn covering_patch(network: &Network, shapes: &[[usize; 3]]) -> [usize; 3] {
    let mut largest: [usize; 3] =
        std::array::from_fn(|a| shapes.iter().map(|shape| shape[a]).max().unwrap_or(1));
    if network.dims == Dims::Two {
        largest[0] = 1;
    }
    network.fixed_size.unwrap_or_else(|| round_up(largest, network.multiple))
}

/// Loads cases and keeps the latest ones.
pub(crate) struct Loader<'a> {
    source: &'a dyn CaseSource,
    split: &'static str,
    held: VecDeque<(usize, Case)>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(source: &'a dyn CaseSource, split: &'static str) -> Self {
        Self { source, split, held: VecDeque::new() }
    }

    pub(crate) fn case(&mut self, index: usize) -> Result<Case, NnError> {
        if let Some((_, case)) = self.held.iter().find(|(held, _)| *held == index) {
            return Ok(case.clone());
        }
        let case = data::load(self.source, self.split, index)?;
        if self.held.len() == 2 * SHUFFLE_CASES {
            self.held.pop_front();
        }
        self.held.push_back((index, case.clone()));
        Ok(case)
    }
}

/// How the samples of a batch are cut.
pub(crate) struct Cutter<'a> {
    pub(crate) network: &'a Network,
    pub(crate) patch: [usize; 3],
    pub(crate) seed: u64,
    pub(crate) augmentation: Augment,
    /// Share of the samples that are cut around a voxel of a foreground class.
    pub(crate) foreground: f32,
}

impl Cutter<'_> {
    /// Stacks `samples`, each cut and changed on a thread of its own; `first` is the place of the first in its epoch.
    pub(crate) fn batch(
        &self,
        loader: &mut Loader<'_>,
        samples: &[Sample],
        epoch: usize,
        first: usize,
    ) -> Result<Batch, NnError> {
        let geometry = Geometry { samples: samples.len(), size: self.patch };
        let (voxels, channels) = (geometry.voxels(), self.network.in_channels);
        let cases = samples.iter().map(|sample| loader.case(sample.case)).collect::<Result<Vec<_>, _>>()?;
        let mut image = vec![0.0; geometry.rows() * channels];
        let mut labels = vec![IGNORE; geometry.rows()];
        let places = image.par_chunks_exact_mut(voxels * channels).zip(labels.par_chunks_exact_mut(voxels));
        let sources = samples.par_iter().zip(&cases).enumerate();
        let ids: Vec<String> = sources
            .zip(places)
            .map(|((index, (sample, case)), (image, labels))| {
                let place = Place { seed: self.seed, epoch, index: first + index };
                self.fill(case, sample, place, image, labels)
            })
            .collect();
        let task = self.network.task;
        let labels = match task {
            Task::Segmentation => labels.into(),
            Task::Classification => cases.iter().map(|case| case.label[0]).collect(),
        };
        let mut batch = Batch { geometry, image, labels, mixed: None, ids };
        if let Some(random) = self.augmentation.random() {
            mix::mix(random, self.seed, epoch, first, task, &mut batch);
        }
        Ok(batch)
    }

    /// Fills one sample and returns its name.
    fn fill(
        &self,
        case: &Case,
        sample: &Sample,
        place: Place,
        image: &mut [f32],
        labels: &mut [u8],
    ) -> String {
        let counters = [place.epoch as u64, place.index as u64];
        let mut rng = Rng::new(self.seed, Stream::Crop, counters);
        let (cut, slice) = self.draw(case, sample, place, &mut rng);
        let (channels, size) = (self.network.in_channels, self.patch);
        let random = self.augmentation.random();
        let warp = random.and_then(|random| {
            let start = std::array::from_fn(|axis| cut.region[axis].start as f32 - cut.offset[axis] as f32);
            Warp::draw(random, place, self.network.dims, size, start, cut.flips)
        });
        match warp {
            Some(warp) => warp.fill(case, channels, size, slice, image, labels),
            None => copy_cut(case, channels, &cut, size, image, labels),
        }
        if let Some(random) = random {
            let mut sample = intensity::Sample { image, outside: labels, size, channels };
            intensity::change(random, place, &mut sample);
        }
        match slice {
            Some(z) => format!("{} slice {z}", case.id),
            None => case.id.clone(),
        }
    }

    /// The box of the case, where it goes, and the slice in 2D.
    fn draw(&self, case: &Case, sample: &Sample, place: Place, rng: &mut Rng) -> (Cut, Option<usize>) {
        let wanted = self.foreground > 0.0 && rng.uniform() < self.foreground;
        let focus = if wanted { draw_foreground(case, rng) } else { None };
        let slice = sample.slice.map(|slice| focus.map_or(slice, |[z, _, _]| z));
        let mut region = [0..case.shape[0], 0..case.shape[1], 0..case.shape[2]];
        if let Some(z) = slice {
            region[0] = z..z + 1;
        }
        // Where the case is larger the patch is placed at random in it, else it at random in the patch.
        let mut offset = [0; 3];
        for axis in 0..3 {
            let (size, patch) = (region[axis].len(), self.patch[axis]);
            if size <= patch {
                offset[axis] = rng.below(patch - size + 1);
                continue;
            }
            let first = region[axis].start;
            let (low, high) = match focus {
                // The patch must hold the voxel.
                Some(voxel) => (
                    (voxel[axis] + 1).saturating_sub(patch).max(first),
                    voxel[axis].min(first + size - patch),
                ),
                None => (first, first + size - patch),
            };
            let start = low + rng.below(high - low + 1);
            region[axis] = start..start + patch;
        }
        let allowed = self.augmentation.random().map_or([false; 3], |random| random.flips);
        let mut rng = place.rng(Draw::Flip);
        let flips = allowed.map(|allowed| (rng.next_u64() >> 63 == 1) && allowed);
        (Cut { region, offset, flips }, slice)
    }
}

/// A voxel of a foreground class of the case, each class as likely; `None` where there is none.
fn draw_foreground(case: &Case, rng: &mut Rng) -> Option<[usize; 3]> {
    let mut counts = [0_usize; 256];
    case.label.iter().for_each(|label| counts[usize::from(*label)] += 1);
    (counts[0], counts[usize::from(IGNORE)]) = (0, 0);
    let classes: Vec<usize> = (0..256).filter(|class| counts[*class] > 0).collect();
    if classes.is_empty() || case.label.len() == 1 {
        return None;
    }
    let class = classes[rng.below(classes.len())];
    let which = rng.below(counts[class]);
    let rows = case.label.iter().enumerate().filter(|(_, label)| usize::from(**label) == class);
    let [_, height, width] = case.shape;
    rows.map(|(row, _)| [row / (height * width), row / width % height, row % width]).nth(which)
}

/// A box of a case, where it goes in the patch, and which axes are mirrored on the way.
pub(crate) struct Cut {
    pub(crate) region: [std::ops::Range<usize>; 3],
    pub(crate) offset: [usize; 3],
    pub(crate) flips: [bool; 3],
}

impl Cut {
    /// The place in the patch of the `index`-th voxel of the region on one axis.
    fn target(&self, axis: usize, index: usize) -> usize {
        let size = self.region[axis].len();
        self.offset[axis] + if self.flips[axis] { size - 1 - index } else { index }
    }
}

/// Copies a cut into a patch: `image`: `[z, y, x, channels]`, `labels`: `[z, y, x]`, 0 where the class is that of the
/// whole image. Voxels outside stay as they are.
pub(crate) fn copy_cut(
    case: &Case,
    channels: usize,
    cut: &Cut,
    patch: [usize; 3],
    image: &mut [f32],
    labels: &mut [u8],
) {
    let [_, height, width] = case.shape;
    let volume: usize = case.shape.iter().product();
    let whole_image = case.label.len() != volume;
    for (i, z) in cut.region[0].clone().enumerate() {
        for (j, y) in cut.region[1].clone().enumerate() {
            let to = (cut.target(0, i) * patch[1] + cut.target(1, j)) * patch[2];
            let from = (z * height + y) * width;
            for (k, x) in cut.region[2].clone().enumerate() {
                let target = to + cut.target(2, k);
                labels[target] = if whole_image { 0 } else { case.label[from + x] };
                for channel in 0..channels {
                    image[target * channels + channel] = case.image[channel * volume + from + x];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UNet, architecture::Io};

    fn case(label: &[(usize, u8)]) -> Case {
        let mut labels = vec![0; 20 * 20 * 20];
        for (row, class) in label {
            labels[*row] = *class;
        }
        let image = vec![0.0; labels.len()];
        Case { id: "c".into(), shape: [20; 3], image: image.into(), label: labels.into() }
    }

    /// How many of 200 patches of 4³ hold a foreground voxel, and of which class.
    fn count(foreground: f32, label: &[(usize, u8)]) -> [usize; 3] {
        let unet = UNet { levels: 1, ..UNet::default() };
        let network = unet.network(Dims::Three, Io { channels: 1, classes: 3, size: [4; 3] }).unwrap();
        let augmentation = Augment::none();
        let cutter = Cutter { network: &network, patch: [4; 3], seed: 3, augmentation, foreground };
        let cases = vec![case(label)];
        let mut loader = Loader::new(&cases, "training");
        let mut found = [0; 3];
        for index in 0..200 {
            let batch = cutter.batch(&mut loader, &[Sample { case: 0, slice: None }], 0, index).unwrap();
            (0..3).for_each(|class| found[class] += usize::from(batch.labels.contains(&(class as u8))));
        }
        found
    }

    #[test]
    fn foreground_oversampling_holds_each_class_equally_often() {
        // One voxel of class 1 in a corner, a hundred of class 2 elsewhere.
        let mut label = vec![(0, 1)];
        label.extend((0..100).map(|x| (4000 + x, 2)));
        let all = count(1.0, &label);
        assert_eq!(all[1] + all[2], 200, "every patch holds one: {all:?}");
        // Half of 200, four standard deviations of 7.
        assert!((72..=128).contains(&all[1]), "{all:?}");
        let none = count(0.0, &label);
        assert!(none[1] < 5 && none[2] < 80, "{none:?}");
        assert_eq!(count(1.0, &[])[0], 200, "a case without foreground is cut anywhere");
    }
}
