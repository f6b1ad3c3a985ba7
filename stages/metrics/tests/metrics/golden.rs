//! All definitions against the libraries they are named after, on label maps made to tell them apart:
//! `$PIPE_TEST_DATA/metrics_golden`.

use std::io::Read;
use std::path::{Path, PathBuf};

use pipe_metrics::grid::Grid;
use pipe_metrics::segmentation::{Metric, OneEmpty, Score, Settings, score};
use pipe_metrics::surface::Definition;
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

/// The pair without files: label l is where `Σ((x − centre) / axes)² ≤ 1`, painted in the order 1, 2, 3.
fn ellipsoids(moved: [[f64; 3]; 3]) -> Vec<u8> {
    const CENTRES: [[f64; 3]; 3] = [[90.0, 90.0, 100.0], [170.0, 160.0, 140.0], [128.0, 200.0, 60.0]];
    const AXES: [[f64; 3]; 3] = [[50.0, 40.0, 45.0], [30.0, 45.0, 35.0], [18.0, 14.0, 22.0]];
    let mut voxels = vec![0; 256 * 256 * 256];
    for (at, voxel) in voxels.iter_mut().enumerate() {
        // First axis fastest, as in the files.
        let place = [at % 256, at / 256 % 256, at / 65_536].map(|x| x as f64);
        for label in 0..3 {
            let along =
                |axis: usize| (place[axis] - CENTRES[label][axis] - moved[label][axis]) / AXES[label][axis];
            if (0..3).map(|axis| along(axis).powi(2)).sum::<f64>() <= 1.0 {
                *voxel = label as u8 + 1;
            }
        }
    }
    voxels
}

/// A number, or what the generator wrote for one: `nan`, `inf`, or the error that the library raised, which is
/// undefined here.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("RuntimeError") => f64::NAN,
        Some(text) => text.parse().expect("nan or inf"),
        None => value.as_f64().expect("a number"),
    }
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    let same = ours == theirs || (ours.is_nan() && theirs.is_nan()) || (ours - theirs).abs() <= tolerance;
    assert!(same, "{what}: {ours} here, {theirs} there");
}

/// The names of a library's values and the metrics they are.
fn names(definition: Definition) -> Vec<(&'static str, Metric)> {
    let common = [("dice", Metric::Dice), ("hd", Metric::Hd), ("hd95", Metric::Hd95)];
    let own: &[_] = match definition {
        Definition::Deepmind => &[
            ("asd_gt2pred", Metric::AsdFromReference),
            ("asd_pred2gt", Metric::AsdFromPrediction),
            ("nsd", Metric::Nsd),
        ],
        Definition::Monai => &[("assd", Metric::Assd), ("nsd", Metric::Nsd)],
        Definition::Medpy => &[("assd", Metric::Assd)],
    };
    common.iter().chain(own).copied().collect()
}

/// Compares all values of a pair and returns how many there were.
fn compare(pair: &Value, reference: &[u8], prediction: &[u8]) -> usize {
    let three = |key: &str| -> [f64; 3] {
        let values = pair[key].as_array().expect("three axes");
        // x, y, z there and z, y, x here.
        [2, 1, 0].map(|axis| values[axis].as_f64().expect("number"))
    };
    let grid = Grid::new(three("shape").map(|n| n as usize), three("spacing")).expect("a sound grid");
    let labels = pair["labels"].as_array().expect("labels");
    let labels: Vec<u8> = labels.iter().map(|label| label.as_u64().expect("label") as u8).collect();
    let mut compared = 0;
    for definition in Definition::ALL {
        let names = names(definition);
        let settings = Settings {
            metrics: names.iter().map(|(_, metric)| *metric).collect(),
            definition,
            one_empty: OneEmpty::Library,
            ..Settings::default()
        };
        let scores = score(reference, prediction, &grid, &labels, &settings).expect("both fit").scores;
        for (k, Score { label, counts, values, .. }) in scores.iter().enumerate() {
            for ((name, _), value) in names.iter().zip(values) {
                let theirs = &pair[definition.name()][name][k];
                let what = format!("{} label {label}: {name} of {}", pair["name"], definition.name());
                check(&what, value.number, number(theirs), 1e-5); // MONAI computes in f32
                compared += 1;
            }
            let own =
                [counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative];
            for (name, count) in ["tp", "fp", "fn", "tn"].into_iter().zip(own) {
                let what = format!("{} label {label}: {name}", pair["name"]);
                check(&what, count as f64, number(&pair["nnunet"][name][k]), 0.0);
            }
        }
    }
    compared
}

#[test]
fn every_definition_equals_its_library_on_every_pair_empty_masks_included() {
    let Some(directory) = directory() else { return };
    let text = std::fs::read_to_string(directory.join("golden_metrics.json")).expect("golden_metrics.json");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let mut compared = 0;
    for pair in golden["pairs"].as_array().expect("pairs") {
        compared += if let Some(files) = pair["files"].as_array() {
            let read = |k: usize| label_map(&directory.join(files[k].as_str().expect("path")));
            compare(pair, &read(0), &read(1))
        } else {
            let moved = [[2.0, -1.0, 1.0], [0.0, 3.0, 0.0], [1.0, 1.0, -2.0]];
            compare(pair, &ellipsoids([[0.0; 3]; 3]), &ellipsoids(moved))
        };
    }
    assert_eq!(compared, (12 * 2 + 3) * (6 + 5 + 4), "12 pairs with 2 labels, one with 3; 6, 5 and 4 values");
}
