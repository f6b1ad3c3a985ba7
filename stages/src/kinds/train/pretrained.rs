//! Start values of a training: from the stage wired to `pretrained`, or from a file of any program.

use super::PRETRAINED;
use crate::artifact::{Absent, External, Ports};
use crate::artifacts::{Model, ModelCard, Preparation, TakenRow, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::ParamProblem;
use fs_err as fs;
use pipe_nn::{Element, Network, Parameters, Tensors, Transfer, TransferRow};
use pipe_onnx::weights::{ElementType, read as read_onnx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE: &str = "pretrained";

/// A trained network whose weights are the start values.
#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::kinds) struct Pretrained {
    /// A safetensors file, an ONNX file, or the folder of a model that pipe trained. Left out where the input `pretrained`
    /// is wired to a stage.
    // Where the file lies is no part of what the result depends on; its content is, as an external input.
    #[serde(serialize_with = "without_place")]
    file: Option<String>,
    /// What parts of this network are called in the file, as their names begin: `{ encoder.0.conv0: down1.conv.0 }`. Names
    /// that are not here are the same in both.
    names: BTreeMap<String, String>,
    /// Takes over what fits and draws the rest, where names or shapes differ: another number of classes, another depth.
    partial: bool,
}

#[expect(clippy::ref_option, reason = "serde hands fields over like this")]
fn without_place<S: serde::Serializer>(file: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    file.as_ref().map(|_| "given").serialize(serializer)
}

impl Pretrained {
    pub(super) fn declare(&self, ports: &mut Ports) {
        if let Some(file) = &self.file {
            ports.reads_files(External {
                name: FILE.into(),
                parameter: "pretrained",
                path: PathBuf::from(file),
                parts: Vec::new(),
                absent: Absent::LeftOut,
            });
        }
    }

    pub(super) fn problems(&self, network: &Network) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |message: String, help: &str| {
            problems.push(ParamProblem { parameter: "pretrained", message, help: help.into() });
        };
        if self.file.as_ref().is_some_and(String::is_empty) {
            problem(
                "`file` is empty".into(),
                "name a safetensors file, an ONNX file or the folder of a model",
            );
        }
        for ours in self.names.keys() {
            if !network.has_part(ours) {
                let message =
                    format!("`names` speaks of `{ours}`, but no parameter of the network begins so");
                problem(message, &format!("it has {}", network.parts()));
            }
        }
        problems
    }
}

/// Start values, and where each of them comes from.
#[derive(Default)]
pub(super) struct Start {
    pub(super) values: Option<Parameters>,
    pub(super) taken: Vec<TakenRow>,
}

/// A network to begin with: its weights, what it is called, and how its images were prepared, where that is known.
struct Origin {
    tensors: Tensors,
    name: String,
    preparation: Option<Preparation>,
}

/// Reads the wired or named network and finds a value for each parameter of `network`.
pub(super) fn start(
    params: Option<&Pretrained>,
    network: &Network,
    volumes: &Volumes,
    context: &StageContext,
) -> Result<Start, StageError> {
    let asked = params.cloned().unwrap_or_default();
    let origin = match (context.read_optional(&PRETRAINED)?, &asked.file) {
        (None, None) if params.is_none() => return Ok(Start::default()),
        (None, None) => {
            return Err(StageError::Data(
                "`pretrained` says how a network is taken over but not which one: give `file`, or wire the input \
                 `pretrained`"
                    .into(),
            ));
        }
        (Some(_), Some(file)) => {
            return Err(StageError::Data(format!(
                "the input `pretrained` is wired and `pretrained.file` is `{file}`: leave one of them out"
            )));
        }
        (Some(Model { card, weights }), None) => Origin {
            tensors: safetensors(&weights, "the pretrained network")?,
            name: "the pretrained network".into(),
            preparation: Some(card.preparation),
        },
        (None, Some(file)) => read_file(file, context)?,
    };
    check_images(&origin, volumes, context)?;
    let transfer = origin
        .tensors
        .transfer(network, &asked.names)
        .map_err(StageError::inner(format!("taking over {}", origin.name)))?;
    judge(&transfer, &origin.name, asked.partial, context)?;
    let taken = transfer.rows.iter().map(row).collect();
    Ok(Start { values: Some(transfer.start), taken })
}

/// Tells what was taken over; an error where something does not fit and that was not allowed.
fn judge(transfer: &Transfer, name: &str, partial: bool, context: &StageContext) -> Result<(), StageError> {
    let misfits: Vec<String> = transfer.misfits().map(TransferRow::to_string).collect();
    let (taken, all) = (transfer.taken(), transfer.rows.iter().filter(|row| row.parameter.is_some()).count());
    let told = |count: usize| {
        let more = misfits.len().saturating_sub(count);
        let more = if more == 0 { String::new() } else { format!("\n  … and {more} more") };
        misfits.iter().take(count).map(|line| format!("\n  {line}")).collect::<String>() + &more
    };
    let fact = format!("{taken} of {all}");
    context.fact("pretrained parameters", fact.as_str());
    if taken == 0 {
        return Err(StageError::Data(format!(
            "{name} has nothing that this network could take over:{}\n\nhelp: `names` says what parts of the network are \
             called there",
            told(8)
        )));
    }
    if misfits.is_empty() {
        return Ok(());
    }
    if partial {
        context.warn(format!(
            "{fact} parameters begin with the values of {name}; what does not fit begins anew or is left over (log/pretrained.csv has all):{}",
            told(8)
        ));
        return Ok(());
    }
    Err(StageError::Data(format!(
        "{name} fits {fact} parameters of this network, and the rest does not:{}\n\nhelp: `names` says what parts are called \
         there; `partial: true` takes over what fits and begins anew with the rest",
        told(12)
    )))
}

fn row(row: &TransferRow) -> TakenRow {
    let shape = |shape: &[usize]| match shape {
        [] => "scalar".to_owned(),
        sizes => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    };
    let (parameter, parameter_shape) =
        row.parameter.as_ref().map(|(name, size)| (name.clone(), shape(size))).unzip();
    let (tensor, tensor_shape) = row.tensor.as_ref().map(|(name, size)| (name.clone(), shape(size))).unzip();
    TakenRow { parameter, shape: parameter_shape, tensor, tensor_shape, fate: fate(row).to_owned() }
}

/// The word for a fate in the table.
fn fate(row: &TransferRow) -> &'static str {
    use pipe_nn::Fate::{Missing, NoWeight, NotFinite, Shape, Taken, Type, Unused};
    match row.fate {
        Taken => "taken",
        Missing => "missing",
        Shape => "other shape",
        Type(_) => "other type",
        NotFinite => "not finite",
        Unused => "left over",
        NoWeight => "no weights",
    }
}

/// The images of both must be on one scale: what a network learnt of intensities holds on that scale alone.
fn check_images(origin: &Origin, volumes: &Volumes, context: &StageContext) -> Result<(), StageError> {
    let (name, ours) = (&origin.name, volumes.info.preparation);
    let text = |value| serde_json::to_string(&value).unwrap_or_default();
    let our_scale = text(ours.normalization);
    let Some(theirs) = origin.preparation else {
        context.warn(format!(
            "nothing says how the images that {name} was trained on were normalised; these volumes are normalised by \
             {our_scale}"
        ));
        return Ok(());
    };
    let their_scale = text(theirs.normalization);
    if their_scale != our_scale {
        return Err(StageError::Data(format!(
            "{name} saw images normalised by {their_scale} but these volumes are normalised by {our_scale}\n\nhelp: prepare \
             them alike: wire the input `like` of `crop` to the stage that trained it, or give both the same `normalize`"
        )));
    }
    if theirs.spacing_mm != ours.spacing_mm {
        let (theirs, ours) = (theirs.spacing_mm, ours.spacing_mm);
        context.warn(format!("{name} saw voxels of {theirs:?} mm, these are of {ours:?}"));
    }
    Ok(())
}

/// A safetensors or ONNX file, told by its content, or the folder of a model.
fn read_file(file: &str, context: &StageContext) -> Result<Origin, StageError> {
    let files = &context.external(FILE)?.files;
    let read = |index: usize| -> Result<Vec<u8>, StageError> {
        let path = context.source(&files[index].digest)?;
        fs::read(&path).map_err(StageError::io("read", &path))
    };
    let name = format!("`{}`", Path::new(file).file_name().unwrap_or_default().to_string_lossy());
    match files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>()[..] {
        [_] => of_bytes(&read(0)?, name),
        ["model.json", "model.safetensors"] => {
            let card: ModelCard = serde_json::from_slice(&read(0)?).map_err(|error| {
                StageError::Data(format!("model.json of {name} is no model card: {error}"))
            })?;
            let tensors = safetensors(&read(1)?, &name)?;
            Ok(Origin { tensors, name, preparation: Some(card.preparation) })
        }
        ref listed => Err(StageError::Data(format!(
            "{name} holds {} files, and not model.json and model.safetensors alone: name one of them, or the folder of a \
             model",
            listed.len()
        ))),
    }
}

fn of_bytes(bytes: &[u8], name: String) -> Result<Origin, StageError> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 2]) {
        return Err(StageError::Data(format!(
            "{name} is an archive of Python objects, which only Python can read\n\nhelp: in Python, `safetensors.torch.\
             save_file(torch.load(FILE, weights_only=True), \"weights.safetensors\")`, where the file holds a state dictionary"
        )));
    }
    // Behind the length of its header, a safetensors file has a JSON object; ONNX begins with the tag of a field.
    if bytes.get(8) == Some(&b'{') {
        return Ok(Origin { tensors: safetensors(bytes, &name)?, name, preparation: None });
    }
    let unreadable = |problem: String| {
        StageError::Data(format!(
            "{name} is neither a safetensors file (no header of JSON) nor an ONNX file ({problem})"
        ))
    };
    let (stored, metadata) = read_onnx(bytes).map_err(|error| unreadable(error.to_string()))?;
    let mut tensors = Tensors::default();
    for tensor in stored {
        let other = match tensor.element {
            ElementType::Other(number) => format!("ONNX type {number}"),
            _ => String::new(),
        };
        let element = match tensor.element {
            ElementType::F32 => Element::F32,
            ElementType::F16 => Element::F16,
            ElementType::Bf16 => Element::Bf16,
            ElementType::F64 => Element::F64,
            ElementType::Other(_) => Element::Other(&other),
        };
        tensors
            .insert(tensor.name, tensor.shape, element, &tensor.bytes)
            .map_err(StageError::inner(format!("reading {name}")))?;
    }
    if tensors.is_empty() {
        return Err(StageError::Data(format!("{name} is an ONNX file without weights")));
    }
    // What pipe exports says how images are prepared.
    let preparation = metadata.get("preparation").map(|text| {
        serde_json::from_str(text)
            .map_err(|error| StageError::Data(format!("the preparation in {name} is not readable: {error}")))
    });
    Ok(Origin { tensors, name, preparation: preparation.transpose()? })
}

fn safetensors(bytes: &[u8], name: &str) -> Result<Tensors, StageError> {
    Tensors::from_safetensors(bytes).map_err(StageError::inner(format!("reading {name}")))
}
