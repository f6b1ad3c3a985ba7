//! What the images and label maps of a data set look like, in numbers and in one picture.

use super::table_file::{read_json, read_rows, write_json, write_rows};
use crate::{artifact::Artifact, error::StageError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Measurements case by case, and what follows from all of them.
///
/// On disk: `inspect.csv`, `intensity.csv`, `labels.csv` (one row a case; a case and channel; a case and label),
/// `summary.json` and the pictures `lightbox.svg` and `plots.svg`. Numbers have seven significant digits.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    pub cases: Vec<CaseRow>,
    pub intensities: Vec<IntensityRow>,
    pub labels: Vec<LabelRow>,
    pub summary: InspectionSummary,
    /// Slices of some cases with the label contours drawn on: an SVG file.
    pub lightbox: String,
    /// A histogram of every quantity: an SVG file.
    pub plots: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseRow {
    pub case: String,
    pub patient: String,
    /// Empty where nobody says what the image shows as a whole.
    pub class: Option<String>,
    pub shape_z: usize,
    pub shape_y: usize,
    pub shape_x: usize,
    pub spacing_z_mm: f64,
    pub spacing_y_mm: f64,
    pub spacing_x_mm: f64,
    pub orientation: String,
    pub dtype: String,
    pub channels: usize,
    /// Empty, like the next three, without a label map.
    pub foreground_voxels: Option<u64>,
    pub foreground_ml: Option<f64>,
    /// Foreground voxels by all voxels.
    pub foreground_share: Option<f64>,
    /// Background voxels between the foreground and the nearest border; empty also when there is no foreground.
    pub border_voxels: Option<u64>,
    /// Why the case stands out, empty when it does not.
    pub outlier: String,
}

/// Intensities of one channel. Percentiles are interpolated linearly, as NumPy does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntensityRow {
    pub case: String,
    pub channel: String,
    pub min: f64,
    pub p1: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub mean: f64,
    /// Population standard deviation.
    pub sd: f64,
}

/// One label of one case; rows exist also for labels that a case does not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRow {
    pub case: String,
    pub label: u8,
    pub name: String,
    pub voxels: u64,
    pub ml: f64,
    /// Connected components; voxels that touch by a corner are connected.
    pub components: usize,
    pub largest_component_voxels: u64,
}

/// What holds for the data set as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectionSummary {
    pub dataset: String,
    pub cases: usize,
    pub patients: usize,
    /// Cases of each class; empty where nothing is classified.
    pub classes: BTreeMap<String, usize>,
    pub labels: Vec<LabelSummary>,
    /// By name of the quantity, its unit included.
    pub distributions: BTreeMap<String, Distribution>,
    pub outliers: Vec<Outlier>,
    pub advice: Vec<Advice>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelSummary {
    pub label: u8,
    pub name: String,
    /// Cases that have this label.
    pub cases: usize,
    /// Share of the voxels of all labelled cases.
    pub voxel_share: f64,
    /// Cases in which it is more than one connected component.
    pub in_pieces: usize,
}

/// How a quantity is distributed over the cases that have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: usize,
    pub min: f64,
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
    pub max: f64,
}

/// A case that stands out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    pub case: String,
    /// A name in [`InspectionSummary::distributions`], or what else was looked at.
    pub quantity: String,
    /// With the value of the case and the usual one.
    pub reason: String,
    /// Distance from the median in units of the median absolute deviation, scaled to a standard deviation; empty
    /// where most cases are equal.
    pub robust_z: Option<f64>,
}

/// A choice for the rest of the pipeline and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What is to be decided, e.g. `normalisation`.
    pub about: String,
    pub advice: String,
    pub reason: String,
}

impl Inspection {
    pub const LIGHTBOX: &str = "lightbox.svg";
    const PLOTS: &str = "plots.svg";
    const CASES: &str = "inspect.csv";
    const INTENSITIES: &str = "intensity.csv";
    const LABELS: &str = "labels.csv";
    const SUMMARY: &str = "summary.json";
}

const CASE_COLUMNS: [&str; 17] = [
    "case",
    "patient",
    "class",
    "shape_z",
    "shape_y",
    "shape_x",
    "spacing_z_mm",
    "spacing_y_mm",
    "spacing_x_mm",
    "orientation",
    "dtype",
    "channels",
    "foreground_voxels",
    "foreground_ml",
    "foreground_share",
    "border_voxels",
    "outlier",
];
const INTENSITY_COLUMNS: [&str; 9] = ["case", "channel", "min", "p1", "p50", "p99", "max", "mean", "sd"];
const LABEL_COLUMNS: [&str; 7] =
    ["case", "label", "name", "voxels", "ml", "components", "largest_component_voxels"];

impl Artifact for Inspection {
    const TYPE: &'static str = "inspection";
    const FORMAT: u32 = 3;

    fn load(dir: &Path) -> Result<Self, StageError> {
        let picture = |name: &str| {
            let path = dir.join(name);
            fs_err::read_to_string(&path).map_err(StageError::io("read", &path))
        };
        Ok(Self {
            cases: read_rows(&dir.join(Self::CASES))?,
            intensities: read_rows(&dir.join(Self::INTENSITIES))?,
            labels: read_rows(&dir.join(Self::LABELS))?,
            summary: read_json(&dir.join(Self::SUMMARY))?,
            lightbox: picture(Self::LIGHTBOX)?,
            plots: picture(Self::PLOTS)?,
        })
    }

    fn store(&self, dir: &Path) -> Result<(), StageError> {
        write_rows(&dir.join(Self::CASES), &CASE_COLUMNS, &self.cases)?;
        write_rows(&dir.join(Self::INTENSITIES), &INTENSITY_COLUMNS, &self.intensities)?;
        write_rows(&dir.join(Self::LABELS), &LABEL_COLUMNS, &self.labels)?;
        write_json(&dir.join(Self::SUMMARY), &self.summary)?;
        for (name, picture) in [(Self::LIGHTBOX, &self.lightbox), (Self::PLOTS, &self.plots)] {
            let path = dir.join(name);
            fs_err::write(&path, picture).map_err(StageError::io("write", &path))?;
        }
        Ok(())
    }
}
