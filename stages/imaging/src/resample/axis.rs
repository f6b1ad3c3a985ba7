//! Interpolation along one axis after the other, prepared for one pair of shapes.

use serde::{Deserialize, Serialize};

use crate::volume::Shape;

/// How values between voxels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// The value of the nearest voxel; of two equally near ones the one with the higher index, as in SciPy.
    Nearest,
    /// Between the two voxels around it.
    #[default]
    Linear,
    /// The cubic spline through all voxels, clipped to the range of its channel: `skimage.transform.resize(order=3,
    /// mode="edge", anti_aliasing=False)`, which nnU-Net uses for images.
    Cubic,
}

/// Voxels more than this many times as long along one axis as along another are anisotropic, as in nnU-Net.
const ANISOTROPIC: f64 = 3.0;

impl Interpolation {
    /// The anisotropic rule, nnU-Net's: where the voxels of the source, or else of the target, are more than three times
    /// as long along one axis as along another, that axis takes the nearest slice, for there is nothing to see
    /// between thick slices. Sizes and result are in the order z, y, x.
    ///
    /// Two axes that are equally long are no slices, so nothing changes.
    pub fn per_axis(self, source_mm: [f64; 3], target_mm: [f64; 3]) -> [Self; 3] {
        let mut axes = [self; 3];
        let judged = if is_anisotropic(source_mm) { source_mm } else { target_mm };
        if let Some(thick) = thick_axis(judged) {
            axes[thick] = Self::Nearest;
        }
        axes
    }
}

fn is_anisotropic(spacing_mm: [f64; 3]) -> bool {
    let shortest = spacing_mm.iter().copied().fold(f64::INFINITY, f64::min);
    spacing_mm.iter().any(|&size| size > ANISOTROPIC * shortest)
}

/// The one axis along which voxels are longest, where they are anisotropic.
fn thick_axis(spacing_mm: [f64; 3]) -> Option<usize> {
    let longest = spacing_mm.iter().copied().fold(0.0, f64::max);
    // Headers hold f32, and some tools round.
    let mut long = (0..3).filter(|&axis| spacing_mm[axis] > longest * (1.0 - 1e-3));
    let first = long.next().filter(|_| is_anisotropic(spacing_mm))?;
    long.next().is_none().then_some(first)
}

/// What each axis does to go from one shape to another.
pub(super) struct Axes {
    from: Shape,
    /// z, y, x; nothing for an axis that keeps its length.
    passes: [Option<Pass>; 3],
    /// The spline overshoots.
    clips: bool,
}

enum Pass {
    /// The source index of each target voxel.
    Nearest(Vec<usize>),
    Linear(Vec<Tap>),
    Cubic(Vec<Knot>),
}

/// `low · (1 − weight) + high · weight`.
pub(super) struct Tap {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) weight: f32,
}

/// Four coefficients from `first` on, which counts from the one two before the axis, and what each weighs.
struct Knot {
    first: usize,
    weights: [f64; 4],
}

impl Axes {
    pub(super) fn between(from: Shape, to: Shape, how: [Interpolation; 3]) -> Self {
        let passes = [0, 1, 2].map(|k| {
            let (n, m) = (from.0[k], to.0[k]);
            (n != m).then(|| match how[k] {
                Interpolation::Nearest => Pass::Nearest(nearest_indices(n, m)),
                Interpolation::Linear => Pass::Linear((0..m).map(|o| Tap::new(o, n, m)).collect()),
                Interpolation::Cubic => Pass::Cubic((0..m).map(|o| Knot::new(o, n, m)).collect()),
            })
        });
        let clips = passes.iter().any(|pass| matches!(pass, Some(Pass::Cubic(_))));
        Self { from, passes, clips }
    }

    /// Whether values are clipped to the range of the channel, so that channels must be given one by one.
    pub(super) fn clips(&self) -> bool {
        self.clips
    }

    /// One axis after the other, z first, so that memory is walked in rows until the last.
    pub(super) fn apply(&self, voxels: &[f32]) -> Vec<f32> {
        let mut shape = self.from.0;
        let mut current = None;
        for (k, pass) in self.passes.iter().enumerate() {
            let Some(pass) = pass else { continue };
            let source = current.as_deref().unwrap_or(voxels);
            let inner: usize = shape[k + 1..].iter().product();
            let (next, length) = pass.apply(source, shape[k], inner);
            shape[k] = length;
            current = Some(next);
        }
        let mut target = current.unwrap_or_else(|| voxels.to_vec());
        if self.clips {
            let low = voxels.iter().copied().fold(f32::INFINITY, f32::min);
            let high = voxels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // Not `clamp`, which panics when all are NaN; NaN itself stays.
            target.iter_mut().filter(|v| **v < low).for_each(|v| *v = low);
            target.iter_mut().filter(|v| **v > high).for_each(|v| *v = high);
        }
        target
    }
}

impl Pass {
    /// Resamples the middle axis of `[outer, length, inner]`; gives its length after.
    fn apply(&self, source: &[f32], length: usize, inner: usize) -> (Vec<f32>, usize) {
        let outer = source.len() / (length * inner);
        let reserve = |length: usize| Vec::with_capacity(outer * length * inner);
        let blocks = source.chunks_exact(length * inner);
        match self {
            Self::Nearest(indices) => {
                let mut target = reserve(indices.len());
                for block in blocks {
                    for &at in indices {
                        target.extend_from_slice(&block[at * inner..][..inner]);
                    }
                }
                (target, indices.len())
            }
            Self::Linear(taps) => {
                let mut target = reserve(taps.len());
                blocks.for_each(|block| linear(block, inner, taps, &mut target));
                (target, taps.len())
            }
            Self::Cubic(knots) => {
                let mut target = reserve(knots.len());
                let mut coefficients = vec![0.0; (length + 4) * inner];
                for block in blocks {
                    spline_coefficients(block, inner, &mut coefficients);
                    for knot in knots {
                        let row = |k: usize| &coefficients[(knot.first + k) * inner..][..inner];
                        let rows = row(0).iter().zip(row(1)).zip(row(2)).zip(row(3));
                        let [a, b, c, d] = knot.weights;
                        target.extend(rows.map(|(((p, q), r), s)| (a * p + b * q + c * r + d * s) as f32));
                    }
                }
                (target, knots.len())
            }
        }
    }
}

/// For each of `m` voxels the nearest of `n`: `floor((o + ½)·n/m)`, in whole numbers, so that ties are exact.
pub(super) fn nearest_indices(n: usize, m: usize) -> Vec<usize> {
    (0..m).map(|o| ((2 * o as u128 + 1) * n as u128 / (2 * m as u128)) as usize).collect()
}

/// Where voxel `o` of `m` lies among `n`; between −½ and n − ½.
fn place(o: usize, n: usize, m: usize) -> f64 {
    (o as f64 + 0.5) * (n as f64 / m as f64) - 0.5
}

impl Tap {
    pub(super) fn new(o: usize, n: usize, m: usize) -> Self {
        let at = place(o, n, m).clamp(0.0, (n - 1) as f64);
        let low = at.floor() as usize;
        Self { low, high: (low + 1).min(n - 1), weight: (at - low as f64) as f32 }
    }
}

fn linear(block: &[f32], inner: usize, taps: &[Tap], target: &mut Vec<f32>) {
    if inner == 1 {
        target.extend(taps.iter().map(|t| block[t.low] * (1.0 - t.weight) + block[t.high] * t.weight));
        return;
    }
    for tap in taps {
        let low = &block[tap.low * inner..][..inner];
        let high = &block[tap.high * inner..][..inner];
        let (a, b) = (1.0 - tap.weight, tap.weight);
        target.extend(low.iter().zip(high).map(|(l, h)| l * a + h * b));
    }
}

impl Knot {
    fn new(o: usize, n: usize, m: usize) -> Self {
        let at = place(o, n, m);
        let below = at.floor();
        let (t, u) = (at - below, 1.0 - (at - below));
        let middle = |t: f64| (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0;
        // The first coefficient is one before `below`, and the array begins two before the axis.
        let first = (below as i64 + 1) as usize;
        Self { first, weights: [u * u * u / 6.0, middle(t), middle(u), t * t * t / 6.0] }
    }
}

/// The cubic B-spline coefficients of each column of `[length, inner]`, for an axis that goes on beyond both ends with
/// its last values; two more on each side.
///
/// The spline of order 3 has one pole z = √3 − 2: a recursion forwards, one backwards (Unser, Aldroubi, Eden, "B-spline
/// signal processing", 1993). The sums beyond the ends are geometric, so they are exact.
fn spline_coefficients(block: &[f32], inner: usize, coefficients: &mut [f64]) {
    let pole = 3.0_f64.sqrt() - 2.0;
    let length = block.len() / inner;
    let row = |k: usize| k * inner..(k + 1) * inner;
    // Forwards, at 2..length + 2. Before the axis the recursion has settled.
    let settled = |value: f32| 6.0 * f64::from(value) / (1.0 - pole);
    for (c, &value) in coefficients[row(2)].iter_mut().zip(&block[row(0)]) {
        *c = settled(value);
    }
    for k in 1..length {
        let (done, rest) = coefficients.split_at_mut((k + 2) * inner);
        let before = &done[(k + 1) * inner..];
        for ((c, &before), &value) in rest[..inner].iter_mut().zip(before).zip(&block[row(k)]) {
            *c = 6.0 * f64::from(value) + pole * before;
        }
    }
    // Behind the axis it settles: limit + poleʲ · rest. Backwards from there.
    let (inside, behind) = coefficients.split_at_mut((length + 2) * inner);
    let (first_behind, second_behind) = behind.split_at_mut(inner);
    let last_forward = &inside[row(length + 1)];
    for i in 0..inner {
        let limit = settled(block[(length - 1) * inner + i]);
        let rest = last_forward[i] - limit;
        let far = -(limit * pole / (1.0 - pole) + rest * pole.powi(3) / (1.0 - pole * pole));
        second_behind[i] = far;
        first_behind[i] = pole * (far - (limit + pole * rest));
    }
    for k in (2..length + 2).rev() {
        let (done, rest) = coefficients.split_at_mut((k + 1) * inner);
        for (c, &next) in done[k * inner..].iter_mut().zip(&rest[..inner]) {
            *c = pole * (next - *c);
        }
    }
    for k in [1, 0] {
        for i in 0..inner {
            coefficients[k * inner + i] = pole * (coefficients[(k + 1) * inner + i] - settled(block[i]));
        }
    }
}
