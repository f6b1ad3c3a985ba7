//! Connected components of label maps, for finding stray islands.

use std::collections::BTreeMap;

use crate::volume::LabelMap;

/// The sizes in voxels of each label's connected components, largest first. Background (0) is left out.
///
/// Voxels are connected when they have the same label and touch by a face, an edge or a corner (26-connectivity).
pub fn components(label: &LabelMap) -> BTreeMap<u8, Vec<u64>> {
    let voxels = label.as_slice();
    let [nz, ny, nx] = label.shape().0;
    let mut forest = Forest { parent: Vec::new(), size: Vec::new() };
    // The component of each voxel in this plane and the one before; u32 holds any volume that can be read.
    let mut above = vec![u32::MAX; ny * nx];
    let mut here = vec![u32::MAX; ny * nx];
    let mut labels = Vec::new();
    for z in 0..nz {
        let plane = &voxels[z * ny * nx..(z + 1) * ny * nx];
        for y in 0..ny {
            for x in 0..nx {
                let at = y * nx + x;
                let value = plane[at];
                if value == 0 {
                    here[at] = u32::MAX;
                    continue;
                }
                let mut component = None;
                let (xs, ys) = (x.saturating_sub(1)..(x + 2).min(nx), y.saturating_sub(1)..(y + 2).min(ny));
                let earlier_rows =
                    ys.clone().take_while(|&v| v < y).flat_map(|v| xs.clone().map(move |u| v * nx + u));
                for neighbour in earlier_rows.chain((x > 0).then(|| at - 1)) {
                    if plane[neighbour] == value {
                        forest.join(&mut component, here[neighbour]);
                    }
                }
                if z > 0 {
                    let before = &voxels[(z - 1) * ny * nx..z * ny * nx];
                    for neighbour in ys.flat_map(|v| xs.clone().map(move |u| v * nx + u)) {
                        if before[neighbour] == value {
                            forest.join(&mut component, above[neighbour]);
                        }
                    }
                }
                let component = component.unwrap_or_else(|| {
                    labels.push(value);
                    forest.plant()
                });
                forest.size[component as usize] += 1;
                here[at] = component;
            }
        }
        std::mem::swap(&mut above, &mut here);
    }
    let mut sizes: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for (tree, &value) in labels.iter().enumerate() {
        if forest.parent[tree] as usize == tree {
            sizes.entry(value).or_default().push(forest.size[tree]);
        }
    }
    for sizes in sizes.values_mut() {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
    }
    sizes
}

/// Disjoint sets of provisional components; a root holds the size of its set.
struct Forest {
    parent: Vec<u32>,
    size: Vec<u64>,
}

impl Forest {
    fn plant(&mut self) -> u32 {
        let tree = u32::try_from(self.parent.len()).expect("a volume has fewer than 2³² voxels");
        self.parent.push(tree);
        self.size.push(0);
        tree
    }

    fn root(&mut self, mut tree: u32) -> u32 {
        while self.parent[tree as usize] != tree {
            let grandparent = self.parent[self.parent[tree as usize] as usize];
            self.parent[tree as usize] = grandparent;
            tree = grandparent;
        }
        tree
    }

    fn join(&mut self, component: &mut Option<u32>, neighbour: u32) {
        let other = self.root(neighbour);
        let Some(own) = *component else {
            *component = Some(other);
            return;
        };
        if own != other {
            let (keep, drop) = (own.min(other), own.max(other));
            self.parent[drop as usize] = keep;
            self.size[keep as usize] += std::mem::take(&mut self.size[drop as usize]);
            *component = Some(keep);
        }
    }
}
