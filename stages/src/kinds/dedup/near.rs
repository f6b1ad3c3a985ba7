//! Images that are the same but for intensity scale, noise, grid, mirroring or a small shift.
//!
//! Spectra find the few other images that each may be a copy of: `n²` distances of a hundred numbers, a second for ten
//! thousand images. Only those few are aligned.

use super::exact::{class_remark, label_remark};
use super::groups::Groups;
use super::looks::Look;
use super::order::Ordered;
use super::row;
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{CaseTable, Duplicate, DuplicateKind};
use crate::context::StageContext;
use crate::error::StageError;
use pipe_imaging::similarity::align::{Alignment, align};
use pipe_imaging::similarity::spectrum::{nearest, standardise};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// How many images each is aligned with.
const CANDIDATES: usize = 16;
/// A copy is at least this much nearer than any other image, as a share of what is missing to a correlation of 1:
/// among a thousand chest X-rays of 28×28 pixels many correlate by 0.95, and none of them stands out.
const AHEAD: f64 = 0.5;

/// The pairs that link every group of near duplicates.
pub(super) fn pairs(
    cases: &Ordered<'_>,
    looks: &[Look],
    similarity: f64,
    context: &StageContext,
) -> Result<Vec<Duplicate>, StageError> {
    let mut found = Vec::new();
    for flat in [false, true] {
        let kind: Vec<&Look> =
            looks.iter().filter(|look| look.seen.spectrum.is_some() && look.seen.flat == flat).collect();
        found.extend(aligned(&kind, context)?);
    }
    let best = best_others(&found);
    let clear = |pair: &&Pair| {
        let missing = 1.0 - pair.alignment.correlation;
        let next = best.apart_from(pair, similarity).unwrap_or(0.0);
        pair.alignment.correlation >= similarity && missing <= AHEAD * (1.0 - next)
    };
    let mut same: Vec<&Pair> = found.iter().filter(clear).collect();
    same.sort_by(|a, b| {
        let order = b.alignment.correlation.total_cmp(&a.alignment.correlation);
        order.then((a.one, a.other).cmp(&(b.one, b.other)))
    });
    let mut groups = Groups::default();
    let links: Vec<&Pair> = same.into_iter().filter(|pair| groups.join(pair.one, pair.other)).collect();
    let outside = |pair: &Pair| {
        let group = groups.root(pair.one);
        let others = [pair.one, pair.other].into_iter().flat_map(|case| best.of(case));
        others.filter(|(other, _)| groups.root(*other) != group).map(|(_, score)| score).reduce(f64::max)
    };
    Ok(links
        .into_iter()
        .map(|pair| Duplicate {
            runner_up: outside(pair).map(seven_digits),
            remark: remark(cases.table, pair),
            ..row(cases, pair.one, pair.other, DuplicateKind::NearImage, pair.alignment.correlation.min(1.0))
        })
        .collect())
}

/// Two cases by index, the smaller one first, and how they lie on each other.
struct Pair {
    one: usize,
    other: usize,
    alignment: Alignment,
}

/// Every image aligned with those that its spectrum is nearest to, sorted by pair.
fn aligned(looks: &[&Look], context: &StageContext) -> Result<Vec<Pair>, StageError> {
    let mut spectra: Vec<Vec<f32>> = looks.iter().filter_map(|look| look.seen.spectrum.clone()).collect();
    standardise(&mut spectra);
    let candidates: Vec<Vec<usize>> =
        (0..spectra.len()).into_par_iter().map(|of| nearest(&spectra, of, CANDIDATES)).collect();
    let mut partners: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (one, others) in candidates.iter().enumerate() {
        for &other in others {
            partners.entry(one.min(other)).or_default().insert(one.max(other));
        }
    }
    let align_all = |(&one, others): (&usize, &BTreeSet<usize>)| {
        if context.interrupted() {
            return Err(StageError::Interrupted);
        }
        let mut pairs = Vec::new();
        let own = looks[one].pattern()?;
        for &other in others {
            if let Some(alignment) = align(&own, &looks[other].pattern()?) {
                pairs.push(Pair { one: looks[one].case, other: looks[other].case, alignment });
            }
        }
        Ok(pairs)
    };
    let pairs: Result<Vec<Vec<Pair>>, StageError> = partners.par_iter().map(align_all).collect();
    Ok(pairs?.into_iter().flatten().collect())
}

/// For each case the cases it was aligned with, and how well.
struct Others(BTreeMap<usize, Vec<(usize, f64)>>);

fn best_others(pairs: &[Pair]) -> Others {
    let mut others: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    for pair in pairs {
        others.entry(pair.one).or_default().push((pair.other, pair.alignment.correlation));
        others.entry(pair.other).or_default().push((pair.one, pair.alignment.correlation));
    }
    Others(others)
}

impl Others {
    fn of(&self, case: usize) -> impl Iterator<Item = (usize, f64)> {
        self.0.get(&case).into_iter().flatten().copied()
    }

    /// The best correlation of either case with a third one, unless that one is like both: of three copies none is
    /// ahead of another.
    fn apart_from(&self, pair: &Pair, similarity: f64) -> Option<f64> {
        let like = |case: usize| -> BTreeSet<usize> {
            self.of(case).filter(|(_, score)| *score >= similarity).map(|(other, _)| other).collect()
        };
        let (one, other) = (like(pair.one), like(pair.other));
        [pair.one, pair.other]
            .into_iter()
            .flat_map(|case| self.of(case))
            .filter(|(third, _)| *third != pair.one && *third != pair.other)
            .filter(|(third, _)| !(one.contains(third) && other.contains(third)))
            .map(|(_, score)| score)
            .reduce(f64::max)
    }
}

fn remark(table: &CaseTable, pair: &Pair) -> String {
    let Alignment { mirrored, shift, .. } = pair.alignment;
    let mut parts: Vec<String> = Vec::new();
    let axes: Vec<&str> = ["z", "y", "x"]
        .into_iter()
        .zip(mirrored)
        .filter(|(_, mirrored)| *mirrored)
        .map(|(name, _)| name)
        .collect();
    if !axes.is_empty() {
        parts.push(format!("mirrored along {}", axes.join(", ")));
    }
    if shift != [0; 3] {
        parts.push("shifted".to_owned());
    }
    let (one, other) = (&table.cases[pair.one], &table.cases[pair.other]);
    if one.shape != other.shape {
        let [z, y, x] = one.shape;
        let [oz, oy, ox] = other.shape;
        parts.push(format!("{oz}×{oy}×{ox} voxels in place of {z}×{y}×{x}"));
    }
    let classes = class_remark(one, other);
    if !classes.is_empty() {
        parts.push(classes.to_owned());
    }
    let in_place = mirrored == [false; 3] && shift == [0; 3] && one.shape == other.shape;
    let labels = if in_place { label_remark(one, other) } else { "" };
    if !labels.is_empty() {
        parts.push(labels.to_owned());
    }
    parts.join("; ")
}
