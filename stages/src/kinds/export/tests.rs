mod architectures;

use super::*;
use crate::kinds::inference::testing::{labels, two_labels, unet};
use crate::testing::{TestRun, TestSpace, problems};
use pipe_imaging::normalize::Normalization;
use pipe_onnx::Session;
use serde_json::json;
use std::num::NonZeroUsize;

#[track_caller]
fn export(model: &Model) -> TestRun {
    let space = TestSpace::new();
    let run = space
        .run::<Export>(json!({}), &[("model", &space.stored(model))])
        .expect("a sound model is exported");
    // The folder of the run goes with the space.
    let predictor = run.load(&PREDICTOR);
    assert_eq!(predictor.members.len(), 1);
    assert_eq!(
        Digest::of_bytes(&predictor.members[0].read().expect("stored")),
        predictor.members[0].card.digest
    );
    run
}

#[track_caller]
fn refusal(model: &Model, params: serde_json::Value) -> String {
    let space = TestSpace::new();
    let error =
        space.run::<Export>(params, &[("model", &space.stored(model))]).expect_err("the model is refused");
    error.chain()
}

#[test]
fn an_exported_network_computes_the_same_logits() {
    for (dims, seed) in [(Dims::Two, 1), (Dims::Three, 2)] {
        let run = export(&unet(dims, &two_labels(), 0, seed));
        let difference = run.facts["max_difference"].as_f64().expect("a number");
        // Some hundred products of f32 in another order: a few times 2^-24 of the largest logit.
        assert!(difference < 1e-5, "{dims:?}: {difference}");
        assert!(run.facts["max_logit"].as_f64().expect("a number") > 0.1, "the check saw real logits");
        assert!(run.facts["runtime"].as_str().expect("text").starts_with("ONNX Runtime 1."));
    }
}

#[test]
fn a_network_of_other_weights_does_not_agree() {
    let space = TestSpace::new();
    let run = space
        .run::<Export>(json!({}), &[("model", &space.stored(&unet(Dims::Three, &two_labels(), 0, 1)))])
        .expect("a sound model is exported");
    let onnx = run.load(&PREDICTOR).members[0].read().expect("stored");
    let other = unet(Dims::Three, &two_labels(), 0, 2);
    let parameters = Parameters::from_safetensors(&other.weights).expect("written by the model");
    let network = other.card.architecture.network(other.card.io).expect("valid");
    let other = pipe_nn::Model::from_parameters(CpuBackend::default(), network, &parameters)
        .expect("its own weights");
    let agreement = agreement::compare(&other, &onnx, [8, 8, 8]).expect("both run");
    assert!(!agreement.within(0.01), "{agreement:?}");
}

#[test]
fn a_difference_above_the_tolerance_fails_the_stage_and_names_both() {
    let text = refusal(&unet(Dims::Three, &two_labels(), 0, 1), json!({ "tolerance": 1e-15 }));
    assert!(text.contains("logits differ by up to") && text.contains("tolerance of 1e-15"), "{text}");
}

#[test]
fn the_predictor_carries_all_that_the_model_card_says() {
    let mut model = unet(Dims::Two, &labels(&[(0, "background"), (1, "left"), (4, "right")]), 3, 1);
    model.card.preparation.spacing_mm = Some([3.0, 0.5, 0.75]);
    model.card.preparation.normalization =
        Normalization::Fixed { low: -10.0, high: 300.0, mean: 50.5, sd: 20.25 };
    let space = TestSpace::new();
    let run = space
        .run::<Export>(json!({}), &[("model", &space.stored(&model))])
        .expect("a sound model is exported");
    let Predictor { task, members, .. } = run.load(&PREDICTOR);
    assert_eq!(task.labels, model.card.labels);
    assert_eq!((task.channels, task.preparation), (1, model.card.preparation));
    let card = &members[0].card;
    assert_eq!((card.weight, card.dims, card.patch), (1.0, Dims::Two, [1, 8, 8]));
    assert_eq!(card.training, Some(model.card.training.clone()));
    assert_eq!(card.name, "U-Net 2d, fold 3");
    // Encoder 36 + 8 + 144 + 8 and 288 + 16 + 576 + 16, up 128 + 4, decoder 288 + 8 + 144 + 8, head 12 + 3.
    assert_eq!(card.architecture, "U-Net 2d: 2 levels of 4 to 8 features, 1687 parameters");
}

#[test]
fn the_onnx_file_alone_says_how_to_use_it() {
    let space = TestSpace::new();
    let mut model = unet(Dims::Three, &two_labels(), 0, 1);
    model.card.preparation.spacing_mm = Some([1.0, 1.0, 1.5]);
    let run = space
        .run::<Export>(json!({}), &[("model", &space.stored(&model))])
        .expect("a sound model is exported");
    let onnx = run.load(&PREDICTOR).members[0].read().expect("stored");
    let session = Session::from_bytes(&onnx, NonZeroUsize::MIN).expect("the file loads");
    let interface = session.interface();
    assert_eq!((interface.channels, interface.classes), (Some(1), Some(2)));
    assert_eq!(interface.divisor, [2, 2, 2]);
    for (key, value) in [
        ("labels", r#"{"0":"background","1":"body"}"#),
        ("patch", "[8,8,8]"),
        (
            "preparation",
            r#"{"interpolation":"linear","margin_mm":0.0,"normalization":"none","pad_to":null,"region":"whole","spacing_mm":[1.0,1.0,1.5]}"#,
        ),
        ("layout", "batch, channel, z, y, x"),
    ] {
        assert_eq!(interface.metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let space = TestSpace::new();
    let model = space.stored(&unet(Dims::Three, &two_labels(), 0, 1));
    let run = || space.run::<Export>(json!({}), &[("model", &model)]).expect("a sound model is exported");
    assert_eq!(run().content("predictor"), run().content("predictor"));
}

#[test]
fn a_card_that_contradicts_the_network_is_refused() {
    let sound = unet(Dims::Three, &two_labels(), 0, 1);
    let mut more_labels = sound.clone();
    more_labels.card.labels.insert(2, "head".into());
    let text = refusal(&more_labels, json!({}));
    assert!(text.contains("network has 2 classes but its card names 3 labels"), "{text}");

    let mut odd_patch = sound.clone();
    odd_patch.card.patch = [8, 7, 8];
    let text = refusal(&odd_patch, json!({}));
    assert!(text.contains("8, 7, 8]") && text.contains("2, 2, 2]"), "{text}");

    let mut other_weights = sound.clone();
    other_weights.weights = unet(Dims::Two, &two_labels(), 0, 1).weights;
    let text = refusal(&other_weights, json!({}));
    assert!(text.contains("encoder.0.conv0"), "{text}");

    let mut torn = sound;
    torn.weights.truncate(100);
    let text = refusal(&torn, json!({}));
    assert!(text.contains("reading the weights"), "{text}");
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let mut model = unet(Dims::Three, &two_labels(), 0, 1);
    let last = model.weights.len() - 4;
    model.weights[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = refusal(&model, json!({}));
    assert!(text.contains("only finite weights can be exported"), "{text}");
}

#[test]
fn a_tolerance_must_be_above_0() {
    for tolerance in [0.0, -1.0] {
        let found = problems::<Export>(json!({ "tolerance": tolerance }));
        assert_eq!(found.len(), 1, "{tolerance}");
        assert_eq!(found[0].parameter, "tolerance");
    }
}
