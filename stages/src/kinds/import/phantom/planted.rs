//! Cases that a look at the data should find.

use super::draw::Draw;
use super::volumes::{case, file_name, other};
use super::{Cohort, Planted};
use crate::artifacts::Dataset;
use crate::error::StageError;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use std::path::Path;

/// The number of the first planted case and of every second one after it: each is half of a pair of its own.
fn planted_index(cohort: &Cohort, number: usize) -> usize {
    cohort.cases.next_multiple_of(2) + 2 * number
}

/// Writes the planted cases and returns the names of those that have both files; the others are listed nowhere, as in
/// real data sets.
pub(super) fn write(cohort: &Cohort, root: &Path) -> Result<Vec<String>, StageError> {
    let Planted { duplicates, near, labels, defects, .. } = cohort.planted;
    let kinds = [
        (duplicates, Plant::Duplicate),
        (near, Plant::Near),
        (labels, Plant::Label),
        (defects, Plant::Defect),
    ];
    let mut names = Vec::new();
    let mut number = 0;
    for (count, kind) in kinds {
        for turn in 0..count {
            let index = planted_index(cohort, number);
            let source = (7 * number + 1) % cohort.cases;
            number += 1;
            let (image, label) = kind.case(cohort, turn, source, index);
            // A copy of other bytes is a copy still.
            let end = if kind == Plant::Duplicate { ".nii" } else { ".nii.gz" };
            let name = file_name(cohort, index).replace(".nii.gz", end);
            let doing = || format!("writing phantom `{name}`");
            nifti::write_image(&root.join(Dataset::IMAGES).join(&name), &image)
                .map_err(StageError::inner(doing()))?;
            if let Some(label) = label {
                nifti::write_label(&root.join(Dataset::LABELS).join(&name), &label)
                    .map_err(StageError::inner(doing()))?;
                names.push(name);
            }
        }
    }
    Ok(names)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    Duplicate,
    Near,
    Label,
    Defect,
}

impl Plant {
    fn case(self, cohort: &Cohort, turn: usize, source: usize, index: usize) -> (Image, Option<LabelMap>) {
        let (image, label) = case(cohort, source);
        match self {
            Self::Duplicate => (image, label),
            Self::Near => changed(cohort, turn, &image, label.as_ref()),
            // Another image on the same grid: of the patient, with all that differs between sides.
            Self::Label => (other(cohort, source, index).0, label),
            Self::Defect => {
                let (mut image, own) = case(cohort, index);
                match turn % 3 {
                    0 => (image, None),
                    1 => {
                        let [z, y, x] = image.shape().0;
                        let geometry = Geometry::new([z, y, x + 1], image.geometry().affine);
                        let larger = LabelMap::from_vec(vec![1; z * y * (x + 1)], geometry);
                        (image, Some(larger.expect("one label a voxel")))
                    }
                    _ => {
                        image.as_mut_slice()[0] = f32::NAN;
                        (image, own)
                    }
                }
            }
        }
    }
}

/// A copy that is not equal: rescaled, mirrored, noisy or shifted by a voxel, in turn.
pub(super) fn changed(
    cohort: &Cohort,
    turn: usize,
    image: &Image,
    label: Option<&LabelMap>,
) -> (Image, Option<LabelMap>) {
    let [depth, height, width] = image.shape().0;
    let geometry = *image.geometry();
    let from = |voxel: usize| {
        let (z, y, x) = (voxel / (height * width), voxel / width % height, voxel % width);
        let [z, y, x] = match turn % 4 {
            1 => [z, y, width - 1 - x],
            3 => [(z + 1).min(depth - 1), y.saturating_sub(1), (x + 1).min(width - 1)],
            _ => [z, y, x],
        };
        (z * height + y) * width + x
    };
    let voxels = depth * height * width;
    let mut noise = Draw::new(cohort.seed, "planted noise", turn);
    let mut values: Vec<f32> = Vec::with_capacity(image.as_slice().len());
    for channel in 0..image.channels() {
        let own = image.channel(channel);
        let largest = own.iter().copied().fold(0.0, f32::max);
        values.extend((0..voxels).map(|voxel| {
            let value = own[from(voxel)];
            match turn % 4 {
                0 => 0.4 * value + 0.1 * largest,
                2 => value + 0.02 * largest * noise.normal() as f32,
                _ => value,
            }
        }));
    }
    let moved = |label: &LabelMap| {
        let labels = (0..voxels).map(|voxel| label.as_slice()[from(voxel)]).collect();
        LabelMap::from_vec(labels, geometry).expect("one label a voxel")
    };
    (Image::from_vec(values, image.channels(), geometry).expect("one value a voxel"), label.map(moved))
}
