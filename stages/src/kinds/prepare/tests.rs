use super::cohort::{Cohort, image, label, turned};
use crate::artifacts::{FileRef, FoldRow, FoldTable, Part, Preparation};
use crate::error::StageError;
use crate::kinds::crop::{Crop, VOLUMES};
use crate::kinds::inference::testing::{two_labels, unet};
use crate::testing::{TestRun, real_data};
use ndarray::{Array3, s};
use pipe_imaging::normalize::Normalization;
use pipe_imaging::{Geometry, Image, LabelMap, nifti};
use pipe_nn::Dims;
use serde_json::{Value, json};

#[track_caller]
fn crop(cohort: &Cohort, params: Value) -> TestRun {
    cohort.run::<Crop>(params).expect("crop works")
}

#[track_caller]
fn refusal(cohort: &Cohort, params: Value) -> String {
    cohort.run::<Crop>(params).expect_err("crop fails").chain()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start").install(work)
}

#[test]
fn one_more_case_than_195_prepares_one() {
    let mut cohort = Cohort::of(195);
    assert_eq!(crop(&cohort, json!({})).memo_misses, 195);
    cohort.add_next();
    let run = crop(&cohort, json!({}));
    assert_eq!(run.memo_misses, 1);
    assert_eq!(run.load(&VOLUMES).rows.len(), 196);
    assert_eq!(run.facts["cases"], 196);
}

#[test]
fn a_case_is_prepared_again_when_a_file_or_a_parameter_changes_and_not_when_its_path_or_patient_does() {
    let mut cohort = Cohort::of(3);
    crop(&cohort, json!({}));
    cohort.table.cases[0].patient = "somebody else".into();
    cohort.table.cases[1].images[0].path = "moved/c001.nii".into();
    let run = crop(&cohort, json!({}));
    assert_eq!(run.memo_misses, 0);
    assert_eq!(run.load(&VOLUMES).rows[0].patient, "somebody else");

    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    cohort.replace_image("c002", &cohort.file_of(&image(&grid, 99)));
    assert_eq!(crop(&cohort, json!({})).memo_misses, 1);
    cohort.table.cases[0].label = None;
    assert_eq!(crop(&cohort, json!({})).memo_misses, 1);
    for params in [
        json!({ "normalize": "min-max" }),
        json!({ "spacing_mm": [1, 1, 2] }),
        json!({ "region": "nonzero" }),
        json!({ "region": "nonzero", "margin_mm": 1 }),
    ] {
        assert_eq!(crop(&cohort, params.clone()).memo_misses, 3, "{params}");
        assert_eq!(crop(&cohort, params.clone()).memo_misses, 0, "{params}");
    }
}

#[test]
fn cases_are_prepared_as_those_that_a_network_saw_before() {
    let cohort = Cohort::of(2);
    let normalization = Normalization::Fixed { low: 100.0, high: 900.0, mean: 500.0, sd: 200.0 };
    let mut like = unet(Dims::Three, &two_labels(), 0, 1);
    like.card.preparation = Preparation { normalization, ..Preparation::NONE };
    let (cases, like) = (cohort.space.stored(&cohort.table), cohort.space.stored(&like));
    let inputs = [("cases", cases.as_path()), ("like", like.as_path())];
    let run = cohort.space.run::<Crop>(json!({}), &inputs).expect("crop works");
    let (volumes, plain) = (run.load(&VOLUMES), crop(&cohort, json!({ "normalize": "none" })).load(&VOLUMES));
    assert_eq!(volumes.info.preparation.normalization, normalization);
    let (found, plain) = (volumes.image("c000").expect("image"), plain.image("c000").expect("image"));
    for (found, plain) in found.as_slice().iter().zip(plain.as_slice()) {
        assert_eq!(*found, (plain.clamp(100.0, 900.0) - 500.0) / 200.0);
    }
    let both = cohort.space.run::<Crop>(json!({ "normalize": "none" }), &inputs);
    let error = both.expect_err("two ways to prepare").chain();
    assert_eq!(error, "`like` is wired and says how cases are prepared: leave every parameter out");
}

#[test]
fn one_thread_and_three_write_the_same_bytes_and_so_does_the_memo() {
    let params = || json!({ "region": "nonzero", "spacing_mm": [1.5, 0.8, 1.1] });
    let content = |threads: usize| {
        let cohort = Cohort::of(12);
        let [first, again] =
            [(); 2].map(|()| in_pool(threads, || crop(&cohort, params()).content(VOLUMES.name)));
        assert_eq!(first, again);
        first
    };
    let one = content(1);
    assert_eq!(one.len(), 12 * 3 + 2);
    assert_eq!(one, content(3));
}

#[test]
fn a_label_that_was_turned_and_cut_comes_back_voxel_by_voxel() {
    let grid = turned([7, 8, 9], [1.0, 2.0, 0.5]);
    let (source, mut masked) = (label(&grid), image(&grid, 1));
    // The label lies inside the region: what is cut away is background.
    masked.as_mut_slice().iter_mut().zip(source.as_slice()).for_each(|(value, label)| {
        *value *= f32::from(u8::from(*label != 0));
    });
    let mut cohort = Cohort::new();
    cohort.add("c", &[&masked], Some(&source));
    let run = crop(&cohort, json!({ "region": "nonzero", "normalize": "none" }));
    let volumes = run.load(&VOLUMES);
    let (transform, prepared) =
        (volumes.transform("c").expect("transform"), volumes.label("c").expect("label"));
    let prepared = prepared.expect("the case has a label");
    assert!(transform.is_lossless());
    // Stored z, y, x run right, inferior, posterior; one voxel of border is cut from each side. Turned: S, A, R.
    assert_eq!(prepared.shape().0, [6, 7, 5]);
    assert!(prepared.geometry().orientation().is_ras());
    assert_eq!(transform.invert_label(&prepared).expect("inverse").as_slice(), source.as_slice());
    let sorted = |label: &LabelMap| {
        let mut values: Vec<u8> = label.as_slice().iter().copied().filter(|value| *value != 0).collect();
        values.sort_unstable();
        values
    };
    assert_eq!(sorted(&prepared), sorted(&source));
    let row = volumes.row("c").expect("row");
    assert_eq!((row.shape, row.source_shape), ([6, 7, 5], [7, 8, 9]));
    assert_eq!((row.spacing_mm, row.source_spacing_mm), ([0.5, 2.0, 1.0], [1.0, 0.5, 2.0]));
    assert_eq!(row.label, cohort.table.cases[0].label);
    assert_eq!(volumes.image("c").expect("image").geometry(), transform.target());
}

/// A 4×5×6 image that is 0 but for voxels (1, 2, 3) and (2, 2, 4).
fn two_voxels() -> Image {
    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    let mut values = vec![0.0; 120];
    values[30 + 12 + 3] = 5.0;
    values[60 + 12 + 4] = -2.0;
    Image::from_vec(values, 1, grid).expect("120 voxels")
}

#[test]
fn the_region_is_the_box_of_what_is_not_zero_and_its_margin_ends_at_the_border() {
    let mut cohort = Cohort::new();
    cohort.add("c", &[&two_voxels()], None);
    let prepared = |margin: f64| {
        let params = json!({ "region": "nonzero", "margin_mm": margin, "normalize": "none" });
        crop(&cohort, params).load(&VOLUMES).image("c").expect("image")
    };
    let tight = prepared(0.0);
    assert_eq!(tight.shape().0, [2, 1, 2]);
    assert_eq!(tight.as_slice(), [5.0, 0.0, 0.0, -2.0]);
    assert_eq!(tight.geometry().affine.apply([0.0; 3]), [3.0, 2.0, 1.0]);
    assert_eq!(prepared(1.0).shape().0, [4, 3, 4]);
    assert_eq!(prepared(2.0).shape().0, [4, 5, 5]);
    assert_eq!(prepared(1e300).as_slice(), two_voxels().as_slice());
}

#[test]
fn an_image_of_zeros_stays_whole_with_a_warning_each_time() {
    let grid = Geometry::with_spacing([2, 2, 2], [1.0; 3]);
    let zeros = Image::from_vec(vec![0.0; 8], 1, grid).expect("eight voxels");
    let mut cohort = Cohort::new();
    cohort.add("empty", &[&zeros], None);
    cohort.add("full", &[&two_voxels()], None);
    for _ in 0..2 {
        let run = crop(&cohort, json!({ "region": "nonzero" }));
        assert_eq!(run.warnings, ["1 image is 0 everywhere and stays whole:\n  empty"]);
        assert_eq!(run.load(&VOLUMES).row("empty").expect("row").shape, [2, 2, 2]);
    }
    assert_eq!(crop(&cohort, json!({})).warnings, [] as [&str; 0]);
}

#[test]
fn intensities_are_normalised_after_resampling() {
    let cohort = Cohort::of(1);
    let run = crop(&cohort, json!({ "spacing_mm": [0.7, 1.3, 2.0] }));
    let volumes = run.load(&VOLUMES);
    let prepared = volumes.image("c000").expect("image");
    let count = prepared.as_slice().len() as f64;
    let mean = prepared.as_slice().iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance =
        prepared.as_slice().iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    // Values are f32: each is off by up to 2^-24 of itself.
    assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6, "mean {mean}, variance {variance}");
    // 4, 5 and 6 mm in voxels of 0.7, 1.3 and 2 mm.
    assert_eq!(prepared.shape().0, [6, 4, 3]);
    assert_eq!(volumes.info.preparation.spacing_mm, Some([0.7, 1.3, 2.0]));
    let values = |params: Value| crop(&cohort, params).load(&VOLUMES).image("c000").expect("image");
    let (low, high) = values(json!({ "normalize": "min-max" }))
        .as_slice()
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    assert_eq!((low, high), (0.0, 1.0));
    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    assert_eq!(values(json!({ "normalize": "none" })).as_slice(), image(&grid, 0).as_slice());
}

#[test]
fn files_of_a_case_are_channels_in_their_order_with_one_region() {
    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    let mut other = vec![0.0; 120];
    other[0] = 3.0;
    let other = Image::from_vec(other, 1, grid).expect("120 voxels");
    let mut cohort = Cohort::new();
    cohort.add("c", &[&two_voxels(), &other], None);
    let volumes = crop(&cohort, json!({ "region": "nonzero", "normalize": "none" })).load(&VOLUMES);
    let prepared = volumes.image("c").expect("image");
    // From voxel (0, 0, 0) of the second channel to (2, 2, 4) of the first.
    assert_eq!((prepared.channels(), prepared.shape().0), (2, [3, 3, 5]));
    assert_eq!(prepared.channel(0)[15 + 10 + 3], 5.0);
    assert_eq!(prepared.channel(1)[0], 3.0);
    assert_eq!(volumes.row("c").expect("row").channels, 2);
}

#[test]
fn a_case_without_label_has_no_label_file() {
    let mut cohort = Cohort::of(2);
    cohort.table.cases[1].label = None;
    let run = crop(&cohort, json!({}));
    let volumes = run.load(&VOLUMES);
    assert!(volumes.label("c000").expect("readable").is_some());
    assert!(volumes.label("c001").expect("readable").is_none());
    assert!(!run.dir(VOLUMES.name).join("labels/c001.npy").exists());
    assert_eq!(run.facts["unlabelled"], 1);
}

#[test]
fn a_label_map_whose_header_puts_it_elsewhere_keeps_its_voxels() {
    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    let mut shifted = grid;
    shifted.affine.0[0][3] = 40.0;
    let (voxels, _) = label(&grid).into_parts();
    let mut cohort = Cohort::new();
    cohort.add("c", &[&image(&grid, 1)], Some(&LabelMap::new(voxels, shifted).expect("same shape")));
    let volumes = crop(&cohort, json!({})).load(&VOLUMES);
    let prepared = volumes.label("c").expect("readable").expect("the case has a label");
    assert_eq!(prepared.as_slice(), label(&grid).as_slice());
    assert_eq!(prepared.geometry(), volumes.image("c").expect("image").geometry());
}

#[test]
fn a_label_map_of_another_grid_is_refused_with_both_grids() {
    let mut cohort = Cohort::new();
    let grid = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    cohort.add("c", &[&image(&grid, 1)], Some(&label(&Geometry::with_spacing([4, 5, 7], [1.0; 3]))));
    assert_eq!(
        refusal(&cohort, json!({})),
        "case `c`: image has 4×5×6 voxels of 1×1×1 mm (z×y×x), RAS but its label has 4×5×7 voxels of 1×1×1 mm (z×y×x), RAS"
    );
}

#[test]
fn a_damaged_file_stops_the_stage_and_is_named_with_its_case() {
    let mut cohort = Cohort::of(3);
    let bytes = cohort.file_of(&image(&Geometry::with_spacing([4, 5, 6], [1.0; 3]), 1));
    cohort.replace_image("c001", &bytes[..bytes.len() - 1]);
    let text = refusal(&cohort, json!({}));
    assert!(text.starts_with("reading `data/c001_0.nii.gz` of case `c001`: "), "{text}");
    cohort.replace_image("c001", b"no image at all");
    let text = refusal(&cohort, json!({}));
    assert!(text.starts_with("reading `data/c001_0.nii.gz` of case `c001`: "), "{text}");
}

#[test]
fn voxels_that_are_no_numbers_stop_the_stage_with_the_case() {
    let grid = Geometry::with_spacing([1, 1, 4], [1.0; 3]);
    let image = Image::from_vec(vec![1.0, f32::NAN, 2.0, f32::INFINITY], 1, grid).expect("four voxels");
    let mut cohort = Cohort::new();
    cohort.add("c", &[&image], None);
    assert_eq!(
        refusal(&cohort, json!({})),
        "preparing case `c`: channel 0 has 2 voxels that are NaN or infinite"
    );
}

#[test]
fn a_file_that_is_gone_an_id_that_is_a_path_and_a_table_without_cases_are_told() {
    let mut cohort = Cohort::of(1);
    let file = FileRef { path: "gone.nii.gz".into(), digest: pipe_cache::Digest::of_bytes(b"gone") };
    cohort.table.cases[0].images = vec![file];
    assert!(refusal(&cohort, json!({})).contains("is at hand"));
    for id in ["../c", "a/b", "..", "/c", ""] {
        let mut cohort = Cohort::of(1);
        cohort.table.cases[0].id = id.into();
        let expected = format!("case `{id}` cannot be stored: its name is no name of a file");
        assert_eq!(refusal(&cohort, json!({})), expected);
    }
    assert_eq!(refusal(&Cohort::new(), json!({})), "the case table holds no case");
}

#[test]
fn the_stage_stops_when_it_is_asked_to() {
    let cohort = Cohort::of(3);
    cohort.space.interrupt();
    let error = cohort.run::<Crop>(json!({})).expect_err("it was interrupted");
    assert!(matches!(error, StageError::Interrupted), "{error}");
}

/// What `reference.py` prints of a case with nibabel 5.4.2, SciPy 1.17.1 and NumPy 2.4.6.
struct Reference {
    id: &'static str,
    shape: [usize; 3],
    /// The first voxel, the one at half of each axis and the last.
    voxels: [f32; 3],
    magnitudes: f64,
    /// Voxels of each label.
    labels: &'static [(u8, u64)],
    /// Mean index of the voxels with a label; z, y, x.
    centre: [f64; 3],
}

#[track_caller]
fn check_reference(cohort: &Cohort, expected: &Reference) {
    let volumes = crop(cohort, json!({ "spacing_mm": [1.5, 1.0, 0.8] })).load(&VOLUMES);
    let prepared = volumes.image(expected.id).expect("image");
    assert_eq!(prepared.shape().0, expected.shape);
    let values = prepared.as_slice();
    let [z, y, x] = expected.shape;
    let middle = (z / 2 * y + y / 2) * x + x / 2;
    for (index, value) in [0, middle, values.len() - 1].into_iter().zip(expected.voxels) {
        // SciPy interpolates in f64, we in f32 and in another order.
        assert!((values[index] - value).abs() < 1e-5, "voxel {index} is {}, not {value}", values[index]);
    }
    let magnitudes: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
    assert!(
        (magnitudes / expected.magnitudes - 1.0).abs() < 1e-6,
        "{magnitudes}, not {}",
        expected.magnitudes
    );
    let label = volumes.label(expected.id).expect("label").expect("the case has a label");
    let counts = (0..=u8::MAX).zip(label.histogram()).filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    assert_eq!(counts.len(), expected.labels.len());
    for ((value, count), (expected_value, expected_count)) in counts.iter().zip(expected.labels) {
        // Where two labels weigh the same, the last bit of an f32 may decide: in one voxel of these three cases.
        let close = value == expected_value && count.abs_diff(*expected_count) <= 1;
        assert!(close, "label {value} has {count} voxels, not {expected_count} of label {expected_value}");
    }
    let mut centre = [0.0; 3];
    let inside = label.voxels();
    let inside = inside.indexed_iter().filter(|(_, value)| **value != 0).map(|((z, y, x), _)| [z, y, x]);
    inside.for_each(|at| (0..3).for_each(|axis| centre[axis] += at[axis] as f64));
    let count: u64 = counts[1..].iter().map(|(_, count)| count).sum();
    let centre = centre.map(|sum| sum / count as f64);
    assert!(
        (0..3).all(|axis| (centre[axis] - expected.centre[axis]).abs() < 0.02),
        "label centre is {centre:?}"
    );
}

#[test]
fn a_turned_case_comes_out_as_nibabel_and_scipy_make_it() {
    let grid = turned([9, 8, 7], [1.0, 1.4, 0.5]);
    let mut blocks = Array3::zeros((9, 8, 7));
    blocks.slice_mut(s![2..6, 1..5, 2..4]).fill(7);
    blocks.slice_mut(s![6..8, 3..8, 3..7]).fill(1);
    let mut cohort = Cohort::new();
    cohort.add("turned", &[&image(&grid, 5)], Some(&LabelMap::new(blocks, grid).expect("same shape")));
    let expected = Reference {
        id: "turned",
        shape: [3, 10, 11],
        voxels: [-3.041_055, 0.772_739, 0.256_675],
        magnitudes: 258.235_87,
        labels: &[(0, 271), (1, 33), (7, 26)],
        centre: [0.932_203, 3.491_525, 6.355_932],
    };
    check_reference(&cohort, &expected);
}

#[test]
fn real_cases_come_out_as_nibabel_and_scipy_make_them() {
    let Some(root) = real_data("Task04_Hippocampus") else { return };
    let references = [
        Reference {
            id: "hippocampus_006",
            shape: [23, 52, 44],
            voxels: [-1.411_905, -1.558_409, -1.420_024],
            magnitudes: 44_620.641_15,
            labels: &[(0, 49_028), (1, 1951), (2, 1645)],
            centre: [9.272_247, 26.906_563, 18.422_136],
        },
        // Its label map is stored as float32.
        Reference {
            id: "hippocampus_243",
            shape: [16, 53, 42],
            voxels: [1.253_741, 0.349_03, -0.834_429],
            magnitudes: 30_533.651_10,
            labels: &[(0, 33_179), (1, 1174), (2, 1263)],
            centre: [5.929_421, 27.558_063, 17.292_573],
        },
    ];
    for expected in references {
        let mut cohort = Cohort::new();
        let file = |folder: &str| root.join(folder).join(format!("{}.nii.gz", expected.id));
        let image = nifti::read_image(&file("imagesTr")).expect("image");
        let label = nifti::read_label(&file("labelsTr")).expect("label");
        cohort.add(expected.id, &[&image], Some(&label));
        check_reference(&cohort, &expected);
    }
}

#[test]
fn a_data_set_has_one_scale_for_all_cases() {
    let grid = Geometry::with_spacing([1, 1, 4], [1.0; 3]);
    let mut cohort = Cohort::new();
    for (id, values) in [("a", [-1000.0, 0.0, 10.0, 20.0]), ("b", [30.0, 40.0, 50.0, 3000.0])] {
        let image = Image::from_vec(values.to_vec(), 1, grid).expect("four voxels");
        cohort.add(id, &[&image], None);
    }
    let prepared = |params: Value| {
        let volumes = crop(&cohort, params).load(&VOLUMES);
        let of = |id: &str| volumes.image(id).expect("image").as_slice().to_vec();
        (of("a"), of("b"))
    };
    let params = json!({ "clip": { "window": [0, 100] }, "normalize": "min-max", "figures": "dataset" });
    assert_eq!(prepared(params), (vec![0.0, 0.0, 0.1, 0.2], vec![0.3, 0.4, 0.5, 1.0]));
    // −1000, 0, 10, …, 50, 3000: the percentiles 1/7 and 6/7 are 0 and 50.
    let params = json!({ "clip": { "percentiles": [100.0 / 7.0, 600.0 / 7.0] }, "figures": "dataset" });
    let (a, b) = prepared(params);
    let (mean, variance) = (25.0_f32, (2.0 * 625.0 + 225.0 + 25.0 + 25.0 + 225.0 + 2.0 * 625.0) / 8.0_f32);
    for (found, value) in a.iter().chain(&b).zip([0.0, 0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 50.0]) {
        assert!((found - (value - mean) / variance.sqrt()).abs() < 1e-5, "{a:?} {b:?}");
    }
    let (a, b) = prepared(json!({ "clip": { "window": [0, 100] }, "normalize": "none" }));
    assert_eq!((a, b), (vec![0.0, 0.0, 10.0, 20.0], vec![30.0, 40.0, 50.0, 100.0]));
}

#[test]
fn a_data_set_without_any_contrast_has_no_scale() {
    let mut cohort = Cohort::new();
    let grid = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
    cohort.add("a", &[&Image::from_vec(vec![7.0; 2], 1, grid).expect("two voxels")], None);
    assert_eq!(
        refusal(&cohort, json!({ "figures": "dataset" })),
        "all images together hold nothing but 7 (clipped from 7 to 7), so there is no scale"
    );
}

#[test]
fn the_interpolation_reaches_the_volumes_and_their_record() {
    let mut cohort = Cohort::new();
    let grid = Geometry::with_spacing([1, 1, 4], [1.0; 3]);
    let source = Image::from_vec(vec![0.0, 10.0, 20.0, 50.0], 1, grid).expect("four voxels");
    cohort.add("a", &[&source], None);
    let prepared = |how: &str| {
        let params = json!({ "spacing_mm": [1, 1, 2], "interpolation": how, "normalize": "none" });
        let volumes = crop(&cohort, params).load(&VOLUMES);
        let transform = volumes.transform("a").expect("transform");
        let image = volumes.image("a").expect("image");
        assert_eq!(transform.apply_image(&source).expect("source grid"), image);
        image.as_slice().to_vec()
    };
    assert_eq!(prepared("linear"), [5.0, 35.0]);
    assert_eq!(prepared("nearest"), [10.0, 50.0]);
    let cubic = prepared("cubic");
    assert!(cubic != [5.0, 35.0] && cubic != [10.0, 50.0], "{cubic:?}");
}

#[test]
fn figures_of_a_data_set_leave_the_test_cases_out() {
    let mut cohort = Cohort::new();
    let grid = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
    for (id, values) in [("a", [0.0, 10.0]), ("b", [20.0, 30.0]), ("t", [-500.0, 900.0])] {
        cohort.add(id, &[&Image::from_vec(values.to_vec(), 1, grid).expect("two voxels")], None);
    }
    let params = json!({ "normalize": "min-max", "figures": "dataset" });
    let run = |parts: &[(&str, Part)]| {
        let row =
            |(id, part): &(&str, Part)| FoldRow { id: (*id).into(), patient: (*id).into(), part: *part };
        let split = cohort.space.stored(&FoldTable { rows: parts.iter().map(row).collect() });
        let table = cohort.space.stored(&cohort.table);
        cohort.space.run::<Crop>(params.clone(), &[("cases", &table), ("split", &split)])
    };
    let sound = run(&[("a", Part::Fold(0)), ("b", Part::Fold(1)), ("t", Part::Test)]).expect("goes through");
    let image = |id: &str| sound.load(&VOLUMES).image(id).expect("image").as_slice().to_vec();
    // 0 to 30 become 0 to 1; the test case is scaled by what the others say.
    assert_eq!((image("a")[1], image("b")[1], image("t")[1]), (10.0 / 30.0, 1.0, 30.0));
    assert_eq!((sound.facts["measured cases"].as_u64(), sound.warnings.len()), (Some(2), 0));

    let alone = crop(&cohort, params.clone());
    assert!(alone.warnings[0].contains("include every case, also those that a split holds out"));
    let refused = |parts: &[(&str, Part)]| run(parts).expect_err("crop fails").chain();
    assert!(
        refused(&[("a", Part::Fold(0)), ("t", Part::Test)]).contains("case `b` is in no part of the split")
    );
    let all = [("a", Part::Test), ("b", Part::Test), ("t", Part::Test)];
    assert!(refused(&all).contains("none is left to measure"));
}

#[test]
fn what_is_too_small_is_padded_after_normalisation_and_predictions_come_back_without_it() {
    let grid = turned([3, 4, 6], [1.0, 2.0, 0.5]);
    let source = label(&grid);
    let mut cohort = Cohort::new();
    cohort.add("c", &[&image(&grid, 1)], Some(&source));
    let plain = crop(&cohort, json!({})).load(&VOLUMES);
    let volumes = crop(&cohort, json!({ "pad_to": [9, 2, 8] })).load(&VOLUMES);
    assert_eq!(volumes.info.preparation.pad_to, Some([9, 2, 8]));
    let (small, padded) = (plain.image("c").expect("image"), volumes.image("c").expect("image"));
    let [z, y, x] = small.shape().0;
    assert_eq!(padded.shape().0, [9, y, 8]);
    assert_eq!(volumes.row("c").expect("row").shape, [9, y, 8]);
    // Half of what is missing stands in front, the odd voxel behind.
    let front = [(9 - z) / 2, 0, (8 - x) / 2];
    let inner = padded.voxels();
    let inner = inner.slice(s![0, front[0]..front[0] + z, front[1]..front[1] + y, front[2]..front[2] + x]);
    assert!(inner.iter().zip(small.as_slice()).all(|(padded, plain)| padded == plain));
    let zeros = padded.as_slice().iter().filter(|value| **value == 0.0).count();
    assert!(zeros >= padded.as_slice().len() - small.as_slice().len(), "{zeros} zeros");
    let transform = volumes.transform("c").expect("transform");
    let prepared = volumes.label("c").expect("label").expect("the case has one");
    assert_eq!(transform.invert_label(&prepared).expect("inverse").as_slice(), source.as_slice());
    // As scores: the class of each voxel has 1. Classes are 0, 1 and 7.
    let of = |class: u8| prepared.as_slice().iter().map(move |value| f32::from(u8::from(*value == class)));
    let scores: Vec<Vec<f32>> = [0, 1, 7].into_iter().map(|class| of(class).collect()).collect();
    let [depth, height, width] = transform.target().shape.0;
    let mut planes = transform.invert_planes(3, false).expect("three classes");
    for z in 0..depth {
        let plane = scores.iter().map(|scores| &scores[z * height * width..][..height * width]);
        planes.push(plane.collect::<Vec<_>>().concat()).expect("a plane of the grid");
    }
    let (found, _) = planes.finish().expect("all planes");
    let classes: Vec<u8> = source.as_slice().iter().map(|value| (*value).min(2)).collect();
    assert_eq!(found.as_slice(), classes);
}
