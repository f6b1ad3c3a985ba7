//! Moves volumes to another number of voxels over the same physical box.
//!
//! # Convention
//!
//! The outer faces of the grid stay where they are (not the centres of its corner voxels): `n` voxels become `m`
//! of size `n/m`, and output voxel `o` reads the input at index `(o + ½)·n/m − ½`, clamped to the grid. This is
//! `skimage.transform.resize(mode="edge", anti_aliasing=False)`, `scipy.ndimage.zoom(grid_mode=True,
//! mode="nearest")`, nnU-Net and `align_corners=False`. The affine follows, so a volume that is resampled there and
//! back lies where it was. There is no smoothing before downsampling.

mod axis;
mod planes;

use ndarray::Array4;
use thiserror::Error;

pub use self::axis::Interpolation;
pub(crate) use self::planes::PlaneResampler;

use self::axis::{Axes, nearest_indices};

use crate::affine::Affine;
use crate::volume::{Geometry, Image, LabelMap, Shape};

/// A grid that cannot be resampled to.
#[derive(Debug, Error, PartialEq)]
pub enum ResampleError {
    /// A spacing that is zero, negative or not finite.
    #[error("spacing {0:?} mm (z, y, x) is not positive")]
    Spacing([f64; 3]),
    /// A shape without voxels, or with more than a volume may have.
    #[error("cannot resample to {0} voxels")]
    Shape(Shape),
    /// More class scores than label values.
    #[error("scores have {0} channels, a label map has at most 256 values")]
    Channels(usize),
    /// Planes one by one, where the spline needs them all.
    #[error("a cubic spline cannot be taken of planes one by one")]
    Planes,
}

/// The largest number of voxels of one channel that is resampled to.
const MAX_VOXELS: usize = 1 << 31;

/// The shape that covers the box of `source` with voxels as close to `spacing_mm` (z, y, x) as whole numbers allow:
/// `round(shape · spacing / spacing_mm)`, half to even as in nnU-Net, at least 1.
pub fn shape_for_spacing(source: &Geometry, spacing_mm: [f64; 3]) -> Result<Shape, ResampleError> {
    if !spacing_mm.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(ResampleError::Spacing(spacing_mm));
    }
    let old = source.spacing_mm();
    let lengths = [0, 1, 2].map(|k| {
        // f32 headers: 35 voxels of 1.0000001 mm are 35 mm.
        let exact = source.shape.0[k] as f64 * (old[k] / spacing_mm[k]);
        exact.round_ties_even().max(1.0)
    });
    let shape = Shape(lengths.map(|l| l as usize));
    validate(shape).map(|()| shape)
}

/// The grid of `shape` over the same physical box as `source`.
pub fn resampled_geometry(source: &Geometry, shape: Shape) -> Result<Geometry, ResampleError> {
    validate(shape)?;
    if shape == source.shape {
        return Ok(*source);
    }
    let mut origin_index = [0.0; 3];
    let mut steps = [[0.0; 3]; 3];
    for axis in 0..3 {
        let scale = source.shape.0[2 - axis] as f64 / shape.0[2 - axis] as f64;
        origin_index[axis] = (scale - 1.0) / 2.0;
        steps[axis] = source.affine.step_mm(axis).map(|v| v * scale);
    }
    let origin = source.affine.apply(origin_index);
    Ok(Geometry { shape, affine: Affine::from_columns(steps, origin) })
}

fn validate(shape: Shape) -> Result<(), ResampleError> {
    match shape.voxels() {
        Some(1..=MAX_VOXELS) => Ok(()),
        _ => Err(ResampleError::Shape(shape)),
    }
}

/// Resamples an image to `shape`, one axis after the other (z, y, x), in `f32`; the spline's coefficients are `f64`.
/// The same shape gives the same voxels. See [`Interpolation::per_axis`] for what to give as `how`.
///
/// NaN and infinity spread to the voxels that touch them, with [`Interpolation::Cubic`] along the whole axis.
pub fn resample_image(image: &Image, shape: Shape, how: [Interpolation; 3]) -> Result<Image, ResampleError> {
    let geometry = resampled_geometry(image.geometry(), shape)?;
    if shape == image.shape() {
        return Ok(image.clone());
    }
    let axes = Axes::between(image.shape(), shape, how);
    let [z, y, x] = shape.0;
    let mut voxels = Vec::with_capacity(image.channels() * z * y * x);
    for channel in 0..image.channels() {
        voxels.extend_from_slice(&axes.apply(image.channel(channel)));
    }
    let voxels =
        Array4::from_shape_vec((image.channels(), z, y, x), voxels).expect("every channel has the new shape");
    Ok(Image::new(voxels, geometry).expect("the geometry has the new shape"))
}

/// Resamples a label map to `shape`. The same shape gives the same voxels; no label appears that was not there.
///
/// Where all axes take the nearest voxel, so does the label. Else the mask of every label is interpolated, and the
/// label with the most weight wins, the lower one on a tie: smoother boundaries, and what nnU-Net does.
pub fn resample_label(
    label: &LabelMap,
    shape: Shape,
    how: [Interpolation; 3],
) -> Result<LabelMap, ResampleError> {
    let geometry = resampled_geometry(label.geometry(), shape)?;
    if shape == label.shape() {
        return Ok(label.clone());
    }
    let voxels = if how == [Interpolation::Nearest; 3] {
        nearest(label, shape)
    } else {
        let present = label.histogram();
        let masks = (0..=u8::MAX)
            .filter(|&l| present[usize::from(l)] > 0)
            .map(|l| (l, label.as_slice().iter().map(|&v| f32::from(u8::from(v == l))).collect::<Vec<_>>()));
        argmax(masks, label.shape(), shape, how)
    };
    Ok(LabelMap::from_vec(voxels, geometry).expect("the geometry has the new shape"))
}

fn argmax<S: AsRef<[f32]>>(
    candidates: impl Iterator<Item = (u8, S)>,
    from: Shape,
    to: Shape,
    how: [Interpolation; 3],
) -> Vec<u8> {
    let axes = Axes::between(from, to, how);
    let n = to.0.iter().product();
    let (mut labels, mut best) = (vec![0_u8; n], vec![f32::NEG_INFINITY; n]);
    for (label, scores) in candidates {
        let resampled;
        let scores = if from == to {
            scores.as_ref()
        } else {
            resampled = axes.apply(scores.as_ref());
            &resampled
        };
        for ((winner, best), &score) in labels.iter_mut().zip(&mut best).zip(scores) {
            if score > *best {
                *best = score;
                *winner = label;
            }
        }
    }
    labels
}

fn nearest(label: &LabelMap, shape: Shape) -> Vec<u8> {
    let [zs, ys, xs] = [0, 1, 2].map(|k| nearest_indices(label.shape().0[k], shape.0[k]));
    let [_, ny, nx] = label.shape().0;
    let mut voxels = Vec::with_capacity(zs.len() * ys.len() * xs.len());
    for &z in &zs {
        for &y in &ys {
            let row = &label.as_slice()[(z * ny + y) * nx..][..nx];
            voxels.extend(xs.iter().map(|&x| row[x]));
        }
    }
    voxels
}
