//! Boxes: found, grown, cut with padding, pasted back.

use pipe_imaging::crop::{Window, WindowError, foreground_window, nonzero_window};
use pipe_imaging::{Geometry, Image, Shape};
use proptest::prelude::*;

use crate::reference::{Noise, label};

#[test]
fn the_foreground_box_is_tight() {
    let mut voxels = vec![0; 4 * 5 * 6];
    voxels[(5 + 2) * 6 + 3] = 1;
    voxels[(3 * 5 + 2) * 6 + 5] = 2;
    assert_eq!(
        foreground_window(&label([4, 5, 6], voxels)),
        Some(Window { start: [1, 2, 3], shape: [3, 1, 3] })
    );
    assert_eq!(foreground_window(&label([1, 1, 1], vec![0])), None);
}

#[test]
fn the_nonzero_box_covers_all_channels_and_nan() {
    let geometry = Geometry::with_spacing([1, 1, 5], [1.0; 3]);
    let two = Image::from_vec(vec![0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0], 2, geometry)
        .expect("10");
    assert_eq!(nonzero_window(&two), Some(Window { start: [0, 0, 1], shape: [1, 1, 3] }));
    assert_eq!(nonzero_window(&Image::from_vec(vec![-0.0; 5], 1, geometry).expect("5")), None);
}

#[test]
fn a_margin_in_millimetres_becomes_whole_voxels() {
    let window = Window { start: [5, 5, 5], shape: [2, 2, 2] };
    let geometry = Geometry::with_spacing([20, 20, 20], [3.0, 1.0, 0.7]);
    assert_eq!(window.grown_mm([3.0, 2.5, 1.4], &geometry), Window { start: [4, 2, 3], shape: [4, 8, 6] });
    assert_eq!(window.grown_mm([0.0; 3], &geometry), window);
    // The f32 nearest to 0.1 mm, read as f64, must not make 3 voxels of 0.3 mm into 4.
    let fine = Geometry::with_spacing([9; 3], [f64::from(0.1_f32); 3]);
    assert_eq!(window.grown_mm([0.3; 3], &fine).start, [2, 2, 2]);
}

#[test]
fn a_box_is_clamped_to_the_grid_or_misses_it() {
    let grid = Shape([10, 10, 10]);
    let window = Window { start: [-3, 8, 2], shape: [5, 5, 5] };
    assert_eq!(window.clamped(grid), Some(Window { start: [0, 8, 2], shape: [2, 2, 5] }));
    assert_eq!(Window { start: [10, 0, 0], shape: [1, 1, 1] }.clamped(grid), None);
    assert_eq!(Window { start: [-5, 0, 0], shape: [5, 1, 1] }.clamped(grid), None);
    assert_eq!(Window { start: [i64::MAX, 0, 0], shape: [usize::MAX, 1, 1] }.clamped(grid), None);
}

#[test]
fn centred_boxes_put_the_extra_voxel_at_the_end() {
    assert_eq!(Window::centred(Shape([5, 4, 4]), [2, 3, 4]).start, [1, 0, 0]); // cuts 1|2 and 0|1
    assert_eq!(Window::centred(Shape([2, 3, 4]), [5, 4, 4]).start, [-1, 0, 0]); // pads 1|2 and 0|1
}

#[test]
fn cutting_keeps_voxels_in_place_and_pads_what_is_outside() {
    let source = label([1, 2, 3], vec![1, 2, 3, 4, 5, 6]);
    let cut = Window { start: [0, 1, -1], shape: [1, 2, 3] }.cut(&source, 9).expect("valid");
    assert_eq!(cut.as_slice(), [9, 4, 5, 9, 9, 9]);
    // Voxel (x=1, y=0) of the cut is voxel (x=0, y=1) of the source.
    assert_eq!(cut.geometry().affine.apply([1.0, 0.0, 0.0]), source.geometry().affine.apply([0.0, 1.0, 0.0]));
    let elsewhere = Window { start: [5, 0, 0], shape: [1, 1, 2] }.cut(&source, 9).expect("valid");
    assert_eq!(elsewhere.as_slice(), [9, 9]);
}

#[test]
fn boxes_that_mean_nothing_are_refused() {
    let source = label([1, 2, 3], vec![0; 6]);
    assert_eq!(
        Window { start: [0; 3], shape: [0, 1, 1] }.cut(&source, 0),
        Err(WindowError::Empty(Shape([0, 1, 1])))
    );
    for window in [
        Window { start: [0; 3], shape: [usize::MAX, 1, 1] },
        Window { start: [0; 3], shape: [1 << 20, 1 << 20, 1 << 20] },
        Window { start: [i64::MIN, 0, 0], shape: [1, 1, 1] },
    ] {
        assert!(matches!(window.cut(&source, 0), Err(WindowError::OutOfRange { .. })), "{window:?}");
    }
    let window = Window { start: [0; 3], shape: [1, 1, 1] };
    let error = window.paste(&source, source.geometry(), 0).expect_err("not the window");
    assert_eq!(error.to_string(), "volume of 1×2×3 voxels does not fill the window of 1×1×1");
}

proptest! {
    #[test]
    fn pasting_a_cut_restores_the_box_and_fills_the_rest(
        seed: u64, shape in prop::array::uniform3(1_usize..6),
        start in prop::array::uniform3(-4_i64..6), size in prop::array::uniform3(1_usize..7),
    ) {
        let mut noise = Noise(seed);
        let n: usize = shape.iter().product();
        let geometry = Geometry::with_spacing(shape, [1.0; 3]);
        let image = Image::from_vec((0..2 * n).map(|_| noise.signed()).collect(), 2, geometry).expect("two channels");
        let window = Window { start, shape: size };
        let cut = window.cut(&image, 7.0).expect("valid");
        let pasted = window.paste(&cut, &geometry, -9.0).expect("fits");
        prop_assert_eq!(pasted.geometry(), &geometry);
        for ((c, z, y, x), v) in pasted.voxels().indexed_iter() {
            let inside = [z, y, x].iter().zip(start).zip(size).all(|((&i, s), n)| (s..s + n as i64).contains(&(i as i64)));
            prop_assert_eq!(*v, if inside { image.voxels()[[c, z, y, x]] } else { -9.0 });
        }
    }
}
