use super::super::{Cohort, Planted};
use super::*;
use std::collections::BTreeMap;

fn mean(pixels: &[u8]) -> f64 {
    pixels.iter().map(|pixel| f64::from(*pixel)).sum::<f64>() / pixels.len() as f64
}

#[test]
fn pixels_are_the_same_on_every_machine_and_in_every_release() {
    let cohort = Cohort { cases: 20, shape: [1, 20, 16], seed: 7, ..Cohort::images() };
    let list = list(&cohort);
    let pixels: Vec<u8> = list.iter().flat_map(|chest| pixels(&cohort, chest)).collect();
    let digest = blake3::hash(&pixels).to_hex();
    assert_eq!(digest.as_str(), "9b5bbc7db7fd7681fdb861897f0522dc4d96f07be11739173bab58e2524b70be");
}

#[test]
fn every_part_has_its_share_and_both_classes() {
    let cohort = Cohort::images();
    let list = list(&cohort);
    let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for chest in &list {
        *counts.entry((chest.split, chest.class)).or_default() += 1;
    }
    let part = |split| counts[&(split, 0)] + counts[&(split, 1)];
    assert_eq!([part("train"), part("val"), part("test")], [560, 80, 160]);
    for split in ["train", "val", "test"] {
        let share = counts[&(split, 1)] as f64 / part(split) as f64;
        assert!((0.6..0.9).contains(&share), "{split}: {share} are clouded");
    }
    assert_eq!(list[0].id, "train_00000");
}

#[test]
fn clouds_are_not_told_by_brightness() {
    let cohort = Cohort::images();
    let of: Vec<(f64, usize)> =
        list(&cohort).iter().map(|chest| (mean(&pixels(&cohort, chest)), chest.class)).collect();
    let (mut above, mut pairs) = (0.0, 0.0);
    for (clouded, _) in of.iter().filter(|(_, class)| *class == 1) {
        for (clear, _) in of.iter().filter(|(_, class)| *class == 0) {
            above += f64::from(u8::from(clouded > clear));
            pairs += 1.0;
        }
    }
    // As of the real images, whose mean gives 0.62.
    let area = above / pairs;
    assert!((0.5..0.75).contains(&area), "the mean brightness has an area under the ROC curve of {area}");
    let ends =
        of.iter().fold((255.0_f64, 0.0_f64), |(low, high), (mean, _)| (low.min(*mean), high.max(*mean)));
    assert!(ends.0 > 30.0 && ends.1 < 225.0, "means from {} to {}", ends.0, ends.1);
}

#[test]
fn copies_are_training_images_of_every_part_in_turn() {
    let planted = Planted { duplicates: 3, ..Planted::default() };
    let cohort = Cohort { cases: 40, planted, ..Cohort::images() };
    let list = list(&cohort);
    let mut first: BTreeMap<Vec<u8>, &Chest> = BTreeMap::new();
    let mut pairs = Vec::new();
    for chest in list.iter().rev() {
        if let Some(other) = first.insert(pixels(&cohort, chest), chest) {
            assert_eq!(chest.class, other.class);
            let mut pair = [chest.split, other.split];
            pair.sort_unstable();
            pairs.push(pair);
        }
    }
    pairs.sort_unstable();
    assert_eq!(pairs, [["test", "train"], ["train", "train"], ["train", "val"]]);
}
