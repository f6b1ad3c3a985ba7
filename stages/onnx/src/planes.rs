//! The sliding window over a volume: padding, tiles, slices for 2D models, and mirroring, plane after plane.
//! Holds the planes that tiles still reach and nothing more, so memory does not grow with the depth of the volume.

use std::collections::VecDeque;

use crate::predict::{PredictError, PredictOptions, check_volume};
use crate::session::{ModelInterface, Session};
use crate::tiles::{AxisTiles, Layout, Span, least};
use crate::writer::Dims;

/// Names of the spatial axes, for messages.
const AXES: [&str; 3] = ["z", "y", "x"];

/// The logits of a volume, plane after plane.
///
/// - An axis that fits into the patch is taken whole, padded with zeros to the patch, half before and half after (an
///   odd voxel after), as in training; the padding is cut off the result.
/// - A longer axis is tiled with the overlap asked for, as [`Tiling`](crate::predict::Tiling) has it. Where tiles
///   overlap, logits are averaged with the weights of [`Blend`](crate::predict::Blend).
/// - A 2D model sees each z slice by itself.
/// - An axis whose size the model fixes is padded or tiled to that size.
///
/// As many tiles run at the same time as there are sessions; they are added up in their order, so the number of
/// sessions changes no bit.
#[derive(Debug)]
pub struct Planes<'a> {
    sessions: &'a mut [Session],
    volume: &'a [f32],
    shape: [usize; 4], // c, z, y, x
    plan: Plan,
    /// Tiles in a run, and inputs of a run where the model fixes their number.
    batch: usize,
    fixed_batch: Option<usize>,
    /// Tiles that ran.
    ran: usize,
    /// Planes that were given.
    given: usize,
    /// Sums of weighted logits and, behind them, of the weights: `[classes + 1, y, x]` of the planes from `given` on, as far
    /// as tiles reached.
    sums: VecDeque<Vec<f32>>,
    /// 0 until the model has run.
    classes: usize,
}

/// The number of runs of the model that a volume takes: more sessions than that have nothing to do.
pub fn runs(
    interface: &ModelInterface,
    shape: [usize; 4], // c, z, y, x
    options: &PredictOptions,
) -> Result<usize, PredictError> {
    let plan = Plan::new(interface, shape, options)?;
    Ok(plan.count().div_ceil(batch(interface, &plan, options)))
}

fn batch(interface: &ModelInterface, plan: &Plan, options: &PredictOptions) -> usize {
    interface.batch.unwrap_or_else(|| options.tile_batch.get().min(plan.count())).max(1)
}

impl<'a> Planes<'a> {
    /// `sessions`: at least one, all of the same model. `volume`: `[c, z, y, x]`, C order, all finite.
    pub fn new(
        sessions: &'a mut [Session],
        volume: &'a [f32],
        shape: [usize; 4], // c, z, y, x
        options: &PredictOptions,
    ) -> Result<Self, PredictError> {
        check_volume(volume, &shape)?;
        let Some(session) = sessions.first() else {
            return Err(PredictError::Options("no session was given to run the model".to_owned()));
        };
        let plan = Plan::new(session.interface(), shape, options)?;
        let (batch, fixed_batch) = (batch(session.interface(), &plan, options), session.interface().batch);
        Ok(Self {
            sessions,
            volume,
            shape,
            plan,
            batch,
            fixed_batch,
            ran: 0,
            given: 0,
            sums: VecDeque::new(),
            classes: 0,
        })
    }

    /// Returns the logits of the next plane, `[classes, y, x]` in C order. There are as many planes as the volume has.
    pub fn next_plane(&mut self) -> Result<Vec<f32>, PredictError> {
        // A plane is complete when no tile that is left begins above it.
        while self.plan.first_plane(self.ran).is_some_and(|z| z <= self.given) {
            self.run_some()?;
        }
        let Some(mut plane) = self.sums.pop_front() else {
            let reason = format!("has {} planes, and all were given", self.shape[1]);
            return Err(PredictError::Volume { shape: self.shape.to_vec(), reason });
        };
        self.given += 1;
        let weights = plane.split_off(plane.len() - self.shape[2] * self.shape[3]);
        for class in plane.chunks_exact_mut(weights.len()) {
            class.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum /= weight);
        }
        Ok(plane)
    }

    /// Runs the next tiles, one batch a session, and adds them up.
    fn run_some(&mut self) -> Result<(), PredictError> {
        let end = self.plan.count().min(self.ran + self.batch * self.sessions.len());
        let items: Vec<Item> = (self.ran..end).map(|index| self.plan.item(index)).collect();
        let batches: Vec<&[Item]> = items.chunks(self.batch).collect();
        let job = &Job {
            volume: self.volume,
            shape: self.shape,
            plan: &self.plan,
            fixed_batch: self.fixed_batch,
            classes: self.classes,
        };
        let results: Vec<Result<Vec<f32>, PredictError>> = std::thread::scope(|scope| {
            let mut pairs = self.sessions.iter_mut().zip(&batches);
            let own = pairs.next();
            let others: Vec<_> =
                pairs.map(|(session, items)| scope.spawn(move || job.run(session, items))).collect();
            let own = own.map(|(session, items)| job.run(session, items));
            let joined = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            own.into_iter().chain(joined).collect()
        });
        for (items, logits) in batches.iter().zip(results) {
            let logits = logits?;
            let size = logits.len() / self.fixed_batch.unwrap_or(items.len());
            self.classes = size / self.plan.tile().iter().product::<usize>();
            for (item, logits) in items.iter().zip(logits.chunks_exact(size)) {
                self.add(item, logits);
            }
        }
        self.ran = end;
        Ok(())
    }

    /// Adds the weighted logits of a tile, `[classes, z, y, x]`, to those of the volume.
    fn add(&mut self, item: &Item, logits: &[f32]) {
        let [_, _, height, width] = self.shape;
        let [z, y, x] = self.plan.spans(item);
        let [depth_seen, height_seen, width_seen] = self.plan.tile();
        while self.given + self.sums.len() < z.first + z.length {
            self.sums.push_back(vec![0.0; (self.classes + 1) * height * width]);
        }
        let mut weights = vec![0.0; x.length];
        for plane in 0..z.length {
            let sums = &mut self.sums[z.first + plane - self.given];
            for line in 0..y.length {
                self.plan.weigh([z.at + plane, y.at + line, x.at], &mut weights);
                let of = |class: usize| {
                    let first = (class * height + y.first + line) * width + x.first;
                    first..first + x.length
                };
                sums[of(self.classes)].iter_mut().zip(&weights).for_each(|(sum, weight)| *sum += weight);
                for class in 0..self.classes {
                    let row =
                        ((class * depth_seen + z.seen(plane)) * height_seen + y.seen(line)) * width_seen;
                    let row = &logits[row..row + width_seen][x.seen_range()];
                    let sums = sums[of(class)].iter_mut().zip(&weights);
                    if x.mirrored {
                        sums.zip(row.iter().rev()).for_each(|((sum, weight), logit)| *sum += logit * weight);
                    } else {
                        sums.zip(row).for_each(|((sum, weight), logit)| *sum += logit * weight);
                    }
                }
            }
        }
    }
}

/// What a thread needs to run tiles.
struct Job<'a> {
    volume: &'a [f32],
    shape: [usize; 4],
    plan: &'a Plan,
    fixed_batch: Option<usize>,
    /// What earlier runs gave; 0 when there were none.
    classes: usize,
}

impl Job<'_> {
    /// The logits of some tiles, `[n, classes, z, y, x]`, checked.
    fn run(&self, session: &mut Session, items: &[Item]) -> Result<Vec<f32>, PredictError> {
        let (channels, tile) = (self.shape[0], self.plan.tile());
        let size = channels * tile.iter().product::<usize>();
        // A model with a fixed batch gets zeros where there are no tiles left.
        let samples = self.fixed_batch.unwrap_or(items.len());
        let mut input = vec![0.0; samples * size];
        for (item, input) in items.iter().zip(input.chunks_exact_mut(size)) {
            self.gather(item, input);
        }
        let spatial = if self.plan.dims == Dims::Two { &tile[1..] } else { &tile[..] };
        let (logits, shape) = session.run(&input, &[&[samples, channels], spatial].concat())?;
        let classes =
            if self.classes == 0 { shape.get(1).copied().unwrap_or_default() } else { self.classes };
        if shape != [&[samples, classes], spatial].concat() || classes < 2 {
            let wanted = if self.classes == 0 { "2 or more".to_owned() } else { classes.to_string() };
            let expected = format!("[{samples}, {wanted} classes, {spatial:?}]");
            return Err(PredictError::Output { found: shape, expected });
        }
        Ok(logits)
    }

    /// Copies a tile of the volume into a network input `[c, z, y, x]` of zeros.
    fn gather(&self, item: &Item, input: &mut [f32]) {
        let [channels, depth, height, width] = self.shape;
        let [z, y, x] = self.plan.spans(item);
        let [depth_seen, height_seen, width_seen] = self.plan.tile();
        for channel in 0..channels {
            for plane in 0..z.length {
                for line in 0..y.length {
                    let from =
                        ((channel * depth + z.first + plane) * height + y.first + line) * width + x.first;
                    let from = &self.volume[from..from + x.length];
                    let row =
                        ((channel * depth_seen + z.seen(plane)) * height_seen + y.seen(line)) * width_seen;
                    let row = &mut input[row..row + width_seen][x.seen_range()];
                    row.copy_from_slice(from);
                    if x.mirrored {
                        row.reverse();
                    }
                }
            }
        }
    }
}

/// One run of the model on one tile.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// First voxel of the tile on each padded axis.
    start: [usize; 3],
    /// Axes along which the model sees the tile mirrored.
    mirrored: [bool; 3],
}

/// All tiles of a volume.
#[derive(Debug)]
struct Plan {
    dims: Dims,
    axes: [AxisTiles; 3],
    /// What no weight is below.
    least: f32,
    mirrorings: Vec<[bool; 3]>,
}

impl Plan {
    fn new(
        interface: &ModelInterface,
        shape: [usize; 4],
        options: &PredictOptions,
    ) -> Result<Self, PredictError> {
        if !(0.0..1.0).contains(&options.overlap) {
            let message = format!("the overlap is {} but must be at least 0 and below 1", options.overlap);
            return Err(PredictError::Options(message));
        }
        let planar = interface.dims == Dims::Two;
        if planar && options.mirror[0] {
            let message = "a 2D model cannot be mirrored along z".to_owned();
            return Err(PredictError::Options(message));
        }
        let PredictOptions { tiling, blend, overlap, .. } = *options;
        let layout = Layout { tiling, blend, overlap };
        let mut axes = [const { None }; 3];
        for (axis, tiles) in axes.iter_mut().enumerate() {
            let length = shape[axis + 1];
            if planar && axis == 0 {
                *tiles = Some(AxisTiles::slices(length));
                continue;
            }
            let model_axis = axis - usize::from(planar);
            let (patch, divisor) = match interface.spatial[model_axis] {
                Some(fixed) => (fixed, fixed),
                None => (options.patch[axis], interface.divisor[model_axis]),
            };
            if patch == 0 || !patch.is_multiple_of(divisor) {
                let message = format!(
                    "the patch is {patch} along {} but must be a multiple of the model's divisor {divisor}",
                    AXES[axis]
                );
                return Err(PredictError::Options(message));
            }
            *tiles = Some(AxisTiles::new(length, patch, layout));
        }
        let axes = axes.map(|tiles| tiles.expect("the loop fills every axis"));

        let mut mirrorings = vec![[false; 3]];
        for axis in (0..3).filter(|axis| options.mirror[*axis]) {
            for index in 0..mirrorings.len() {
                let mut mirrored = mirrorings[index];
                mirrored[axis] = true;
                mirrorings.push(mirrored);
            }
        }
        let least = least(&axes, layout);
        Ok(Self { dims: interface.dims, axes, least, mirrorings })
    }

    /// Returns the shape of a tile, `[z, y, x]`.
    fn tile(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].tile)
    }

    /// Returns the number of tiles, each mirroring counted.
    fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.starts.len()).product::<usize>() * self.mirrorings.len()
    }

    /// Returns one tile by its number; mirrorings vary fastest, then x, y, z.
    fn item(&self, index: usize) -> Item {
        let (mut rest, mirroring) = (index / self.mirrorings.len(), index % self.mirrorings.len());
        let mut start = [0; 3];
        for axis in (0..3).rev() {
            let starts = &self.axes[axis].starts;
            start[axis] = starts[rest % starts.len()];
            rest /= starts.len();
        }
        Item { start, mirrored: self.mirrorings[mirroring] }
    }

    /// Returns the first plane of the volume that a tile covers; `None` behind the last tile.
    fn first_plane(&self, index: usize) -> Option<usize> {
        (index < self.count()).then(|| self.spans(&self.item(index))[0].first)
    }

    fn spans(&self, item: &Item) -> [Span; 3] {
        [0, 1, 2].map(|axis| self.axes[axis].span(item.start[axis], item.mirrored[axis]))
    }

    /// Tells how much the voxels of a tile count that begin at `[z, y, x]` and go on along x.
    fn weigh(&self, [z, y, x]: [usize; 3], weights: &mut [f32]) {
        let row = self.axes[0].weights[z] * self.axes[1].weights[y];
        for (weight, own) in weights.iter_mut().zip(&self.axes[2].weights[x..]) {
            *weight = (row * own).max(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::Tiling;
    use std::collections::BTreeMap;

    /// Weights of a tile of 6×9×16 voxels against those that `tests/reference/make_windows.py` got from the libraries.
    #[track_caller]
    fn check(tiling: Tiling, reference: &[u8]) {
        let interface = ModelInterface {
            dims: Dims::Three,
            channels: None,
            classes: None,
            batch: None,
            spatial: vec![None; 3],
            divisor: vec![1; 3],
            metadata: BTreeMap::new(),
        };
        let options = PredictOptions { tiling, ..PredictOptions::new([6, 9, 16]) };
        let plan = Plan::new(&interface, [1, 20, 20, 20], &options).expect("valid");
        let mut found = vec![0.0; 6 * 9 * 16];
        for (at, row) in found.chunks_exact_mut(16).enumerate() {
            plan.weigh([at / 9, at % 9, 0], row);
        }
        let expected = reference.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        assert_eq!(expected.len(), found.len());
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Both sides round to f32 after each of three products: a few 2^-24.
        assert!(apart < 1e-6, "{tiling:?}: {apart}");
    }

    #[test]
    fn gaussians_are_those_of_nnunet_and_monai() {
        check(Tiling::Nnunet, include_bytes!("../tests/reference/gaussian_nnunet.f32"));
        check(Tiling::Monai, include_bytes!("../tests/reference/gaussian_monai.f32"));
    }
}
