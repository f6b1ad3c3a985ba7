//! Images with label maps that are like the cases of an inspection: grid, voxels of each label and intensities are theirs;
//! what they show is a body as in other phantoms.

use super::body::{Spheres, axes};
use super::draw::{Draw, Lattice};
use super::likeness::{Likeness, Template};
use super::tones::tone;
use pipe_imaging::{Geometry, Image, LabelMap};

/// How much of an image the body takes where nothing is labelled.
const UNLABELLED_SHARE: f64 = 0.03;

/// The image that case `index` has of the patient of case `source`, with its figures; templates begin again after the last.
pub(super) fn drawn(
    likeness: &Likeness,
    seed: u64,
    scans: bool,
    source: usize,
    index: usize,
) -> (Image, Option<LabelMap>) {
    let template = likeness.template(source);
    let mut patient = Draw::new(seed, "like patient", template.patient);
    let mut own = Draw::new(seed, "like case", index);
    let shape = template.shape;
    let geometry = Geometry::new(shape, template.affine);
    let levels = Levels::draw(template, &geometry, &mut patient, &mut own);
    let others = Spheres::draw(shape, &mut own);
    let bias = Lattice::draw(shape, shape[1].max(shape[2]).max(shape[0]), &mut own);
    let step_share = 0.004 + 0.002 * Draw::new(seed, "step", template.patient).uniform();
    let mut values = Vec::with_capacity(template.channels.len() * levels.outward.len());
    for tones in &template.channels {
        let texture = Lattice::draw(shape, 6, &mut own);
        let bright = 0.7 + 0.3 * patient.uniform();
        let mut channel = Vec::with_capacity(levels.outward.len());
        for voxel in 0..levels.outward.len() {
            let place = place(voxel, shape);
            let at = place.map(|index| index as f64);
            let (inside, near) = levels.at(voxel);
            // Distractors never touch the body: its edge stays visible.
            let other = others.at(at) * (1.0 - near);
            let background = 0.64 + 0.18 * texture.at(at);
            let tissue = background + (bright - background) * inside.max(other);
            channel.push(tissue * (1.0 + 0.35 * bias.at(at)) + 0.05 * own.normal());
        }
        let mut toned = tone(&channel, tones, template.whole);
        if scans {
            let step = (tones.quantiles[3] - tones.quantiles[1]) * step_share;
            for value in &mut toned {
                *value = ((f64::from(*value) / step).round() * step) as f32;
            }
        }
        values.extend(toned);
    }
    let image =
        Image::from_vec(values, template.channels.len(), geometry).expect("one value a voxel and channel");
    let label = template
        .labels
        .as_ref()
        .map(|_| LabelMap::from_vec(levels.labels(template), geometry).expect("one label a voxel"));
    (image, label)
}

/// z, y, x of a voxel by its index.
fn place(voxel: usize, [_, height, width]: [usize; 3]) -> [usize; 3] {
    [voxel / (height * width), voxel / width % height, voxel % width]
}

/// For every voxel how far out it is of a bent, tapered body: the voxels with the lowest levels are the body, as many
/// as it should have.
struct Levels {
    outward: Vec<f64>,
    /// Place along the body, from -1 at its posterior to 1 at its anterior end.
    along: Vec<f64>,
    /// The voxels of the body.
    inside: Vec<u32>,
    /// The highest level in the body.
    edge: f64,
    /// Voxels that a level of 1 is thick, about.
    scale: f64,
}

impl Levels {
    fn draw(template: &Template, geometry: &Geometry, patient: &mut Draw, own: &mut Draw) -> Self {
        let shape = template.shape;
        let spacing = geometry.spacing_mm();
        let flat = shape[0] == 1;
        let extent = [0, 1, 2].map(|axis| (shape[axis] - 1) as f64 * spacing[axis]);
        let all = shape.iter().product::<usize>();
        let wanted = template
            .labels
            .as_ref()
            .map_or((all as f64 * UNLABELLED_SHARE) as u64, |labels| labels.values().sum());
        let wanted = (wanted as usize).min(all);
        let centre = extent.map(|extent| extent / 2.0 + 0.05 * extent * own.signed());
        let tilt = [if flat { 0.0 } else { 0.1 * own.signed() }, 0.15 * own.signed()];
        let [along, up, aside] = axes(tilt);
        let aspect = 2.2 + 0.4 * patient.signed();
        let bend = [0.4 * (1.0 + patient.signed()), 0.4 * patient.signed()];
        let voxel: f64 = if flat { spacing[1] * spacing[2] } else { spacing.iter().product() };
        // Of an ellipse, or of an ellipsoid, of so many voxels: its short half axis.
        let body = wanted.max(1) as f64 * voxel;
        let radius = if flat { (body / (3.0 * aspect)).sqrt() } else { cube_root(body / (4.2 * aspect)) };
        let dot = |axis: [f64; 3], offset: [f64; 3]| {
            axis[0] * offset[0] + axis[1] * offset[1] + axis[2] * offset[2]
        };
        let (mut levels, mut places) = (Vec::with_capacity(all), Vec::with_capacity(all));
        for voxel in 0..all {
            let index = place(voxel, shape);
            let offset = [0, 1, 2].map(|axis| {
                let centre = if flat && axis == 0 { 0.0 } else { centre[axis] };
                index[axis] as f64 * spacing[axis] - centre
            });
            let t = dot(along, offset) / (aspect * radius);
            let bent = t.clamp(-1.5, 1.5);
            let rise = if flat { 0.0 } else { bend[0] * (bent * bent - 0.3) };
            let (up, aside) = (dot(up, offset) / radius - rise, dot(aside, offset) / radius - bend[1] * bent);
            let taper = 1.0 + 0.3 * t.clamp(-1.0, 1.0);
            levels.push((t * t + (up * up + aside * aside) / (taper * taper)).sqrt());
            places.push(t);
        }
        let mut inside: Vec<u32> = (0..all as u32).collect();
        let order = |a: &u32, b: &u32| levels[*a as usize].total_cmp(&levels[*b as usize]).then(a.cmp(b));
        if wanted < all {
            inside.select_nth_unstable_by(wanted, order);
            inside.truncate(wanted);
        }
        let edge = inside.iter().map(|voxel| levels[*voxel as usize]).fold(0.0, f64::max);
        // Voxels are counted in the plane: slices may be thick.
        let scale = radius / spacing[1].min(spacing[2]);
        Self { outward: levels, along: places, inside, edge, scale }
    }

    /// How far the voxel is inside, from 0 to 1 over one voxel around the edge; and 1 in and around the body, 0 from 2.5
    /// voxels on.
    fn at(&self, voxel: usize) -> (f64, f64) {
        if self.inside.is_empty() {
            return (0.0, 0.0);
        }
        let distance = (self.outward[voxel] - self.edge) * self.scale;
        ((0.5 - distance).clamp(0.0, 1.0), (2.5 - distance).clamp(0.0, 1.0))
    }

    /// Cuts the body across into one piece a label, the first in front.
    fn labels(&self, template: &Template) -> Vec<u8> {
        let mut order = self.inside.clone();
        order.sort_unstable_by(|a, b| {
            self.along[*b as usize].total_cmp(&self.along[*a as usize]).then(a.cmp(b))
        });
        let mut map = vec![0; self.outward.len()];
        let mut rest = order.as_slice();
        for (label, voxels) in template.labels.iter().flatten() {
            let (piece, others) = rest.split_at((*voxels as usize).min(rest.len()));
            for voxel in piece {
                map[*voxel as usize] = *label;
            }
            rest = others;
        }
        map
    }
}

/// By Newton's iteration, which is the same on every machine.
fn cube_root(of: f64) -> f64 {
    let mut root = of.max(1.0);
    for _ in 0..200 {
        root -= (root * root * root - of) / (3.0 * root * root);
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cube_roots_are_found_over_many_orders() {
        for root in [1e-4, 0.3, 1.0, 7.0, 1e5] {
            assert!((cube_root(root * root * root) / root - 1.0).abs() < 1e-12, "{root}");
        }
    }
}
