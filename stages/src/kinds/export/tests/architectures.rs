//! Every architecture, norm, activation and way up and down, with weights of which no two are the same: in a fresh network
//! scales are 1, shifts are 0 and running variances are 1, and two of them changed places would not be seen.
//!
//! With `PIPE_ONNX_DIR` set, the models stay there with the logits that dfdx computed, for
//! `stages/src/kinds/export/tests/accept.py`, which is another judge: `onnx.checker` and Python's onnxruntime.

use super::*;
use crate::kinds::export::agreement::noise;
use crate::kinds::inference::testing::model;
use pipe_nn::{Activation, Classifier, Down, Encoder, Geometry, Io, Linear, Norm, Task, UNet, Up};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CHANNELS: usize = 2;

/// Sizes that differ between the axes: two that changed places are seen.
fn patch(dims: Dims) -> [usize; 3] {
    match dims {
        Dims::Two => [1, 16, 24],
        Dims::Three => [8, 16, 24],
    }
}

/// The network with weights from a formula, each a little from where a fresh one would be.
fn disturbed(architecture: Architecture, seed: u64) -> Model {
    let labels = labels(&[(0, "background"), (1, "left"), (2, "right")]);
    let fresh = model(architecture.clone(), &labels, 0, seed);
    let patch = patch(architecture.dims());
    let io = Io { channels: CHANNELS, classes: labels.len(), size: patch };
    let network = architecture.network(io).expect("the configuration is valid");
    let start = pipe_nn::Model::new(CpuBackend::default(), network, pipe_nn::Initialization::default(), seed);
    let mut weights = start.parameters().to_safetensors();
    let header = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes"));
    let values = &mut weights[8 + usize::try_from(header).expect("a small header")..];
    let values = values.as_chunks_mut::<4>().0;
    let noise = noise(values.len(), seed);
    for (value, noise) in values.iter_mut().zip(noise) {
        *value = (f32::from_le_bytes(*value) + 0.1 * noise).to_le_bytes();
    }
    Model { card: ModelCard { architecture, io, patch, labels, ..fresh.card }, weights }
}

/// Every value of every setting that changes what is exported, some of them together. Names end in the dimensions.
fn all() -> Vec<(String, Architecture)> {
    let small = || UNet { base_features: Some(4), levels: 3, ..UNet::default() };
    let mut unets = vec![("plain", small())];
    for (name, norm) in [("batch", Norm::Batch), ("group", Norm::Group(2))] {
        unets.push((name, UNet { norm, ..small() }));
    }
    for (name, activation) in [
        ("relu", Activation::Relu),
        ("prelu", Activation::Prelu),
        ("gelu", Activation::Gelu),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
    ] {
        unets.push((name, UNet { activation, ..small() }));
    }
    let (encoder, down, up) = (Encoder::Residual, Down::Stride, Up::Nearest);
    unets.extend([
        ("residual", UNet { encoder, ..small() }),
        ("strided", UNet { down, ..small() }),
        ("average", UNet { down: Down::AvgPool, ..small() }),
        ("nearest", UNet { up, ..small() }),
        ("supervised", UNet { deep_supervision: true, ..small() }),
        ("without_skips", UNet { skips: false, ..small() }),
        ("regularised", UNet { dropout: 0.5, noise: 0.5, convolutions: 3, ..small() }),
        ("one_level", UNet { levels: 1, ..small() }),
        ("all_at_once", UNet { encoder, down, up, norm: Norm::Batch, deep_supervision: true, ..small() }),
    ]);
    let mut all: Vec<(String, Architecture)> = Vec::new();
    for (name, unet) in unets {
        all.push((format!("unet_{name}_2d"), Architecture::Unet2d(unet.clone())));
        all.push((format!("unet_{name}_3d"), Architecture::Unet3d(unet)));
    }
    for (name, strides, kernels) in [
        ("flat_first", [[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]),
        ("flat_always", [[1, 2, 2], [1, 2, 4]], [[1, 3, 5], [1, 3, 3], [3, 1, 1]]),
    ] {
        for (way, down, up) in
            [("pooled", Down::MaxPool, Up::Transposed), ("strided", Down::Stride, Up::Nearest)]
        {
            let (strides, kernels) = (Some(strides.to_vec()), Some(kernels.to_vec()));
            let unet = UNet { strides, kernels, down, up, ..small() };
            all.push((format!("unet_{name}_{way}_3d"), Architecture::Unet3d(unet)));
        }
    }
    for (name, norm, activation) in [
        ("plain", Norm::Batch, Activation::Relu),
        ("group", Norm::Group(4), Activation::Gelu),
        ("instance", Norm::Instance, Activation::Prelu),
    ] {
        let net =
            Classifier { base_features: 4, levels: 3, blocks: 2, norm, activation, ..Classifier::default() };
        all.push((format!("classifier_{name}_2d"), Architecture::Classifier2d(net.clone())));
        all.push((format!("classifier_{name}_3d"), Architecture::Classifier3d(net)));
    }
    all.push(("linear_2d".into(), Architecture::Linear2d(Linear {})));
    all.push(("linear_3d".into(), Architecture::Linear3d(Linear {})));
    all
}

#[test]
fn every_architecture_norm_and_activation_is_exported_as_it_computes() {
    let kept = std::env::var_os("PIPE_ONNX_DIR").map(PathBuf::from);
    for (seed, (name, architecture)) in (1..).zip(all()) {
        let model = disturbed(architecture, seed);
        let space = TestSpace::new();
        let run = space.run::<Export>(json!({}), &[("model", &space.stored(&model))]).expect(&name);
        let difference = run.facts["max_difference"].as_f64().expect("a number");
        assert!(difference < 1e-5, "{name}: {difference}");
        let largest = run.facts["max_logit"].as_f64().expect("a number");
        assert!(largest > 0.1, "{name}: the check saw real logits, not {largest}");
        if let Some(folder) = &kept {
            keep(folder, &name, &model, &run.load(&PREDICTOR).members[0].read().expect("stored"));
        }
    }
}

/// Fails to compile or to pass when a choice is added that the list above does not have.
#[test]
fn no_choice_is_left_out_of_the_list() {
    let mut seen = BTreeSet::new();
    for (_, architecture) in all() {
        let (norm, activation) = match architecture {
            Architecture::Unet2d(net) | Architecture::Unet3d(net) => {
                seen.insert(match net.down {
                    Down::MaxPool => "max pool",
                    Down::AvgPool => "average pool",
                    Down::Stride => "stride",
                });
                seen.insert(match net.up {
                    Up::Transposed => "transposed",
                    Up::Nearest => "nearest",
                });
                seen.insert(match net.encoder {
                    Encoder::Plain => "plain",
                    Encoder::Residual => "residual",
                });
                (net.norm, net.activation)
            }
            Architecture::Classifier2d(net) | Architecture::Classifier3d(net) => (net.norm, net.activation),
            Architecture::Linear2d(Linear {}) | Architecture::Linear3d(Linear {}) => continue,
        };
        seen.insert(match norm {
            Norm::Instance => "instance",
            Norm::Batch => "batch",
            Norm::Group(_) => "group",
        });
        seen.insert(match activation {
            Activation::Relu => "relu",
            Activation::LeakyRelu => "leaky relu",
            Activation::Prelu => "prelu",
            Activation::Gelu => "gelu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
        });
    }
    assert_eq!(seen.len(), 3 + 2 + 2 + 3 + 6, "{seen:?}");
}

/// Writes the model, and inputs of two sizes with the logits of dfdx.
fn keep(folder: &Path, name: &str, model: &Model, onnx: &[u8]) {
    let write =
        |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("PIPE_ONNX_DIR takes files");
    let floats =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    fs::create_dir_all(folder).expect("PIPE_ONNX_DIR can be made");
    write(&format!("{name}.onnx"), onnx);
    let card = &model.card;
    let network = card.architecture.network(card.io).expect("it was exported");
    let parameters = Parameters::from_safetensors(&model.weights).expect("it was exported");
    let network = pipe_nn::Model::from_parameters(CpuBackend::default(), network, &parameters)
        .expect("its own weights");
    let shape = network.network();
    let [z, y, x] = card.patch;
    let other = if shape.fixed_size.is_some() { card.patch } else { [z, 2 * y, x + shape.multiple[2]] };
    let mut cases = Vec::new();
    for (samples, size) in [(1, card.patch), (3, other)] {
        let geometry = Geometry { samples, size };
        let input = noise(geometry.rows() * CHANNELS, 7);
        let logits = network.forward(&input, geometry).expect("a size of the network");
        let spatial = &size[3 - shape.dims.count()..];
        let told = if shape.task == Task::Segmentation { spatial } else { &[] };
        write(&format!("{name}.{samples}.input.f32"), &floats(&input));
        write(&format!("{name}.{samples}.logits.f32"), &floats(&logits));
        cases.push(json!({
            "input": ([&[samples, CHANNELS], spatial].concat()),
            "logits": ([&[samples, card.io.classes], told].concat()),
        }));
    }
    write(&format!("{name}.json"), json!(cases).to_string().as_bytes());
}
