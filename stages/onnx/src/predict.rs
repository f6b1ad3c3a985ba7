//! Inference on whole volumes and whole images: what is asked for, what may go wrong, and probabilities as one array.
//! The sliding window itself is `planes`. Must not know files, spacing or labels.

use std::num::NonZeroUsize;

use crate::planes::Planes;
use crate::probabilities::{Probabilities, softmax};
use crate::session::{Session, SessionError};
use crate::writer::Dims;

/// How much the voxels of a tile count where tiles overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blend {
    /// Most in its middle: a Gaussian with a sigma of an eighth of the tile. Where its middle is depends on the
    /// [`Tiling`].
    #[default]
    Gaussian,
    /// All the same.
    Constant,
}

/// Whose sliding window: where tiles lie on an axis that is longer than the patch, and what a Gaussian is. A network gives
/// what it gave in the program that it was trained with only under that program's rule: the weights of a voxel differ by up
/// to 0.07 in patches of 64³, and by more in smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tiling {
    /// Evenly spaced tiles, the fewest with at least the overlap asked for. The Gaussian is 1 at voxel `tile / 2`, so that an
    /// even tile counts a little more behind its middle than before it. Source: nnU-Net 2.8,
    /// `nnunetv2/inference/sliding_window_prediction.py`.
    #[default]
    Nnunet,
    /// Tiles at a fixed step, of which the last is moved back into the volume. The Gaussian is symmetric, with its middle
    /// between the voxels of an even tile, and never below 1/1000. Source: MONAI 1.6, `monai.inferers.sliding_window_inference`
    /// and `monai.data.utils.compute_importance_map`.
    Monai,
}

/// How a volume is cut into network inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// Largest network input, `[z, y, x]`, multiples of the model's divisor; z is ignored for a 2D model.
    pub patch: [usize; 3],
    /// Fraction of a tile that its neighbour covers too, 0 to below 1.
    pub overlap: f64,
    pub blend: Blend,
    pub tiling: Tiling,
    /// Most tiles in one run of the model. Affects memory and speed, not the result (up to rounding).
    pub tile_batch: NonZeroUsize,
    /// Axes `[z, y, x]` to mirror: the logits of all combinations are averaged, 2 to the number of axes runs a tile.
    pub mirror: [bool; 3],
}

impl PredictOptions {
    /// Returns the defaults for a patch: nnU-Net's tiles with overlap 0.5 and Gaussian weights, one a run, no mirroring.
    pub fn new(patch: [usize; 3]) -> Self {
        Self {
            patch,
            overlap: 0.5,
            blend: Blend::default(),
            tiling: Tiling::default(),
            tile_batch: NonZeroUsize::MIN,
            mirror: [false; 3],
        }
    }
}

/// Why a volume cannot be predicted.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// The model did not load or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The volume contradicts itself or the model.
    #[error("the volume of shape {shape:?} {reason}")]
    Volume { shape: Vec<usize>, reason: String },
    /// The options contradict themselves or the model.
    #[error("{0}")]
    Options(String),
    /// The model's output is not what the prediction needs.
    #[error("the model gives an output of shape {found:?} but {expected} is needed")]
    Output { found: Vec<usize>, expected: String },
    /// The model's logits are NaN or infinite.
    #[error("the model's logits at {at:?} have no softmax: they are NaN or infinite")]
    NotFinite { at: Vec<usize> },
}

/// Predicts class probabilities of a volume, as one array; [`Planes`] has how, and does without the array.
///
/// `volume`: `[c, z, y, x]`, C order, all finite. Returns the softmax over the logits, `[classes, z, y, x]`.
pub fn predict(
    session: &mut Session,
    volume: &[f32],
    shape: [usize; 4], // c, z, y, x
    options: &PredictOptions,
) -> Result<Probabilities, PredictError> {
    let [_, depth, height, width] = shape;
    let mut planes = Planes::new(std::slice::from_mut(session), volume, shape, options)?;
    let (mut values, mut classes) = (Vec::new(), 0);
    for z in 0..depth {
        let mut plane = planes.next_plane()?;
        classes = plane.len() / (height * width);
        softmax(&mut plane, classes).map_err(|at| not_finite(at, z, [height, width]))?;
        values.resize(classes * depth * height * width, 0.0);
        for (class, plane) in plane.chunks_exact(height * width).enumerate() {
            values[(class * depth + z) * height * width..][..height * width].copy_from_slice(plane);
        }
    }
    Ok(Probabilities::new(values, classes, [depth, height, width]))
}

/// The error of logits that have no softmax: `at` counts within plane `z`, `[classes, y, x]`.
pub(crate) fn not_finite(at: usize, z: usize, [height, width]: [usize; 2]) -> PredictError {
    let [class, y, x] = [at / (height * width), at / width % height, at % width];
    PredictError::NotFinite { at: vec![class, z, y, x] }
}

/// Predicts class probabilities of whole images, for a model that ends in `[n, classes]`.
///
/// `images`: `[n, c, z, y, x]`, C order, all finite, z = 1 for a 2D model, spatial sizes multiples of the model's
/// divisor. Returns `[n, classes]`, the softmax over the logits.
pub fn predict_classes(
    session: &mut Session,
    images: &[f32],
    shape: [usize; 5], // n, c, z, y, x
) -> Result<Vec<f32>, PredictError> {
    check_volume(images, &shape)?;
    let mut input_shape = shape.to_vec();
    if session.interface().dims == Dims::Two {
        if shape[2] != 1 {
            let reason = format!("has {} slices but the model is 2D", shape[2]);
            return Err(PredictError::Volume { shape: shape.to_vec(), reason });
        }
        input_shape.remove(2);
    }
    let (logits, found) = session.run(images, &input_shape)?;
    if found.len() != 2 || found[0] != shape[0] || found[1] < 2 {
        let expected = format!("[{}, 2 or more classes]", shape[0]);
        return Err(PredictError::Output { found, expected });
    }
    let mut probabilities = Vec::with_capacity(logits.len());
    for logits in logits.chunks_exact(found[1]) {
        let mut image = logits.to_vec();
        softmax(&mut image, found[1])
            .map_err(|class| PredictError::NotFinite { at: vec![probabilities.len() / found[1], class] })?;
        probabilities.extend(image);
    }
    Ok(probabilities)
}

pub(crate) fn check_volume(volume: &[f32], shape: &[usize]) -> Result<(), PredictError> {
    let refuse = |reason: String| Err(PredictError::Volume { shape: shape.to_vec(), reason });
    let product = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    if product != Some(volume.len()) {
        return refuse(format!("has {} values", volume.len()));
    }
    if volume.is_empty() {
        return refuse("is empty".to_owned());
    }
    match volume.iter().position(|value| !value.is_finite()) {
        Some(index) => refuse(format!("is {} at {:?}", volume[index], coordinates(index, shape))),
        None => Ok(()),
    }
}

/// Returns the place of a C-order index.
fn coordinates(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (at, size) in at.iter_mut().zip(shape).rev() {
        *at = index % size.max(&1);
        index /= size.max(&1);
    }
    at
}
