//! Normalisation against NumPy.

use pipe_imaging::normalize::{self, Normalization, NormalizeError, Region, Scale};
use pipe_imaging::{Geometry, Image};

use crate::reference::{REFERENCE, image};

#[test]
fn statistics_and_percentiles_are_those_of_numpy() {
    for expected in &REFERENCE.statistics {
        let n = expected.values.len();
        let source = image([1, 1, n], expected.values.clone());
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs().max(1.0); // f64 sums in another order
        let all = normalize::statistics(&source, Region::All).expect("finite")[0];
        assert!(close(all.mean, expected.mean) && close(all.sd, expected.sd), "{all:?}");
        let nonzero = normalize::statistics(&source, Region::Nonzero).expect("finite")[0];
        assert!(
            close(nonzero.mean, expected.nonzero_mean) && close(nonzero.sd, expected.nonzero_sd),
            "{nonzero:?}"
        );
        for ([low, high], theirs) in [([0.5, 99.5], expected.p05_p995), ([10.0, 63.0], expected.p10_p63)] {
            let ours =
                normalize::clip_percentiles(&mut source.clone(), low, high, Region::All).expect("finite")[0];
            assert_eq!([ours.0, ours.1], theirs.map(|v| v as f32), "{n} values, {low} and {high} %");
        }
    }
}

#[test]
fn zscore_gives_mean_0_and_sd_1_per_channel_and_region() {
    let geometry = Geometry::with_spacing([1, 2, 3], [1.0; 3]);
    let values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 1e6, 2e6, 0.0, 3e6, 4e6];
    let mut all = Image::from_vec(values.clone(), 2, geometry).expect("12");
    normalize::zscore(&mut all, Region::All).expect("finite");
    for s in normalize::statistics(&all, Region::All).expect("finite") {
        assert!(s.mean.abs() < 1e-7 && (s.sd - 1.0).abs() < 1e-7, "{s:?}"); // f32 voxels
    }
    let mut masked = Image::from_vec(values, 2, geometry).expect("12");
    normalize::zscore(&mut masked, Region::Nonzero).expect("finite");
    assert_eq!([masked.channel(1)[0], masked.channel(1)[3]], [0.0, 0.0]);
    let four = [1, 2, 4, 5].map(|i| f64::from(masked.channel(1)[i]));
    assert!(four.iter().sum::<f64>().abs() < 1e-6);
}

#[test]
fn a_constant_or_empty_channel_becomes_zeros_and_says_so() {
    let mut flat = image([1, 1, 3], vec![0.1; 3]);
    assert!(normalize::zscore(&mut flat, Region::All).expect("finite")[0].is_constant());
    assert_eq!(flat.as_slice(), [0.0; 3]);
    let mut flat = image([1, 1, 3], vec![5.0; 3]);
    normalize::min_max(&mut flat).expect("finite");
    assert_eq!(flat.as_slice(), [0.0; 3]);
    let mut empty = image([1, 1, 3], vec![0.0; 3]);
    let statistics = normalize::zscore(&mut empty, Region::Nonzero).expect("finite")[0];
    assert!(statistics.is_constant() && statistics.voxels == 0);
    assert_eq!(empty.as_slice(), [0.0; 3]);
}

#[test]
fn a_large_offset_does_not_eat_the_variance() {
    // One-pass E[x²] − E[x]² in f32 would give 0 or NaN here.
    let mut shifted = image([1, 1, 4], vec![1_000_000.0, 1_000_001.0, 1_000_002.0, 1_000_003.0]);
    let sd = normalize::zscore(&mut shifted, Region::All).expect("finite")[0].sd;
    assert_eq!(sd, 1.25_f64.sqrt());
}

#[test]
fn min_max_spans_0_to_1_even_for_the_largest_range() {
    let mut wide = image([1, 1, 3], vec![f32::MIN, 0.0, f32::MAX]);
    normalize::min_max(&mut wide).expect("finite");
    assert_eq!(wide.as_slice(), [0.0, 0.5, 1.0]);
}

#[test]
fn nan_is_refused_and_the_image_left_alone() {
    let mut bad = image([1, 1, 4], vec![1.0, f32::NAN, f32::INFINITY, 2.0]);
    let refused = NormalizeError::NonFinite { channel: 0, count: 2 };
    assert_eq!(normalize::zscore(&mut bad, Region::All), Err(refused));
    assert_eq!(bad.as_slice()[0], 1.0);
    assert_eq!(normalize::replace_non_finite(&mut bad, 0.0), 2);
    assert_eq!(bad.as_slice(), [1.0, 0.0, 0.0, 2.0]);
}

#[test]
fn clipping_over_nonzero_voxels_leaves_zeros() {
    let mut source = image([1, 1, 6], vec![0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
    let bounds = normalize::clip_percentiles(&mut source, 25.0, 75.0, Region::Nonzero).expect("finite");
    assert_eq!(bounds, [(20.0, 40.0)]);
    assert_eq!(source.as_slice(), [0.0, 20.0, 20.0, 30.0, 40.0, 40.0]);
    let error = normalize::clip_percentiles(&mut source, 75.0, 25.0, Region::All).expect_err("swapped");
    assert_eq!(error.to_string(), "percentiles 75 and 25 are not 0 <= low < high <= 100");
}

#[test]
fn a_window_clips_and_what_follows_sees_the_clipped_values() {
    #[track_caller]
    fn check(scheme: Normalization, values: &[f32], expected: &[f64]) {
        let mut source = image([1, 1, values.len()], values.to_vec());
        scheme.apply(&mut source).expect("finite");
        for (found, expected) in source.as_slice().iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{scheme:?}: {source:?}");
        }
    }
    let values = [-1000.0, 0.0, 10.0, 20.0, 3000.0];
    let window = |then| Normalization::Window { low: -10.0, high: 30.0, then };
    check(window(Scale::None), &values, &[-10.0, 0.0, 10.0, 20.0, 30.0]);
    check(window(Scale::MinMax), &values, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    let root = 2_f64.sqrt();
    check(window(Scale::Zscore), &values, &[-root, -root / 2.0, 0.0, root / 2.0, root]);
    let percentiles = |then| Normalization::Percentiles { low: 25.0, high: 75.0, then };
    check(percentiles(Scale::None), &values, &[0.0, 0.0, 10.0, 20.0, 20.0]);
    // Of the five that are not 0: 10 to 20, mean 15, variance 20. The 0 stays.
    let step = 5.0 / 20_f64.sqrt();
    let values = [0.0, -1000.0, 10.0, 15.0, 20.0, 3000.0];
    check(percentiles(Scale::ZscoreNonzero), &values, &[0.0, -step, -step, 0.0, step, step]);
    let mut source = image([1, 1, 1], vec![1.0]);
    for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        let error =
            Normalization::Window { low, high, then: Scale::None }.apply(&mut source).expect_err("no range");
        assert_eq!(error.to_string(), format!("window {low} to {high} is not a range of finite numbers"));
    }
}

#[test]
fn a_recorded_normalisation_reads_back_and_applies() {
    let fixed = Normalization::Fixed { low: -1000.0, high: 1000.0, mean: 100.0, sd: 50.0 };
    for scheme in [
        Normalization::None,
        Normalization::Zscore,
        Normalization::ZscoreNonzero,
        Normalization::MinMax,
        fixed,
        Normalization::Window { low: -160.0, high: 240.0, then: Scale::MinMax },
        Normalization::Percentiles { low: 0.5, high: 99.5, then: Scale::ZscoreNonzero },
    ] {
        let text = serde_json::to_string(&scheme).expect("serialises");
        assert_eq!(serde_json::from_str::<Normalization>(&text).expect(&text), scheme);
    }
    assert_eq!(
        serde_json::to_string(&Normalization::ZscoreNonzero).expect("serialises"),
        "\"zscore-nonzero\""
    );
    let mut ct = image([1, 1, 3], vec![-3000.0, 150.0, 3000.0]);
    fixed.apply(&mut ct).expect("finite");
    assert_eq!(ct.as_slice(), [-22.0, 1.0, 18.0]);
    let broken = Normalization::Fixed { low: 0.0, high: 1.0, mean: 0.0, sd: 0.0 };
    assert!(matches!(broken.apply(&mut ct), Err(NormalizeError::Fixed { .. })));
}
