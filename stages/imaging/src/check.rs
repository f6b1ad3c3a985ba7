//! What makes a case unusable or suspicious, as typed findings. Judges; changes nothing.

use std::collections::BTreeSet;
use std::fmt;

use crate::affine::{Affine, Short};
use crate::dicom;
use crate::nifti::{AffineSource, Header, SpaceUnit};
use crate::orient::Orientation;
use crate::volume::{Geometry, Image, LabelMap, Shape};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; the case can be used.
    Warning,
    /// The case cannot be used as it is.
    Error,
}

/// Something found in one case. `Display` is a sentence without the case's name.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Voxels that are NaN or infinite.
    NonFinite { count: usize, voxels: usize },
    /// Every voxel of a channel has one value.
    ConstantChannel { channel: usize, value: f32 },
    /// Image and mask have different shapes.
    ShapeMismatch { image: Shape, mask: Shape },
    /// Image and mask have different voxel sizes (mm; z, y, x).
    SpacingMismatch { image_mm: [f64; 3], mask_mm: [f64; 3] },
    /// The index axes of image and mask run in different anatomical directions.
    OrientationMismatch { image: Orientation, mask: Orientation },
    /// Image and mask lie in different places although shape, voxel size and orientation agree.
    PlacementMismatch { distance_mm: f64 },
    /// The mask holds background only.
    EmptyMask,
    /// Label values that the data set does not declare, with their voxel counts.
    UnexpectedLabels { found: Vec<(u8, u64)>, allowed: Vec<u8> },
    /// `pixdim` contradicts the affine, which wins (mm; z, y, x).
    PixdimMismatch { pixdim: [f64; 3], affine_mm: [f64; 3] },
    /// `pixdim` is no size although the affine is made of it (mm; z, y, x); readers guess one.
    NoVoxelSize { pixdim: [f64; 3] },
    /// The header's unit is not the millimetre, yet sizes are taken as millimetres.
    Unit(SpaceUnit),
    /// Something odd about a DICOM series.
    Dicom(dicom::Note),
}

impl Finding {
    /// Whether the case can be used.
    pub fn severity(&self) -> Severity {
        match self {
            Self::NonFinite { .. }
            | Self::ShapeMismatch { .. }
            | Self::SpacingMismatch { .. }
            | Self::OrientationMismatch { .. }
            | Self::NoVoxelSize { .. }
            | Self::UnexpectedLabels { .. } => Severity::Error,
            Self::ConstantChannel { .. }
            | Self::PlacementMismatch { .. }
            | Self::EmptyMask
            | Self::PixdimMismatch { .. }
            | Self::Unit(_)
            | Self::Dicom(_) => Severity::Warning,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFinite { count, voxels } => {
                write!(f, "image has {count} of {voxels} voxels NaN or infinite")
            }
            Self::ConstantChannel { channel, value } => {
                write!(f, "image channel {channel} is {value} everywhere")
            }
            Self::ShapeMismatch { image, mask } => {
                write!(f, "image is {image} but its mask is {mask} (z×y×x)")
            }
            Self::SpacingMismatch { image_mm, mask_mm } => {
                write!(f, "image has voxels of {} but its mask of {} (z×y×x)", Mm(image_mm), Mm(mask_mm))
            }
            Self::OrientationMismatch { image, mask } => write!(f, "image is {image} but its mask is {mask}"),
            Self::PlacementMismatch { distance_mm } => {
                write!(f, "image and mask lie up to {distance_mm:.3} mm apart, by their affines")
            }
            Self::EmptyMask => write!(f, "mask holds background only"),
            Self::UnexpectedLabels { found, allowed } => {
                let found: Vec<_> = found.iter().map(|(label, n)| format!("{label} ({n} voxels)")).collect();
                write!(f, "mask has labels {} but the data set declares {allowed:?}", found.join(", "))
            }
            Self::PixdimMismatch { pixdim, affine_mm } => {
                write!(f, "header says voxels of {} but its affine {} (z×y×x)", Mm(pixdim), Mm(affine_mm))
            }
            Self::NoVoxelSize { pixdim } => {
                write!(
                    f,
                    "header says voxels of {} (z×y×x), which is no size, and has no affine besides",
                    Mm(pixdim)
                )
            }
            Self::Dicom(note) => note.fmt(f),
            Self::Unit(unit) => {
                let unit = match unit {
                    SpaceUnit::Metre => "metres",
                    SpaceUnit::Micron => "micrometres",
                    SpaceUnit::Millimetre | SpaceUnit::Unknown => "an unknown unit",
                };
                write!(f, "header gives sizes in {unit}, taken as millimetres")
            }
        }
    }
}

/// Three lengths as `1×0.5×0.5 mm`.
struct Mm<'a>(&'a [f64; 3]);

impl fmt::Display for Mm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [z, y, x] = self.0.map(Short);
        write!(f, "{z}×{y}×{x} mm")
    }
}

/// Relative difference of voxel sizes that is still the same size: headers hold `f32`, and some tools round to 1e-4.
const SPACING_TOLERANCE: f64 = 1e-3;

/// Checks image and mask alone and against each other. `allowed` are the labels the data set declares, with 0.
pub fn check_pair(image: &Image, mask: &LabelMap, allowed: Option<&BTreeSet<u8>>) -> Vec<Finding> {
    let mut findings = check_image(image);
    findings.extend(check_grids(image.geometry(), mask.geometry()));
    findings.extend(check_label(mask, allowed));
    findings
}

/// Checks an image alone: NaN and infinity, constant channels.
pub fn check_image(image: &Image) -> Vec<Finding> {
    let mut findings = Vec::new();
    let voxels = image.as_slice();
    let count = voxels.iter().filter(|v| !v.is_finite()).count();
    if count > 0 {
        findings.push(Finding::NonFinite { count, voxels: voxels.len() });
    }
    for channel in 0..image.channels() {
        let values = image.channel(channel);
        if values.iter().all(|v| *v == values[0]) {
            findings.push(Finding::ConstantChannel { channel, value: values[0] });
        }
    }
    findings
}

/// Checks a mask alone: empty, labels that are not in `allowed`. Values that are no labels at all (fractions,
/// negative numbers) are told by [`crate::nifti::read_label`].
pub fn check_label(mask: &LabelMap, allowed: Option<&BTreeSet<u8>>) -> Vec<Finding> {
    let counts = mask.histogram();
    let mut findings = Vec::new();
    if counts[1..].iter().all(|&n| n == 0) {
        findings.push(Finding::EmptyMask);
    }
    if let Some(allowed) = allowed {
        let present = (0..=u8::MAX).map(|l| (l, counts[usize::from(l)])).filter(|&(_, n)| n > 0);
        let found: Vec<_> = present.filter(|(l, _)| !allowed.contains(l)).collect();
        if !found.is_empty() {
            findings.push(Finding::UnexpectedLabels { found, allowed: allowed.iter().copied().collect() });
        }
    }
    findings
}

/// Checks that image and mask are the same grid. At most one finding: the coarsest disagreement.
///
/// Places may differ by a hundredth of a voxel; less comes from tools that round their headers.
pub fn check_grids(image: &Geometry, mask: &Geometry) -> Option<Finding> {
    if image.shape != mask.shape {
        return Some(Finding::ShapeMismatch { image: image.shape, mask: mask.shape });
    }
    let (image_mm, mask_mm) = (image.spacing_mm(), mask.spacing_mm());
    if !same_spacing(image_mm, mask_mm) {
        return Some(Finding::SpacingMismatch { image_mm, mask_mm });
    }
    if image.orientation() != mask.orientation() {
        return Some(Finding::OrientationMismatch { image: image.orientation(), mask: mask.orientation() });
    }
    let distance_mm = corner_distance_mm(image.shape, &image.affine, &mask.affine);
    let smallest = image_mm.iter().copied().fold(f64::INFINITY, f64::min);
    (distance_mm > smallest / 100.0).then_some(Finding::PlacementMismatch { distance_mm })
}

/// Checks a header alone: `pixdim` against the affine, the unit.
pub fn check_header(header: &Header) -> Vec<Finding> {
    let mut findings = Vec::new();
    let affine_mm = header.geometry.spacing_mm();
    // What is said of an axis of one voxel that was not declared means nothing.
    let declared = [0, 1, 2].map(|axis| match (header.geometry.shape.0[axis], header.pixdim[axis]) {
        (1, 0.0) => affine_mm[axis],
        (_, size) => size,
    });
    let sizes = declared.iter().all(|size| *size > 0.0);
    let pixdim = header.pixdim;
    if !sizes && header.affine_source != AffineSource::Sform {
        findings.push(Finding::NoVoxelSize { pixdim });
    } else if !same_spacing(declared, affine_mm) {
        findings.push(Finding::PixdimMismatch { pixdim, affine_mm });
    }
    if matches!(header.space_unit, SpaceUnit::Metre | SpaceUnit::Micron) {
        findings.push(Finding::Unit(header.space_unit));
    }
    findings
}

fn same_spacing(a: [f64; 3], b: [f64; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SPACING_TOLERANCE * a.abs().max(b.abs()))
}

/// The largest distance in mm between the places that two affines give the same corner voxel.
fn corner_distance_mm(shape: Shape, a: &Affine, b: &Affine) -> f64 {
    let [z, y, x] = shape.0.map(|n| (n - 1) as f64);
    let mut largest = 0.0_f64;
    for corner in 0..8 {
        let pick = |bit: usize, v: f64| if corner >> bit & 1 == 1 { v } else { 0.0 };
        let index = [pick(0, x), pick(1, y), pick(2, z)];
        let (p, q) = (a.apply(index), b.apply(index));
        largest = largest.max((0..3).map(|k| (p[k] - q[k]).powi(2)).sum::<f64>().sqrt());
    }
    largest
}
