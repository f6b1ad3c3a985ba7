//! From a prepared image to class probabilities: the sessions of one thread. Knows no case and no table.

use crate::artifacts::{Combine, Member, Predictor};
use crate::error::StageError;
use pipe_imaging::Image;
use pipe_nn::Dims;
use pipe_onnx::{Provider, Session};
use std::num::NonZeroUsize;

/// The networks of a predictor, each loaded when it is first asked.
pub(super) struct Networks<'a> {
    predictor: &'a Predictor,
    provider: Provider,
    /// One place for each member.
    sessions: Vec<Option<Session>>,
}

impl<'a> Networks<'a> {
    pub(super) fn of(predictor: &'a Predictor, provider: Provider) -> Self {
        Self { predictor, provider, sessions: predictor.members.iter().map(|_| None).collect() }
    }

    /// The members' probabilities made one as the predictor says; `members` are positions in it, at least one.
    pub(super) fn probabilities(&mut self, image: &Image, members: &[usize]) -> Result<Vec<f64>, StageError> {
        let cards = members.iter().map(|&index| &self.predictor.members[index].card);
        let total: f64 = cards.map(|card| card.weight).sum();
        let mut mean = vec![0.0; self.predictor.task.labels.len()];
        let combine = self.predictor.combine;
        for &index in members {
            let share = self.predictor.members[index].card.weight / total;
            for (mean, own) in mean.iter_mut().zip(self.one(index, image)?) {
                // Logits are logarithms of probabilities, but for a number that all classes share.
                *mean += share * if combine == Combine::MeanLogits { own.ln() } else { own };
            }
        }
        match combine {
            Combine::MeanProbabilities => Ok(mean),
            Combine::MeanLogits => Ok(softmax(&mean)),
            Combine::Majority | Combine::Staple => Err(StageError::Data(
                "votes of classifiers have no probabilities to score: make the ensemble with `combine: \
                 mean-probabilities` or `mean-logits`"
                    .into(),
            )),
        }
    }

    /// What one network says: the mean softmax of the slices of an image in 2D, the softmax of the whole image in 3D.
    fn one(&mut self, index: usize, image: &Image) -> Result<Vec<f64>, StageError> {
        let member = &self.predictor.members[index];
        let session = match &mut self.sessions[index] {
            Some(session) => session,
            empty => empty.insert(load(member, self.provider)?),
        };
        let (input, shape) = fitted(image, member, session);
        let doing = || format!("running `{}`", member.card.name);
        let (logits, found) = session.run(&input, &shape).map_err(StageError::inner(doing()))?;
        let classes = self.predictor.task.labels.len();
        if found != [shape[0], classes] {
            let name = &member.card.name;
            return Err(StageError::Data(format!(
                "`{name}` gives an output of shape {found:?}, not {:?} for {classes} classes of whole images: \
                 networks that segment are scored by `evaluate`",
                [shape[0], classes]
            )));
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(StageError::Data(format!(
                "`{}` gives a logit that is no number: its training diverged, or the image holds such values",
                member.card.name
            )));
        }
        let mut mean = vec![0.0; classes];
        for logits in logits.chunks_exact(classes) {
            let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
            for (mean, probability) in mean.iter_mut().zip(softmax(&logits)) {
                *mean += probability / shape[0] as f64;
            }
        }
        Ok(mean)
    }
}

fn load(member: &Member, provider: Provider) -> Result<Session, StageError> {
    // One thread: cases are what runs in parallel, and the bits must not depend on the machine's load.
    Session::from_bytes_on(&member.read()?, NonZeroUsize::MIN, provider)
        .map_err(StageError::inner(format!("loading `{}`", member.card.name)))
}

/// The input of a network and its shape, `[n, c, (z), y, x]`: in 2D every slice is a sample. The image is padded with 0 at
/// the far ends to at least the patch and to a multiple that the network takes, as it was for validation in the training.
fn fitted(image: &Image, member: &Member, session: &Session) -> (Vec<f32>, Vec<usize>) {
    let ([depth, height, width], channels) = (image.shape().0, image.channels());
    let patch = member.card.patch;
    let divisors = &session.interface().divisor;
    let (samples, planes, first_axis) = match member.card.dims {
        Dims::Two => (depth, 1, 1),
        Dims::Three => (1, depth, 0),
    };
    let extent = [planes, height, width];
    let size: Vec<usize> = (first_axis..3)
        .zip(divisors)
        .map(|(axis, divisor)| extent[axis].max(patch[axis]).next_multiple_of(*divisor))
        .collect();
    let [padded_planes, padded_height, padded_width] = match size.as_slice() {
        [y, x] => [1, *y, *x],
        _ => [size[0], size[1], size[2]],
    };
    let values = image.as_slice();
    let mut input = vec![0.0; samples * channels * padded_planes * padded_height * padded_width];
    for sample in 0..samples {
        for channel in 0..channels {
            for plane in 0..planes {
                let z = sample * planes + plane;
                for y in 0..height {
                    let from = ((channel * depth + z) * height + y) * width;
                    let row = (sample * channels + channel) * padded_planes + plane;
                    let to = (row * padded_height + y) * padded_width;
                    input[to..to + width].copy_from_slice(&values[from..from + width]);
                }
            }
        }
    }
    let shape = [vec![samples, channels], size].concat();
    (input, shape)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
