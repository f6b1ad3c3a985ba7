//! Inference on whole volumes: padding, sliding window, slices of a volume for 2D models, and mirroring.
//! Bounded memory: one batch of tiles and one array of `[classes, z, y, x]`, whatever the number of tiles. Must not
//! know files, spacing or labels.

use std::num::NonZeroUsize;

use crate::probabilities::Probabilities;
use crate::session::{ModelInterface, Session, SessionError};
use crate::tiles::AxisTiles;
use crate::writer::Dims;

/// Names of the spatial axes, for messages.
const AXES: [&str; 3] = ["z", "y", "x"];

/// How a volume is cut into network inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// Largest network input, `[z, y, x]`, multiples of the model's divisor; z is ignored for a 2D model.
    pub patch: [usize; 3],
    /// Fraction of a tile that its neighbour covers too, 0 to below 1.
    pub overlap: f64,
    /// Most tiles in one run of the model. Affects memory and speed, not the result (up to rounding).
    pub tile_batch: NonZeroUsize,
    /// Axes `[z, y, x]` to mirror: the logits of all combinations are averaged, 2 to the number of axes runs a tile.
    pub mirror: [bool; 3],
}

impl PredictOptions {
    /// Returns the defaults for a patch: overlap 0.5, one tile a run, no mirroring.
    pub fn new(patch: [usize; 3]) -> Self {
        Self { patch, overlap: 0.5, tile_batch: NonZeroUsize::MIN, mirror: [false; 3] }
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

/// Predicts class probabilities of a volume.
///
/// `volume`: `[c, z, y, x]`, C order, all finite. Returns the softmax over the logits, `[classes, z, y, x]`.
///
/// - An axis that fits into the patch is taken whole, padded with zeros to the patch, half before and half after (an
///   odd voxel after), as in training; the padding is cut off the result.
/// - A longer axis is tiled with the overlap asked for. Where tiles overlap, logits are averaged with Gaussian weights
///   (sigma: an eighth of the tile) before the softmax. Source: nnU-Net, `nnunetv2/inference/sliding_window_prediction.py`.
/// - A 2D model sees each z slice by itself.
/// - An axis whose size the model fixes is padded or tiled to that size.
pub fn predict(
    session: &mut Session,
    volume: &[f32],
    shape: [usize; 4], // c, z, y, x
    options: &PredictOptions,
) -> Result<Probabilities, PredictError> {
    check_volume(volume, &shape)?;
    let plan = Plan::new(session.interface(), shape, options)?;
    let fixed_batch = session.interface().batch;
    let batch = fixed_batch.unwrap_or_else(|| options.tile_batch.get().min(plan.count())).max(1);

    let tile = plan.tile();
    let tile_voxels: usize = tile.iter().product();
    let input_size = shape[0] * tile_voxels;
    let voxels: usize = shape[1..].iter().product();
    let mut sum: Vec<f32> = Vec::new();
    let mut classes = 0;

    let mut first = 0;
    while first < plan.count() {
        let items: Vec<Item> =
            (first..plan.count().min(first + batch)).map(|index| plan.item(index)).collect();
        first += items.len();
        // A model with a fixed batch gets zeros where there are no tiles left.
        let mut input = vec![0.0; fixed_batch.unwrap_or(items.len()) * input_size];
        for (item, input) in items.iter().zip(input.chunks_exact_mut(input_size)) {
            gather(volume, shape, &plan.voxels(item), input);
        }
        let spatial = if plan.dims == Dims::Two { &tile[1..] } else { &tile[..] };
        let input_shape = [&[input.len() / input_size, shape[0]], spatial].concat();
        let (logits, logits_shape) = session.run(&input, &input_shape)?;

        if classes == 0 {
            classes = logits_shape.get(1).copied().unwrap_or_default();
            sum = vec![0.0; classes.saturating_mul(voxels)];
        }
        let expected = [&[input_shape[0], classes], spatial].concat();
        if logits_shape != expected || classes < 2 {
            let expected = format!("[{}, 2 or more classes, {spatial:?}]", input_shape[0]);
            return Err(PredictError::Output { found: logits_shape, expected });
        }
        for (item, logits) in items.iter().zip(logits.chunks_exact(classes * tile_voxels)) {
            scatter(logits, &plan.voxels(item), [shape[1], shape[2], shape[3]], &mut sum);
        }
    }
    plan.normalise(&mut sum);
    let probabilities = Probabilities::from_logits(sum, classes, [shape[1], shape[2], shape[3]]);
    if let Some(index) = probabilities.values().iter().position(|value| value.is_nan()) {
        return Err(PredictError::NotFinite {
            at: coordinates(index, &[classes, shape[1], shape[2], shape[3]]),
        });
    }
    Ok(probabilities)
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
        let image = Probabilities::from_logits(logits.to_vec(), found[1], [1, 1, 1]);
        probabilities.extend(image.into_values());
    }
    match probabilities.iter().position(|value| value.is_nan()) {
        Some(index) => Err(PredictError::NotFinite { at: coordinates(index, &found) }),
        None => Ok(probabilities),
    }
}

/// One run of the model on one tile.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// First voxel of the tile on each padded axis.
    start: [usize; 3],
    /// Axes along which the model sees the tile mirrored.
    mirrored: [bool; 3],
}

/// For each voxel of a tile along one axis, as the model sees it: the voxel of the volume below it (if any) and its
/// weight.
type AxisVoxels = Vec<(Option<usize>, f32)>;

/// All tiles of a volume.
struct Plan {
    dims: Dims,
    axes: [AxisTiles; 3],
    mirrorings: Vec<[bool; 3]>,
}

impl Plan {
    fn new(
        interface: &ModelInterface,
        shape: [usize; 4],
        options: &PredictOptions,
    ) -> Result<Self, PredictError> {
        if !(0.0..1.0).contains(&options.overlap) {
            let message = format!("the overlap is {} but must be at least 0 and below 1", options.overlap);
            return Err(PredictError::Options(message));
        }
        let planar = interface.dims == Dims::Two;
        if planar && options.mirror[0] {
            let message = "a 2D model cannot be mirrored along z".to_owned();
            return Err(PredictError::Options(message));
        }
        let mut axes = [const { None }; 3];
        for (axis, tiles) in axes.iter_mut().enumerate() {
            let length = shape[axis + 1];
            if planar && axis == 0 {
                *tiles = Some(AxisTiles::slices(length));
                continue;
            }
            let model_axis = axis - usize::from(planar);
            let (patch, divisor) = match interface.spatial[model_axis] {
                Some(fixed) => (fixed, fixed),
                None => (options.patch[axis], interface.divisor[model_axis]),
            };
            if patch == 0 || !patch.is_multiple_of(divisor) {
                let message = format!(
                    "the patch is {patch} along {} but must be a multiple of the model's divisor {divisor}",
                    AXES[axis]
                );
                return Err(PredictError::Options(message));
            }
            *tiles = Some(AxisTiles::new(length, patch, 1.0 - options.overlap));
        }
        let axes = axes.map(|tiles| tiles.expect("the loop fills every axis"));

        let mut mirrorings = vec![[false; 3]];
        for axis in (0..3).filter(|axis| options.mirror[*axis]) {
            for index in 0..mirrorings.len() {
                let mut mirrored = mirrorings[index];
                mirrored[axis] = true;
                mirrorings.push(mirrored);
            }
        }
        Ok(Self { dims: interface.dims, axes, mirrorings })
    }

    /// Returns the shape of a tile, `[z, y, x]`.
    fn tile(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].tile)
    }

    /// Returns the number of tiles, each mirroring counted.
    fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.starts.len()).product::<usize>() * self.mirrorings.len()
    }

    /// Returns one tile by its number; mirrorings vary fastest, then x, y, z.
    fn item(&self, index: usize) -> Item {
        let (mut rest, mirroring) = (index / self.mirrorings.len(), index % self.mirrorings.len());
        let mut start = [0; 3];
        for axis in (0..3).rev() {
            let starts = &self.axes[axis].starts;
            start[axis] = starts[rest % starts.len()];
            rest /= starts.len();
        }
        Item { start, mirrored: self.mirrorings[mirroring] }
    }

    fn voxels(&self, item: &Item) -> [AxisVoxels; 3] {
        [0, 1, 2].map(|axis| {
            let tiles = &self.axes[axis];
            let seen = (0..tiles.tile).map(|at| {
                let at = if item.mirrored[axis] { tiles.tile - 1 - at } else { at };
                (tiles.voxel(item.start[axis], at), tiles.weights[at])
            });
            seen.collect()
        })
    }

    /// Divides sums of weighted logits, `[classes, z, y, x]`, by the weights: as tiles are a product of axes, so is
    /// their total weight, and no array of weights is needed.
    fn normalise(&self, sum: &mut [f32]) {
        let [z, y, x] = [0, 1, 2].map(|axis| &self.axes[axis].totals);
        let mirrorings = self.mirrorings.len() as f32;
        for (row, values) in sum.chunks_exact_mut(x.len()).enumerate() {
            let total = z[row / y.len() % z.len()] * y[row % y.len()] * mirrorings;
            for (value, x) in values.iter_mut().zip(x) {
                *value /= total * x;
            }
        }
    }
}

/// Copies a tile of the volume into a network input `[c, z, y, x]` of zeros.
fn gather(volume: &[f32], shape: [usize; 4], tile: &[AxisVoxels; 3], input: &mut [f32]) {
    let [channels, depth, height, width] = shape;
    let [z, y, x] = tile;
    let mut rows = input.chunks_exact_mut(x.len());
    for channel in 0..channels {
        for (z, _) in z {
            for (y, _) in y {
                let Some(row) = rows.next() else { return };
                let (Some(z), Some(y)) = (z, y) else { continue };
                let line = &volume[((channel * depth + z) * height + y) * width..][..width];
                for (value, (x, _)) in row.iter_mut().zip(x) {
                    *value = x.map_or(0.0, |x| line[x]);
                }
            }
        }
    }
}

/// Adds the weighted logits of a tile, `[classes, z, y, x]`, to those of the volume.
fn scatter(logits: &[f32], tile: &[AxisVoxels; 3], shape: [usize; 3], sum: &mut [f32]) {
    let [depth, height, width] = shape;
    let [z, y, x] = tile;
    let rows = logits.chunks_exact(x.len());
    for (index, row) in rows.enumerate() {
        let (class, z_at, y_at) = (index / y.len() / z.len(), index / y.len() % z.len(), index % y.len());
        let ((Some(z), z_weight), (Some(y), y_weight)) = (z[z_at], y[y_at]) else { continue };
        let line = &mut sum[((class * depth + z) * height + y) * width..][..width];
        for (logit, (x, x_weight)) in row.iter().zip(x) {
            if let Some(x) = x {
                line[*x] += logit * (z_weight * y_weight * x_weight);
            }
        }
    }
}

fn check_volume(volume: &[f32], shape: &[usize]) -> Result<(), PredictError> {
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
