//! What several people would have drawn on a synthetic case: its label map with every border a little off.

use super::Cohort;
use super::draw::{Draw, Lattice};
use crate::artifacts::FileRef;
use crate::context::ExternalFiles;
use crate::error::StageError;
use crate::kinds::import::layout::{Candidate, Layout, case_id};
use fs_err as fs;
use pipe_imaging::{LabelMap, nifti};
use std::path::Path;

/// More people than any study has.
pub(in super::super) const MAX_ANNOTATORS: usize = 26;
/// Every fourth case is hard to draw.
const HARD: usize = 4;
/// Distance in voxels over which a border wanders from one side to the other.
const WANDER: usize = 5;

/// The folder of an annotator, counted from 1, below the data set.
pub(in super::super) fn folder(number: usize) -> String {
    format!("annotator_{number}")
}

/// Writes what each annotator draws of case `index`.
pub(super) fn write(
    cohort: &Cohort,
    index: usize,
    name: &str,
    label: &LabelMap,
    root: &Path,
) -> Result<(), StageError> {
    for number in 1..=cohort.annotators {
        let dir = root.join(folder(number));
        fs::create_dir_all(&dir).map_err(StageError::io("create", &dir))?;
        nifti::write_label(&dir.join(name), &drawn(cohort, index, number, label)).map_err(
            StageError::inner(format!("writing what annotator {number} drew of phantom `{name}`")),
        )?;
    }
    Ok(())
}

/// The map of an annotator: the value of each voxel is that of one nearby. How near depends on who draws what.
fn drawn(cohort: &Cohort, index: usize, number: usize, label: &LabelMap) -> LabelMap {
    let mut own = Draw::new(cohort.seed, &format!("annotator {number}"), index);
    let hard = if index % HARD == HARD - 1 { 2.0 } else { 1.0 };
    let reach = hard * 0.7 * number as f64;
    let shape = label.shape().0;
    let fields = [(); 3].map(|()| Lattice::draw(shape, WANDER, &mut own));
    let [depth, height, width] = shape;
    let mut values = Vec::with_capacity(label.as_slice().len());
    for z in 0..depth {
        for y in 0..height {
            for x in 0..width {
                let at = [z as f64, y as f64, x as f64];
                let from = [0, 1, 2].map(|axis| {
                    let place = (at[axis] + reach * fields[axis].at(at)).round();
                    place.clamp(0.0, (shape[axis] - 1) as f64) as usize
                });
                values.push(label.as_slice()[(from[0] * height + from[1]) * width + from[2]]);
            }
        }
    }
    LabelMap::from_vec(values, *label.geometry()).expect("one label a voxel")
}

/// Gives every case the maps that its annotators drew.
pub(in super::super) fn attach(annotators: usize, layout: &mut Layout, files: &ExternalFiles) {
    for number in 1..=annotators {
        let annotator = folder(number);
        let own = files
            .files
            .iter()
            .filter(|file| file.path.strip_prefix(&annotator).is_some_and(|rest| rest.starts_with('/')));
        for file in own {
            let reference = FileRef { path: file.path.clone(), digest: file.digest };
            let of = |candidate: &&mut Candidate| candidate.id == case_id(&file.path);
            if let Some(candidate) = layout.candidates.iter_mut().find(of) {
                candidate.annotations.push((annotator.clone(), reference));
            }
        }
    }
    layout
        .candidates
        .iter_mut()
        .for_each(|candidate| candidate.annotations.sort_by(|one, other| one.0.cmp(&other.0)));
}
