//! Orientation codes and reorienting to RAS against nibabel's `aff2axcodes` and `as_closest_canonical`.

use pipe_imaging::orient::Reorientation;
use pipe_imaging::{Geometry, Image, LabelMap};

use crate::reference::{Noise, REFERENCE};

#[test]
fn codes_voxels_and_affine_are_those_of_nibabel() {
    for expected in &REFERENCE.orientation {
        let label =
            LabelMap::from_vec((0..24).collect(), Geometry::new([4, 3, 2], expected.affine)).expect("24");
        let orientation = label.geometry().orientation();
        assert_eq!(orientation.to_string(), expected.codes, "{:?}", expected.affine);
        let canonical = orientation.to_ras().apply(&label);
        let [x, y, z] = expected.canonical_shape_xyz;
        assert_eq!(canonical.shape().0, [z, y, x], "{}", expected.codes);
        assert_eq!(canonical.as_slice(), expected.canonical_values, "{}", expected.codes);
        // Millimetres, up to 100: nibabel multiplies 4×4 matrices, we move the origin.
        let difference = canonical.geometry().affine.max_difference(&expected.canonical_affine);
        assert!(difference < 1e-13, "{}: affine differs by {difference}", expected.codes);
        assert!(canonical.geometry().orientation().is_ras(), "{}", expected.codes);
    }
}

#[test]
fn the_inverse_restores_volume_and_place() {
    let mut noise = Noise(3);
    for expected in &REFERENCE.orientation {
        let geometry = Geometry::new([4, 3, 2], expected.affine);
        let image = Image::from_vec((0..72).map(|_| noise.signed()).collect(), 3, geometry).expect("72");
        let there = geometry.orientation().to_ras();
        let back = there.inverse().apply(&there.apply(&image));
        assert_eq!(back.as_slice(), image.as_slice(), "{}", expected.codes);
        assert!(back.geometry().affine.max_difference(&expected.affine) < 1e-12, "{}", expected.codes);
    }
}

#[test]
fn every_voxel_keeps_its_place_in_millimetres() {
    for expected in &REFERENCE.orientation {
        let geometry = Geometry::new([4, 3, 2], expected.affine);
        let label = LabelMap::from_vec((0..24).collect(), geometry).expect("24");
        let canonical = geometry.orientation().to_ras().apply(&label);
        for ((z, y, x), value) in label.voxels().indexed_iter() {
            let place = geometry.affine.apply([x as f64, y as f64, z as f64]);
            let (at, _) = canonical
                .voxels()
                .indexed_iter()
                .find(|(_, v)| *v == value)
                .map(|(i, v)| (i, *v))
                .expect("moved, not lost");
            let moved = canonical.geometry().affine.apply([at.2 as f64, at.1 as f64, at.0 as f64]);
            assert!((0..3).all(|k| (place[k] - moved[k]).abs() < 1e-12));
        }
    }
}

#[test]
fn a_recorded_reorientation_must_be_a_permutation() {
    let text = serde_json::to_string(&Reorientation::IDENTITY).expect("serialises");
    assert_eq!(serde_json::from_str::<Reorientation>(&text).expect("own text"), Reorientation::IDENTITY);
    let error =
        serde_json::from_str::<Reorientation>(&text.replace("[0,1,2]", "[0,1,1]")).expect_err("two of one");
    assert!(error.to_string().contains("[0, 1, 1] is not a permutation of 0, 1, 2"), "{error}");
}
