//! Takes a network that another program trained and exported as ONNX, with the facts that its file does not tell.

use super::prepare::{Clip, Figures, Intensity, Interpolate, Normalize, check_spacing};
use crate::artifact::{Absent, External, Out, Ports};
use crate::artifacts::predictor::{Combine, Member, MemberCard, Predictor, Task, labels_text};
use crate::artifacts::{Preparation, Region};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::export::agreement::noise;
use crate::kinds::inference::load_runtime;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_imaging::normalize::Normalization;
use pipe_nn::Dims;
use pipe_onnx::Session;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub struct ImportModel;

pub const PREDICTOR: Out<Predictor> = Out::new("predictor");
const FILE: &str = "model";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The ONNX file. One input `[n, channels, (z), y, x]` and one output of logits `[n, labels, (z), y, x]`, or several
    /// outputs of which one is called `logits`; float32.
    // Where the file lies is no part of what the result depends on; its content is, as an external input.
    #[serde(serialize_with = "without_place")]
    pub file: String,
    /// Name → value of every label, background (0) included. The network's classes are these, in the order of the values.
    pub labels: BTreeMap<String, u8>,
    /// Image channels.
    #[serde(default = "one")]
    pub channels: usize,
    /// Largest input in voxels, z, y, x; z is 1 for a network that sees slices.
    pub patch: [usize; 3],
    /// Voxel size in millimetres, z, y, x, axes turned to RAS, that the network was trained on. Every image keeps its own
    /// unless given.
    #[serde(default)]
    pub spacing_mm: Option<[f64; 3]>,
    /// What is kept of each image.
    #[serde(default)]
    pub region: Region,
    /// Added around the region on every side, in millimetres.
    #[serde(default)]
    pub margin_mm: f64,
    /// How values between voxels are found.
    #[serde(default)]
    pub interpolation: Interpolate,
    /// What intensities are clipped to before they are normalised.
    #[serde(default)]
    pub clip: Option<Clip>,
    /// How intensities are brought to the scale that the network was trained on, image by image.
    #[serde(default)]
    pub normalize: Normalize,
    /// Figures of the training data instead of `clip` and `normalize`.
    #[serde(default)]
    pub scale: Option<FixedScale>,
    /// The fold of the wired split that the network was not trained on; without it, it cannot be evaluated on validation
    /// cases.
    #[serde(default)]
    pub fold: Option<usize>,
    /// What it is called in tables and reports; the name of the file unless given.
    #[serde(default)]
    pub name: Option<String>,
}

/// Clips to `low..=high`, subtracts `mean`, divides by `sd`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedScale {
    pub low: f64,
    pub high: f64,
    pub mean: f64,
    pub sd: f64,
}

fn one() -> usize {
    1
}

fn without_place<S: serde::Serializer>(file: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // The name stays: it is what the network is called unless said otherwise.
    serializer.serialize_str(&Path::new(file).file_name().unwrap_or_default().to_string_lossy())
}

impl Params {
    fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, normalize: self.normalize, figures: Figures::Image }
    }

    /// Value → name.
    fn names(&self) -> BTreeMap<u8, String> {
        self.labels.iter().map(|(name, value)| (*value, name.clone())).collect()
    }

    fn dims(&self) -> Dims {
        if self.patch[0] == 1 { Dims::Two } else { Dims::Three }
    }

    fn preparation(&self) -> Preparation {
        Preparation {
            region: self.region,
            margin_mm: self.margin_mm,
            spacing_mm: self.spacing_mm,
            interpolation: self.interpolation.into(),
            normalization: match self.scale {
                Some(FixedScale { low, high, mean, sd }) => Normalization::Fixed { low, high, mean, sd },
                None => self.intensity().of_image(),
            },
            pad_to: None,
        }
    }
}

impl Stage for ImportModel {
    const KIND: &'static str = "import-model";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Takes an ONNX model of another program, such as PyTorch, and checks it against what is said of it.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems: Vec<ParamProblem> = check_spacing(params.spacing_mm).into_iter().collect();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        let names = params.names();
        if names.len() < params.labels.len() {
            let message = format!("two of the {} labels have one value", params.labels.len());
            problem("labels", message, "give each a value of its own");
        } else if names.len() < 2 || !names.contains_key(&0) {
            let message = format!("labels are {}", labels_text(&names));
            problem("labels", message, "name 0 and at least one other, e.g. { background: 0, liver: 1 }");
        }
        if params.channels == 0 {
            problem("channels", "a network without an image channel".into(), "use a number from 1");
        }
        if params.patch.contains(&0) {
            problem("patch", format!("{:?} has no voxels", params.patch), "use sizes from 1, z, y, x");
        }
        if !(params.margin_mm.is_finite() && params.margin_mm >= 0.0) {
            problem("margin_mm", format!("{} is no margin", params.margin_mm), "use a number from 0");
        }
        if let Some(FixedScale { low, high, mean, sd }) = params.scale {
            let finite = [low, high, mean, sd].iter().all(|value| value.is_finite());
            if !(finite && low < high && sd > 0.0) {
                let message = format!("{low} to {high}, mean {mean}, sd {sd} is no scale");
                problem("scale", message, "`low` must be below `high`, and `sd` above 0");
            }
            if params.clip.is_some() || params.normalize != Normalize::default() {
                let help = "leave `clip` and `normalize` out: `scale` says it all";
                problem("scale", "is said beside `clip` or `normalize`".into(), help);
            }
        }
        problems.extend(params.intensity().problems());
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.writes(&PREDICTOR).reads_files(External {
            name: FILE.into(),
            parameter: "file",
            path: PathBuf::from(&params.file),
            parts: Vec::new(),
            absent: Absent::LeftOut,
        });
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let files = context.external(FILE)?;
        let [file] = files.files.as_slice() else {
            return Err(StageError::Data(format!("`{}` is no file", params.file)));
        };
        let path = context.source(&file.digest)?;
        let onnx = fs::read(&path).map_err(StageError::io("read", &path))?;
        load_runtime(context)?;
        let mut session = Session::from_bytes(&onnx, NonZeroUsize::MIN)
            .map_err(StageError::inner(format!("loading `{}`", params.file)))?;
        check_interface(params, &session)?;
        check_output(params, &mut session)?;

        let path = context.scratch.join("model.onnx");
        fs::write(&path, &onnx).map_err(StageError::io("write", &path))?;
        let stem = Path::new(&params.file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let card = MemberCard {
            name: params.name.clone().unwrap_or(stem),
            weight: 1.0,
            dims: params.dims(),
            architecture: format!("of another program, {} bytes", onnx.len()),
            patch: params.patch,
            fold: params.fold,
            training: None,
            digest: Digest::of_bytes(&onnx),
        };
        context.fact("bytes", onnx.len());
        let task =
            Task { labels: params.names(), channels: params.channels, preparation: params.preparation() };
        context.write(
            &PREDICTOR,
            &Predictor { task, combine: Combine::default(), members: vec![Member { card, path }] },
        )
    }
}

/// What the file says of itself must be what the pipeline says of it.
fn check_interface(params: &Params, session: &Session) -> Result<(), StageError> {
    let interface = session.interface();
    let differ = |what: &str, found: usize, parameter: &str, said: usize| {
        Err(StageError::Data(format!("`{}` has {found} {what} but `{parameter}` says {said}", params.file)))
    };
    let (found, said) = (interface.dims.count(), params.dims().count());
    if found != said {
        return Err(StageError::Data(format!(
            "`{}` takes {found}D images but `patch` is {:?}: the first size is 1 for slices, and only for them",
            params.file, params.patch
        )));
    }
    if let Some(found) = interface.channels.filter(|found| *found != params.channels) {
        return differ("input channels", found, "channels", params.channels);
    }
    if let Some(found) = interface.classes.filter(|found| *found != params.labels.len()) {
        return differ("output channels", found, "labels", params.labels.len());
    }
    let patch = &params.patch[3 - said..];
    for (fixed, (size, divisor)) in interface.spatial.iter().zip(patch.iter().zip(&interface.divisor)) {
        if let Some(fixed) = fixed.filter(|fixed| fixed != size) {
            return differ("voxels along an axis", fixed, "patch", *size);
        }
        if !size.is_multiple_of(*divisor) {
            return differ("as the divisor of an axis", *divisor, "patch", *size);
        }
    }
    Ok(())
}

/// Runs the network on noise of the patch: shape, finite numbers, and logits, not probabilities.
fn check_output(params: &Params, session: &mut Session) -> Result<(), StageError> {
    let spatial = &params.patch[3 - params.dims().count()..];
    let batch = session.interface().batch.unwrap_or(1);
    let shape = [&[batch, params.channels], spatial].concat();
    let (found, found_shape) = session
        .run(&noise(shape.iter().product(), 1), &shape)
        .map_err(StageError::inner(format!("running `{}` on noise of its patch", params.file)))?;
    let classes = params.labels.len();
    let expected = [&[batch, classes], spatial].concat();
    let problem = if found_shape != expected {
        format!(
            "gives {found_shape:?} for {shape:?}, but {expected:?} is needed for the labels {}",
            labels_text(&params.names())
        )
    } else if found.iter().any(|value| !value.is_finite()) {
        "gives NaN or infinity for noise of mean 0 and variance 1".into()
    } else if are_probabilities(&found[..found.len() / batch], classes) {
        "gives probabilities, but logits are needed: export it without its last softmax".into()
    } else {
        return Ok(());
    };
    Err(StageError::Data(format!("`{}` {problem}", params.file)))
}

/// Whether all values are 0 to 1 and sum to 1 over the classes.
fn are_probabilities(values: &[f32], classes: usize) -> bool {
    let voxels = values.len() / classes;
    let sum = |voxel: usize| (0..classes).map(|class| values[class * voxels + voxel]).sum::<f32>();
    values.iter().all(|value| (0.0..=1.0).contains(value)) && (0..voxels).all(|v| (sum(v) - 1.0).abs() < 1e-4)
}

#[cfg(test)]
mod tests;
