//! Dice of whole validation volumes, through the same forward pass as training.

use crate::NnError;
use crate::backend::Backend;
use crate::batch::{Cut, Loader, copy_cut};
use crate::data::{Case, CaseSource};
use crate::geometry::{Geometry, round_up};
use crate::loss::IGNORE;
use crate::model::Model;
use crate::network::Dims;
use dfdx::prelude::NoneTape;

/// Slices of one forward pass in 2D.
const SLICES: usize = 16;

/// Voxels of one label in one case.
#[derive(Clone, Copy, Default)]
struct Counts {
    both: usize,
    predicted: usize,
    truth: usize,
}

/// Mean Dice of each foreground label over the cases in which it occurs or is predicted; `None` where it never does.
///
/// A 3D case runs whole, a 2D case slice by slice; each is zero-padded at the far sides to at least `patch`, and to
/// a multiple that the network takes. Returns `None` when `should_stop` fired.
pub(crate) fn dice_per_label<B: Backend>(
    model: &Model<B>,
    source: &dyn CaseSource,
    patch: [usize; 3],
    should_stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Option<f64>>>, NnError> {
    let labels = model.network().classes - 1;
    let (mut sums, mut cases) = (vec![0.0; labels], vec![0_usize; labels]);
    let mut loader = Loader::new(source, "validation");
    for index in 0..source.len() {
        if should_stop() {
            return Ok(None);
        }
        let counts = count_overlap(model, &loader.case(index)?, patch);
        for (label, counts) in counts.iter().enumerate() {
            let size = counts.predicted + counts.truth;
            if size > 0 {
                sums[label] += 2.0 * counts.both as f64 / size as f64;
                cases[label] += 1;
            }
        }
    }
    let mean = |(sum, count): (&f64, &usize)| (*count > 0).then(|| sum / *count as f64);
    Ok(Some(sums.iter().zip(&cases).map(mean).collect()))
}

/// Overlap of the foreground labels of one case; ignored voxels count nowhere.
fn count_overlap<B: Backend>(model: &Model<B>, case: &Case, patch: [usize; 3]) -> Vec<Counts> {
    let network = model.network();
    let (channels, classes) = (network.in_channels, network.classes);
    let mut counts = vec![Counts::default(); classes - 1];
    let [depth, height, width] = case.shape;
    let (blocks, extent) = match network.dims {
        Dims::Three => (vec![(0..depth).collect::<Vec<_>>()], case.shape),
        Dims::Two => {
            let slices: Vec<usize> = (0..depth).collect();
            (slices.chunks(SLICES).map(<[usize]>::to_vec).collect(), [1, height, width])
        }
    };
    let size = round_up(std::array::from_fn(|a| extent[a].max(patch[a])), network.multiple);
    for block in blocks {
        let (samples, voxels) = (block.len() / extent[0], size.iter().product::<usize>());
        let geometry = Geometry { samples, size };
        let mut image = vec![0.0; geometry.rows() * channels];
        let mut labels = vec![IGNORE; geometry.rows()];
        let places = image.chunks_exact_mut(voxels * channels).zip(labels.chunks_exact_mut(voxels));
        for (slices, (image, labels)) in block.chunks(extent[0]).zip(places) {
            let region = [slices[0]..slices[0] + extent[0], 0..height, 0..width];
            let cut = Cut { region, offset: [0; 3], flips: [false; 3] };
            copy_cut(case, channels, &cut, size, image, labels);
        }
        let input = model.backend().input(image, geometry, channels, false);
        let logits = model.backend().read(&model.run(&mut NoneTape, input));
        for (logits, label) in logits.chunks_exact(classes).zip(&labels) {
            if *label == IGNORE {
                continue;
            }
            let (predicted, truth) = (largest(logits), usize::from(*label));
            for (class, counts) in (1..).zip(&mut counts) {
                counts.both += usize::from(predicted == class && truth == class);
                counts.predicted += usize::from(predicted == class);
                counts.truth += usize::from(truth == class);
            }
        }
    }
    counts
}

/// The first class with the largest logit.
fn largest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = class;
        }
    }
    best
}
