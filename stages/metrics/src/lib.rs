//! Segmentation metrics: arrays in, numbers out. Knows no files, no cases and no pipeline.
//!
//! Label maps are `u8` slices in any order, as long as reference and prediction use the same. A value that is not
//! defined is NaN, never 0 or 1, and [`summary::Summary`] counts it.
//!
//! ```
//! use pipe_metrics::{confusion::Confusion, overlap};
//! let reference = [0, 1, 1, 2];
//! let prediction = [0, 1, 2, 2];
//! let confusion = Confusion::of(&reference, &prediction)?;
//! assert_eq!(overlap::dice(&confusion.counts(1)), 2.0 / 3.0);
//! assert!(overlap::dice(&confusion.counts(3)).is_nan()); // in neither
//! # Ok::<(), pipe_metrics::confusion::LengthMismatch>(())
//! ```

pub mod confusion;
pub mod overlap;
pub mod summary;
