//! How an image is brought to the grid and scale that a network sees: what a model carries to be used anywhere.

use super::{Region, VolumesInfo};
use pipe_imaging::normalize::Normalization;
use pipe_imaging::resample::Interpolation;
use serde::{Deserialize, Serialize};

/// Axes are turned to RAS, the region is cut out, voxels are resampled and intensities are normalised, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    pub region: Region,
    /// Added around the region on every side, as far as the image reaches.
    pub margin_mm: f64,
    /// Axis order z, y, x; `null` where every image keeps its own.
    pub spacing_mm: Option<[f64; 3]>,
    /// Of images; see [`pipe_imaging::transform::Transform::interpolated`].
    pub interpolation: Interpolation,
    pub normalization: Normalization,
}

impl From<&VolumesInfo> for Preparation {
    fn from(info: &VolumesInfo) -> Self {
        let VolumesInfo { dataset: _, region, margin_mm, spacing_mm, interpolation, normalization } = *info;
        Self { region, margin_mm, spacing_mm, interpolation, normalization }
    }
}

impl Preparation {
    /// As stored, upright.
    pub const NONE: Self = Self {
        region: Region::Whole,
        margin_mm: 0.0,
        spacing_mm: None,
        interpolation: Interpolation::Linear,
        normalization: Normalization::None,
    };

    /// Says where two preparations differ, with both values: "spacing is … in A but … in B".
    pub(super) fn difference(&self, own_name: &str, other: &Self, other_name: &str) -> Option<String> {
        let say = |what: &str, own: String, theirs: String| {
            (own != theirs).then(|| format!("{what} {own} in {own_name} but {theirs} in {other_name}"))
        };
        let margin = |of: &Self| format!("{} mm", of.margin_mm);
        say("spacing is", spacing_text(self.spacing_mm), spacing_text(other.spacing_mm))
            .or_else(|| {
                say("normalisation is", json_text(&self.normalization), json_text(&other.normalization))
            })
            .or_else(|| say("the region is", json_text(&self.region), json_text(&other.region)))
            .or_else(|| say("the margin is", margin(self), margin(other)))
            .or_else(|| {
                say("interpolation is", json_text(&self.interpolation), json_text(&other.interpolation))
            })
    }
}

fn spacing_text(spacing_mm: Option<[f64; 3]>) -> String {
    match spacing_mm {
        Some([z, y, x]) => format!("{z} × {y} × {x} mm (z×y×x)"),
        None => "each volume's own".into(),
    }
}

fn json_text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data is JSON")
}
