//! The record of what preprocessing did to one case's grid, and the way back. Geometry only, no intensities.

mod scores;

use ndarray::Dimension;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::scores::ScorePlanes;

use crate::affine::Defect;
use crate::crop::{Window, WindowError};
use crate::orient::Reorientation;
use crate::resample::{
    Interpolation, ResampleError, resample_image, resample_label, resampled_geometry, shape_for_spacing,
};
use crate::volume::{Geometry, Image, LabelMap, Shape, Volume};

/// From the grid of a file to the grid of a network: flip and permute the axes, cut out a box, resample, pad.
///
/// Built step by step, in that order, from [`Transform::new`]. It serialises to the source grid and the parameters of
/// the steps; what follows from them is computed and checked again when it is read.
///
/// ```
/// use pipe_imaging::{Affine, Geometry, crop::Window, transform::Transform};
/// let source = Geometry::new([20, 30, 40], Affine::from_spacing([2.0, 1.0, 1.0]));
/// let window = Window { start: [2, 0, 0], shape: [16, 30, 40] };
/// let transform = Transform::new(&source).canonical().crop(window)?.resample_to_spacing([1.0, 1.0, 1.0])?;
/// assert_eq!(transform.target().shape.0, [32, 30, 40]);
/// # Ok::<(), pipe_imaging::transform::TransformError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct Transform {
    source: Geometry,
    reorientation: Reorientation,
    window: Window,
    /// After reorienting and cutting.
    cropped: Geometry,
    /// After resampling.
    resampled: Geometry,
    /// What the target is of the resampled grid: all of it, and padding around.
    frame: Window,
    /// After padding.
    target: Geometry,
    interpolation: Interpolation,
}

/// What is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    source: Geometry,
    reorientation: Reorientation,
    window: Window,
    resampled_shape: Shape,
    padded_shape: Shape,
    #[serde(default)]
    interpolation: Interpolation,
}

/// A transform that cannot be built or applied.
#[derive(Debug, Error, PartialEq)]
pub enum TransformError {
    /// A volume on another grid than the transform begins (or, backwards, ends) with.
    #[error("volume of {found} voxels is not on the transform's grid of {expected} (z×y×x)")]
    Grid { found: Shape, expected: Shape },
    /// A volume of the right shape that lies elsewhere.
    #[error("volume's affine differs from the transform's by up to {difference_mm} mm")]
    Place { difference_mm: f64 },
    /// A recorded source grid without voxels, or with more than can be.
    #[error("source grid of {0} voxels is empty or too large")]
    NoGrid(Shape),
    /// A recorded source grid that lies nowhere.
    #[error("source grid of {shape} voxels {defect}")]
    Source { shape: Shape, defect: Defect },
    /// A recorded padding that would cut something off.
    #[error("padding to {found} voxels would cut a grid of {least} (z×y×x)")]
    Padding { least: Shape, found: Shape },
    /// The box.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The resampling.
    #[error(transparent)]
    Resample(#[from] ResampleError),
    /// Planes of class scores that do not make up the target grid.
    #[error("planes of class scores {reason}, but the target grid has {expected} voxels (z×y×x)")]
    Planes { reason: String, expected: Shape },
}

impl TryFrom<Record> for Transform {
    type Error = TransformError;

    fn try_from(record: Record) -> Result<Self, TransformError> {
        let shape = record.source.shape;
        if matches!(shape.voxels(), None | Some(0)) {
            return Err(TransformError::NoGrid(shape));
        }
        if let Some(defect) = record.source.affine.defect() {
            return Err(TransformError::Source { shape, defect });
        }
        let reoriented =
            Self { reorientation: record.reorientation, ..Self::new(&record.source) }.rederived();
        let cropped = reoriented.interpolated(record.interpolation).crop(record.window)?;
        let resampled = cropped.resample_to_shape(record.resampled_shape.0)?;
        let (least, found) = (resampled.target.shape, record.padded_shape);
        if (0..3).any(|axis| found.0[axis] < least.0[axis]) {
            return Err(TransformError::Padding { least, found });
        }
        resampled.pad_to(found.0)
    }
}

impl From<Transform> for Record {
    fn from(transform: Transform) -> Self {
        let Transform { source, reorientation, window, resampled, target, interpolation, .. } = transform;
        let (resampled_shape, padded_shape) = (resampled.shape, target.shape);
        Self { source, reorientation, window, resampled_shape, padded_shape, interpolation }
    }
}

impl Transform {
    /// Leaves every voxel where it is.
    pub fn new(source: &Geometry) -> Self {
        Self {
            source: *source,
            reorientation: Reorientation::IDENTITY,
            window: Window::whole(source.shape),
            cropped: *source,
            resampled: *source,
            frame: Window::whole(source.shape),
            target: *source,
            interpolation: Interpolation::default(),
        }
    }

    /// Turns the axes to RAS, exactly. Comes before cropping and resampling and undoes them if they came first.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.reorientation = self.source.orientation().to_ras();
        self.rederived()
    }

    /// Cuts out `window`, given in voxels of the reoriented grid. Undoes resampling and padding if those came first.
    pub fn crop(mut self, window: Window) -> Result<Self, TransformError> {
        window.validate()?;
        self.window = window;
        self.cropped = window.geometry(&self.reorientation.apply_geometry(&self.source));
        let cropped = self.cropped;
        Ok(self.unpadded(cropped))
    }

    /// Interpolates images in this way; linearly unless told otherwise. The axis of thick slices takes the nearest
    /// slice, see [`Interpolation::per_axis`].
    #[must_use]
    pub fn interpolated(mut self, interpolation: Interpolation) -> Self {
        self.interpolation = interpolation;
        self
    }

    /// Resamples to voxels of about `spacing_mm` (z, y, x): the box keeps its size, so the voxels are
    /// `extent / round(extent / spacing)`. See [`Transform::target`] for what came out.
    pub fn resample_to_spacing(self, spacing_mm: [f64; 3]) -> Result<Self, TransformError> {
        let shape = shape_for_spacing(&self.cropped, spacing_mm)?;
        self.resample_to_shape(shape.0)
    }

    /// Resamples to `shape` voxels (z, y, x) over the same box. Undoes padding if that came first.
    pub fn resample_to_shape(self, shape: [usize; 3]) -> Result<Self, TransformError> {
        let resampled = resampled_geometry(&self.cropped, Shape(shape))?;
        Ok(self.unpadded(resampled))
    }

    /// Pads to at least `shape` voxels (z, y, x), evenly on both sides; where the difference is odd, the extra voxel is
    /// at the end. An axis that is long enough stays.
    pub fn pad_to(mut self, shape: [usize; 3]) -> Result<Self, TransformError> {
        let own = self.resampled.shape;
        let frame = Window::centred(own, [0, 1, 2].map(|axis| shape[axis].max(own.0[axis])));
        frame.validate()?;
        self.target = frame.geometry(&self.resampled);
        self.frame = frame;
        Ok(self)
    }

    /// The grid that volumes come from.
    pub fn source(&self) -> &Geometry {
        &self.source
    }

    /// The grid that volumes are moved to.
    pub fn target(&self) -> &Geometry {
        &self.target
    }

    /// Whether no voxel is interpolated: there and back is exact inside the box.
    pub fn is_lossless(&self) -> bool {
        self.cropped.shape == self.resampled.shape
    }

    /// Moves an image to the target grid. Padding is 0.
    pub fn apply_image(&self, image: &Image) -> Result<Image, TransformError> {
        self.pad_image(&self.apply_image_unpadded(image)?)
    }

    /// Moves an image to the target grid without its padding: intensities are normalised before 0 is put around them.
    pub fn apply_image_unpadded(&self, image: &Image) -> Result<Image, TransformError> {
        expect_grid(image, &self.source)?;
        let cropped = self.window.cut(&self.reorientation.apply(image), 0.0)?;
        Ok(resample_image(&cropped, self.resampled.shape, self.per_axis(self.interpolation))?)
    }

    /// Puts 0 around an image from [`Transform::apply_image_unpadded`].
    pub fn pad_image(&self, image: &Image) -> Result<Image, TransformError> {
        expect_grid(image, &self.resampled)?;
        Ok(self.frame.cut(image, 0.0)?)
    }

    /// Moves a label map to the target grid: by the nearest voxel where images take it, else by the linearly
    /// interpolated mask of each label. Padding is background.
    pub fn apply_label(&self, label: &LabelMap) -> Result<LabelMap, TransformError> {
        expect_grid(label, &self.source)?;
        let cropped = self.window.cut(&self.reorientation.apply(label), 0)?;
        let resampled = resample_label(&cropped, self.resampled.shape, self.per_axis(self.of_masks()))?;
        Ok(self.frame.cut(&resampled, 0)?)
    }

    /// Moves a label map from the target grid back to the source grid. What was cropped away is background.
    pub fn invert_label(&self, label: &LabelMap) -> Result<LabelMap, TransformError> {
        expect_grid(label, &self.target)?;
        let label = self.frame.paste(label, &self.resampled, 0)?;
        self.uncrop(&resample_label(&label, self.cropped.shape, self.per_axis(self.of_masks()))?)
    }

    /// The same axis is thick on the way there and back.
    fn per_axis(&self, how: Interpolation) -> [Interpolation; 3] {
        how.per_axis(self.cropped.spacing_mm(), self.resampled.spacing_mm())
    }

    fn of_masks(&self) -> Interpolation {
        match self.interpolation {
            Interpolation::Nearest => Interpolation::Nearest,
            Interpolation::Linear | Interpolation::Cubic => Interpolation::Linear,
        }
    }

    fn uncrop(&self, cropped: &LabelMap) -> Result<LabelMap, TransformError> {
        let upright = self.reorientation.apply_geometry(&self.source);
        let whole = self.window.paste(cropped, &upright, 0)?;
        let (voxels, _) = self.reorientation.inverse().apply(&whole).into_parts();
        Ok(LabelMap::new(voxels, self.source).expect("the inverse reorientation restores the shape"))
    }

    /// Recomputes what follows from source and reorientation; the later steps begin anew.
    fn rederived(mut self) -> Self {
        self.cropped = self.reorientation.apply_geometry(&self.source);
        self.window = Window::whole(self.cropped.shape);
        let cropped = self.cropped;
        self.unpadded(cropped)
    }

    /// Takes the grid after resampling for the target.
    fn unpadded(self, resampled: Geometry) -> Self {
        let frame = Window::whole(resampled.shape);
        Self { resampled, frame, target: resampled, ..self }
    }
}

/// Affines may differ by what JSON, f32 headers and another order of additions make of them.
const PLACE_TOLERANCE_MM: f64 = 1e-2;

fn expect_grid<T: Clone, D: Dimension>(volume: &Volume<T, D>, grid: &Geometry) -> Result<(), TransformError> {
    if volume.shape() != grid.shape {
        return Err(TransformError::Grid { found: volume.shape(), expected: grid.shape });
    }
    let difference_mm = volume.geometry().affine.max_difference(&grid.affine);
    if difference_mm > PLACE_TOLERANCE_MM {
        return Err(TransformError::Place { difference_mm });
    }
    Ok(())
}
