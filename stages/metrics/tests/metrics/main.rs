//! Tests of the crate's public face: hand-worked cases, slow references, and values computed by other libraries.

use serde_json::Value;

mod agreement;
mod classification;
mod classifiers;
mod empty;
mod golden;
mod lesions;
mod overlap;
mod statistics;
mod summary;
mod surface;

/// Values that `reference/generate.py` wrote.
fn reference(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics/reference").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("reference values")).expect("JSON")
}

/// Numbers of a list, NaN for `null`.
fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
}

#[track_caller]
fn close(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    let same = ours == theirs || (ours.is_nan() && theirs.is_nan()) || (ours - theirs).abs() <= tolerance;
    assert!(same, "{what}: {ours} and {theirs}");
}
