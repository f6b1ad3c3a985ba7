//! Synthetic cohorts that are like an inspected one.

use super::*;
use crate::artifacts::{CaseRow, Inspection, InspectionSummary, IntensityRow, LabelRow, LabelSummary};
use crate::kinds::inspect::{self, Inspect};
use crate::testing::real_data;
use std::collections::BTreeMap;

fn inspect(space: &TestSpace, table: &CaseTable) -> Inspection {
    let stored = space.stored(table);
    space
        .run::<Inspect>(json!({ "lightbox": 0 }), &[("cases", &stored)])
        .expect("the inspection goes through")
        .load(&inspect::INSPECTION)
}

fn like(space: &TestSpace, inspection: &Inspection, params: &Value) -> Result<TestRun, StageError> {
    let stored = space.stored(inspection);
    let mut all = json!({ "from": "phantom" });
    all.as_object_mut().expect("an object").extend(params.as_object().expect("an object").clone());
    space.run::<Import>(all, &[("like", &stored)])
}

/// Imports a cohort that is like `model`, inspects it, and compares case by case: grids, voxels of each label and class are
/// the same, percentiles differ by at most two hundredths of the range between the first and the last, mean and standard
/// deviation by a tenth of the latter.
#[track_caller]
fn check(space: &TestSpace, model: &Inspection) -> Inspection {
    let run = like(space, model, &json!({})).expect("the cohort is made");
    let made = inspect(space, &run.load(&CASES));
    assert_eq!(made.cases.len(), model.cases.len());
    for (one, other) in model.cases.iter().zip(&made.cases) {
        let grid = |row: &CaseRow| {
            let spacing = [row.spacing_z_mm, row.spacing_y_mm, row.spacing_x_mm];
            ([row.shape_z, row.shape_y, row.shape_x], spacing, row.orientation.clone(), row.channels)
        };
        assert_eq!(grid(one), grid(other));
        assert_eq!(one.foreground_voxels, other.foreground_voxels);
    }
    let voxels = |inspection: &Inspection| -> Vec<(u8, String, u64)> {
        inspection.labels.iter().map(|row| (row.label, row.name.clone(), row.voxels)).collect()
    };
    assert_eq!(voxels(model), voxels(&made));
    assert_eq!(model.summary.classes, made.summary.classes);
    assert_eq!(model.intensities.len(), made.intensities.len());
    for (one, other) in model.intensities.iter().zip(&made.intensities) {
        let range = (one.p99 - one.p1).max(1e-9);
        for (a, b) in [(one.p1, other.p1), (one.p50, other.p50), (one.p99, other.p99)] {
            assert!((a - b).abs() <= 0.02 * range, "{one:?}\n{other:?}");
        }
        assert!((one.min - other.min).abs() <= 1e-4 * range + 1e-6 * one.min.abs(), "{one:?}\n{other:?}");
        assert!((one.max - other.max).abs() <= 1e-4 * range + 1e-6 * one.max.abs(), "{one:?}\n{other:?}");
        assert!((one.mean - other.mean).abs() <= 0.1 * one.sd, "{one:?}\n{other:?}");
        assert!((one.sd - other.sd).abs() <= 0.1 * one.sd, "{one:?}\n{other:?}");
    }
    made
}

fn patients(inspection: &Inspection) -> Vec<usize> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let number = |row: &'_ CaseRow| row.patient.clone();
    let names: Vec<String> = inspection.cases.iter().map(number).collect();
    names
        .iter()
        .map(|name| {
            let next = known.len();
            *known.entry(name).or_insert(next)
        })
        .collect()
}

#[test]
fn a_cohort_like_another_phantom_has_its_table() {
    let space = TestSpace::new();
    let phantom = json!({ "from": "phantom", "phantom": { "cases": 5, "shape": [18, 20, 18] } });
    let first = space.run::<Import>(phantom, &[]).expect("sound").load(&CASES);
    let model = inspect(&space, &first);
    let made = check(&space, &model);
    assert_eq!(patients(&model), patients(&made));
    assert!(made.cases.iter().all(|row| row.patient.starts_with("patient_")));
    // Flat ones alike.
    let phantom = json!({ "from": "phantom", "phantom": { "cases": 4, "shape": [1, 40, 48] } });
    let flat = space.run::<Import>(phantom, &[]).expect("sound").load(&CASES);
    assert!(flat.cases.iter().all(|case| case.shape[0] == 1 && case.label_foreground > Some(50)));
    check(&space, &inspect(&space, &flat));
}

#[test]
fn a_cohort_like_images_with_classes_has_their_table() {
    let space = TestSpace::new();
    let phantom = json!({ "from": "phantom", "archive": "x.npz", "classes": ["clear", "cloudy"], "phantom": { "cases": 24 } });
    let first = space.run::<Import>(phantom, &[]).expect("sound").load(&CASES);
    let model = inspect(&space, &first);
    let run = like(&space, &model, &json!({})).expect("the cohort is made");
    assert_eq!(findings(&run, ""), [""; 0]);
    let table = run.load(&CASES);
    let made = inspect(&space, &table);
    assert_eq!(model.summary.classes, made.summary.classes);
    assert!(table.cases.iter().all(|case| case.dtype == "uint8" && case.orientation == "LPS"));
    // Cases are dealt into parts anew, so they are compared as sorted.
    let sorted = |inspection: &Inspection, of: fn(&IntensityRow) -> f64| {
        let mut values: Vec<f64> = inspection.intensities.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let figures: [fn(&IntensityRow) -> f64; 5] =
        [|row| row.p1, |row| row.p50, |row| row.p99, |row| row.min, |row| row.max];
    for of in figures {
        for (one, other) in sorted(&model, of).into_iter().zip(sorted(&made, of)) {
            assert!((one - other).abs() <= 2.0, "{one} and {other}");
        }
    }
}

/// Anisotropic voxels in an odd direction, two channels, three labels of which one case lacks one and another all.
fn odd() -> Inspection {
    let shapes = [[5, 24, 20], [4, 20, 30], [6, 16, 16]];
    let ids = ["real_a", "real_b", "real_c"];
    let voxels: [[u64; 3]; 3] = [[120, 40, 7], [300, 0, 55], [0, 0, 0]];
    let case = |(index, id): (usize, &&str)| {
        let [z, y, x] = shapes[index];
        let foreground: u64 = voxels[index].iter().sum();
        CaseRow {
            case: (*id).into(),
            patient: if index == 1 { "real_a".into() } else { (*id).into() },
            class: None,
            shape_z: z,
            shape_y: y,
            shape_x: x,
            spacing_z_mm: 5.0,
            spacing_y_mm: 0.75,
            spacing_x_mm: 0.75,
            orientation: "LIP".into(),
            dtype: "int16".into(),
            channels: 2,
            foreground_voxels: Some(foreground),
            foreground_ml: None,
            foreground_share: None,
            border_voxels: None,
            outlier: String::new(),
        }
    };
    let channel = |id: &str, name: &str, values: [f64; 7]| {
        let [min, p1, p50, p99, max, mean, sd] = values;
        IntensityRow { case: id.into(), channel: name.into(), min, p1, p50, p99, max, mean, sd }
    };
    let intensities = ids.iter().flat_map(|id| {
        [
            channel(id, "CT", [-1024.0, -1020.0, -820.0, 300.0, 1500.0, -560.0, 430.0]),
            channel(id, "PET", [0.0, 0.0, 0.0, 180.0, 500.0, 40.0, 60.0]),
        ]
    });
    let names = ["liver", "lesion", "vessel"];
    let label = |case: usize, label: usize| LabelRow {
        case: ids[case].into(),
        label: [1, 2, 9][label],
        name: names[label].into(),
        voxels: voxels[case][label],
        ml: 0.0,
        components: 1,
        largest_component_voxels: 0,
    };
    let summary = |(index, name): (usize, &&str)| LabelSummary {
        label: [1, 2, 9][index],
        name: (*name).into(),
        cases: 1,
        voxel_share: 0.1,
        in_pieces: 0,
    };
    Inspection {
        cases: ids.iter().enumerate().map(case).collect(),
        intensities: intensities.collect(),
        labels: (0..3).flat_map(|case| (0..3).map(move |of| label(case, of))).collect(),
        summary: InspectionSummary {
            dataset: "Odd".into(),
            cases: 3,
            patients: 2,
            classes: BTreeMap::new(),
            labels: names.iter().enumerate().map(summary).collect(),
            distributions: BTreeMap::new(),
            outliers: Vec::new(),
            advice: Vec::new(),
        },
        lightbox: String::new(),
        plots: String::new(),
    }
}

#[test]
fn odd_voxels_channels_and_labels_are_kept() {
    let space = TestSpace::new();
    let made = check(&space, &odd());
    assert_eq!(patients(&made), [0, 0, 1]);
    let text = format!("{:?}", made.cases);
    assert!(!text.contains("real_"), "nothing of the real names is left: {text}");
}

#[test]
fn cohorts_that_are_alike_are_the_same_every_time_and_another_seed_gives_another() {
    let voxels = |seed: u64| {
        let space = TestSpace::new();
        let run = like(&space, &odd(), &json!({ "phantom": { "seed": seed } })).expect("made");
        run.load(&CASES).cases.into_iter().map(|case| case.voxels).collect::<Vec<_>>()
    };
    assert_eq!(voxels(0), voxels(0));
    assert!(voxels(0).iter().zip(voxels(1)).all(|(one, other)| *one != other));
    // On every machine and in every release.
    assert_eq!(voxels(0)[0].to_string(), "c1026b58b0ba1af05708b40a558729bec7aff1549eaf1edf688a397a33abdbb1");
}

#[test]
fn more_and_fewer_cases_than_there_are_can_be_made() {
    let space = TestSpace::new();
    let sizes = |count: usize| -> Vec<[usize; 3]> {
        let run = like(&space, &odd(), &json!({ "phantom": { "cases": count } })).expect("made");
        let table = run.load(&CASES);
        assert_eq!(table.patients().len(), [1, 2, 2, 3, 4, 4][count - 1]);
        table.cases.iter().map(|case| case.shape).collect()
    };
    assert_eq!(sizes(1), [[5, 24, 20]]);
    assert_eq!(sizes(3), [[5, 24, 20], [4, 20, 30], [6, 16, 16]]);
    assert_eq!(sizes(4)[3], [5, 24, 20]);
    assert_eq!(sizes(6).len(), 6);
}

#[test]
fn what_is_planted_is_wrong_with_cohorts_that_are_alike_too() {
    let space = TestSpace::new();
    let planted = json!({ "duplicates": 1, "labels": 1, "defects": 3 });
    let run = like(&space, &odd(), &json!({ "phantom": { "planted": planted } })).expect("made");
    let table = run.load(&CASES);
    // The three, a copy and one with the label map of another; no defect.
    assert_eq!(table.cases.len(), 5);
    assert_eq!(table.patients().len(), 4);
    let voxels: BTreeSet<_> = table.cases.iter().map(|case| case.voxels).collect();
    assert_eq!(voxels.len(), 4);
    assert_eq!(findings(&run, "Error").len(), 3);
}

#[track_caller]
fn refused(inspection: &Inspection, params: &Value, message: &str) {
    let error = like(&TestSpace::new(), inspection, params).expect_err(message).to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn what_contradicts_the_inspection_or_cannot_be_made_is_refused() {
    refused(
        &odd(),
        &json!({ "phantom": { "shape": [20, 20, 20] } }),
        "both `phantom.shape` and the inspection",
    );
    refused(&odd(), &json!({ "archive": "x.npz" }), "both `archive` and the inspection");
    let changed = |change: fn(&mut Inspection)| {
        let mut inspection = odd();
        change(&mut inspection);
        inspection
    };
    let none = changed(|of| of.cases.clear());
    refused(&none, &json!({}), "`like` is an inspection of no case");
    let huge = changed(|of| of.cases[1].shape_z = 1 << 20);
    refused(&huge, &json!({}), "case `real_b` of `like` cannot be resembled: it has 1048576×20×30 voxels");
    let nowhere = changed(|of| of.cases[0].spacing_x_mm = 0.0);
    refused(
        &nowhere,
        &json!({}),
        "case `real_a` of `like` cannot be resembled: voxels of [5.0, 0.75, 0.0] mm",
    );
    let fewer = changed(|of| drop(of.intensities.pop()));
    refused(
        &fewer,
        &json!({}),
        "case `real_c` of `like` cannot be resembled: 1 of its 2 channels have intensities",
    );
    let unlabelled = changed(|of| {
        (of.summary.labels, of.labels) = (Vec::new(), Vec::new());
        of.summary.classes.insert("ill".into(), 3);
        of.cases.iter_mut().for_each(|row| (row.class, row.foreground_voxels) = (Some("ill".into()), None));
    });
    refused(&unlabelled, &json!({}), "without label maps, only flat images that all have a class are made");
}

#[test]
fn a_cohort_like_the_real_hippocampi_has_their_table() {
    let Some(data) = real_data("Task04_Hippocampus") else { return };
    let space = TestSpace::new();
    let run = space.run::<Import>(json!({ "from": data, "patient": "id-pairs" }), &[]).expect("sound");
    let table = run.load(&CASES);
    let few = table.filtered(|case| case.id.ends_with('1'));
    let model = inspect(&space, &few);
    let made = check(&space, &model);
    let median = |inspection: &Inspection, name: &str| inspection.summary.distributions[name].median;
    for name in ["voxels", "volume of Anterior (ml)", "volume of Posterior (ml)", "spacing z (mm)"] {
        assert_eq!(median(&model, name), median(&made, name), "{name}");
    }
}
