//! Images that were cut from one scan, told by the step between their intensities.
//!
//! A step such as 5.98706 comes from the scaling of one scan. Two scans share it by chance once in many thousand
//! pairs; what many cases share is a habit of a scanner or of a program, and no evidence.

use super::looks::Look;
use super::order::Ordered;
use super::row;
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{Duplicate, DuplicateKind};

/// Steps that differ by less, relative to themselves, are one: scales are often written with six digits.
const EQUAL: f64 = 2e-6;
/// A step that more cases share than this is no property of a scan.
const LARGEST: usize = 8;

/// The pairs that link every group, and a sentence about each step that too many cases share.
pub(super) fn pairs(cases: &Ordered<'_>, looks: &[Look]) -> (Vec<Duplicate>, Vec<String>) {
    let mut steps: Vec<(f64, usize)> =
        looks.iter().filter_map(|look| Some((look.seen.step?, look.case))).collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut rows, mut common) = (Vec::new(), Vec::new());
    let mut start = 0;
    for group in steps.chunk_by(|a, b| b.0 / a.0 - 1.0 <= EQUAL) {
        let end = start + group.len();
        if group.len() > LARGEST {
            common.push(format!(
                "{} cases share the intensity step {}: too many to be one person, so it is not taken as evidence",
                group.len(),
                seven_digits(group[0].0)
            ));
        } else {
            let below = start.checked_sub(1).map(|index| steps[index].0 / group[0].0);
            let above = steps.get(end).map(|next| group[group.len() - 1].0 / next.0);
            let runner_up = below.into_iter().chain(above).reduce(f64::max);
            rows.extend(link(cases, group, runner_up));
        }
        start = end;
    }
    (rows, common)
}

/// Every case of the group with the one that would be kept.
fn link(cases: &Ordered<'_>, group: &[(f64, usize)], runner_up: Option<f64>) -> Vec<Duplicate> {
    let mut members = group.to_vec();
    members.sort_by_key(|(_, case)| cases.key(*case));
    let pair = |&(step, case): &(f64, usize)| {
        let (first_step, first) = members[0];
        let score = step.min(first_step) / step.max(first_step);
        Duplicate {
            runner_up: runner_up.map(seven_digits),
            remark: format!("the intensities of both are multiples of {}", seven_digits(step)),
            ..row(cases, first, case, DuplicateKind::Related, score)
        }
    };
    members[1..].iter().map(pair).collect()
}
