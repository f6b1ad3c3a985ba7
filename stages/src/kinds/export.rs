//! Turns a trained network into an ONNX file, and proves on the spot that the file computes the same.

pub(in crate::kinds) mod agreement;
mod graph;

use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::predictor::{Combine, Member, MemberCard, Predictor, Task};
use crate::artifacts::{Model, ModelCard};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::inference::load_runtime;
use crate::stage::{ParamProblem, Stage};
use fs_err as fs;
use pipe_cache::Digest;
use pipe_nn::{Architecture, CpuBackend, Dims, Network, Parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Export;

pub const MODEL: In<Model> = In::new("model");
pub const PREDICTOR: Out<Predictor> = Out::new("predictor");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Largest difference allowed between a logit of the network and of the ONNX file, as a share of the largest
    /// absolute logit.
    pub tolerance: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { tolerance: 1e-4 }
    }
}

impl Stage for Export {
    const KIND: &'static str = "export";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a trained network as ONNX (operator set 17) and checks that ONNX Runtime computes the same logits.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let usable = params.tolerance.is_finite() && params.tolerance > 0.0;
        let problem = || ParamProblem {
            parameter: "tolerance",
            message: format!("{} is no tolerance", params.tolerance),
            help: "use a number above 0, such as 0.0001".into(),
        };
        if usable { Vec::new() } else { vec![problem()] }
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&MODEL).writes(&PREDICTOR).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let Model { card, weights } = context.read(&MODEL)?;
        let network = card
            .architecture
            .network(card.io)
            .map_err(StageError::inner("building the network of the model"))?;
        check_card(&card, &network)?;
        let parameters =
            Parameters::from_safetensors(&weights).map_err(StageError::inner("reading the weights"))?;
        let task = Task {
            labels: card.labels.clone(),
            channels: network.in_channels,
            preparation: card.preparation,
        };
        let onnx = graph::network_to_onnx(&network, &parameters, &metadata(&task, &card))?;
        let model = pipe_nn::Model::from_parameters(CpuBackend::default(), network, &parameters)
            .map_err(StageError::inner("filling the network with its weights"))?;

        load_runtime(context)?;
        let agreement = agreement::compare(&model, &onnx, card.patch)?;
        if !agreement.within(params.tolerance) {
            return Err(StageError::Data(format!(
                "the exported model's logits differ by up to {:e} at a largest logit of {:e}: more than the tolerance \
                 of {:e} times that",
                agreement.difference, agreement.scale, params.tolerance
            )));
        }
        context.fact("max_difference", agreement.relative());
        context.fact("max_logit", agreement.scale);
        context.fact("bytes", onnx.len());

        let path = context.scratch.join("model.onnx");
        fs::write(&path, &onnx).map_err(StageError::io("write", &path))?;
        let card = MemberCard {
            name: format!("{}, fold {}", title(&card.architecture), card.training.fold),
            weight: 1.0,
            dims: card.architecture.dims(),
            architecture: describe(&card.architecture, model.network()),
            patch: card.patch,
            fold: Some(card.training.fold),
            training: Some(card.training),
            digest: Digest::of_bytes(&onnx),
        };
        context.write(
            &PREDICTOR,
            &Predictor { task, combine: Combine::default(), members: vec![Member { card, path }] },
        )
    }
}

/// Fails when the card contradicts the network that it describes.
fn check_card(card: &ModelCard, network: &Network) -> Result<(), StageError> {
    if card.labels.len() != network.classes {
        return Err(StageError::Data(format!(
            "the model's network has {} classes but its card names {} labels",
            network.classes,
            card.labels.len()
        )));
    }
    let geometry = pipe_nn::Geometry { samples: 1, size: card.patch };
    network.check_input(geometry).map_err(StageError::inner("checking the patch of the model"))
}

/// What is written into the ONNX file, so that it can be used without any other file.
fn metadata(task: &Task, card: &ModelCard) -> BTreeMap<&'static str, String> {
    let json = |value: serde_json::Value| value.to_string();
    let layout = match card.architecture.dims() {
        Dims::Two => "batch, channel, y, x",
        Dims::Three => "batch, channel, z, y, x",
    };
    [
        ("labels", json(serde_json::json!(task.labels))),
        ("patch", json(serde_json::json!(card.patch))),
        ("preparation", json(serde_json::json!(task.preparation))),
        ("layout", layout.to_owned()),
    ]
    .into()
}

/// `U-Net 3d`, for people.
fn title(architecture: &Architecture) -> String {
    let name = match architecture {
        Architecture::Unet2d(_) | Architecture::Unet3d(_) => "U-Net",
        Architecture::Classifier2d(_) | Architecture::Classifier3d(_) => "Classifier",
        Architecture::Linear2d(_) | Architecture::Linear3d(_) => "Linear model",
    };
    format!("{name} {}d", architecture.dims().count())
}

/// `U-Net 3d: 4 levels of 16 to 128 features, 1403954 parameters`.
fn describe(architecture: &Architecture, network: &Network) -> String {
    let size = match architecture.level_features().as_slice() {
        [] => String::new(),
        [only] => format!(" 1 level of {only} features,"),
        [first, .., last] => {
            format!(" {} levels of {first} to {last} features,", architecture.level_features().len())
        }
    };
    format!("{}:{size} {} parameters", title(architecture), network.trained_count())
}

#[cfg(test)]
mod tests;
