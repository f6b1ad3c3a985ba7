//! Loss and scores of whole validation cases, through the same forward pass that predicts.

use crate::NnError;
use crate::backend::{Act, Backend, Labels};
use crate::batch::{Cut, Loader, copy_cut};
use crate::data::{Case, CaseSource};
use crate::geometry::{Geometry, round_up};
use crate::loss::{IGNORE, LossTerms};
use crate::model::Model;
use crate::network::{Dims, Task};
use crate::progress::{Score, Validation};
use crate::sliding::tell_in_tiles;
use dfdx::prelude::*;

/// Slices of one forward pass in 2D.
const SLICES: usize = 16;
/// Volumes with more voxels than this, and than eight patches, run in tiles.
const WHOLE: usize = 1 << 21;

/// Voxels of one label in one case.
#[derive(Clone, Copy, Default)]
struct Counts {
    both: usize,
    predicted: usize,
    truth: usize,
}

/// The logits of a whole case: `(rows, classes)`, and the label of each row.
struct Told {
    logits: Vec<f32>,
    labels: Labels,
    geometry: Geometry,
}

/// Loss and score over whole cases; `None` when `should_stop` fired.
///
/// A 3D case runs whole, or in tiles of `patch` where it is much larger; a 2D case slice by slice. Each is zero-padded at the
/// far sides to at least `patch`, and to a multiple that the network takes. A class of a whole image is told by the mean softmax of its slices.
pub(crate) fn validate<B: Backend>(
    model: &Model<B>,
    source: &dyn CaseSource,
    patch: [usize; 3],
    terms: &LossTerms,
    should_stop: &dyn Fn() -> bool,
) -> Result<Option<Validation>, NnError> {
    let classes = model.network().classes;
    let (mut sums, mut cases) = (vec![0.0; classes - 1], vec![0_usize; classes - 1]);
    let mut answers = Vec::new();
    let mut loss = 0.0;
    let mut loader = Loader::new(source, "validation");
    for index in 0..source.len() {
        if should_stop() {
            return Ok(None);
        }
        let case = loader.case(index)?;
        let told = tell(model, &case, patch);
        loss += f64::from(case_loss(model.backend(), &told, classes, terms));
        match model.network().task {
            Task::Segmentation => {
                for (label, counts) in count_overlap(&told, classes).iter().enumerate() {
                    let size = counts.predicted + counts.truth;
                    if size > 0 {
                        sums[label] += 2.0 * counts.both as f64 / size as f64;
                        cases[label] += 1;
                    }
                }
            }
            Task::Classification => answers.push((mean_softmax(&told.logits, classes), case.label[0])),
        }
    }
    let score = match model.network().task {
        Task::Segmentation => {
            let mean = |(sum, count): (&f64, &usize)| (*count > 0).then(|| sum / *count as f64);
            Score::Dice(sums.iter().zip(&cases).map(mean).collect())
        }
        Task::Classification => classes_score(&answers, classes),
    };
    Ok(Some(Validation { loss: loss / source.len() as f64, score }))
}

fn case_loss<B: Backend>(backend: &B, told: &Told, classes: usize, terms: &LossTerms) -> f32 {
    let logits: Act<B::Value> = backend.input(told.logits.clone(), told.geometry, classes, false);
    backend.loss(NoneTape, &logits, &told.labels, terms).as_vec()[0]
}

/// Runs the network over all of a case.
fn tell<B: Backend>(model: &Model<B>, case: &Case, patch: [usize; 3]) -> Told {
    let network = model.network();
    let channels = network.in_channels;
    let [depth, height, width] = case.shape;
    let (blocks, extent) = match network.dims {
        Dims::Three => (vec![(0..depth).collect::<Vec<_>>()], case.shape),
        Dims::Two => {
            let slices: Vec<usize> = (0..depth).collect();
            (slices.chunks(SLICES).map(<[usize]>::to_vec).collect(), [1, height, width])
        }
    };
    let size = match network.fixed_size {
        Some(size) => size,
        None => round_up(std::array::from_fn(|a| extent[a].max(patch[a])), network.multiple),
    };
    let voxels = |size: [usize; 3]| size.iter().product::<usize>();
    let large = network.dims == Dims::Three && network.task == Task::Segmentation;
    if large && voxels(size) > WHOLE.max(8 * voxels(patch)) {
        let (logits, labels, size) = tell_in_tiles(model, case, patch);
        return Told { logits, labels: labels.into(), geometry: Geometry { samples: 1, size } };
    }
    let (mut logits, mut all_labels) = (Vec::new(), Vec::new());
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
        logits.extend(model.backend().read(&model.run(&mut NoneTape, input)));
        match network.task {
            Task::Segmentation => all_labels.extend(labels),
            Task::Classification => all_labels.extend(vec![case.label[0]; samples]),
        }
    }
    let size = if network.task == Task::Segmentation { size } else { [1; 3] };
    let samples = all_labels.len() / size.iter().product::<usize>();
    Told { logits, labels: all_labels.into(), geometry: Geometry { samples, size } }
}

/// Overlap of the foreground labels of one case; ignored voxels count nowhere.
fn count_overlap(told: &Told, classes: usize) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); classes - 1];
    for (logits, label) in told.logits.chunks_exact(classes).zip(told.labels.iter()) {
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
    counts
}

/// The first class with the largest value.
fn largest<T: PartialOrd>(values: &[T]) -> usize {
    let mut best = 0;
    for (class, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = class;
        }
    }
    best
}

/// Mean over rows of the softmax.
fn mean_softmax(logits: &[f32], classes: usize) -> Vec<f64> {
    let rows = (logits.len() / classes) as f64;
    let mut mean = vec![0.0; classes];
    for row in logits.chunks_exact(classes) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f64> = row.iter().map(|z| f64::from(z - top).exp()).collect();
        let total: f64 = exponentials.iter().sum();
        mean.iter_mut().zip(exponentials).for_each(|(mean, e)| *mean += e / total / rows);
    }
    mean
}

/// Accuracy and area under the curve of (probabilities, class) of all cases that have a class.
fn classes_score(answers: &[(Vec<f64>, u8)], classes: usize) -> Score {
    let known: Vec<(&[f64], usize)> = answers
        .iter()
        .filter(|(_, class)| *class != IGNORE)
        .map(|(probabilities, class)| (probabilities.as_slice(), usize::from(*class)))
        .collect();
    let right = known.iter().filter(|(probabilities, class)| largest(probabilities) == *class).count();
    let accuracy = right as f64 / known.len().max(1) as f64;
    let against_rest = |class: usize| {
        let pairs: Vec<(f64, bool)> = known.iter().map(|(p, truth)| (p[class], *truth == class)).collect();
        area_under_curve(&pairs)
    };
    let auc = if classes == 2 {
        against_rest(1)
    } else {
        let each: Option<Vec<f64>> = (0..classes).map(against_rest).collect();
        each.map(|each| each.iter().sum::<f64>() / classes as f64)
    };
    Score::Classes { accuracy, auc }
}

/// Area under the ROC curve of (score, positive): the share of pairs of a positive and a negative in which the positive
/// scores higher, ties half (Mann-Whitney). `None` where there is no such pair.
pub(crate) fn area_under_curve(pairs: &[(f64, bool)]) -> Option<f64> {
    let positives = pairs.iter().filter(|(_, positive)| *positive).count();
    let negatives = pairs.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Sum over positives of their mean rank, counted from 1.
    let mut ranks = 0.0;
    let mut start = 0;
    while start < sorted.len() {
        let ties = sorted[start..].iter().take_while(|(score, _)| *score == sorted[start].0).count().max(1);
        let rank = (2 * start + ties + 1) as f64 / 2.0;
        ranks += rank * sorted[start..start + ties].iter().filter(|(_, positive)| *positive).count() as f64;
        start += ties;
    }
    let least = (positives * (positives + 1)) as f64 / 2.0;
    Some((ranks - least) / (positives * negatives) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(f64, bool)], expected: Option<f64>) {
        assert_eq!(area_under_curve(pairs), expected);
    }

    #[test]
    fn the_area_under_the_curve_counts_pairs_in_order() {
        check(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)], Some(0.75));
        check(&[(0.5, true), (0.5, false)], Some(0.5));
        check(&[(0.2, false), (0.5, true), (0.5, false), (0.9, true)], Some(0.875));
        check(&[(1.0, true), (0.0, false)], Some(1.0));
        check(&[(1.0, true)], None);
    }

    #[test]
    fn more_than_two_classes_are_each_told_from_the_others() {
        let answer = |p: [f64; 3], class| (p.to_vec(), class);
        let answers = [
            answer([0.8, 0.1, 0.1], 0),
            answer([0.1, 0.8, 0.1], 1),
            answer([0.2, 0.7, 0.1], 2),
            answer([0.3, 0.3, 0.4], 2),
            answer([0.0, 0.0, 1.0], IGNORE),
        ];
        // 0 against the rest: 1; 1: 1; 2: its 0.1 ties with both others, its 0.4 beats them: 3 of 4.
        let Score::Classes { accuracy, auc } = classes_score(&answers, 3) else { panic!("classes") };
        assert_eq!(accuracy, 0.75);
        assert!((auc.unwrap() - (1.0 + 1.0 + 0.75) / 3.0).abs() < 1e-12);
    }
}
