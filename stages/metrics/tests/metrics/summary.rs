//! Figures of a set of values against NumPy 2.4.6 (`mean`, `std(ddof=1)`, `quantile`).

use pipe_metrics::summary::{Summary, quantile};

#[track_caller]
fn check(values: &[f64], mean: f64, sd: f64, quantiles: [f64; 5]) {
    let s = Summary::of(values);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-15 || (a.is_nan() && b.is_nan()); // sums in another order
    assert!(close(s.mean, mean), "mean {} and {mean}", s.mean);
    assert!(close(s.sd, sd), "sd {} and {sd}", s.sd);
    let ours = [s.min, s.q1, s.median, s.q3, s.max];
    assert!(ours.iter().zip(quantiles).all(|(&a, b)| close(a, b)), "{ours:?} and {quantiles:?}");
    assert_eq!((s.count, s.undefined), (values.len(), 0));
}

#[test]
fn figures_are_those_of_numpy() {
    check(&[0.91, 0.85, 0.88, 0.79], 0.8575, 0.051_234_753_829_797_99, [0.79, 0.835, 0.865, 0.8875, 0.91]);
    check(&[1.5], 1.5, f64::NAN, [1.5; 5]);
    check(&[3.0, 1.0], 2.0, 2.0_f64.sqrt(), [1.0, 1.5, 2.0, 2.5, 3.0]);
    check(
        &[0.1, 0.7, 0.2, 0.9, 0.4, 0.35, 0.8],
        0.492_857_142_857_142_9,
        0.308_799_518_874_532_7,
        [0.1, 0.275, 0.4, 0.75, 0.9],
    );
}

#[test]
fn undefined_values_are_counted_and_enter_nothing() {
    let s = Summary::of(&[f64::NAN, 0.5, f64::NAN, 1.0]);
    assert_eq!((s.count, s.undefined, s.mean, s.median), (2, 2, 0.75, 0.75));
}

#[test]
fn without_a_defined_value_every_figure_is_nan() {
    for values in [&[][..], &[f64::NAN]] {
        let s = Summary::of(values);
        assert_eq!((s.count, s.undefined), (0, values.len()));
        assert!([s.mean, s.sd, s.min, s.q1, s.median, s.q3, s.max].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn infinity_is_a_value_and_spoils_no_quantile_it_does_not_touch() {
    let s = Summary::of(&[1.0, f64::INFINITY, 2.0, f64::INFINITY]);
    assert_eq!((s.count, s.mean, s.q1, s.max), (4, f64::INFINITY, 1.75, f64::INFINITY));
    assert_eq!(s.median, f64::INFINITY); // between 2 and infinity
    assert_eq!(quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.75), f64::INFINITY);
}
