//! An ensemble as one ONNX model, compared with its members on the spot.

use crate::artifacts::Files;
use crate::artifacts::predictor::{Combine, Predictor};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::export::agreement::noise;
use fs_err as fs;
use pipe_nn::Dims;
use pipe_onnx::merge::{Mean, merge};
use pipe_onnx::{Session, softmax};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Largest difference allowed between a probability of the one model and of its members.
const TOLERANCE: f64 = 1e-4;

/// The model, and how far its probabilities are from those of its members run one by one.
pub(super) fn one_graph(predictor: &Predictor) -> Result<(Vec<u8>, f64), StageError> {
    let mean = match predictor.combine {
        Combine::MeanProbabilities => Mean::Probabilities,
        Combine::MeanLogits => Mean::Logits,
        Combine::Majority | Combine::Staple => {
            return Err(StageError::Internal("a graph of votes was planned".into()));
        }
    };
    let first = &predictor.members[0].card;
    for member in &predictor.members {
        let card = &member.card;
        if (card.dims, card.patch) != (first.dims, first.patch) {
            return Err(StageError::Data(format!(
                "`{}` sees {} but `{}` {}: one ONNX model has one kind of input. Leave `graph` out, or join only networks \
                 with the same input",
                first.name,
                input_text(first.dims, first.patch),
                card.name,
                input_text(card.dims, card.patch)
            )));
        }
    }
    let bytes: Vec<Vec<u8>> =
        predictor.members.iter().map(crate::artifacts::Member::read).collect::<Result<_, _>>()?;
    let weighted: Vec<(&[u8], f64)> = bytes
        .iter()
        .zip(&predictor.members)
        .map(|(bytes, member)| (bytes.as_slice(), member.card.weight))
        .collect();
    let mut sessions = bytes.iter().map(|bytes| session(bytes)).collect::<Result<Vec<_>, _>>()?;
    let mut metadata: BTreeMap<String, String> = sessions[0].interface().metadata.clone();
    let names: Vec<&str> = predictor.members.iter().map(|member| member.card.name.as_str()).collect();
    metadata.insert("members".into(), serde_json::json!(names).to_string());
    let onnx = merge(&weighted, mean, &metadata).map_err(StageError::inner("joining the members"))?;

    let mut whole = session(&onnx)?;
    let spatial = &first.patch[3 - first.dims.count()..];
    let shape = [&[1, predictor.task.channels], spatial].concat();
    let input = noise(shape.iter().product(), 1);
    let classes = predictor.task.labels.len();
    let run = |session: &mut Session| {
        let found = session.run(&input, &shape).map_err(StageError::inner("running a model"))?;
        let expected = [&[1, classes], spatial].concat();
        if found.1 == expected {
            return Ok(found.0);
        }
        Err(StageError::Data(format!(
            "a member gives {:?} but {expected:?} is needed: only networks that label voxels can be one model",
            found.1
        )))
    };
    let probabilities = |mut logits: Vec<f32>| {
        softmax(&mut logits, classes)
            .map(|()| logits)
            .map_err(|at| StageError::Data(format!("the logits of a model have no softmax at {at}")))
    };
    let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut expected = vec![0.0_f32; classes * spatial.iter().product::<usize>()];
    for (session, (_, weight)) in sessions.iter_mut().zip(&weighted) {
        let own = run(session)?;
        let own = if mean == Mean::Logits { own } else { probabilities(own)? };
        let share = (weight / total) as f32;
        expected.iter_mut().zip(own).for_each(|(mean, own)| *mean += share * own);
    }
    if mean == Mean::Logits {
        expected = probabilities(expected)?;
    }
    let found = probabilities(run(&mut whole)?)?;
    let apart = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
    if apart > TOLERANCE {
        return Err(StageError::Data(format!(
            "the one model's probabilities differ from those of its members by up to {apart:e}: more than {TOLERANCE:e}"
        )));
    }
    Ok((onnx, apart))
}

/// Writes the model where the output can take it from.
pub(super) fn stored(onnx: &[u8], context: &StageContext) -> Result<Files, StageError> {
    let folder = context.scratch.join("graph");
    fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
    let path = folder.join("model.onnx");
    fs::write(&path, onnx).map_err(StageError::io("write", &path))?;
    Ok(Files(folder))
}

fn session(bytes: &[u8]) -> Result<Session, StageError> {
    Session::from_bytes(bytes, NonZeroUsize::MIN).map_err(StageError::inner("loading a model"))
}

fn input_text(dims: Dims, [z, y, x]: [usize; 3]) -> String {
    match dims {
        Dims::Two => format!("slices of {y}×{x} voxels"),
        Dims::Three => format!("volumes of {z}×{y}×{x} voxels"),
    }
}
