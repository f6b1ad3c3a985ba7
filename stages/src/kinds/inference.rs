//! From a prepared volume to a label map on the source grid: sessions of a predictor's members and the mean of their
//! probabilities. Knows no data set and no metric.

use crate::artifacts::Predictor;
use crate::artifacts::metrics::RuntimeFact;
use crate::context::StageContext;
use crate::error::StageError;
use pipe_imaging::transform::Transform;
use pipe_imaging::{Image, LabelMap};
use pipe_nn::Dims;
use pipe_onnx::{Policy, PredictOptions, Runtime, Session, predict};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Slices that a 2D network gets at once: small images leave a processor idle between runs.
const SLICES_AT_ONCE: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");

/// Finds and loads ONNX Runtime, fetching it visibly where the machine has none, and notes which one it is.
pub(crate) fn load_runtime(context: &StageContext) -> Result<&'static Runtime, StageError> {
    let runtime = pipe_onnx::runtime::load(&Policy::from_environment(), &mut |line| context.note(line))
        .map_err(StageError::inner("loading ONNX Runtime"))?;
    context.note(runtime.info().to_string());
    context.fact("runtime", format!("ONNX Runtime {}", runtime.info().version));
    Ok(runtime)
}

/// What results say about the runtime. No path and no origin: those differ between machines.
pub(crate) fn runtime_fact(runtime: &Runtime) -> RuntimeFact {
    RuntimeFact {
        name: "ONNX Runtime".into(),
        version: runtime.info().version.clone(),
        build: runtime.build().to_owned(),
    }
}

/// The networks of a predictor, loaded once a worker and used by many threads.
pub(crate) struct Inference<'a> {
    predictor: &'a Predictor,
    /// Mirror along every axis that the network sees, and average the logits.
    mirror: bool,
    overlap: f64,
    /// Sessions that no thread uses now. There are never more sets than threads that predicted at the same time.
    idle: Mutex<Vec<Sessions>>,
}

/// One place for each member, filled when it is first used.
type Sessions = Vec<Option<Session>>;

impl<'a> Inference<'a> {
    pub(crate) fn new(predictor: &'a Predictor, mirror: bool, overlap: f64) -> Self {
        Self { predictor, mirror, overlap, idle: Mutex::default() }
    }

    /// Predicts the label map of a prepared image on the source grid of `transform`.
    ///
    /// `image`: `[c, z, y, x]` on the target grid. `members`: positions in the predictor, at least one. The
    /// probabilities of the members are averaged by weight, moved to the source grid and only there turned into
    /// labels. What preprocessing cut away is background.
    pub(crate) fn labels(
        &self,
        image: &Image,
        transform: &Transform,
        members: &[usize],
    ) -> Result<LabelMap, StageError> {
        let mean = self.probabilities(image, members)?;
        let classes = self.predictor.task.labels.len();
        let scores = Image::from_vec(mean, classes, *transform.target())
            .map_err(StageError::inner("shaping probabilities"))?;
        let mut labels =
            transform.invert_scores(&scores).map_err(StageError::inner("moving probabilities back"))?;
        let values: Vec<u8> = self.predictor.task.labels.keys().copied().collect();
        labels.as_mut_slice().iter_mut().for_each(|class| *class = values[usize::from(*class)]);
        Ok(labels)
    }

    /// The mean of the members' probabilities, `[classes, z, y, x]` in C order.
    fn probabilities(&self, image: &Image, members: &[usize]) -> Result<Vec<f32>, StageError> {
        let mut sessions = self.take();
        let cards = members.iter().map(|&index| &self.predictor.members[index].card);
        let total: f64 = cards.map(|card| card.weight).sum();
        let mut mean: Vec<f32> = Vec::new();
        for &index in members {
            let share = (self.predictor.members[index].card.weight / total) as f32;
            let own = self.one(&mut sessions, index, image)?;
            if mean.is_empty() {
                mean = vec![0.0; own.len()];
            }
            mean.iter_mut().zip(&own).for_each(|(mean, own)| *mean += share * own);
        }
        self.give_back(sessions);
        Ok(mean)
    }

    fn one(&self, sessions: &mut Sessions, index: usize, image: &Image) -> Result<Vec<f32>, StageError> {
        let member = &self.predictor.members[index];
        let doing = || format!("predicting with `{}`", member.card.name);
        let session = match &mut sessions[index] {
            Some(session) => session,
            empty => empty.insert(
                // One thread: cases are what runs in parallel, and the bits must not depend on the machine's load.
                Session::from_bytes(&member.read()?, NonZeroUsize::MIN)
                    .map_err(StageError::inner(doing()))?,
            ),
        };
        let [z, y, x] = image.shape().0;
        let flat = member.card.dims == Dims::Two;
        let options = PredictOptions {
            overlap: self.overlap,
            tile_batch: if flat { SLICES_AT_ONCE } else { NonZeroUsize::MIN },
            mirror: [self.mirror && !flat, self.mirror, self.mirror],
            ..PredictOptions::new(member.card.patch)
        };
        let shape = [image.channels(), z, y, x];
        let found =
            predict(session, image.as_slice(), shape, &options).map_err(StageError::inner(doing()))?;
        let (found_classes, classes) = (found.classes(), self.predictor.task.labels.len());
        if found_classes != classes {
            let name = &member.card.name;
            return Err(StageError::Data(format!(
                "`{name}` gives {found_classes} classes but has {classes} labels"
            )));
        }
        Ok(found.into_values())
    }

    fn take(&self) -> Sessions {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.predictor.members.iter().map(|_| None).collect())
    }

    fn give_back(&self, sessions: Sessions) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sessions);
    }
}

#[cfg(test)]
pub(crate) mod testing;
