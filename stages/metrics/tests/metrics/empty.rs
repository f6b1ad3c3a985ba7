//! Values of empty masks by every rule.

use pipe_metrics::grid::Grid;
use pipe_metrics::segmentation::{Absent, Metric, OneEmpty, Presence, Settings, Value, score};
use pipe_metrics::surface::Definition;

/// 3, 4 and 12 mm long: 13 mm from corner to corner.
fn grid() -> Grid {
    Grid::new([3, 2, 2], [1.0, 2.0, 6.0]).expect("a sound grid")
}

const METRICS: [Metric; 6] =
    [Metric::Dice, Metric::Hd95, Metric::Nsd, Metric::Recall, Metric::VolumeErrorMl, Metric::LesionsMissed];

#[track_caller]
fn check(settings: &Settings, presence: Presence, expected: [(f64, bool); 6]) {
    let one = |there: bool| (0..12).map(|at| u8::from(there && at == 5)).collect::<Vec<u8>>();
    let (reference, prediction) = match presence {
        Presence::Both => (one(true), one(true)),
        Presence::Missed => (one(true), one(false)),
        Presence::Spurious => (one(false), one(true)),
        Presence::Absent => (one(false), one(false)),
    };
    let settings = Settings { metrics: METRICS.to_vec(), ..settings.clone() };
    let scored = score(&reference, &prediction, &grid(), &[1], &settings).expect("both fit").scores;
    assert_eq!(scored[0].presence, presence);
    for ((metric, value), (number, ruled)) in METRICS.iter().zip(&scored[0].values).zip(expected) {
        let same = value.number == number || (value.number.is_nan() && number.is_nan());
        assert!(
            same && value.ruled == ruled,
            "{presence:?} {}: {value:?}, not {number} {ruled}",
            metric.name()
        );
    }
}

const NAN: (f64, bool) = (f64::NAN, true);
const fn own(value: f64) -> (f64, bool) {
    (value, false)
}
const fn by_rule(value: f64) -> (f64, bool) {
    (value, true)
}

#[test]
fn the_worst_distance_is_the_diagonal_and_absent_is_undefined() {
    let settings = Settings::default();
    check(&settings, Presence::Both, [own(1.0), own(0.0), own(1.0), own(1.0), own(0.0), own(0.0)]);
    check(&settings, Presence::Missed, [own(0.0), by_rule(13.0), own(0.0), own(0.0), own(-0.012), own(1.0)]);
    check(&settings, Presence::Spurious, [own(0.0), by_rule(13.0), own(0.0), NAN, own(0.012), own(0.0)]);
    check(&settings, Presence::Absent, [NAN, NAN, NAN, NAN, own(0.0), own(0.0)]);
}

#[test]
fn a_rule_changes_distances_of_one_sided_masks_only() {
    for (one_empty, distance) in [(OneEmpty::Infinite, f64::INFINITY), (OneEmpty::Undefined, f64::NAN)] {
        let settings = Settings { one_empty, ..Settings::default() };
        let hd95 = by_rule(distance);
        check(&settings, Presence::Missed, [own(0.0), hd95, own(0.0), own(0.0), own(-0.012), own(1.0)]);
        check(&settings, Presence::Absent, [NAN, NAN, NAN, NAN, own(0.0), own(0.0)]);
    }
}

#[test]
fn absent_may_count_as_perfect() {
    let settings = Settings { absent: Absent::Perfect, ..Settings::default() };
    let perfect = [by_rule(1.0), by_rule(0.0), by_rule(1.0), by_rule(1.0), own(0.0), own(0.0)];
    check(&settings, Presence::Absent, perfect);
    check(&settings, Presence::Spurious, [own(0.0), by_rule(13.0), own(0.0), NAN, own(0.012), own(0.0)]);
}

#[test]
fn no_rule_makes_up_what_the_definition_does_not_know() {
    let settings = Settings { definition: Definition::Medpy, absent: Absent::Perfect, ..Settings::default() };
    check(&settings, Presence::Both, [own(1.0), own(0.0), NAN, own(1.0), own(0.0), own(0.0)]);
    check(&settings, Presence::Absent, [by_rule(1.0), by_rule(0.0), NAN, by_rule(1.0), own(0.0), own(0.0)]);
}

#[test]
fn the_diagonal_of_a_single_slice_lies_in_it() {
    let grid = Grid::new([1, 3, 4], [9.0, 1.0, 1.0]).expect("a sound grid");
    assert_eq!(grid.diagonal_mm(), 5.0);
}

#[test]
fn a_tolerance_may_be_its_own_by_label() {
    let grid = Grid::new([1, 1, 5], [1.0; 3]).expect("a sound grid");
    let settings = Settings {
        metrics: vec![Metric::Nsd],
        definition: Definition::Monai,
        tolerances_mm: [(2, 2.0)].into(),
        ..Settings::default()
    };
    let (reference, prediction) = ([1, 0, 0, 2, 2], [0, 0, 1, 0, 0]);
    let scored = score(&reference, &[2, 2, 1, 0, 0], &grid, &[1, 2], &settings).expect("both fit").scores;
    // Label 1 is 2 mm off, label 2 between 2 and 3 mm.
    assert_eq!((scored[0].values[0].number, scored[1].values[0].number), (0.0, 0.5));
    let missed = score(&reference, &prediction, &grid, &[2], &settings).expect("both fit");
    assert_eq!(missed.scores[0].values[0].number, 0.0);
    assert_eq!(missed.in_reference.into_iter().collect::<Vec<u8>>(), [0, 1, 2]);
    assert_eq!(missed.in_prediction.into_iter().collect::<Vec<u8>>(), [0, 1]);
}

#[test]
fn names_and_values_come_back_from_json() {
    for metric in Metric::ALL {
        assert_eq!(serde_json::to_value(metric).expect("JSON"), metric.name());
        assert_eq!(Metric::named(metric.name()), Some(metric));
    }
    for number in [0.1, -0.0, f64::INFINITY, f64::NAN] {
        let text = serde_json::to_string(&Value { number, ruled: true }).expect("JSON");
        let back: Value = serde_json::from_str(&text).expect("JSON");
        assert!(back.ruled && back.number.to_bits() == number.to_bits(), "{number}: {text}");
    }
}
