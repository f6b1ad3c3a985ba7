//! How an image becomes what a network sees. Volumes, models and predictors carry it, so that one more image can be
//! prepared exactly as those of the training were.

use pipe_imaging::normalize::Normalization;
use pipe_imaging::resample::Interpolation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Axes are turned to RAS, the region is cut out, voxels are resampled, intensities are normalised and what is smaller
/// than `pad_to` is padded, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    pub region: Region,
    /// Added around the region on every side, as far as the image reaches.
    pub margin_mm: f64,
    /// Axis order z, y, x; `null` where every case kept its own.
    pub spacing_mm: Option<[f64; 3]>,
    /// Of images; see [`Transform::interpolated`](pipe_imaging::transform::Transform::interpolated).
    pub interpolation: Interpolation,
    pub normalization: Normalization,
    /// The least size in voxels, z, y, x, after resampling; padding is 0 after normalisation.
    pub pad_to: Option<[usize; 3]>,
}

impl Preparation {
    /// Every image as it is, upright.
    pub const NONE: Self = Self {
        region: Region::Whole,
        margin_mm: 0.0,
        spacing_mm: None,
        interpolation: Interpolation::Linear,
        normalization: Normalization::None,
        pad_to: None,
    };

    /// Says where two preparations differ, with both values: "spacing is … in A but … in B".
    pub fn difference(&self, own_name: &str, other: &Self, other_name: &str) -> Option<String> {
        let say = |what: &str, own: String, theirs: String| {
            (own != theirs).then(|| format!("{what} is {own} in {own_name} but {theirs} in {other_name}"))
        };
        let size = |pad_to: Option<[usize; 3]>| {
            pad_to.map_or_else(|| "nothing".into(), |[z, y, x]| format!("{z}×{y}×{x} voxels (z×y×x)"))
        };
        say("spacing", spacing_text(self.spacing_mm), spacing_text(other.spacing_mm))
            .or_else(|| say("normalisation", json(self.normalization), json(other.normalization)))
            .or_else(|| say("region", json(self.region), json(other.region)))
            .or_else(|| say("margin", format!("{} mm", self.margin_mm), format!("{} mm", other.margin_mm)))
            .or_else(|| say("interpolation", json(self.interpolation), json(other.interpolation)))
            .or_else(|| say("padding to", size(self.pad_to), size(other.pad_to)))
    }
}

fn spacing_text(spacing_mm: Option<[f64; 3]>) -> String {
    match spacing_mm {
        Some([z, y, x]) => format!("{z} × {y} × {x} mm (z×y×x)"),
        None => "each volume's own".into(),
    }
}

fn json<T: Serialize>(value: T) -> String {
    serde_json::to_string(&value).expect("plain data is JSON")
}

/// The part of an image that is kept. Decided by the image alone, so it is the same with and without a label.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// All of it.
    #[default]
    Whole,
    /// The smallest box with every voxel that is not 0 in some channel: for images whose surroundings were set to 0,
    /// such as skull-stripped brains. An image that is 0 everywhere stays whole.
    Nonzero,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Preparation), expected: &str) {
        let mut other = Preparation::NONE;
        change(&mut other);
        assert_eq!(Preparation::NONE.difference("A", &other, "B").as_deref(), Some(expected));
        let text = serde_json::to_string(&other).expect("plain data");
        assert_eq!(serde_json::from_str::<Preparation>(&text).expect("as written"), other);
    }

    #[test]
    fn every_difference_is_told_with_both_values() {
        assert_eq!(Preparation::NONE.difference("A", &Preparation::NONE, "B"), None);
        check(
            |other| other.spacing_mm = Some([2.0, 1.0, 0.5]),
            "spacing is each volume's own in A but 2 × 1 × 0.5 mm (z×y×x) in B",
        );
        check(
            |other| other.normalization = Normalization::Zscore,
            r#"normalisation is "none" in A but "zscore" in B"#,
        );
        check(|other| other.region = Region::Nonzero, r#"region is "whole" in A but "nonzero" in B"#);
        check(|other| other.margin_mm = 2.5, "margin is 0 mm in A but 2.5 mm in B");
        check(
            |other| other.interpolation = Interpolation::Cubic,
            r#"interpolation is "linear" in A but "cubic" in B"#,
        );
        check(
            |other| other.pad_to = Some([8, 16, 16]),
            "padding to is nothing in A but 8×16×16 voxels (z×y×x) in B",
        );
    }
}
