//! Dice against nnU-Net and MONAI on label maps made to tell definitions apart: `$PIPE_TEST_DATA/metrics_golden`.

use std::io::Read;
use std::path::{Path, PathBuf};

use pipe_metrics::confusion::Confusion;
use pipe_metrics::overlap;
use serde_json::Value;

#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn directory() -> Option<PathBuf> {
    let root = std::env::var_os("PIPE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join("metrics_golden");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there; set PIPE_TEST_DATA", path.display());
    None
}

/// The voxels of a little-endian `uint8` file without scaling, which the golden pairs are.
fn label_map(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).expect("golden pair");
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    let short = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    assert_eq!((short(40), short(70)), (3, 2), "{} is not a uint8 volume", path.display());
    let n = short(42) * short(44) * short(46);
    bytes[352..352 + n].to_vec()
}

/// A number, or NaN as the generator spells it.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().expect("number or text").parse().expect("nan or inf"))
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = number(theirs);
    let same = (ours.is_nan() && theirs.is_nan()) || (ours - theirs).abs() <= tolerance;
    assert!(same, "{what}: {ours} here, {theirs} there");
}

#[test]
fn dice_is_that_of_nnunet_and_where_a_reference_exists_that_of_monai() {
    let Some(directory) = directory() else { return };
    let text = std::fs::read_to_string(directory.join("golden_metrics.json")).expect("golden_metrics.json");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let mut compared = 0;
    for pair in golden["pairs"].as_array().expect("pairs") {
        // The 256³ pair has no files: it is a formula.
        let Some(files) = pair["files"].as_array() else { continue };
        let read = |k: usize| label_map(&directory.join(files[k].as_str().expect("path")));
        let (reference, prediction) = (read(0), read(1));
        let confusion = Confusion::of(&reference, &prediction).expect("same length");
        for (k, label) in pair["labels"].as_array().expect("labels").iter().enumerate() {
            let label = label.as_u64().expect("label") as u8;
            let counts = confusion.counts(label);
            let what = format!("{} label {label}", pair["name"]);
            let (nnunet, monai) = (&pair["nnunet"], &pair["monai"]["dice"][k]);
            check(&what, overlap::dice(&counts), &nnunet["dice"][k], 0.0);
            check(&what, counts.true_positive as f64, &nnunet["tp"][k], 0.0);
            check(&what, counts.false_positive as f64, &nnunet["fp"][k], 0.0);
            check(&what, counts.false_negative as f64, &nnunet["fn"][k], 0.0);
            check(&what, counts.true_negative as f64, &nnunet["tn"][k], 0.0);
            if counts.reference() == 0 {
                assert!(number(monai).is_nan(), "MONAI ignores an empty reference");
            } else {
                check(&what, overlap::dice(&counts), monai, 1e-7); // MONAI computes in f32
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 24, "12 pairs with 2 labels each");
}
