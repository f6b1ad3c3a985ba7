//! Class scores on their way back to the source grid, plane by plane: the whole array of scores never exists.

use ndarray::{Axis, stack};

use super::{Transform, TransformError};
use crate::resample::{Interpolation, PlaneResampler, ResampleError};
use crate::volume::{Image, LabelMap, Volume};

/// Takes planes of class scores on the target grid of a transform and makes a label map on its source grid.
///
/// Each channel is resampled linearly and the highest taken only then: finer boundaries than [`Transform::invert_label`].
/// The label is the channel index; what was cropped away is background. Holds two planes and a label map.
pub struct ScorePlanes {
    transform: Transform,
    channels: usize,
    /// Planes that have come, those of padding included.
    came: usize,
    resampler: PlaneResampler,
    /// On the grid after cropping.
    labels: Vec<u8>,
    /// All scores on the grid after cropping, `[c, z, y, x]`, where they are kept.
    kept: Option<Vec<f32>>,
}

impl Transform {
    /// Begins to move class scores (probabilities or logits) back that come plane by plane. `keep`: the scores themselves
    /// are wanted too, which takes an array of them on the source grid.
    pub fn invert_planes(&self, channels: usize, keep: bool) -> Result<ScorePlanes, TransformError> {
        if channels > 256 {
            return Err(ResampleError::Channels(channels).into());
        }
        let (from, to) = (self.resampled.shape, self.cropped.shape);
        let resampler = PlaneResampler::new(from, to, self.per_axis(Interpolation::Linear))?;
        let voxels: usize = to.0.iter().product();
        Ok(ScorePlanes {
            transform: self.clone(),
            channels,
            came: 0,
            resampler,
            labels: vec![0; voxels],
            kept: keep.then(|| vec![0.0; channels * voxels]),
        })
    }
}

impl ScorePlanes {
    /// Takes the next plane in the order of z: `[c, y, x]`, C order.
    pub fn push(&mut self, plane: Vec<f32>) -> Result<(), TransformError> {
        let [depth, height, width] = self.transform.target.shape.0;
        if plane.len() != self.channels * height * width {
            return Err(self.problem(format!("have {} channels and {} values", self.channels, plane.len())));
        }
        if self.came == depth {
            return Err(self.problem(format!("are more than {depth}")));
        }
        let at = self.came;
        self.came += 1;
        let Some(plane) = self.without_padding(at, plane) else { return Ok(()) };
        let Self { transform, channels, resampler, labels, kept, .. } = self;
        let [depth, height, width] = transform.cropped.shape.0;
        let area = height * width;
        resampler.push(plane, |z, plane| {
            label_highest(plane, &mut labels[z * area..][..area]);
            if let Some(kept) = kept {
                for channel in 0..*channels {
                    let place = (channel * depth + z) * area;
                    kept[place..][..area].copy_from_slice(&plane[channel * area..][..area]);
                }
            }
        });
        Ok(())
    }

    /// What a plane of the target grid has on the resampled grid; `None` where it is all padding.
    fn without_padding(&self, z: usize, plane: Vec<f32>) -> Option<Vec<f32>> {
        let Transform { frame, target, resampled, .. } = &self.transform;
        // A frame reaches beyond what it frames, never into it.
        let [before, top, left] = frame.start.map(|start| start.unsigned_abs() as usize);
        let ([_, height, width], [depth, rows, columns]) = (target.shape.0, resampled.shape.0);
        if !(before..before + depth).contains(&z) {
            return None;
        }
        if (height, width) == (rows, columns) {
            return Some(plane);
        }
        let cut = |channel: &[f32]| -> Vec<f32> {
            let inside = channel.chunks_exact(width).skip(top).take(rows);
            inside.flat_map(|row| row[left..left + columns].iter().copied()).collect()
        };
        Some(plane.chunks_exact(height * width).flat_map(cut).collect())
    }

    /// The label of the highest score of each voxel on the source grid, the lower one on a tie; and the scores, where they
    /// are kept. What was cropped away is background, with a score of 1 for it and 0 for all others.
    pub fn finish(self) -> Result<(LabelMap, Option<Image>), TransformError> {
        if self.came < self.transform.target.shape.0[0] {
            return Err(self.problem("end too early".into()));
        }
        let Self { transform, channels, labels, kept, .. } = self;
        let cropped = LabelMap::from_vec(labels, transform.cropped).expect("one label a voxel");
        let labels = transform.uncrop(&cropped)?;
        let Some(kept) = kept else { return Ok((labels, None)) };
        let scores =
            Image::from_vec(kept, channels, transform.cropped).expect("one score a voxel and channel");
        let upright = transform.reorientation.apply_geometry(&transform.source);
        let mut back = Vec::with_capacity(channels);
        for (channel, voxels) in scores.voxels().outer_iter().enumerate() {
            let cropped = Volume::new(voxels.to_owned(), transform.cropped).expect("a channel of the image");
            let whole = transform.window.paste(&cropped, &upright, if channel == 0 { 1.0 } else { 0.0 })?;
            back.push(transform.reorientation.inverse().apply(&whole).into_parts().0);
        }
        let views: Vec<_> = back.iter().map(|channel| channel.view()).collect();
        let joined = stack(Axis(0), &views).expect("channels are equally large");
        let scores =
            Image::new(joined, transform.source).expect("the inverse reorientation restores the shape");
        Ok((labels, Some(scores)))
    }

    fn problem(&self, reason: String) -> TransformError {
        TransformError::Planes { reason, expected: self.transform.target.shape }
    }
}

/// The channel with the highest score of each voxel of a plane; the lower one on a tie, and NaN never.
fn label_highest(plane: &[f32], labels: &mut [u8]) {
    let mut best = vec![f32::NEG_INFINITY; labels.len()];
    labels.fill(0);
    for (channel, scores) in (0..=u8::MAX).zip(plane.chunks_exact(labels.len())) {
        for ((label, best), &score) in labels.iter_mut().zip(&mut best).zip(scores) {
            if score > *best {
                *best = score;
                *label = channel;
            }
        }
    }
}
