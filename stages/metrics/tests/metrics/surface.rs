//! Surface distances against the definitions written the slow way, and cases worked by hand.

use std::sync::LazyLock;

use pipe_metrics::grid::{Grid, GridError};
use pipe_metrics::surface::{Definition, Surfaces};
use proptest::prelude::*;

use crate::{close, numbers, reference};

/// A pair of maps with one label.
#[derive(Debug, Clone)]
struct Pair {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    reference: Vec<u8>,
    prediction: Vec<u8>,
}

/// A point of a surface in mm, and its weight.
type Site = ([f64; 3], f64);

impl Pair {
    fn surfaces(&self, definition: Definition) -> Option<Surfaces> {
        let grid = Grid::new(self.shape, self.spacing_mm).expect("a sound grid");
        Surfaces::between(&self.reference, &self.prediction, 1, &grid, definition).expect("both fit")
    }

    /// Whether a voxel is inside; what is outside of the image is not.
    fn inside(&self, mask: &[u8], place: [isize; 3]) -> bool {
        let [z, y, x] = place.map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let [nz, ny, nx] = self.shape;
        z < nz && y < ny && x < nx && mask[(z * ny + y) * nx + x] == 1
    }

    fn mm(&self, place: [isize; 3]) -> [f64; 3] {
        std::array::from_fn(|axis| place[axis] as f64 * self.spacing_mm[axis])
    }

    fn places(&self) -> impl Iterator<Item = [isize; 3]> {
        // One more at the end: corners lie between voxels.
        let [nz, ny, nx] = self.shape.map(|n| n as isize + 1);
        (0..nz).flat_map(move |z| (0..ny).flat_map(move |y| (0..nx).map(move |x| [z, y, x])))
    }

    fn voxel_surface(&self, mask: &[u8]) -> Vec<Site> {
        let axes = if self.shape[0] == 1 { 1..3 } else { 0..3 };
        let bare = |place: &[isize; 3]| {
            axes.clone().any(|axis| {
                [-1, 1].into_iter().any(|step| {
                    let mut other = *place;
                    other[axis] += step;
                    !self.inside(mask, other)
                })
            })
        };
        let found = self.places().filter(|place| self.inside(mask, *place) && bare(place));
        found.map(|place| (self.mm(place), 1.0)).collect()
    }

    /// Corners between inside and outside with the areas of surface-distance 0.1.
    fn corner_surface(&self, mask: &[u8]) -> Vec<Site> {
        let flat = self.shape[0] == 1;
        let table = &if flat { &AREAS.1 } else { &AREAS.0 };
        let site = |place: [isize; 3]| {
            if flat && place[0] > 0 {
                return None;
            }
            let inside = |step: usize| {
                let [z, y, x] = [step >> 2 & 1, step >> 1 & 1, step & 1].map(|step| step as isize - 1);
                let z = if flat { 0 } else { z };
                self.inside(mask, [place[0] + z, place[1] + y, place[2] + x])
            };
            let code: usize =
                (0..table.len().ilog2() as usize).map(|step| usize::from(inside(step)) << step).sum();
            (code != 0 && code + 1 != table.len()).then(|| (self.mm(place), table[code]))
        };
        self.places().filter_map(site).collect()
    }
}

/// Of the spacing of every pair here: areas of three dimensions, lengths of two.
static AREAS: LazyLock<(Vec<f64>, Vec<f64>)> = LazyLock::new(|| {
    let table = &reference("surfels.json")["3.0x1.0x0.5"];
    assert_eq!(numbers(&table["spacing_mm"]), SPACING_MM);
    (numbers(&table["areas"]), numbers(&table["lengths"]))
});
const SPACING_MM: [f64; 3] = [3.0, 1.0, 0.5];

/// Ascending distances with weights from every site to the nearest of the others.
fn directed(from: &[Site], to: &[Site]) -> Vec<(f64, f64)> {
    let distance = |a: &[f64; 3], b: &[f64; 3]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let nearest = |(place, weight): &Site| {
        (to.iter().map(|(other, _)| distance(place, other)).fold(f64::INFINITY, f64::min), *weight)
    };
    let mut samples: Vec<(f64, f64)> = from.iter().map(nearest).collect();
    samples.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    samples
}

/// HD, HD95, ASSD, directed averages and, where defined, NSD at 0.9 mm.
fn slow(pair: &Pair, definition: Definition) -> Option<Vec<f64>> {
    let surface = |mask| match definition {
        Definition::Deepmind => pair.corner_surface(mask),
        Definition::Monai | Definition::Medpy => pair.voxel_surface(mask),
    };
    let (reference, prediction) = (surface(&pair.reference), surface(&pair.prediction));
    if reference.is_empty() || prediction.is_empty() {
        return None;
    }
    let ways = [directed(&reference, &prediction), directed(&prediction, &reference)];
    let together: Vec<(f64, f64)> = ways.concat();
    let mean = |samples: &[(f64, f64)]| {
        samples.iter().map(|(d, w)| d * w).sum::<f64>() / samples.iter().map(|(_, w)| w).sum::<f64>()
    };
    let interpolated = |samples: &[(f64, f64)]| {
        let mut distances: Vec<f64> = samples.iter().map(|(distance, _)| *distance).collect();
        distances.sort_by(f64::total_cmp);
        let position = 0.95 * (distances.len() - 1) as f64;
        let (low, high) = (distances[position.floor() as usize], distances[position.ceil() as usize]);
        low + (high - low) * position.fract()
    };
    let by_area = |samples: &[(f64, f64)]| {
        let all: f64 = samples.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let reached = samples.iter().find(|(_, weight)| {
            sum += weight;
            sum / all >= 0.95
        });
        reached.or(samples.last()).expect("a sample").0
    };
    let hd95 = match definition {
        Definition::Deepmind => by_area(&ways[0]).max(by_area(&ways[1])),
        Definition::Monai => interpolated(&ways[0]).max(interpolated(&ways[1])),
        Definition::Medpy => interpolated(&together),
    };
    let hd = together.iter().map(|(distance, _)| *distance).fold(0.0, f64::max);
    let mut values = vec![hd, hd95, mean(&together), mean(&ways[0]), mean(&ways[1])];
    if definition != Definition::Medpy {
        let near = together.iter().filter(|(distance, _)| *distance <= 0.9);
        let all: f64 = together.iter().map(|(_, weight)| weight).sum();
        values.push(near.map(|(_, weight)| weight).sum::<f64>() / all);
    }
    Some(values)
}

fn ours(surfaces: &Surfaces) -> Vec<f64> {
    let fixed = [
        surfaces.hd(),
        surfaces.robust_hd(0.95),
        surfaces.assd(),
        surfaces.asd_from_reference(),
        surfaces.asd_from_prediction(),
    ];
    fixed.into_iter().chain(surfaces.nsd(0.9)).collect()
}

fn pairs() -> impl Strategy<Value = Pair> {
    let shape = (prop_oneof![Just(1_usize), 2_usize..6], 1_usize..7, 1_usize..7);
    (shape, 2_u8..9, 2_u8..9).prop_flat_map(|((nz, ny, nx), rarity, other_rarity)| {
        let count = nz * ny * nx;
        let mask = move |rarity: u8| {
            // Other labels are outside.
            prop::collection::vec((0..rarity).prop_map(|value| if value < 3 { value } else { 0 }), count)
        };
        (mask(rarity), mask(other_rarity)).prop_map(move |(reference, prediction)| Pair {
            shape: [nz, ny, nx],
            spacing_mm: SPACING_MM,
            reference,
            prediction,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_definition_gives_what_it_says(pair in pairs()) {
        for definition in Definition::ALL {
            let (ours, slow) = (pair.surfaces(definition).map(|found| ours(&found)), slow(&pair, definition));
            prop_assert_eq!(ours.is_some(), slow.is_some());
            for (ours, slow) in ours.iter().flatten().zip(slow.iter().flatten()) {
                // Sums in another order.
                prop_assert!((ours - slow).abs() < 1e-12, "{}: {} and {}", definition.name(), ours, slow);
            }
            prop_assert_eq!(ours.map(|values| values.len()), slow.map(|values| values.len()));
        }
    }

    #[test]
    fn exchanging_the_maps_exchanges_the_directions(pair in pairs()) {
        let Pair { shape, spacing_mm, reference, prediction } = pair.clone();
        let turned = Pair { shape, spacing_mm, reference: prediction, prediction: reference };
        for definition in Definition::ALL {
            let both = (pair.surfaces(definition), turned.surfaces(definition));
            let (Some(one), Some(two)) = both else { continue };
            prop_assert_eq!(one.hd(), two.hd());
            prop_assert_eq!(one.asd_from_reference(), two.asd_from_prediction());
            prop_assert!((one.assd() - two.assd()).abs() < 1e-12);
        }
    }
}

#[test]
fn two_voxels_three_apart_are_as_far_as_their_spacing_says() {
    let pair = Pair {
        shape: [1, 1, 4],
        spacing_mm: [2.0, 2.0, 0.5],
        reference: vec![1, 0, 0, 0],
        prediction: vec![0, 0, 0, 1],
    };
    // Voxels: centre to centre.
    let found = pair.surfaces(Definition::Monai).expect("both have it");
    assert_eq!([found.hd(), found.robust_hd(0.95), found.assd()], [1.5; 3]);
    assert_eq!((found.nsd(1.5), found.nsd(1.49)), (Some(1.0), Some(0.0)));
    // Contours: four corners each, two of them 1 mm and two 1.5 mm from the other voxel, all of the same length.
    let found = pair.surfaces(Definition::Deepmind).expect("both have it");
    assert_eq!([found.hd(), found.robust_hd(0.95)], [1.5; 2]);
    close("ASSD", found.assd(), 1.25, 1e-15);
    assert_eq!(found.nsd(1.0), Some(0.5));
}

#[test]
fn medpy_knows_no_nsd() {
    let pair = Pair { shape: [1, 1, 1], spacing_mm: [1.0; 3], reference: vec![1], prediction: vec![1] };
    assert_eq!(pair.surfaces(Definition::Medpy).expect("both have it").nsd(1.0), None);
}

#[test]
fn what_does_not_fit_the_grid_is_refused() {
    #[track_caller]
    fn check(grid: Result<Grid, GridError>, expected: &str) {
        let found = grid.and_then(|grid| Surfaces::between(&[0; 24], &[0; 23], 1, &grid, Definition::Monai));
        assert_eq!(found.expect_err("it does not fit").to_string(), expected);
    }
    let grid = |shape, spacing_mm| Grid::new(shape, spacing_mm);
    check(grid([2, 3, 4], [1.0; 3]), "the prediction has 23 voxels but a grid of 2×3×4 (z×y×x) has 24");
    check(grid([2, 3, 5], [1.0; 3]), "the reference has 24 voxels but a grid of 2×3×5 (z×y×x) has 30");
    check(grid([2, 3, 4], [1.0, 0.0, 1.0]), "the spacing along y is 0 mm: it must be above 0 and finite");
    check(
        grid([2, 3, 4], [1.0, 1.0, f64::NAN]),
        "the spacing along x is NaN mm: it must be above 0 and finite",
    );
    let huge = usize::MAX / 2;
    let expected = format!("a grid of {huge}×3×4 (z×y×x) has more voxels than memory has addresses");
    check(grid([huge, 3, 4], [1.0; 3]), &expected);
}
