//! Label maps that nearly equal each other although the images differ.

use super::groups::Groups;
use super::order::Ordered;
use super::row;
use crate::artifacts::{CaseTable, Duplicate, DuplicateKind};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::open;
use pipe_imaging::LabelMap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// From this Dice coefficient on, over all labels together, two people would not have drawn the two.
const DICE: f64 = 0.98;
/// Number of foreground voxels that may differ, relative, and how far apart the centres may lie, in voxels: what a
/// Dice coefficient of [`DICE`] allows at most, generously.
const SIZE: f64 = 1.05;
const CENTRE: f64 = 2.0;

/// Where the foreground lies. Depends on the label map alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Place {
    voxels: u64,
    /// Mean of its voxels, z, y, x.
    centre: [f64; 3],
}

/// The pairs that link every group among the cases with these indices; all have a label map that is not empty.
pub(super) fn pairs(
    cases: &Ordered<'_>,
    among: &[usize],
    context: &StageContext,
) -> Result<Vec<Duplicate>, StageError> {
    let table = cases.table;
    let places: Result<Vec<(Place, usize)>, StageError> =
        among.par_iter().map(|&index| Ok((place(table, index, context)?, index))).collect();
    let mut places = places?;
    places.sort_by_key(|(place, index)| (place.voxels, *index));
    let mut candidates = Vec::new();
    for (position, (own, one)) in places.iter().enumerate() {
        let reach = own.voxels as f64 * SIZE;
        let near = places[position + 1..].iter().take_while(|(place, _)| place.voxels as f64 <= reach);
        let like = near.filter(|(place, other)| {
            let distance: f64 = (0..3).map(|axis| (place.centre[axis] - own.centre[axis]).powi(2)).sum();
            table.cases[*one].shape == table.cases[*other].shape && distance <= CENTRE * CENTRE
        });
        candidates.extend(like.map(|(_, other)| (*one, *other)));
    }
    let score = |&(one, other): &(usize, usize)| Ok((dice(table, one, other, context)?, one, other));
    let scored: Result<Vec<(f64, usize, usize)>, StageError> = candidates.par_iter().map(score).collect();
    let mut same = scored?;
    same.retain(|(dice, ..)| *dice >= DICE);
    same.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut groups = Groups::default();
    let linked = same.into_iter().filter(|(_, one, other)| groups.join(*one, *other));
    Ok(linked
        .map(|(dice, one, other)| Duplicate {
            remark: "the images differ: one of the two is labelled wrongly".into(),
            ..row(cases, one, other, DuplicateKind::NearLabel, dice)
        })
        .collect())
}

fn place(table: &CaseTable, index: usize, context: &StageContext) -> Result<Place, StageError> {
    let key = json!({ "label": table.cases[index].label.as_ref().map(|file| file.digest) });
    context.memo(&key, &context.scratch, |_| {
        let label = label(table, index, context)?;
        let mut sums = [0_u64; 3];
        let mut voxels = 0;
        for ((z, y, x), value) in label.voxels().indexed_iter() {
            if *value != 0 {
                voxels += 1;
                for (sum, at) in sums.iter_mut().zip([z, y, x]) {
                    *sum += at as u64;
                }
            }
        }
        Ok(Place { voxels, centre: sums.map(|sum| sum as f64 / voxels.max(1) as f64) })
    })
}

fn label(table: &CaseTable, index: usize, context: &StageContext) -> Result<LabelMap, StageError> {
    let case = &table.cases[index];
    open::label(case, context)?.ok_or_else(|| {
        StageError::Internal(format!("case `{}` has the digest of a label map and no label map", case.id))
    })
}

/// `2·|same label| / (|a| + |b|)` over the voxels that are not background in either.
fn dice(table: &CaseTable, one: usize, other: usize, context: &StageContext) -> Result<f64, StageError> {
    if context.interrupted() {
        return Err(StageError::Interrupted);
    }
    let (one, other) = (label(table, one, context)?, label(table, other, context)?);
    if one.shape() != other.shape() {
        return Ok(0.0);
    }
    let (mut both, mut sum) = (0_u64, 0_u64);
    for (a, b) in one.as_slice().iter().zip(other.as_slice()) {
        both += u64::from(*a != 0 && a == b);
        sum += u64::from(*a != 0) + u64::from(*b != 0);
    }
    Ok(2.0 * both as f64 / sum as f64)
}
