//! Metrics of segmentations and classifications, their intervals and comparisons: arrays in, numbers out. Knows no files, no
//! cases and no pipeline.
//!
//! Label maps are `u8` slices, `[z, y, x]` with x fastest. A value that is not defined is NaN, never 0 or 1, unless a rule
//! of [`segmentation`] says so; [`summary::Summary`] counts what is left.
//!
//! ```
//! use pipe_metrics::grid::Grid;
//! use pipe_metrics::segmentation::{Metric, Settings, score};
//! let (reference, prediction) = ([0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0]);
//! let grid = Grid::new([1, 2, 3], [1.0, 0.5, 0.5])?; // mm, z, y, x
//! let settings = Settings { metrics: vec![Metric::Dice, Metric::Hd95], ..Settings::default() };
//! let case = score(&reference, &prediction, &grid, &[1, 2], &settings)?;
//! assert_eq!(case.scores[0].values[0].number, 2.0 / 3.0);
//! assert_eq!(case.scores[0].values[1].number, 0.5);
//! assert!(case.scores[1].values[0].number.is_nan() && case.scores[1].values[0].ruled); // in neither
//! # Ok::<(), pipe_metrics::grid::GridError>(())
//! ```

pub mod agreement;
pub mod bootstrap;
pub mod classification;
pub mod confusion;
mod distance;
pub mod grid;
pub mod lesions;
pub mod overlap;
pub mod paired;
pub mod segmentation;
pub mod summary;
pub mod surface;
