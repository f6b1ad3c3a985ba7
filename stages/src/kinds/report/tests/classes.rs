//! The section on class probabilities.

use super::*;
use crate::artifacts::class_metrics::{
    ClassComparison, ClassFigure, ClassMetrics, ClassSummary, ClassifiedCase, CurveRow, MemberSpread,
    PairedTest, ReliabilityRow, SpreadRow,
};
use crate::artifacts::{DatasetInfo, Preparation, VolumeRow, Volumes, VolumesInfo};
use base64::Engine as _;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Affine, Geometry, Image};

fn figure(metric: &str, class: Option<&str>, value: f64) -> ClassFigure {
    ClassFigure {
        metric: metric.into(),
        class: class.map(str::to_owned),
        value: Some(value),
        interval: Some(Interval { low: value - 0.125, high: value + 0.0625 }),
    }
}

/// Cases of two patients, one of them in a wrong class.
fn scored(ill: &str) -> ClassMetrics {
    let case = |case: &str, truth: &str, predicted: &str, probability: f64| ClassifiedCase {
        case: case.into(),
        patient: format!("p{}", &case[1..]),
        truth: truth.into(),
        predicted: predicted.into(),
        probability,
    };
    let curve = |class: &str| {
        [(0.0, 0.0), (0.0, 0.5), (1.0, 1.0)].map(|(x, y)| CurveRow {
            class: class.into(),
            threshold: Some(0.5),
            x,
            y,
        })
    };
    ClassMetrics {
        cases: vec![
            case("c1", "healthy", "healthy", 0.75),
            case("c2", ill, "healthy", 0.625),
            case("c3", "healthy", ill, 0.875),
            case("c4", ill, ill, 0.9),
        ],
        reliability: vec![ReliabilityRow { from: 0.5, to: 1.0, cases: 4, confidence: 0.75, observed: 0.5 }],
        roc: [curve("healthy"), curve(ill)].concat(),
        pr: [curve("healthy"), curve(ill)].concat(),
        summary: ClassSummary {
            cases: 4,
            patients: 4,
            classes: vec!["healthy".into(), ill.into()],
            metrics: vec![
                figure("accuracy", None, 0.5),
                figure("auc_roc", None, 0.75),
                figure("recall", Some("healthy"), 0.5),
                figure("recall", Some(ill), 0.25),
            ],
            comparison: Vec::new(),
            members: None,
            confusion: vec![vec![1, 1], vec![1, 1]],
            confidence: 0.9,
            resamples: 300,
            bins: 2,
            definitions: [("auc_roc", "Area."), ("comparison", "Of differences."), ("members", "Of means.")]
                .map(|(key, text)| (key.into(), text.into()))
                .into(),
        },
    }
}

#[track_caller]
fn html(metrics: &ClassMetrics, volumes: bool, logs: &[TrainingLog]) -> String {
    let space = TestSpace::new();
    let stored = space.stored(metrics);
    let volumes = volumes.then(|| space.stored(&three_pixels(&space)));
    let logs: Vec<_> = logs.iter().map(|log| space.stored(log)).collect();
    let inputs = [
        ("classes", vec![stored.as_path()]),
        ("volumes", volumes.iter().map(std::path::PathBuf::as_path).collect()),
        ("training", logs.iter().map(std::path::PathBuf::as_path).collect()),
    ];
    let run = space.run_many::<Report>(json!({}), &inputs).expect("the report goes through");
    run.load(&REPORT).html
}

/// Images of the wrong cases.
fn three_pixels(space: &TestSpace) -> Volumes {
    let root = space.path().join("prepared");
    let grid = Geometry::new([1, 1, 3], Affine::of_picture([1.0; 3]));
    let row = |id: &str| {
        let image = Image::from_vec(vec![-1.0, 0.0, 1.0], 1, grid).expect("three pixels");
        let transform = Transform::new(&grid).canonical();
        let image = transform.apply_image(&image).expect("the grid of the picture");
        Volumes::write_case(&root, id, &image, None, &transform).expect("temporary files");
        VolumeRow {
            id: id.into(),
            patient: id.into(),
            channels: 1,
            shape: [1, 1, 3],
            spacing_mm: [1.0; 3],
            source_shape: [1, 1, 3],
            source_spacing_mm: [1.0; 3],
            label: None,
        }
    };
    let info = VolumesInfo { dataset: DatasetInfo::default(), preparation: Preparation::NONE };
    Volumes::new(info, vec![row("c2"), row("c3")], &root)
}

#[test]
fn the_area_is_in_large_with_what_it_is_of() {
    let html = html(&scored("ill"), false, &[]);
    let page = parsed(&html);
    assert_eq!(text(of_class(&page, "big")[0]), "0.750");
    let whole = text(page.root());
    for expected in [
        "Classification of 4 cases into healthy, ill, scored against the true classes.",
        "area under the ROC curve, of ill",
        "90 % interval 0.625 to 0.812",
        "4 cases of 4 patients.",
    ] {
        assert!(whole.contains(expected), "`{expected}` is not in {whole}");
    }
    assert_eq!(
        rows(&page, "Figures"),
        [["Accuracy", "0.500", "0.375 to 0.562"], ["AUC (ROC)", "0.750", "0.625 to 0.812"]]
    );
    // ROC, precision and recall, reliability, confusion.
    assert_eq!(all(&page, "svg").len(), 4);
    assert_eq!(of_class(&page, "cell").len(), 4);
    assert!(!html.contains("NaN"));
}

#[test]
fn the_strongest_mistakes_come_first_with_their_images() {
    let page_text = html(&scored("ill"), true, &[]);
    let page = parsed(&page_text);
    let shown: Vec<String> = of_class(&page, "mistakes")[0]
        .descendants()
        .filter(|node| node.has_tag_name("figcaption"))
        .map(text)
        .collect();
    assert_eq!(shown, ["c3ill 0.875is healthy", "c2healthy 0.625is ill"]);
    assert!(text(page.root()).contains("2 cases are in a wrong class."));
    let images = all(&page, "img");
    assert_eq!(images.len(), 2);
    let address = images[0].attribute("src").expect("an address");
    let picture = address.strip_prefix("data:image/png;base64,").expect("a picture in the page");
    let picture = base64::engine::general_purpose::STANDARD.decode(picture).expect("base64");
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG file");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
    reader.next_frame(&mut pixels).expect("a whole picture");
    // The middle row, from the first pixel of the image to the last.
    let row = &pixels[3 * 128 * 64..3 * 128 * 65];
    assert_eq!((row[0], row[3 * 64], row[3 * 127]), (0, 127, 255));
    let without = html(&scored("ill"), false, &[]);
    assert_eq!(all(&parsed(&without), "img").len(), 0);
    let mut right = scored("ill");
    right.cases.retain(|case| case.truth == case.predicted);
    assert!(html(&right, false, &[]).contains("Every case was put in its class."));
}

#[test]
fn members_and_baseline_have_tables() {
    let mut metrics = scored("ill");
    let interval = Some(Interval { low: -0.5, high: 0.25 });
    metrics.summary.members = Some(MemberSpread {
        names: vec!["single[seed=1]".into(), "single[seed=2]".into()],
        rows: vec![SpreadRow {
            metric: "auc_roc".into(),
            values: vec![Some(0.5), Some(0.75)],
            mean: Some(0.625),
            sd: Some(0.17678),
            min: Some(0.5),
            max: Some(0.75),
            difference: Some(0.125),
            interval,
        }],
    });
    metrics.summary.comparison = vec![ClassComparison {
        metric: "auc_roc".into(),
        value: Some(0.75),
        baseline: Some(1.0),
        difference: Some(-0.25),
        interval,
        p_bootstrap: Some(0.125),
        test: Some(PairedTest { name: "DeLong".into(), p: Some(1e-6) }),
    }];
    let html = html(&metrics, false, &[]);
    let page = parsed(&html);
    assert_eq!(
        rows(&page, "Single networks"),
        [["AUC (ROC)", "0.500", "0.750", "0.625", "0.1768", "+0.125", "−0.500 to 0.250"]]
    );
    assert_eq!(
        rows(&page, "Compared with the baseline"),
        [["AUC (ROC)", "0.750", "1.000", "−0.250", "−0.500 to 0.250", "0.1250", "< 0.0001", "DeLong"]]
    );
}

#[test]
fn a_training_of_classes_is_drawn_by_its_area() {
    let mut log = log(&[None, None]);
    log.dice.clear();
    (log.rows[0].validation_auc, log.rows[1].validation_auc) = (Some(0.75), Some(0.5));
    let html = html(&scored("ill"), false, &[log]);
    let whole = text(parsed(&html).root());
    assert!(whole.contains("2 epochs; highest AUC 0.750 after epoch 1"), "{whole}");
    assert!(whole.contains("validation AUC") && !whole.contains("validation Dice"), "{whole}");
}

#[test]
fn a_hostile_class_name_stays_text() {
    let html = html(&scored(HOSTILE), false, &[]);
    assert!(!html.contains("<script"), "{html}");
    parsed(&html);
}

#[test]
fn a_report_without_scores_says_what_to_wire() {
    let space = TestSpace::new();
    let error = space.run::<Report>(json!({}), &[]).expect_err("nothing to report").to_string();
    assert!(error.contains("wire `metrics`") && error.contains("`classes`"), "{error}");
}
