//! The ensemble beside each of its members: what joining them is worth.

use super::scoring::{Scoring, Target};
use super::summary::{Case, finite, mean_dice};
use crate::artifacts::metrics::{Ensemble, Interval, MemberScore};
use std::collections::BTreeMap;

/// Compares an ensemble with its members on the cases that have a reference. `None` where Dice was not measured, or
/// there is nothing to compare.
///
/// `members`: name of each, and its scores of the cases in the order of `cases`; `None` where it did not predict the
/// case. A case counts when a member predicted it; the mean of the members is over those that did, case by case.
pub(super) fn ensemble(
    cases: &[Case],
    members: &[(String, Vec<Option<Vec<super::TargetScore>>>)],
    targets: &[Target],
    scoring: &Scoring,
) -> Option<Ensemble> {
    let dice = scoring.dice()?;
    let labels: Vec<usize> = (0..targets.len()).filter(|&target| !targets[target].is_group()).collect();
    let of = |scores: &[super::TargetScore]| -> Vec<f64> {
        labels.iter().map(|&target| scores[target].values[dice].number).collect()
    };
    // Of each case, Dice of every label: the ensemble's, and the mean of its members'.
    let mut pairs: BTreeMap<&str, Vec<[Vec<f64>; 2]>> = BTreeMap::new();
    for (at, case) in cases.iter().enumerate() {
        let Some(own) = case.scores.as_deref() else { continue };
        let alone: Vec<Vec<f64>> =
            members.iter().filter_map(|(_, scores)| Some(of(scores[at].as_deref()?))).collect();
        if alone.is_empty() {
            continue;
        }
        let mean = |label: usize| {
            // Where neither reference nor prediction has the label; another member may have it.
            let defined: Vec<f64> =
                alone.iter().map(|values| values[label]).filter(|value| !value.is_nan()).collect();
            defined.iter().sum::<f64>() / defined.len() as f64
        };
        let mean: Vec<f64> = (0..labels.len()).map(mean).collect();
        pairs.entry(&case.patient).or_default().push([of(own), mean]);
    }
    let side = |which: usize| -> Vec<Vec<Vec<f64>>> {
        pairs.values().map(|cases| cases.iter().map(|pair| pair[which].clone()).collect()).collect()
    };
    let (own, mean) = (side(0), side(1));
    let difference = |times: &[u32]| mean_dice(&own, times) - mean_dice(&mean, times);
    let once = vec![1; pairs.len()];
    let members = members.iter().map(|(name, scores)| {
        let mut by_patient: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
        for (case, scores) in cases.iter().zip(scores) {
            if let Some(scores) = scores {
                by_patient.entry(&case.patient).or_default().push(of(scores));
            }
        }
        let by_patient: Vec<Vec<Vec<f64>>> = by_patient.into_values().collect();
        MemberScore {
            name: name.clone(),
            cases: by_patient.iter().map(Vec::len).sum(),
            mean_foreground_dice: finite(mean_dice(&by_patient, &vec![1; by_patient.len()])),
        }
    });
    let members: Vec<MemberScore> = members.collect();
    if pairs.is_empty() {
        return None;
    }
    Some(Ensemble {
        members,
        mean_of_members: finite(mean_dice(&mean, &once)),
        ensemble: finite(mean_dice(&own, &once)),
        difference: finite(difference(&once)),
        interval: Interval::finite(scoring.bootstrap.interval(pairs.len(), difference)),
        p_bootstrap: (pairs.len() > 1)
            .then(|| scoring.bootstrap.distribution(pairs.len(), difference).p_of_zero()),
    })
}
