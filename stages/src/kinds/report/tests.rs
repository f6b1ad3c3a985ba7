mod classes;
mod statistics;

use super::*;
use crate::artifacts::inspection::{CaseRow, InspectionSummary, LabelRow, LabelSummary, Outlier};
use crate::artifacts::metrics::{
    Interval, MemberFact, MetricRow, MetricSummary, MetricsSummary, PredictionFacts, Rules, RuntimeFact,
};
use crate::artifacts::training_log::{EpochRow, LabelDiceRow};
use crate::artifacts::{Advice, Distribution};
use crate::testing::{TestSpace, problems};
use pipe_cache::Digest;
use pipe_metrics::summary::Summary;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HOSTILE: &str = "\"><script>alert('1')</script>&amp;\0\u{202e}`";

/// Dice of cases `c0`, `c1`, …, one list a label; NaN is undefined.
fn metrics(labels: &[(&str, &[f64])]) -> Metrics {
    let defined = |value: f64| (!value.is_nan()).then_some(value);
    let mut rows = Vec::new();
    let mut summaries = Vec::new();
    for (index, (name, values)) in labels.iter().enumerate() {
        let (label, metric) = (index as u8 + 1, String::from("dice"));
        for (case, value) in values.iter().enumerate() {
            let (case, patient) = (format!("c{case}"), format!("p{}", case / 2));
            rows.push(MetricRow {
                case,
                patient,
                label,
                name: (*name).into(),
                metric: metric.clone(),
                value: defined(*value),
                by_rule: value.is_nan(),
            });
        }
        let Summary { count, undefined, mean, sd, min, q1, median, q3, max } = Summary::of(values);
        summaries.push(MetricSummary {
            label,
            name: (*name).into(),
            metric,
            n: count,
            undefined,
            by_rule: undefined,
            mean: defined(mean),
            interval: defined(mean).map(|mean| Interval { low: mean - 0.125, high: mean + 0.0625 }),
            sd: defined(sd),
            min: defined(min),
            q1: defined(q1),
            median: defined(median),
            q3: defined(q3),
            max: defined(max),
        });
    }
    rows.sort_by(|a, b| (&a.case, a.label).cmp(&(&b.case, b.label)));
    let means: Vec<f64> = summaries.iter().filter_map(|summary| summary.mean).collect();
    let summary = MetricsSummary {
        part: "test".into(),
        folds: Vec::new(),
        cases: labels[0].1.len(),
        patients: labels[0].1.len().div_ceil(2),
        without_reference: Vec::new(),
        mean_foreground_dice: defined(Summary::of(&means).mean),
        mean_foreground_dice_interval: Some(Interval { low: 0.25, high: 0.75 }),
        labels: Vec::new(),
        metrics: summaries,
        comparison: Vec::new(),
        ensemble: None,
        rules: Rules {
            definition: "deepmind".into(),
            tolerance_mm: BTreeMap::new(),
            empty: "worst".into(),
            absent: "undefined".into(),
            connectivity: "26".into(),
            lesion_overlap: 0.0,
            confidence: 0.9,
            resamples: 300,
        },
        definitions: BTreeMap::from([
            ("dice".into(), "2·TP / (2·TP + FP + FN).".into()),
            ("space".into(), "The grid of the source.".into()),
        ]),
        prediction: Some(PredictionFacts {
            members: [("onnx[fold=0]", 1.0), ("onnx[fold=1]", 3.0)].map(member).into(),
            mirror: false,
            overlap: 0.5,
            blend: pipe_onnx::Blend::Gaussian,
            tiling: pipe_onnx::Tiling::Nnunet,
            combine: crate::artifacts::Combine::MeanProbabilities,
            device: pipe_onnx::Provider::Cpu,
            runtime: RuntimeFact {
                name: "ONNX Runtime".into(),
                version: "1.2.3".into(),
                build: "a build".into(),
            },
        }),
    };
    Metrics { rows, summary }
}

fn member((name, weight): (&str, f64)) -> MemberFact {
    MemberFact { name: name.into(), weight, digest: Digest::of_bytes(name.as_bytes()) }
}

fn case_row(case: &str, outlier: &str) -> CaseRow {
    CaseRow {
        case: case.into(),
        patient: "p".into(),
        class: None,
        shape_z: 10,
        shape_y: 20,
        shape_x: 30,
        spacing_z_mm: 3.0,
        spacing_y_mm: 1.0,
        spacing_x_mm: 0.5,
        orientation: "RAS".into(),
        dtype: "float32".into(),
        channels: 1,
        foreground_voxels: Some(8),
        foreground_ml: Some(0.012),
        foreground_share: Some(0.001),
        border_voxels: Some(2),
        outlier: outlier.into(),
    }
}

fn inspection() -> Inspection {
    let mut larger = case_row("c1", "is `large`");
    larger.shape_x = 40;
    let volume = |case: &str, ml: f64| LabelRow {
        case: case.into(),
        label: 1,
        name: "left".into(),
        voxels: 8,
        ml,
        components: 1,
        largest_component_voxels: 8,
    };
    let outlier = |case: &str, robust_z: Option<f64>| Outlier {
        case: case.into(),
        quantity: "voxels".into(),
        reason: format!("reason of {case}"),
        robust_z,
    };
    Inspection {
        cases: vec![case_row("c0", ""), larger],
        intensities: Vec::new(),
        labels: vec![volume("c0", 0.012), volume("c1", 0.015)],
        summary: InspectionSummary {
            dataset: "Hippocampus".into(),
            cases: 2,
            patients: 1,
            classes: BTreeMap::new(),
            labels: vec![LabelSummary {
                label: 1,
                name: "left".into(),
                cases: 2,
                voxel_share: 0.0125,
                in_pieces: 1,
            }],
            distributions: BTreeMap::from([
                (
                    "voxels".into(),
                    Distribution {
                        count: 2,
                        min: 6000.0,
                        q1: 6500.0,
                        median: 7000.0,
                        q3: 7500.0,
                        max: 8000.0,
                    },
                ),
                (
                    "spacing z (mm)".into(),
                    Distribution { count: 2, min: 3.0, q1: 3.0, median: 3.0, q3: 3.0, max: 3.0 },
                ),
            ]),
            outliers: vec![outlier("far", Some(-4.0)), outlier("farther", Some(9.0)), outlier("odd", None)],
            advice: vec![Advice {
                about: "spacing".into(),
                advice: "resample".into(),
                reason: "z is coarse".into(),
            }],
        },
        lightbox: "<svg><image href=\"data:image/png;base64,AA==\"/></svg>".into(),
        plots: String::new(),
    }
}

/// A log of one label and two; `dice` of the epochs that were validated.
fn log(dice: &[Option<f64>]) -> TrainingLog {
    let epochs = || dice.iter().enumerate().map(|(index, dice)| (index + 1, *dice));
    let row = |(epoch, validation_dice): (usize, Option<f64>)| EpochRow {
        epoch,
        loss: 1.0 / epoch as f64,
        learning_rate: 0.01,
        gradient_norm: 1.0,
        validation_loss: None,
        validation_dice,
        validation_accuracy: None,
        validation_auc: None,
    };
    let of = |label: u8, name: &'static str| {
        epochs().filter(|(_, dice)| dice.is_some()).map(move |(epoch, dice)| LabelDiceRow {
            epoch,
            label,
            name: name.into(),
            dice,
        })
    };
    TrainingLog {
        rows: epochs().map(row).collect(),
        dice: of(1, "left").chain(of(2, "right")).collect(),
        ..TrainingLog::default()
    }
}

/// The page that the stage writes.
#[track_caller]
fn page(params: Value, metrics: &Metrics, inspection: Option<&Inspection>, logs: &[TrainingLog]) -> String {
    let space = TestSpace::new();
    let metrics = space.stored(metrics);
    let inspection = inspection.map(|inspection| space.stored(inspection));
    let logs: Vec<_> = logs.iter().map(|log| space.stored(log)).collect();
    let inputs = [
        ("metrics", vec![metrics.as_path()]),
        ("inspect", inspection.iter().map(std::path::PathBuf::as_path).collect()),
        ("training", logs.iter().map(std::path::PathBuf::as_path).collect()),
    ];
    let run = space.run_many::<Report>(params, &inputs).expect("the report goes through");
    assert_eq!(run.content("report").len(), 1, "the page is the only file");
    run.load(&REPORT).html
}

/// Reads the page as XML, which fails unless every tag has its end.
#[track_caller]
fn parsed(html: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(html, options).expect("the page is well-formed")
}

/// All text inside an element, with single spaces.
fn text(node: Node) -> String {
    let texts: String = node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect();
    texts.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn all<'a, 'b>(document: &'a Document<'b>, tag: &str) -> Vec<Node<'a, 'b>> {
    document.descendants().filter(|node| node.has_tag_name(tag)).collect()
}

fn of_class<'a, 'b>(document: &'a Document<'b>, class: &str) -> Vec<Node<'a, 'b>> {
    document.descendants().filter(|node| node.attribute("class") == Some(class)).collect()
}

/// The cells of the rows of the table below this heading.
#[track_caller]
fn rows(document: &Document<'_>, heading: &str) -> Vec<Vec<String>> {
    let headings = all(document, "h3");
    let heading = headings.iter().find(|node| text(**node).starts_with(heading)).expect("a heading");
    let mut after = document.descendants().skip_while(|node| node != heading);
    let table = after.find(|node| node.has_tag_name("table")).expect("a table below the heading");
    let cells = |row: Node| row.children().filter(Node::is_element).map(text).collect();
    table.descendants().filter(|node| node.has_tag_name("tr")).skip(1).map(cells).collect()
}

#[test]
fn the_figures_are_those_of_the_metrics() {
    let metrics = metrics(&[("left", &[0.5, 0.75, 1.0]), ("right", &[0.875, f64::NAN, 0.625])]);
    let html = page(json!({}), &metrics, None, &[]);
    let page = parsed(&html);
    assert_eq!(text(of_class(&page, "big")[0]), "0.750");
    assert_eq!(
        rows(&page, "Figures"),
        [
            vec!["Dice"],
            vec![
                "left",
                "3",
                "0",
                "0.750",
                "0.625 to 0.812",
                "0.250",
                "0.500",
                "0.625",
                "0.750",
                "0.875",
                "1.000"
            ],
            vec![
                "right",
                "2",
                "1",
                "0.750",
                "0.625 to 0.812",
                "0.177",
                "0.625",
                "0.688",
                "0.750",
                "0.812",
                "0.875"
            ],
        ]
    );
    assert!(text(page.root()).contains("3 cases of 2 patients: the test set"), "{}", text(page.root()));
    // One dot a defined value, each with its case.
    let dots: Vec<String> = of_class(&page, "dot").into_iter().map(text).collect();
    assert_eq!(dots, ["c0: 0.500", "c1: 0.750", "c2: 1.000", "c2: 0.625", "c0: 0.875"]);
}

#[test]
fn the_page_tells_which_cases_were_scored() {
    #[track_caller]
    fn check(part: &str, folds: &[usize], expected: &str) {
        let mut metrics = metrics(&[("left", &[0.5])]);
        (metrics.summary.part, metrics.summary.folds) = (part.into(), folds.into());
        let html = page(json!({}), &metrics, None, &[]);
        let text = text(parsed(&html).root());
        assert!(text.contains(expected), "`{expected}` is not in {text}");
    }
    check("test", &[], "1 case of 1 patient: the test set, held out from training.");
    check("validation", &[2], ": validation cases of fold 2, each predicted only by networks");
    check("all", &[0, 1], ": the test set, and validation cases of folds 0, 1, each predicted only by");
}

#[test]
fn undefined_values_are_called_so_and_counted() {
    let nan = f64::NAN;
    let html = page(json!({}), &metrics(&[("left", &[nan, nan]), ("right", &[0.5, nan])]), None, &[]);
    let page = parsed(&html);
    assert!(text(page.root()).contains("Dice is undefined in 3 of 4 values"));
    assert_eq!(rows(&page, "Figures")[1][..4], ["left", "0", "2", "undefined"]);
    assert_eq!(rows(&page, "All cases"), [["c0", "p0", "0.500", "undefined", "0.500"]]);
    assert!(!html.contains("NaN") && !html.contains("null"));
}

#[test]
fn nothing_defined_is_no_zero() {
    let html = page(json!({}), &metrics(&[("left", &[f64::NAN])]), None, &[log(&[None, None])]);
    let page = parsed(&html);
    assert_eq!(text(of_class(&page, "big")[0]), "undefined");
    assert_eq!(of_class(&page, "dot").len(), 0);
    assert!(text(page.root()).contains("2 epochs, not validated"));
}

#[test]
fn a_report_of_no_scored_case_says_so() {
    let mut metrics = metrics(&[("left", &[])]);
    (metrics.summary.cases, metrics.summary.without_reference) = (1, vec!["alone".into()]);
    let html = page(json!({}), &metrics, None, &[]);
    let text = text(parsed(&html).root());
    assert!(text.contains("No predicted case has a reference"), "{text}");
    assert!(text.contains("1 more case was predicted without a reference and not scored: alone."), "{text}");
}

#[test]
fn the_lowest_cases_come_first_with_what_is_known_of_them() {
    let dice = [0.9, 0.2, 0.8, 0.7, 0.6, 0.5, 0.95];
    let html = page(json!({}), &metrics(&[("left", &dice)]), Some(&inspection()), &[]);
    assert_eq!(
        rows(&parsed(&html), "The 5 cases"),
        [
            ["c1", "p0", "0.200", "0.200", "is large"],
            ["c5", "p2", "0.500", "0.500", "was not inspected"],
            ["c4", "p2", "0.600", "0.600", "was not inspected"],
            ["c3", "p1", "0.700", "0.700", "was not inspected"],
            ["c2", "p1", "0.800", "0.800", "was not inspected"],
        ]
    );
}

#[test]
fn equal_cases_are_listed_by_id() {
    let html = page(json!({}), &metrics(&[("left", &[0.5; 12])]), None, &[]);
    let rows = rows(&parsed(&html), "The 5 cases");
    let cases: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(cases, ["c0", "c1", "c10", "c11", "c2"]);
}

#[test]
fn with_many_labels_the_lowest_of_each_case_is_named() {
    let labels: Vec<(String, [f64; 2])> =
        (1..=7).map(|label| (format!("l{label}"), [0.9 - 0.1 * f64::from(label), 0.9])).collect();
    let labels: Vec<(&str, &[f64])> =
        labels.iter().map(|(name, values)| (name.as_str(), values.as_slice())).collect();
    let html = page(json!({}), &metrics(&labels), None, &[]);
    assert_eq!(rows(&parsed(&html), "All cases")[0], ["c0", "p0", "0.500", "l7 0.200"]);
}

#[test]
fn the_data_are_described() {
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), Some(&inspection()), &[]);
    let page = parsed(&html);
    let facts: Vec<String> = all(&page, "dd").into_iter().map(text).collect();
    for fact in [
        "2 cases of 1 patient, all with a label map",
        "10 × 20 × 30–40 voxels",
        "3 × 1 × 0.5 mm",
        "RAS in every case",
    ] {
        assert!(facts.iter().any(|text| text == fact), "`{fact}` is not in {facts:?}");
    }
    assert_eq!(rows(&page, "Labels"), [["left", "1", "2", "1.25 %", "1"]]);
    assert_eq!(rows(&page, "What follows"), [["spacing", "resample", "z is coarse"]]);
    // Different in kind first, then by distance.
    assert_eq!(
        rows(&page, "Cases that stand out"),
        [
            ["odd", "reason of odd", "–"],
            ["farther", "reason of farther", "9.0"],
            ["far", "reason of far", "−4.0"]
        ]
    );
    // What is the same in every case is no distribution.
    assert_eq!(rows(&page, "Distributions"), [["voxels", "2", "6,000", "6,500", "7,000", "7,500", "8,000"]]);
    let picture = all(&page, "img")[0].attribute("src").expect("a source");
    assert!(picture.starts_with("data:image/svg+xml;base64,PHN2Zz48aW1hZ2"), "{picture}");
}

#[test]
fn every_training_has_its_curves() {
    let logs = [log(&[None, Some(0.5), None, Some(0.75), Some(0.625)]), log(&[Some(0.25)])];
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), None, &logs);
    let page = parsed(&html);
    let captions: Vec<String> = all(&page, "figcaption").into_iter().map(text).collect();
    assert_eq!(captions[1], "training[0]5 epochs; highest mean Dice 0.750 after epoch 4");
    assert_eq!(captions[2], "training[1]1 epoch; highest mean Dice 0.250 after epoch 1");
    let lines =
        |class: &str| of_class(&page, class).into_iter().filter(|node| node.has_tag_name("polyline")).count();
    // Two labels, and mean and loss, of two trainings.
    assert_eq!((lines("curve c1"), lines("curve c2"), lines("curve mean")), (2, 2, 4));
    // Epochs without validation have no point: the line goes from epoch 2 to 4 and 5.
    let line = of_class(&page, "curve c1")[0].attribute("points").expect("points");
    assert_eq!(line.split(' ').count(), 3);
}

#[test]
fn a_loss_that_is_no_number_is_told() {
    let mut broken = log(&[Some(0.5), Some(0.6), Some(0.7)]);
    broken.rows[1].loss = f64::NAN;
    broken.rows[2].loss = f64::INFINITY;
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), None, &[broken]);
    assert!(text(parsed(&html).root()).contains("the loss is no number in 2 epochs"));
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn inputs_that_are_not_there_leave_no_section() {
    let ids = |html: &str| -> Vec<String> {
        let page = parsed(html);
        all(&page, "section").iter().filter_map(|node| node.attribute("id").map(String::from)).collect()
    };
    let metrics = metrics(&[("left", &[0.5, 0.6])]);
    assert_eq!(ids(&page(json!({}), &metrics, None, &[])), ["results", "method"]);
    assert_eq!(ids(&page(json!({}), &metrics, Some(&inspection()), &[])), ["results", "data", "method"]);
    assert_eq!(ids(&page(json!({}), &metrics, None, &[log(&[None])])), ["results", "training", "method"]);
}

#[test]
fn links_lead_to_sections() {
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), Some(&inspection()), &[log(&[Some(0.5)])]);
    let page = parsed(&html);
    let links: Vec<&str> = all(&page, "a").into_iter().filter_map(|link| link.attribute("href")).collect();
    assert_eq!(links, ["#results", "#data", "#training", "#method"]);
    for link in links {
        let sections = all(&page, "section");
        assert!(
            sections.iter().any(|section| section.attribute("id") == link.strip_prefix('#')),
            "{link} leads nowhere"
        );
    }
}

#[test]
fn the_networks_and_their_weights_are_named() {
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), None, &[]);
    let page = parsed(&html);
    let rows = rows(&page, "Prediction");
    assert_eq!((rows[0][0].as_str(), rows[0][1].as_str()), ("onnx[fold=0]", "25 %"));
    assert_eq!((rows[1][0].as_str(), rows[1][1].as_str()), ("onnx[fold=1]", "75 %"));
    assert!(text(page.root()).contains("ran in ONNX Runtime 1.2.3"));
    assert!(text(page.root()).contains("2·TP / (2·TP + FP + FN)."));
}

#[test]
fn hostile_text_is_only_text() {
    let mut metrics = metrics(&[(HOSTILE, &[0.5, f64::NAN])]);
    for row in &mut metrics.rows {
        (row.case, row.patient) = (format!("{HOSTILE}{}", row.case), HOSTILE.into());
    }
    let summary = &mut metrics.summary;
    (summary.part, summary.without_reference) = (HOSTILE.into(), vec![HOSTILE.into()]);
    summary.definitions.insert(HOSTILE.into(), HOSTILE.into());
    let prediction = summary.prediction.as_mut().expect("networks did it");
    prediction.members[0].name = HOSTILE.into();
    prediction.runtime = RuntimeFact { name: HOSTILE.into(), version: HOSTILE.into(), build: HOSTILE.into() };
    let mut inspection = inspection();
    for row in &mut inspection.cases {
        (row.case, row.orientation, row.dtype, row.outlier) =
            (HOSTILE.into(), HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    }
    inspection.labels.iter_mut().for_each(|row| (row.case, row.name) = (HOSTILE.into(), HOSTILE.into()));
    let summary = &mut inspection.summary;
    summary.dataset = HOSTILE.into();
    summary.labels[0].name = HOSTILE.into();
    (summary.outliers[0].case, summary.outliers[0].reason) = (HOSTILE.into(), HOSTILE.into());
    summary.advice = vec![Advice { about: HOSTILE.into(), advice: HOSTILE.into(), reason: HOSTILE.into() }];
    inspection.lightbox = format!("<svg><image/></svg>{HOSTILE}");
    let mut log = log(&[Some(0.5)]);
    log.dice.iter_mut().for_each(|row| row.name = HOSTILE.into());

    let html = page(json!({ "title": HOSTILE }), &metrics, Some(&inspection), &[log]);
    let page = parsed(&html);
    for tag in ["script", "iframe", "object", "link"] {
        assert_eq!(all(&page, tag).len(), 0, "a <{tag}> came through");
    }
    // As many elements as without hostile text would have: images and styles are ours.
    assert_eq!((all(&page, "img").len(), all(&page, "style").len(), all(&page, "h1").len()), (1, 1, 1));
    let attributes: Vec<&str> =
        page.descendants().flat_map(|node| node.attributes()).map(|attribute| attribute.name()).collect();
    assert!(attributes.iter().all(|name| !name.starts_with("on")), "a handler came through");
    assert_eq!(text(all(&page, "h1")[0]), "\"><script>alert('1')</script>&amp;��`");
}

#[test]
fn the_page_loads_nothing() {
    let html = page(json!({}), &metrics(&[("left", &[0.5])]), Some(&inspection()), &[log(&[Some(0.5)])]);
    let page = parsed(&html);
    for node in page.descendants() {
        for attribute in node
            .attributes()
            .filter(|attribute| matches!(attribute.name(), "src" | "href" | "srcset" | "data"))
        {
            let local = attribute.value().starts_with("data:") || attribute.value().starts_with('#');
            assert!(local, "{} points outside", attribute.value());
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
    assert!(html.contains("default-src &#39;none&#39;"));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (metrics, inspection) =
        (metrics(&[("left", &[0.5, 0.6, 0.7]), ("right", &[0.4, 0.6, 0.9])]), inspection());
    let logs = [log(&[Some(0.1), None, Some(0.3)]), log(&[None, Some(0.2)])];
    let first = page(json!({}), &metrics, Some(&inspection), &logs);
    assert_eq!(first, page(json!({}), &metrics, Some(&inspection), &logs));
}

#[test]
fn the_title_is_given_or_the_data_set_or_a_word() {
    #[track_caller]
    fn check(params: Value, inspection: Option<&Inspection>, expected: &str) {
        let html = page(params, &metrics(&[("left", &[0.5])]), inspection, &[]);
        let page = parsed(&html);
        assert_eq!(
            (text(all(&page, "h1")[0]), text(all(&page, "title")[0])),
            (expected.into(), expected.into())
        );
    }
    check(json!({ "title": "Mine" }), Some(&inspection()), "Mine");
    check(json!({}), Some(&inspection()), "Hippocampus");
    check(json!({}), None, "Segmentation report");
    let problems = problems::<Report>(json!({ "title": "  " }));
    assert_eq!(problems.iter().map(|problem| problem.parameter).collect::<Vec<_>>(), ["title"]);
}
