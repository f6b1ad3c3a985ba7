//! Intensities to a common scale, image by image and channel by channel. Statistics are accumulated in `f64`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::volume::Image;

/// Which voxels the statistics are taken over and the result is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// Every voxel.
    All,
    /// Voxels that are not 0; the others stay 0. For skull-stripped brains and other images masked with 0.
    Nonzero,
}

/// A way to normalise, as it is recorded beside a model so that inference does the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Values as stored.
    None,
    /// See [`zscore`] with [`Region::All`].
    Zscore,
    /// See [`zscore`] with [`Region::Nonzero`].
    ZscoreNonzero,
    /// See [`min_max`].
    MinMax,
    /// Clips to `low..=high`, subtracts `mean`, divides by `sd`: figures of a whole data set, for modalities with an
    /// absolute scale such as CT.
    Fixed { low: f64, high: f64, mean: f64, sd: f64 },
    /// Clips to an intensity window, then scales each image by its own figures.
    Window { low: f64, high: f64, then: Scale },
    /// Clips each image to two of its own percentiles, then scales it by its own figures; with
    /// [`Scale::ZscoreNonzero`] the percentiles are those of the voxels that are not 0.
    Percentiles { low: f64, high: f64, then: Scale },
}

/// What follows clipping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    None,
    Zscore,
    ZscoreNonzero,
    MinMax,
}

impl Scale {
    fn region(self) -> Region {
        match self {
            Self::ZscoreNonzero => Region::Nonzero,
            Self::None | Self::Zscore | Self::MinMax => Region::All,
        }
    }
}

impl From<Scale> for Normalization {
    fn from(scale: Scale) -> Self {
        match scale {
            Scale::None => Self::None,
            Scale::Zscore => Self::Zscore,
            Scale::ZscoreNonzero => Self::ZscoreNonzero,
            Scale::MinMax => Self::MinMax,
        }
    }
}

/// An image whose statistics do not exist.
#[derive(Debug, Error, PartialEq)]
pub enum NormalizeError {
    /// NaN or infinity among the voxels.
    #[error("channel {channel} has {count} voxels that are NaN or infinite")]
    NonFinite { channel: usize, count: usize },
    /// Percentiles that are not `0 <= low < high <= 100`.
    #[error("percentiles {low} and {high} are not 0 <= low < high <= 100")]
    Percentiles { low: f64, high: f64 },
    /// A window that is no range.
    #[error("window {low} to {high} is not a range of finite numbers")]
    Window { low: f64, high: f64 },
    /// Figures of [`Normalization::Fixed`] that cannot be used.
    #[error("clip range {low} to {high} and standard deviation {sd} are not finite and positive")]
    Fixed { low: f64, high: f64, sd: f64 },
}

/// Figures of one channel before it was normalised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatistics {
    /// How many voxels were in the region.
    pub voxels: usize,
    /// Mean, 0 when the region is empty.
    pub mean: f64,
    /// Population standard deviation (divided by n), 0 when the region is empty or constant.
    pub sd: f64,
    /// Least value, 0 when the region is empty.
    pub min: f32,
    /// Greatest value, 0 when the region is empty.
    pub max: f32,
}

impl ChannelStatistics {
    /// Whether every voxel of the region has the same value, or there is none.
    pub fn is_constant(&self) -> bool {
        self.min == self.max
    }
}

impl Normalization {
    /// Normalises an image in place. See the functions that the variants name.
    pub fn apply(self, image: &mut Image) -> Result<(), NormalizeError> {
        match self {
            Self::None => Ok(()),
            Self::Zscore => zscore(image, Region::All).map(drop),
            Self::ZscoreNonzero => zscore(image, Region::Nonzero).map(drop),
            Self::MinMax => min_max(image).map(drop),
            Self::Fixed { low, high, mean, sd } => {
                if !(low < high && sd > 0.0 && [low, high, mean, sd].iter().all(|v| v.is_finite())) {
                    return Err(NormalizeError::Fixed { low, high, sd });
                }
                statistics(image, Region::All)?;
                for v in image.as_mut_slice() {
                    *v = ((f64::from(*v).clamp(low, high) - mean) / sd) as f32;
                }
                Ok(())
            }
            Self::Window { low, high, then } => {
                clip_window(image, low, high, then.region())?;
                Self::from(then).apply(image)
            }
            Self::Percentiles { low, high, then } => {
                clip_percentiles(image, low, high, then.region())?;
                Self::from(then).apply(image)
            }
        }
    }
}

/// The figures of every channel over a region. Fails on NaN and infinity.
pub fn statistics(image: &Image, region: Region) -> Result<Vec<ChannelStatistics>, NormalizeError> {
    (0..image.channels()).map(|c| channel_statistics(image.channel(c), region, c)).collect()
}

/// Subtracts the mean and divides by the population standard deviation, channel by channel.
///
/// The result has mean 0 and standard deviation 1 over the region. A constant channel becomes all zeros (there is
/// nothing to scale by); ask the returned statistics. Fails on NaN and infinity, leaving the image as it was.
pub fn zscore(image: &mut Image, region: Region) -> Result<Vec<ChannelStatistics>, NormalizeError> {
    let all = statistics(image, region)?;
    rescale(image, region, &all, |s| (s.mean, 1.0 / s.sd));
    Ok(all)
}

/// Maps each channel's least value to 0 and its greatest to 1. A constant channel becomes all zeros.
/// Fails on NaN and infinity, leaving the image as it was.
pub fn min_max(image: &mut Image) -> Result<Vec<ChannelStatistics>, NormalizeError> {
    let all = statistics(image, Region::All)?;
    rescale(image, Region::All, &all, |s| (f64::from(s.min), 1.0 / (f64::from(s.max) - f64::from(s.min))));
    Ok(all)
}

/// Clips every voxel of the region to `low..=high`. Fails on NaN and infinity, leaving the image as it was.
pub fn clip_window(image: &mut Image, low: f64, high: f64, region: Region) -> Result<(), NormalizeError> {
    if !(low < high && low.is_finite() && high.is_finite()) {
        return Err(NormalizeError::Window { low, high });
    }
    statistics(image, region)?;
    for v in image.as_mut_slice().iter_mut().filter(|v| region.holds(**v)) {
        *v = f64::from(*v).clamp(low, high) as f32;
    }
    Ok(())
}

/// Clips each channel to two of its percentiles (0 to 100, over the region, interpolated linearly as numpy does) and
/// returns the bounds. An empty region clips nothing and gives `(0, 0)`. Fails on NaN and infinity.
pub fn clip_percentiles(
    image: &mut Image,
    low: f64,
    high: f64,
    region: Region,
) -> Result<Vec<(f32, f32)>, NormalizeError> {
    if !(0.0 <= low && low < high && high <= 100.0) {
        return Err(NormalizeError::Percentiles { low, high });
    }
    statistics(image, region)?;
    let mut bounds = Vec::with_capacity(image.channels());
    for c in 0..image.channels() {
        let mut values: Vec<f32> = image.channel(c).iter().copied().filter(|&v| region.holds(v)).collect();
        bounds.push(if values.is_empty() {
            (0.0, 0.0)
        } else {
            (percentile(&mut values, low), percentile(&mut values, high))
        });
    }
    for (channel, &(low, high)) in channels_mut(image).zip(&bounds) {
        channel.iter_mut().filter(|v| region.holds(**v)).for_each(|v| *v = v.clamp(low, high));
    }
    Ok(bounds)
}

/// Replaces NaN and infinity by `value` and returns how many there were.
pub fn replace_non_finite(image: &mut Image, value: f32) -> usize {
    let mut count = 0;
    for v in image.as_mut_slice().iter_mut().filter(|v| !v.is_finite()) {
        *v = value;
        count += 1;
    }
    count
}

impl Region {
    fn holds(self, value: f32) -> bool {
        self == Self::All || value != 0.0
    }
}

fn channels_mut(image: &mut Image) -> impl Iterator<Item = &mut [f32]> {
    let n = image.as_slice().len() / image.channels();
    image.as_mut_slice().chunks_exact_mut(n)
}

fn channel_statistics(
    values: &[f32],
    region: Region,
    channel: usize,
) -> Result<ChannelStatistics, NormalizeError> {
    let count = values.iter().filter(|v| !v.is_finite()).count();
    if count > 0 {
        return Err(NormalizeError::NonFinite { channel, count });
    }
    let inside = || values.iter().copied().filter(|&v| region.holds(v));
    let (mut n, mut sum) = (0_usize, 0.0_f64);
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    for v in inside() {
        n += 1;
        sum += f64::from(v);
        min = min.min(v);
        max = max.max(v);
    }
    if n == 0 {
        return Ok(ChannelStatistics { voxels: 0, mean: 0.0, sd: 0.0, min: 0.0, max: 0.0 });
    }
    let mean = sum / n as f64;
    // Around the mean, in a second pass: no cancellation.
    let squares: f64 = inside().map(|v| (f64::from(v) - mean).powi(2)).sum();
    let sd = if min == max { 0.0 } else { (squares / n as f64).sqrt() };
    Ok(ChannelStatistics { voxels: n, mean, sd, min, max })
}

/// `(value - shift) · factor` within the region; zeros where a channel is constant.
fn rescale(
    image: &mut Image,
    region: Region,
    all: &[ChannelStatistics],
    figures: impl Fn(&ChannelStatistics) -> (f64, f64),
) {
    for (channel, statistics) in channels_mut(image).zip(all) {
        if statistics.is_constant() {
            channel.fill(0.0);
            continue;
        }
        let (shift, factor) = figures(statistics);
        for v in channel.iter_mut().filter(|v| region.holds(**v)) {
            *v = ((f64::from(*v) - shift) * factor) as f32;
        }
    }
}

/// numpy's default ("linear"): position `q/100 · (n − 1)` in the sorted values. `values` must not be empty or hold NaN.
pub fn percentile(values: &mut [f32], q: f64) -> f32 {
    let position = q / 100.0 * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().fold(f32::INFINITY, f32::min);
    let fraction = position - below as f64;
    if fraction == 0.0 {
        low
    } else {
        (f64::from(low) + (f64::from(high) - f64::from(low)) * fraction) as f32
    }
}
