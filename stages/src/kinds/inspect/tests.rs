use super::*;
use crate::kinds::import::{self, Import};
use crate::testing::{TestRun, TestSpace, real_data};
use serde_json::{Value, json};

fn import(space: &TestSpace, params: Value) -> CaseTable {
    space.run::<Import>(params, &[]).expect("the import goes through").load(&import::CASES)
}

fn phantom(space: &TestSpace, cases: usize) -> CaseTable {
    import(space, json!({ "from": "phantom", "phantom": { "cases": cases, "shape": [18, 20, 18] } }))
}

fn inspect_table(space: &TestSpace, table: &CaseTable) -> TestRun {
    space.run::<Inspect>(json!({}), &[("cases", &space.stored(table))]).expect("the inspection goes through")
}

fn advice<'a>(inspection: &'a Inspection, about: &str) -> &'a str {
    let found = inspection.summary.advice.iter().find(|advice| advice.about == about);
    &found.unwrap_or_else(|| panic!("no advice about {about}")).advice
}

#[test]
fn every_case_channel_and_label_has_a_row() {
    let space = TestSpace::new();
    let inspection = inspect_table(&space, &phantom(&space, 6)).load(&INSPECTION);
    assert_eq!((inspection.cases.len(), inspection.intensities.len(), inspection.labels.len()), (6, 6, 12));
    for (case, labels) in inspection.cases.iter().zip(inspection.labels.chunks(2)) {
        assert_eq!(case.foreground_voxels, Some(labels[0].voxels + labels[1].voxels));
        // 1 mm voxels: a thousand are a millilitre.
        assert_eq!(labels[0].ml, labels[0].voxels as f64 / 1000.0);
    }
    for row in &inspection.intensities {
        assert!(row.min <= row.p1 && row.p1 < row.p50 && row.p50 < row.p99 && row.p99 <= row.max, "{row:?}");
    }
}

#[test]
fn outputs_are_the_same_from_the_memo_and_fresh() {
    let space = TestSpace::new();
    let table = phantom(&space, 10);
    let first = inspect_table(&space, &table);
    let again = inspect_table(&space, &table);
    assert_eq!((first.memo_misses, again.memo_misses), (10, 0));
    assert_eq!(first.content("inspection"), again.content("inspection"));
    assert_eq!(first.content("inspection").len(), 6);
}

#[test]
fn adding_a_case_measures_one_case() {
    let space = TestSpace::new();
    let table = phantom(&space, 6);
    let fewer = table.filtered(|case| case.id != "phantom_003");
    assert_eq!(inspect_table(&space, &fewer).memo_misses, 5);
    assert_eq!(inspect_table(&space, &table).memo_misses, 1);
}

#[test]
fn the_lightbox_shows_at_most_the_number_asked_for() {
    let space = TestSpace::new();
    let table = phantom(&space, 6);
    for (count, shown) in [(0, 0), (4, 4), (24, 6)] {
        let run = space
            .run::<Inspect>(json!({ "lightbox": count }), &[("cases", &space.stored(&table))])
            .expect("the inspection goes through");
        let picture = run.load(&INSPECTION).lightbox;
        assert_eq!(picture.matches("phantom_").count(), shown);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    }
}

#[test]
fn chosen_cases_are_distinct_and_hold_outliers() {
    let space = TestSpace::new();
    let table = phantom(&space, 6);
    for count in 0..8 {
        for outliers in
            [vec![], vec!["phantom_002"], vec!["phantom_001", "phantom_004", "phantom_005", "phantom_006"]]
        {
            let outliers: BTreeSet<&str> = outliers.into_iter().collect();
            let chosen = choose(&table, &outliers, count);
            assert_eq!(chosen.len(), count.min(6), "{count} of 6 with {outliers:?}");
            let odd =
                chosen.iter().filter(|index| outliers.contains(table.cases[**index].id.as_str())).count();
            assert!(odd >= outliers.len().min(count.div_ceil(2)));
        }
    }
}

#[test]
fn a_table_without_cases_gives_an_empty_inspection() {
    let space = TestSpace::new();
    let empty = phantom(&space, 2).filtered(|_| false);
    let inspection = inspect_table(&space, &empty).load(&INSPECTION);
    assert_eq!((inspection.cases.len(), inspection.summary.advice.len()), (0, 0));
}

#[test]
fn cases_without_labels_are_measured_too() {
    let space = TestSpace::new();
    let mut table = phantom(&space, 3);
    for case in &mut table.cases {
        (case.label, case.label_voxels, case.label_foreground) = (None, None, None);
    }
    let inspection = inspect_table(&space, &table).load(&INSPECTION);
    assert_eq!(inspection.labels, []);
    assert_eq!(inspection.cases[0].foreground_voxels, None);
}

#[test]
fn the_real_data_set_is_described_as_measured_elsewhere() {
    let Some(data) = real_data("Task04_Hippocampus") else { return };
    let space = TestSpace::new();
    let table = import(&space, json!({ "from": data, "patient": "id-pairs" }));
    let run = inspect_table(&space, &table);
    let inspection = run.load(&INSPECTION);
    assert_eq!(inspection.cases.len(), 195);
    assert_eq!(advice(&inspection, "spacing"), "no resampling is needed");
    assert!(advice(&inspection, "normalisation").starts_with("z-score every image"));
    assert!(advice(&inspection, "imbalance").starts_with("use a Dice loss"));
    assert!(
        inspection.cases.iter().all(|row| row.border_voxels.is_some_and(|gap| gap > 0)),
        "no label touches the border"
    );
    // The one label with a detached component in the published data.
    let pieces: Vec<&str> = inspection
        .summary
        .outliers
        .iter()
        .filter(|outlier| outlier.quantity == "components")
        .map(|outlier| outlier.case.as_str())
        .collect();
    let expected: &[&str] = if table.get("hippocampus_156").is_some() { &["hippocampus_156"] } else { &[] };
    assert_eq!(pieces, expected);
    let share = inspection.summary.distributions["foreground share"];
    assert!((0.0375..0.0755).contains(&share.min) && share.max < 0.0755, "{share:?}");
}

#[test]
fn classes_are_counted_and_an_uneven_number_is_told() {
    let space = TestSpace::new();
    let mut table = phantom(&space, 9);
    for (index, case) in table.cases.iter_mut().enumerate() {
        case.class = Some(if index < 6 { "ill" } else { "well" }.into());
    }
    let inspection = inspect_table(&space, &table).load(&INSPECTION);
    assert_eq!(inspection.summary.classes, BTreeMap::from([("ill".into(), 6), ("well".into(), 3)]));
    assert!(advice(&inspection, "class imbalance").starts_with("split with `stratify: [class]`"));
    assert!(inspection.plots.contains("cases by class (9)"));
    table.cases.retain(|case| case.class.as_deref() == Some("ill"));
    let even = inspect_table(&space, &table).load(&INSPECTION);
    assert!(even.summary.advice.iter().all(|advice| advice.about != "class imbalance"));
}
