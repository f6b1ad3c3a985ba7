//! What is in a synthetic volume: the structure that is looked for, and others as bright.

use super::draw::Draw;

/// A tube along a bent line, thick in front, cut into an anterior (1) and a posterior (2) part.
pub(super) struct Body {
    centre: [f64; 3],
    /// Rows are the body's own axes along, up, aside in z, y, x.
    axes: [[f64; 3]; 3],
    half_length: f64,
    radius: f64,
    bend: [f64; 2],
    cut: f64,
}

impl Body {
    pub(super) fn draw(shape: [usize; 3], patient: &mut Draw, own: &mut Draw) -> Self {
        let size = shape.map(|size| size as f64);
        let centre = size.map(|size| (size - 1.0) / 2.0 + 0.05 * size * own.signed());
        let tilt = [0.1 * own.signed(), 0.15 * own.signed()];
        // Across the body: of a flat image both ways in the plane.
        let across = if shape[0] == 1 { size[2] } else { size[0].min(size[2]) };
        Self {
            centre,
            axes: axes(tilt),
            half_length: size[1] * (0.32 + 0.03 * patient.signed() + 0.01 * own.signed()),
            radius: across * (0.16 + 0.02 * patient.signed() + 0.01 * own.signed()),
            bend: [size[0] * 0.06 * (1.0 + patient.signed()), size[2] * 0.06 * patient.signed()],
            cut: 0.05 + 0.05 * patient.signed(),
        }
    }

    /// How far the voxel is inside, from 0 to 1 over one voxel around the edge, and the part that it belongs to.
    pub(super) fn at(&self, voxel: [f64; 3]) -> (f64, u8) {
        let (distance, along) = self.distance(voxel);
        ((0.5 - distance).clamp(0.0, 1.0), if along > self.cut { 1 } else { 2 })
    }

    /// 1 inside and up to 1.5 voxels around the body, 0 from 2.5 voxels on.
    pub(super) fn near(&self, voxel: [f64; 3]) -> f64 {
        (2.5 - self.distance(voxel).0).clamp(0.0, 1.0)
    }

    /// Distance to the surface in voxels, negative inside, exact enough near the surface; and the place along the
    /// body from -1 (posterior tip) to 1 (anterior tip).
    pub(super) fn distance(&self, voxel: [f64; 3]) -> (f64, f64) {
        let offset = [0, 1, 2].map(|axis| voxel[axis] - self.centre[axis]);
        let [along, up, aside] =
            self.axes.map(|axis| axis[0] * offset[0] + axis[1] * offset[1] + axis[2] * offset[2]);
        let t = along / self.half_length;
        let up = up - self.bend[0] * (t * t - 0.3);
        let aside = aside - self.bend[1] * t;
        // Thick in front: the radius of an ellipsoid, times 1.3 at the anterior and 0.7 at the posterior tip.
        let taper = 1.0 + 0.3 * t.clamp(-1.0, 1.0);
        let level = (t * t + (up * up + aside * aside) / (self.radius * self.radius * taper * taper)).sqrt();
        ((level - 1.0) * self.radius * taper, t)
    }
}

/// Axes along y, z and x, turned by two small angles given as tangents of their halves.
pub(super) fn axes([pitch, yaw]: [f64; 2]) -> [[f64; 3]; 3] {
    let turn = |t: f64| ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
    let ((cp, sp), (cy, sy)) = (turn(pitch), turn(yaw));
    [[sp, cp * cy, cp * sy], [cp, -sp * cy, -sp * sy], [0.0, -sy, cy]]
}

/// Bodies as bright as the one that is looked for.
pub(super) struct Spheres(Vec<([f64; 3], f64)>);

impl Spheres {
    pub(super) fn draw(shape: [usize; 3], own: &mut Draw) -> Self {
        let smallest = shape.into_iter().filter(|size| *size > 1).min().unwrap_or(1) as f64;
        let sphere = |own: &mut Draw| {
            let centre = shape.map(|size| own.uniform() * (size - 1) as f64);
            (centre, smallest * (0.08 + 0.1 * own.uniform()))
        };
        Self((0..14).map(|_| sphere(own)).collect())
    }

    pub(super) fn at(&self, voxel: [f64; 3]) -> f64 {
        let inside = |(centre, radius): &([f64; 3], f64)| {
            let square: f64 =
                (0..3).map(|axis| (voxel[axis] - centre[axis]) * (voxel[axis] - centre[axis])).sum();
            (0.5 + radius - square.sqrt()).clamp(0.0, 1.0)
        };
        self.0.iter().map(inside).fold(0.0, f64::max)
    }
}
