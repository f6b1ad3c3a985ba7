//! Several people drew the same structure: from their maps to scores against each of them and against their consensus.

use crate::space::TestSpace;
use crate::volume::nifti;
use serde_json::Value;

const SIDE: usize = 12;

const PIPELINE: &str = "
name: drawn
seed: 3
stages:
  cases: { uses: import, with: { from: data, table: cases.csv } }
  agreed:
    uses: annotators
    matrix: { by: [staple, majority] }
    in: { cases: cases }
    with: { label: '${matrix.by}' }
  drawn:
    uses: annotators
    matrix: { who: [anna, ben, carl] }
    in: { cases: cases }
    with: { label: annotator, annotator: '${matrix.who}' }
  split: { uses: split, in: { cases: 'agreed[by=staple].cases' }, with: { folds: 2, test: 0.4 } }
  volumes: { uses: crop, in: { cases: 'agreed[by=staple].cases' } }
  theirs: { uses: crop, matrix: { who: [anna, ben, carl] }, in: { cases: 'drawn[who=${matrix.who}].cases' } }
  train:
    uses: train
    in: { volumes: volumes, split: split }
    with: { fold: 0, model: { unet3d: { levels: 2, base_features: 8 } }, epochs: 40, validate_every: 10, augment: none }
  onnx: { uses: export, in: { model: train } }
  consensus: { uses: evaluate, in: { model: onnx, volumes: volumes, split: split }, with: { metrics: [dice] } }
  each:
    uses: evaluate
    matrix: { who: [anna, ben, carl] }
    in: { model: onnx, volumes: 'theirs[who=${matrix.who}]', split: split }
    with: { metrics: [dice] }
";

/// Squared distance of a voxel from the centre of a ball that lies elsewhere in each case.
fn square(case: usize, [x, y, z]: [usize; 3]) -> usize {
    [x.abs_diff(5 + case % 3), y.abs_diff(5 + case / 3 % 3), z.abs_diff(6)].iter().map(|d| d * d).sum()
}

fn voxels(value: impl Fn([usize; 3]) -> u8) -> Vec<u8> {
    let at = |index: usize| [index % SIDE, index / SIDE % SIDE, index / (SIDE * SIDE)];
    let values: Vec<u8> = (0..SIDE.pow(3)).map(|index| value(at(index))).collect();
    nifti([SIDE; 3], [1.0; 3], &values)
}

/// Ten cases with a bright ball. Anna and Ben draw it, Ben a little too large; Carl draws half of it, and in case 7 another
/// place.
fn space() -> TestSpace {
    let space = TestSpace::new(PIPELINE);
    let mut table = "id,image,label_anna,label_ben,label_carl\n".to_owned();
    for case in 0..10 {
        let name = |what: &str| format!("c{case}_{what}.nii");
        let file = |what: &str, value: &dyn Fn([usize; 3]) -> u8| {
            space.write(&format!("data/{}", name(what)), voxels(value));
        };
        let grain =
            |[x, y, z]: [usize; 3]| (((x * 7 + y * 13 + z * 29 + case * 31) * 2_654_435) >> 8 & 31) as u8;
        file("image", &|at| grain(at) + if square(case, at) <= 12 { 120 } else { 40 });
        file("anna", &|at| u8::from(square(case, at) <= 12));
        file("ben", &|at| u8::from(square(case, at) <= 14));
        file("carl", &|at| match case {
            7 => u8::from(square(case, [at[0], at[1], at[2] + 5]) <= 12),
            _ => u8::from(square(case, at) <= 12 && at[0] <= 5 + case % 3),
        });
        let row = ["image", "anna", "ben", "carl"].map(name).join(",");
        table += &format!("c{case},{row}\n");
    }
    space.write("data/cases.csv", table);
    space
}

fn json(space: &TestSpace, name: &str) -> Value {
    serde_json::from_str(&space.read(&format!("results/drawn/{name}"))).unwrap()
}

/// The values of a column, by the first columns that are asked for.
fn column(text: &str, keys: &[&str], of: &str) -> Vec<(Vec<String>, String)> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let place = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let row = |row: csv::StringRecord| {
        (keys.iter().map(|key| row[place(key)].to_owned()).collect(), row[place(of)].to_owned())
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

#[test]
fn a_model_is_scored_against_each_annotator_and_against_their_consensus() {
    let mut space = space();
    // ONNX Runtime lies in the user's cache, or is fetched there.
    for name in ["HOME", "ORT_DYLIB_PATH", "PIPE_HOME", "XDG_CACHE_HOME"] {
        if let Ok(value) = std::env::var(name) {
            space.set_env(name, &value);
        }
    }
    let report = space.run(&[]);
    report.code(0).says("results are in results/drawn/");

    // The case that Carl put elsewhere comes first, and only Carl is told apart by STAPLE.
    let agreement = "results/drawn/agreed/by=staple/agreement";
    let ranking = column(&space.read(&format!("{agreement}/ranking.csv")), &["case"], "rank");
    assert_eq!(ranking[0], (vec!["c7".to_owned()], "1".to_owned()));
    let sensitivity =
        column(&space.read(&format!("{agreement}/annotators.csv")), &["annotator"], "sensitivity");
    for (annotator, value) in sensitivity {
        let value: f64 = value.parse().unwrap();
        assert_eq!(value < 0.9, annotator == ["carl"], "{annotator:?}: {value}");
    }
    assert!(space.exists(&format!("{agreement}/disagreement/c7.nii.gz")));

    // Where Carl left half out, two of three still hold it.
    for by in ["staple", "majority"] {
        let pairs = space.read(&format!("results/drawn/agreed/by={by}/agreement/annotators.csv"));
        let dice = column(&pairs, &["case", "annotator"], "dice");
        let of = |case: &str, who: &str| -> f64 {
            let found = dice.iter().find(|(key, _)| *key == [case, who]);
            found.unwrap().1.parse().unwrap()
        };
        assert!(of("c1", "anna") > 0.9 && of("c1", "carl") < 0.8, "{by}: {dice:?}");
    }

    // One prediction, four references.
    let dice = |name: &str| {
        json(&space, &format!("{name}/metrics/summary.json"))["mean_foreground_dice"].as_f64().unwrap()
    };
    let (consensus, [anna, ben, carl]) =
        (dice("consensus"), ["anna", "ben", "carl"].map(|who| dice(&format!("each/who={who}"))));
    assert!(consensus > 0.9, "the network learned little: {consensus}");
    assert!(anna > ben && ben > carl, "{consensus}, {anna}, {ben}, {carl}");
    let predictions = |name: &str| -> Vec<Vec<u8>> {
        let folder = format!("results/drawn/{name}/predictions");
        let files = space.files(&folder).into_iter().filter(|file| file.ends_with(".nii.gz"));
        files.map(|file| std::fs::read(space.path(&format!("{folder}/{file}"))).unwrap()).collect()
    };
    assert_eq!(predictions("consensus").len(), 4);
    for who in ["anna", "ben", "carl"] {
        assert_eq!(predictions(&format!("each/who={who}")), predictions("consensus"));
    }
}
