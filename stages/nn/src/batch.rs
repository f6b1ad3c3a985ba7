//! Cuts samples out of cases and stacks them into batches: which samples an epoch visits, in which order, and where
//! each is cropped, padded and mirrored. Everything follows from (seed, epoch, place in the epoch).

use std::collections::VecDeque;

use crate::NnError;
use crate::augment::Augmentation;
use crate::backend::Labels;
use crate::data::{self, Case, CaseSource};
use crate::geometry::{Geometry, round_up};
use crate::loss::IGNORE;
use crate::network::{Dims, Network};
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
    /// `[n, z, y, x]`; padding is [`IGNORE`].
    pub(crate) labels: Labels,
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
    round_up(largest, network.multiple)
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
    pub(crate) augmentation: Augmentation,
}

impl Cutter<'_> {
    /// Stacks `samples`; `first` is the place of the first in its epoch.
    pub(crate) fn batch(
        &self,
        loader: &mut Loader<'_>,
        samples: &[Sample],
        epoch: usize,
        first: usize,
    ) -> Result<Batch, NnError> {
        let geometry = Geometry { samples: samples.len(), size: self.patch };
        let (voxels, channels) = (geometry.voxels(), self.network.in_channels);
        let mut image = vec![0.0; geometry.rows() * channels];
        let mut labels = vec![IGNORE; geometry.rows()];
        let mut ids = Vec::with_capacity(samples.len());
        let places = image.chunks_exact_mut(voxels * channels).zip(labels.chunks_exact_mut(voxels));
        for (place, (sample, (image, labels))) in samples.iter().zip(places).enumerate() {
            let case = loader.case(sample.case)?;
            let counters = [epoch as u64, (first + place) as u64];
            let cut = self.draw(&case, sample, counters);
            copy_cut(&case, channels, &cut, self.patch, image, labels);
            let mut rng = Rng::new(self.seed, Stream::Augment, counters);
            self.augmentation.change_intensity(&mut rng, image);
            // Noise and offset belong to the image: padding stays 0.
            clear_padding(labels, image, channels, &cut, self.patch);
            ids.push(match sample.slice {
                Some(z) => format!("{} slice {z}", case.id),
                None => case.id.clone(),
            });
        }
        Ok(Batch { geometry, image, labels: labels.into(), ids })
    }

    fn draw(&self, case: &Case, sample: &Sample, counters: [u64; 2]) -> Cut {
        let mut rng = Rng::new(self.seed, Stream::Crop, counters);
        let mut region = [0..case.shape[0], 0..case.shape[1], 0..case.shape[2]];
        if let Some(z) = sample.slice {
            region[0] = z..z + 1;
        }
        // Where the case is larger the patch is placed at random in it, else it at random in the patch.
        let mut offset = [0; 3];
        for axis in 0..3 {
            let (size, patch) = (region[axis].len(), self.patch[axis]);
            let shift = rng.below(size.abs_diff(patch) + 1);
            if size > patch {
                let start = region[axis].start + shift;
                region[axis] = start..start + patch;
            } else {
                offset[axis] = shift;
            }
        }
        Cut { region, offset, flips: self.augmentation.draw_flips(&mut rng) }
    }
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

/// Copies a cut into a patch: `image`: `[z, y, x, channels]`, `labels`: `[z, y, x]`. Voxels outside stay as they are.
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
    for (i, z) in cut.region[0].clone().enumerate() {
        for (j, y) in cut.region[1].clone().enumerate() {
            let to = (cut.target(0, i) * patch[1] + cut.target(1, j)) * patch[2];
            let from = (z * height + y) * width;
            for (k, x) in cut.region[2].clone().enumerate() {
                let target = to + cut.target(2, k);
                labels[target] = case.label[from + x];
                for channel in 0..channels {
                    image[target * channels + channel] = case.image[channel * volume + from + x];
                }
            }
        }
    }
}

/// Sets the voxels outside the cut to 0 again.
fn clear_padding(labels: &mut [u8], image: &mut [f32], channels: usize, cut: &Cut, patch: [usize; 3]) {
    let inside = |axis: usize, place: usize| {
        (cut.offset[axis]..cut.offset[axis] + cut.region[axis].len()).contains(&place)
    };
    for row in 0..patch[0] * patch[1] {
        let row_inside = inside(0, row / patch[1]) && inside(1, row % patch[1]);
        for x in 0..patch[2] {
            if !(row_inside && inside(2, x)) {
                let place = row * patch[2] + x;
                image[place * channels..][..channels].fill(0.0);
                labels[place] = IGNORE;
            }
        }
    }
}
