//! How far several label maps of one image agree, and what they say together.
//!
//! Maps are `u8` slices of one length, one a rater, in any order of voxels.

use std::collections::BTreeMap;

/// Raters that [`staple`] takes at most: their votes on a voxel are the bits of a number.
pub const MAX_RATERS: usize = 32;

/// Cohen's kappa of two maps, all values taken as classes: agreement beyond chance, 1 for equal maps. NaN when both
/// hold one and the same value everywhere, where chance explains all. Source: Cohen, "A Coefficient of Agreement for
/// Nominal Scales" (1960).
///
/// # Panics
/// When the maps differ in length.
pub fn kappa(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len(), "maps of one image have one length");
    let (mut of_one, mut of_other, mut both) = ([0_u64; 256], [0_u64; 256], 0_u64);
    for (&a, &b) in one.iter().zip(other) {
        of_one[usize::from(a)] += 1;
        of_other[usize::from(b)] += 1;
        both += u64::from(a == b);
    }
    let count = one.len() as f64;
    let observed = both as f64 / count;
    let chance: f64 =
        of_one.iter().zip(&of_other).map(|(a, b)| *a as f64 / count * (*b as f64 / count)).sum();
    if chance < 1.0 { (observed - chance) / (1.0 - chance) } else { f64::NAN }
}

/// The value that most maps hold, voxel by voxel; the smallest of those among equals, so background first.
pub fn majority(maps: &[&[u8]]) -> Vec<u8> {
    votes(maps).map(|(value, _)| value).collect()
}

/// The share of maps that do not hold the value of the majority, voxel by voxel: 0 where all agree, below 1.
pub fn disagreement(maps: &[&[u8]]) -> Vec<f32> {
    votes(maps).map(|(_, count)| 1.0 - count as f32 / maps.len() as f32).collect()
}

/// The value of the majority at each voxel and how many maps hold it.
fn votes(maps: &[&[u8]]) -> impl Iterator<Item = (u8, usize)> {
    let voxels = maps.iter().map(|map| map.len()).min().unwrap_or(0);
    (0..voxels).map(move |voxel| {
        let held = |value: u8| maps.iter().filter(|map| map[voxel] == value).count();
        let best = maps.iter().map(|map| (held(map[voxel]), std::cmp::Reverse(map[voxel]))).max();
        best.map_or((0, 0), |(count, value)| (value.0, count))
    })
}

/// What [`staple`] found about one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Staple {
    /// That the label is truly there, voxel by voxel, 0 to 1.
    pub probability: Vec<f64>,
    /// Share of the true label that each rater marked; NaN when nobody marked any.
    pub sensitivity: Vec<f64>,
    /// Share of the rest that each rater left out; NaN when all marked everything.
    pub specificity: Vec<f64>,
    pub iterations: usize,
}

/// Simultaneous truth and performance level estimation of one label against the rest: weighs each rater by how well
/// it agrees with what all say together.
///
/// The prior is the share of voxels that were marked, over all raters, as in ITK; stops when no sensitivity or
/// specificity moves by more than 1e-9, or after 1000 rounds. Source: Warfield, Zou & Wells, "Simultaneous Truth and
/// Performance Level Estimation (STAPLE)" (2004).
///
/// # Panics
/// With more than [`MAX_RATERS`] maps.
pub fn staple(maps: &[&[u8]], label: u8) -> Staple {
    assert!(maps.len() <= MAX_RATERS, "{} raters, at most {MAX_RATERS}", maps.len());
    let pattern = |voxel: usize| -> u32 {
        maps.iter().enumerate().map(|(rater, map)| u32::from(map[voxel] == label) << rater).sum()
    };
    let voxels = maps.iter().map(|map| map.len()).min().unwrap_or(0);
    // Voxels with the same votes have the same probability: a handful of patterns stand for all of them.
    let mut counts: BTreeMap<u32, (u64, f64)> = BTreeMap::new();
    for voxel in 0..voxels {
        counts.entry(pattern(voxel)).or_default().0 += 1;
    }
    let marked: u64 = counts.iter().map(|(votes, (count, _))| u64::from(votes.count_ones()) * count).sum();
    let prior = marked as f64 / (voxels * maps.len()).max(1) as f64;
    let mut raters = Raters::new(maps.len());
    let mut iterations = 0;
    loop {
        for (votes, (_, probability)) in &mut counts {
            *probability = raters.probability(*votes, prior);
        }
        if iterations == MAX_ROUNDS {
            break;
        }
        iterations += 1;
        let next = raters.judged(&counts);
        let moved = raters.distance(&next);
        raters = next;
        // A NaN says that there is nothing to estimate.
        if moved.is_nan() || moved < CONVERGED {
            break;
        }
    }
    Staple {
        probability: (0..voxels).map(|voxel| counts[&pattern(voxel)].1).collect(),
        sensitivity: raters.sensitivity,
        specificity: raters.specificity,
        iterations,
    }
}

const MAX_ROUNDS: usize = 1000;
const CONVERGED: f64 = 1e-9;
/// Everybody is nearly perfect at first.
const START: f64 = 0.999_99;

struct Raters {
    sensitivity: Vec<f64>,
    specificity: Vec<f64>,
}

impl Raters {
    fn new(count: usize) -> Self {
        Self { sensitivity: vec![START; count], specificity: vec![START; count] }
    }

    /// That the label is there, given who marked it.
    fn probability(&self, votes: u32, prior: f64) -> f64 {
        let (mut there, mut not) = (prior, 1.0 - prior);
        for (rater, (sensitivity, specificity)) in self.sensitivity.iter().zip(&self.specificity).enumerate()
        {
            let marked = votes >> rater & 1 == 1;
            there *= if marked { *sensitivity } else { 1.0 - sensitivity };
            not *= if marked { 1.0 - specificity } else { *specificity };
        }
        // Nobody can be told from nobody else: the prior is all there is.
        if there + not > 0.0 { there / (there + not) } else { prior }
    }

    /// How good each rater is, given the probabilities.
    fn judged(&self, counts: &BTreeMap<u32, (u64, f64)>) -> Self {
        let (mut there, mut not) = (0.0, 0.0);
        let mut hits = vec![0.0; self.sensitivity.len()];
        let mut rejections = hits.clone();
        for (votes, (count, probability)) in counts {
            let (own, rest) = (*count as f64 * probability, *count as f64 * (1.0 - probability));
            there += own;
            not += rest;
            for rater in 0..hits.len() {
                if votes >> rater & 1 == 1 { hits[rater] += own } else { rejections[rater] += rest }
            }
        }
        Self {
            sensitivity: hits.iter().map(|hits| hits / there).collect(),
            specificity: rejections.iter().map(|rejections| rejections / not).collect(),
        }
    }

    fn distance(&self, other: &Self) -> f64 {
        let pairs = self.sensitivity.iter().zip(&other.sensitivity);
        let pairs = pairs.chain(self.specificity.iter().zip(&other.specificity));
        pairs
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |largest, next| if next > largest || next.is_nan() { next } else { largest })
    }
}
