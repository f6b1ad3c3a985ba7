//! From a prepared volume to label maps on the source grid: the networks of a predictor, plane after plane. Knows no data
//! set and no metric. The one way to predict: stages and `pipe predict` both end here.

mod combine;
mod device;
pub mod files;
mod sessions;

use self::combine::Combiner;
pub use self::device::DeviceName;
pub(crate) use self::device::take;
use self::sessions::Sessions;
use crate::artifacts::metrics::RuntimeFact;
use crate::artifacts::{Combine, Predictor};
use crate::context::StageContext;
use crate::error::StageError;
use pipe_imaging::transform::{ScorePlanes, Transform};
use pipe_imaging::{Image, LabelMap};
use pipe_nn::Dims;
pub use pipe_onnx::{Blend, Tiling};
use pipe_onnx::{Planes, Policy, PredictOptions, Provider, Runtime, Session};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

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

/// How networks are applied. All of it enters the keys of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Method {
    /// Mirror along every axis that the network sees, and average the logits.
    pub mirror: bool,
    /// Share of a tile that its neighbour covers too.
    pub overlap: f64,
    pub blend: Blend,
    pub tiling: Tiling,
    /// Tiles in one run of a network; `None` for what suits the provider.
    pub batch: Option<NonZeroUsize>,
    pub provider: Provider,
}

impl Default for Method {
    fn default() -> Self {
        let PredictOptions { overlap, blend, tiling, .. } = PredictOptions::new([1; 3]);
        Self { mirror: false, overlap, blend, tiling, batch: None, provider: Provider::Cpu }
    }
}

/// What was predicted of one image, on its source grid.
#[derive(Debug)]
pub(crate) struct Predicted {
    pub(crate) labels: LabelMap,
    /// One channel a class, in the order of the labels, where they were asked for.
    pub(crate) probabilities: Option<Image>,
}

/// The networks of a predictor, loaded when they are first used and used by many threads.
pub(crate) struct Inference<'a> {
    predictor: &'a Predictor,
    method: Method,
    sessions: Sessions<'a>,
}

impl<'a> Inference<'a> {
    /// `threads`: what one image may take.
    pub(crate) fn new(predictor: &'a Predictor, method: Method, threads: NonZeroUsize) -> Self {
        Self { predictor, method, sessions: Sessions::new(predictor, method.provider, threads) }
    }

    /// Predicts a prepared image on the source grid of `transform` by several groups of members at once, so that every
    /// member runs only once.
    ///
    /// `image`: `[c, z, y, x]` on the target grid. `groups`: positions in the predictor, at least one each. What they say
    /// is combined as the predictor has it, moved to the source grid and only there turned into labels. What preprocessing
    /// cut away is background. `keep`: the probabilities are wanted too, which takes an array of them on the source grid.
    ///
    /// Memory does not grow with the depth of the image beyond image and label maps: the networks work their way down
    /// together, and each plane is combined, moved back and labelled when the last tile has left it.
    pub(crate) fn predict(
        &self,
        image: &Image,
        transform: &Transform,
        groups: &[&[usize]],
        keep: bool,
    ) -> Result<Vec<Predicted>, StageError> {
        let rated = |group: &[usize]| self.predictor.combine == Combine::Staple && group.len() > 1;
        if !groups.iter().any(|group| rated(group)) {
            return self.combined(image, transform, groups, keep);
        }
        if keep {
            return Err(StageError::Data(
                "networks combined by STAPLE have no class probabilities: use another `combine`".into(),
            ));
        }
        // Each member by itself, and the others as they are.
        let alone: BTreeSet<usize> =
            groups.iter().filter(|group| rated(group)).flat_map(|group| group.iter().copied()).collect();
        let alone: Vec<[usize; 1]> = alone.into_iter().map(|member| [member]).collect();
        let mut wanted: Vec<&[usize]> = alone.iter().map(<[usize; 1]>::as_slice).collect();
        wanted.extend(groups.iter().filter(|group| !rated(group)));
        let mut found = self.combined(image, transform, &wanted, false)?;
        let mut others = found.split_off(alone.len()).into_iter();
        let maps: BTreeMap<usize, LabelMap> =
            alone.iter().zip(found).map(|([member], found)| (*member, found.labels)).collect();
        let values: Vec<u8> = self.predictor.task.labels.keys().copied().collect();
        let one = |group: &&[usize]| {
            if !rated(group) {
                return others.next().ok_or_else(|| StageError::Internal("a group was not predicted".into()));
            }
            let maps: Vec<&LabelMap> = group.iter().map(|member| &maps[member]).collect();
            Ok(Predicted { labels: combine::staple_of(&maps, &values)?, probabilities: None })
        };
        groups.iter().map(one).collect()
    }

    /// [`Inference::predict`] of groups that are combined voxel by voxel.
    fn combined(
        &self,
        image: &Image,
        transform: &Transform,
        groups: &[&[usize]],
        keep: bool,
    ) -> Result<Vec<Predicted>, StageError> {
        let members: BTreeSet<usize> = groups.iter().flat_map(|group| group.iter().copied()).collect();
        let members: Vec<usize> = members.into_iter().collect();
        let [depth, height, width] = image.shape().0;
        let shape = [image.channels(), depth, height, width];
        let classes = self.predictor.task.labels.len();

        let _turn = self.sessions.turn();
        let options: Vec<PredictOptions> = members.iter().map(|&member| self.options(member)).collect();
        let mut borrowed = Vec::with_capacity(members.len());
        for (&member, options) in members.iter().zip(&options) {
            let doing = || StageError::inner(self.doing(member));
            let runs = self.sessions.interface(member)?;
            let runs = pipe_onnx::planes::runs(&runs, shape, options).map_err(doing())?;
            borrowed.push(self.sessions.borrow(member, runs)?);
        }
        let mut streams = Vec::with_capacity(members.len());
        for ((&member, sessions), options) in members.iter().zip(&mut borrowed).zip(&options) {
            let sessions: &mut [Session] = sessions;
            let planes = Planes::new(sessions, image.as_slice(), shape, options);
            streams.push(planes.map_err(StageError::inner(self.doing(member)))?);
        }
        let combiners: Vec<Combiner> =
            groups.iter().map(|group| Combiner::new(self.predictor, &members, group)).collect();
        let moving = || StageError::inner("moving probabilities back");
        let mut targets: Vec<ScorePlanes> = groups
            .iter()
            .map(|_| transform.invert_planes(classes, keep).map_err(moving()))
            .collect::<Result<_, _>>()?;
        for z in 0..depth {
            let mut planes = Vec::with_capacity(members.len());
            for (&member, stream) in members.iter().zip(&mut streams) {
                let logits = stream.next_plane().map_err(StageError::inner(self.doing(member)))?;
                self.check_classes(member, logits.len() / (height * width))?;
                planes.push(combine::MemberPlane::new(logits));
            }
            for (combiner, target) in combiners.iter().zip(&mut targets) {
                let plane = combiner.combine(&mut planes, classes).map_err(|(member, at)| {
                    let at = [at / (height * width), z, at / width % height, at % width];
                    let name = &self.predictor.members[members[member]].card.name;
                    StageError::Data(format!(
                        "the logits of `{name}` at {at:?} (class, z, y, x) have no softmax: they are NaN or infinite"
                    ))
                })?;
                target.push(plane).map_err(moving())?;
            }
        }
        drop(streams);
        for (&member, sessions) in members.iter().zip(borrowed) {
            self.sessions.give_back(member, sessions);
        }
        let values: Vec<u8> = self.predictor.task.labels.keys().copied().collect();
        let finish = |target: ScorePlanes| {
            let (mut labels, probabilities) = target.finish().map_err(moving())?;
            labels.as_mut_slice().iter_mut().for_each(|class| *class = values[usize::from(*class)]);
            Ok(Predicted { labels, probabilities })
        };
        targets.into_iter().map(finish).collect()
    }

    fn options(&self, member: usize) -> PredictOptions {
        let card = &self.predictor.members[member].card;
        let flat = card.dims == Dims::Two;
        let Method { mirror, overlap, blend, tiling, batch, provider } = self.method;
        // Small images leave a processor idle between runs, a graphics card even more.
        let usual = match (provider, flat) {
            (Provider::Cpu, false) => 1,
            (Provider::Cpu, true) => 8,
            (_, false) => 2,
            (_, true) => 32,
        };
        PredictOptions {
            patch: card.patch,
            overlap,
            blend,
            tiling,
            tile_batch: batch.or(NonZeroUsize::new(usual)).unwrap_or(NonZeroUsize::MIN),
            mirror: [mirror && !flat, mirror, mirror],
        }
    }

    fn doing(&self, member: usize) -> String {
        format!("predicting with `{}`", self.predictor.members[member].card.name)
    }

    fn check_classes(&self, member: usize, found: usize) -> Result<(), StageError> {
        let classes = self.predictor.task.labels.len();
        if found == classes {
            return Ok(());
        }
        let name = &self.predictor.members[member].card.name;
        Err(StageError::Data(format!("`{name}` gives {found} classes but has {classes} labels")))
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
