//! Deals groups into parts of given shares so that a further case moves as few others as possible.

use std::collections::BTreeMap;

/// Cases that stay together.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    /// Indices into the case table.
    pub(super) cases: Vec<usize>,
    /// What every part should have its share of; empty when nothing is stratified.
    pub(super) stratum: String,
}

/// The part of every group. `shares` add up to 1; every part with a share gets a group, if there are enough.
///
/// The groups of a stratum stand in the order of a seeded hash of their names and are cut where the shares end: a
/// group belongs to the part in which its middle case falls. One more case shifts each cut by less than one group, so
/// it moves at most one group at each cut, and no other. With several strata the cuts of each begin at a place of its
/// own, or else the first part would get the odd one of all.
pub(super) fn deal(groups: &[&Group], shares: &[f64], seed: u64, salt: &str) -> Vec<usize> {
    let hash = |text: &str| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(salt.as_bytes()).update(&[0]).update(text.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut strata: BTreeMap<&str, Vec<([u8; 32], usize)>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        strata.entry(&group.stratum).or_default().push((hash(&group.name), index));
    }
    let several = strata.len() > 1;
    let mut parts = vec![0; groups.len()];
    for (stratum, mut members) in strata {
        members.sort_unstable();
        let total: usize = members.iter().map(|(_, index)| groups[*index].cases.len()).sum();
        let phase = if several { unit(hash(&format!("stratum {stratum}"))) } else { 0.0 };
        let mut before = 0;
        for (_, index) in members {
            let size = groups[index].cases.len();
            let middle = (before as f64 + size as f64 / 2.0) / total as f64;
            parts[index] = part_at((middle + phase).fract(), shares);
            before += size;
        }
    }
    let ranks: Vec<[u8; 32]> = groups.iter().map(|group| hash(&group.name)).collect();
    fill_empty(&mut parts, shares, &ranks);
    parts
}

/// From 0 to below 1.
fn unit(hash: [u8; 32]) -> f64 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&hash[..4]);
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}

fn part_at(place: f64, shares: &[f64]) -> usize {
    let mut end = 0.0;
    for (part, share) in shares.iter().enumerate() {
        end += share;
        if place < end {
            return part;
        }
    }
    // The shares add up to 1 but for rounding.
    shares.iter().rposition(|share| *share > 0.0).unwrap_or(0)
}

/// Gives a part without a group the last one, by rank, of the part that has most.
fn fill_empty(parts: &mut [usize], shares: &[f64], ranks: &[[u8; 32]]) {
    loop {
        let mut counts = vec![0_usize; shares.len()];
        for part in parts.iter() {
            counts[*part] += 1;
        }
        let empty = (0..shares.len()).find(|&part| shares[part] > 0.0 && counts[part] == 0);
        let Some(donor) = (0..shares.len()).max_by_key(|&part| (counts[part], std::cmp::Reverse(part)))
        else {
            return;
        };
        let (Some(empty), true) = (empty, counts[donor] > 1) else { return };
        let given = (0..parts.len()).filter(|&group| parts[group] == donor).max_by_key(|&group| ranks[group]);
        if let Some(group) = given {
            parts[group] = empty;
        }
    }
}
