//! Class scores that come plane by plane, resampled as they come: two planes are held, however many there are.

use super::axis::{Axes, Interpolation, Tap, nearest_indices};
use super::{ResampleError, validate};
use crate::volume::Shape;

/// Moves planes `[c, y, x]`, given in the order of z, to another number of voxels over the same box.
///
/// Gives bit by bit what [`resample_image`](super::resample_image) gives of all planes together.
pub(crate) struct PlaneResampler {
    /// Of each plane that comes out, which planes it is made of. None where z keeps its length.
    z: Option<Vec<Tap>>,
    y_and_x: Axes,
    /// The plane before the last one that came.
    before: Vec<f32>,
    last: Vec<f32>,
    came: usize,
    gone: usize,
}

impl PlaneResampler {
    /// Refuses the cubic spline along z, which needs all planes at once.
    pub(crate) fn new(from: Shape, to: Shape, how: [Interpolation; 3]) -> Result<Self, ResampleError> {
        validate(to)?;
        let (n, m) = (from.0[0], to.0[0]);
        let z = match how[0] {
            _ if n == m => None,
            Interpolation::Linear => Some((0..m).map(|o| Tap::new(o, n, m)).collect()),
            Interpolation::Nearest => Some(
                nearest_indices(n, m).into_iter().map(|at| Tap { low: at, high: at, weight: 0.0 }).collect(),
            ),
            Interpolation::Cubic => return Err(ResampleError::Planes),
        };
        let plane = |shape: Shape| Shape([1, shape.0[1], shape.0[2]]);
        let y_and_x = Axes::between(plane(from), plane(to), how);
        if y_and_x.clips() {
            return Err(ResampleError::Planes);
        }
        Ok(Self { z, y_and_x, before: Vec::new(), last: Vec::new(), came: 0, gone: 0 })
    }

    /// Takes the next plane and gives those that can be made now, each with its place.
    pub(crate) fn push(&mut self, plane: Vec<f32>, mut each: impl FnMut(usize, &[f32])) {
        let at = self.came;
        self.came += 1;
        let Some(taps) = &self.z else {
            each(at, &self.y_and_x.apply(&plane));
            return;
        };
        self.before = std::mem::replace(&mut self.last, plane);
        while let Some(tap) = taps.get(self.gone).filter(|tap| tap.high <= at) {
            let of = |index: usize| if index == at { &self.last } else { &self.before };
            let (low, high) = (of(tap.low), of(tap.high));
            let made = if tap.low == tap.high && tap.weight == 0.0 {
                self.y_and_x.apply(low)
            } else {
                let (a, b) = (1.0 - tap.weight, tap.weight);
                let blend: Vec<f32> = low.iter().zip(high).map(|(l, h)| l * a + h * b).collect();
                self.y_and_x.apply(&blend)
            };
            each(self.gone, &made);
            self.gone += 1;
        }
    }
}
