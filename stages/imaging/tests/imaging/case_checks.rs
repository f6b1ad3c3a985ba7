//! What `check` finds, and what it says.

use std::collections::BTreeSet;

use pipe_imaging::check::{
    Finding, Severity, check_grids, check_header, check_image, check_label, check_pair,
};
use pipe_imaging::{Affine, Geometry, Image, LabelMap, nifti};

use crate::reference::{image, label, written_label};

#[track_caller]
fn one(findings: impl IntoIterator<Item = Finding>, severity: Severity, message: &str) {
    let findings: Vec<_> = findings.into_iter().collect();
    let [finding] = &findings[..] else { panic!("expected one finding, got {findings:?}") };
    assert_eq!(finding.to_string(), message);
    assert_eq!(finding.severity(), severity);
}

#[test]
fn a_sound_pair_has_no_findings() {
    let allowed = BTreeSet::from([0, 1]);
    assert_eq!(
        check_pair(&image([1, 1, 2], vec![0.0, 1.0]), &label([1, 1, 2], vec![0, 1]), Some(&allowed)),
        []
    );
}

#[test]
fn shapes_spacings_and_directions_must_agree() {
    let a = Geometry::with_spacing([35, 51, 35], [1.0; 3]);
    one(
        check_grids(&a, &Geometry::with_spacing([35, 51, 36], [1.0; 3])),
        Severity::Error,
        "image is 35×51×35 but its mask is 35×51×36 (z×y×x)",
    );
    one(
        check_grids(&a, &Geometry::with_spacing([35, 51, 35], [1.0, 1.0, 1.25])),
        Severity::Error,
        "image has voxels of 1×1×1 mm but its mask of 1×1×1.25 mm (z×y×x)",
    );
    let mut mirrored = a;
    mirrored.affine.0[0][0] = -1.0;
    one(check_grids(&a, &mirrored), Severity::Error, "image is RAS but its mask is LAS");
}

#[test]
fn places_may_differ_by_what_headers_round() {
    let a = Geometry::with_spacing([35, 51, 35], [1.0; 3]);
    let moved = |mm: f64| {
        let mut b = a;
        b.affine.0[1][3] += mm;
        check_grids(&a, &b)
    };
    assert_eq!(moved(0.0), None);
    assert_eq!(moved(0.009), None);
    one(moved(0.5), Severity::Warning, "image and mask lie up to 0.500 mm apart, by their affines");
    // A direction cosine off by 1e-8 moves the far corner by nothing.
    let mut turned = a;
    turned.affine.0[0][1] = 1e-8;
    assert_eq!(check_grids(&a, &turned), None);
}

#[test]
fn voxels_are_looked_at() {
    one(
        check_image(&image([1, 1, 3], vec![1.0, f32::NAN, f32::INFINITY])),
        Severity::Error,
        "image has 2 of 3 voxels NaN or infinite",
    );
    one(check_image(&image([1, 1, 2], vec![5.0; 2])), Severity::Warning, "image channel 0 is 5 everywhere");
    let geometry = Geometry::with_spacing([1, 1, 2], [1.0; 3]);
    let second = Image::from_vec(vec![1.0, 2.0, 3.0, 3.0], 2, geometry).expect("4");
    one(check_image(&second), Severity::Warning, "image channel 1 is 3 everywhere");
}

#[test]
fn labels_are_looked_at() {
    let allowed = BTreeSet::from([0, 1, 2]);
    one(
        check_label(&label([1, 1, 2], vec![0, 0]), Some(&allowed)),
        Severity::Warning,
        "mask holds background only",
    );
    one(
        check_label(&label([1, 1, 4], vec![0, 1, 7, 7]), Some(&allowed)),
        Severity::Error,
        "mask has labels 7 (2 voxels) but the data set declares [0, 1, 2]",
    );
    assert_eq!(check_label(&label([1, 1, 2], vec![3, 200]), None), []);
}

#[test]
fn headers_that_contradict_themselves_are_told() {
    let volume =
        LabelMap::from_vec(vec![0; 8], Geometry::new([2, 2, 2], Affine::from_spacing([3.0, 1.0, 1.0])))
            .expect("8");
    let mut bytes = written_label(&volume);
    assert_eq!(check_header(&nifti::decode_header(&bytes).expect("own")), []);
    bytes[88..92].copy_from_slice(&2.5_f32.to_le_bytes()); // pixdim[3]
    one(
        check_header(&nifti::decode_header(&bytes).expect("patched")),
        Severity::Warning,
        "header says voxels of 2.5×1×1 mm but its affine 3×1×1 mm (z×y×x)",
    );
    bytes[88..92].copy_from_slice(&(-3_f32).to_le_bytes());
    one(
        check_header(&nifti::decode_header(&bytes).expect("patched")),
        Severity::Warning,
        "header says voxels of -3×1×1 mm but its affine 3×1×1 mm (z×y×x)",
    );
    bytes[88..92].copy_from_slice(&3_f32.to_le_bytes());
    bytes[123] = 1;
    one(
        check_header(&nifti::decode_header(&bytes).expect("patched")),
        Severity::Warning,
        "header gives sizes in metres, taken as millimetres",
    );
}

#[test]
fn a_size_that_is_none_is_an_error_where_the_affine_is_made_of_it() {
    let check = |shape: [usize; 3], mm: f32, expected: Option<&str>| {
        let volume =
            LabelMap::from_vec(vec![0; shape.iter().product()], Geometry::with_spacing(shape, [1.0; 3]));
        let mut bytes = written_label(&volume.expect("as many as voxels"));
        bytes[254..256].copy_from_slice(&[0; 2]); // sform_code
        bytes[88..92].copy_from_slice(&mm.to_le_bytes()); // pixdim[3]
        for qform_code in [0, 1] {
            bytes[252] = qform_code;
            let found = check_header(&nifti::decode_header(&bytes).expect("patched"));
            match expected {
                Some(message) => one(found, Severity::Error, message),
                None => assert_eq!(found, []),
            }
        }
    };
    let said = |mm| {
        format!("header says voxels of {mm}×1×1 mm (z×y×x), which is no size, and has no affine besides")
    };
    check([2, 2, 2], 0.0, Some(&said("0")));
    check([2, 2, 2], -1.0, Some(&said("-1")));
    check([1, 2, 2], 0.0, None);
    check([1, 2, 2], 1.0, None);
}
