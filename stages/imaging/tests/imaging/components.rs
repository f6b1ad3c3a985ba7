//! Connected components against a flood fill written the slow way.

use std::collections::BTreeMap;

use pipe_imaging::LabelMap;
use pipe_imaging::components::components;
use proptest::prelude::*;

use crate::reference::{Noise, label};

fn flood_fill(map: &LabelMap) -> BTreeMap<u8, Vec<u64>> {
    let [nz, ny, nx] = map.shape().0.map(|n| n as i64);
    let voxels = map.as_slice();
    let mut seen = vec![false; voxels.len()];
    let mut sizes: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for start in 0..voxels.len() {
        if seen[start] || voxels[start] == 0 {
            continue;
        }
        let (mut stack, mut size) = (vec![start as i64], 0);
        seen[start] = true;
        while let Some(at) = stack.pop() {
            size += 1;
            let (z, y, x) = (at / (ny * nx), at / nx % ny, at % nx);
            for dz in -1..=1 {
                for dy in -1..=1 {
                    for dx in -1..=1 {
                        let (w, v, u) = (z + dz, y + dy, x + dx);
                        if (0..nz).contains(&w) && (0..ny).contains(&v) && (0..nx).contains(&u) {
                            let next = ((w * ny + v) * nx + u) as usize;
                            if !seen[next] && voxels[next] == voxels[start] {
                                seen[next] = true;
                                stack.push(next as i64);
                            }
                        }
                    }
                }
            }
        }
        sizes.entry(voxels[start]).or_default().push(size);
    }
    for sizes in sizes.values_mut() {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
    }
    sizes
}

#[test]
fn corners_connect_and_other_labels_do_not() {
    let map = label([2, 2, 3], vec![1, 0, 2, 0, 2, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(components(&map), BTreeMap::from([(1, vec![2]), (2, vec![3])]));
    let map = label([1, 1, 5], vec![1, 0, 1, 2, 1]);
    assert_eq!(components(&map), BTreeMap::from([(1, vec![1, 1, 1]), (2, vec![1])]));
    assert!(components(&label([1, 1, 2], vec![0, 0])).is_empty());
}

proptest! {
    #[test]
    fn the_sizes_are_those_of_a_flood_fill(seed: u64, shape in prop::array::uniform3(1_usize..8), density in 1_usize..6) {
        let mut noise = Noise(seed);
        let voxels = (0..shape.iter().product()).map(|_| (noise.below(6) < density) as u8 * (1 + noise.below(2) as u8));
        let map = label(shape, voxels.collect());
        prop_assert_eq!(components(&map), flood_fill(&map));
    }
}
