//! Counts and overlap against hand-worked cases and the definition written the slow way.

use pipe_metrics::confusion::{Confusion, Counts};
use pipe_metrics::overlap::{dice, iou, precision, recall, specificity, volume_difference};
use proptest::prelude::*;

fn slow(reference: &[u8], prediction: &[u8], label: u8) -> Counts {
    let count = |r: bool, p: bool| {
        let same = |(a, b): &(&u8, &u8)| (**a == label) == r && (**b == label) == p;
        reference.iter().zip(prediction).filter(same).count() as u64
    };
    Counts {
        true_positive: count(true, true),
        false_positive: count(false, true),
        false_negative: count(true, false),
        true_negative: count(false, false),
    }
}

#[test]
fn a_case_worked_by_hand() {
    let counts = Confusion::of(&[0, 1, 1, 1, 2, 0], &[0, 1, 1, 2, 2, 1]).expect("same length").counts(1);
    let expected = Counts { true_positive: 2, false_positive: 1, false_negative: 1, true_negative: 2 };
    assert_eq!(counts, expected);
    assert_eq!(dice(&counts), 4.0 / 6.0);
    assert_eq!(iou(&counts), 0.5);
    assert_eq!(precision(&counts), 2.0 / 3.0);
    assert_eq!(recall(&counts), 2.0 / 3.0);
    assert_eq!(specificity(&counts), 2.0 / 3.0);
    assert_eq!(volume_difference(&counts), 0.0);
}

#[test]
fn empty_masks_follow_the_table_of_the_module() {
    let of = |r: &[u8], p: &[u8]| Confusion::of(r, p).expect("same length").counts(1);
    let (both, missing, extra) = (of(&[0, 2], &[0, 2]), of(&[1, 0], &[0, 0]), of(&[0, 0], &[1, 0]));
    assert!(
        [dice(&both), iou(&both), precision(&both), recall(&both), volume_difference(&both)]
            .iter()
            .all(|v| v.is_nan())
    );
    assert_eq!(
        [dice(&missing), iou(&missing), recall(&missing), volume_difference(&missing)],
        [0.0, 0.0, 0.0, -1.0]
    );
    assert!(precision(&missing).is_nan());
    assert_eq!([dice(&extra), iou(&extra), precision(&extra)], [0.0; 3]);
    assert!(recall(&extra).is_nan() && volume_difference(&extra).is_nan());
    assert!(specificity(&of(&[1, 1], &[1, 0])).is_nan());
}

#[test]
fn maps_of_different_length_are_refused() {
    let error = Confusion::of(&[0; 5], &[0; 4]).expect_err("5 and 4");
    assert_eq!(error.to_string(), "reference has 5 voxels but prediction 4");
}

#[test]
fn labels_lists_what_occurs_on_either_side() {
    let confusion = Confusion::of(&[0, 255], &[7, 255]).expect("same length");
    assert_eq!(confusion.labels(), [0, 7, 255]);
    assert_eq!(confusion.voxels(), 2);
}

fn maps() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    // Runs, as in a volume, so that whole blocks agree, and single voxels that break them.
    let run = (0_u8..4, 0_u8..4, 1_usize..20, any::<bool>());
    prop::collection::vec(run, 0..30).prop_map(|runs| {
        let mut maps = (Vec::new(), Vec::new());
        for (r, p, n, agree) in runs {
            maps.0.extend(std::iter::repeat_n(r, n));
            maps.1.extend(std::iter::repeat_n(if agree { r } else { p }, n));
        }
        maps
    })
}

proptest! {
    #[test]
    fn counts_are_those_of_the_definition((reference, prediction) in maps()) {
        let confusion = Confusion::of(&reference, &prediction).expect("same length");
        for label in 0..5 {
            prop_assert_eq!(confusion.counts(label), slow(&reference, &prediction, label));
        }
    }

    #[test]
    fn swapping_the_maps_swaps_precision_and_recall((reference, prediction) in maps()) {
        let one = Confusion::of(&reference, &prediction).expect("same length").counts(1);
        let two = Confusion::of(&prediction, &reference).expect("same length").counts(1);
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        prop_assert!(same(dice(&one), dice(&two)) && same(iou(&one), iou(&two)));
        prop_assert!(same(precision(&one), recall(&two)));
        // J = D / (2 − D), up to rounding.
        let d = dice(&one);
        prop_assert!(d.is_nan() || (iou(&one) - d / (2.0 - d)).abs() < 1e-15);
    }

    #[test]
    fn counts_add_up_over_pieces((reference, prediction) in maps(), at in 0_usize..600) {
        let at = at.min(reference.len());
        let mut pieces = Confusion::of(&reference[..at], &prediction[..at]).expect("same length");
        pieces.add(&reference[at..], &prediction[at..]).expect("same length");
        prop_assert_eq!(pieces, Confusion::of(&reference, &prediction).expect("same length"));
    }
}
