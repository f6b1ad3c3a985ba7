use super::*;
use crate::kinds::inference::testing::voxelwise;
use crate::testing::{TestSpace, problems};
use serde_json::{Value, json};

fn params(file: &str, patch: [usize; 3]) -> Value {
    json!({ "file": file, "labels": { "background": 0, "liver": 2 }, "patch": patch })
}

/// A file that PyTorch, Keras or another program could have written.
fn model(space: &TestSpace, dims: Dims, classes: usize) -> String {
    let member = voxelwise(space, dims, &vec![1.0; classes], &vec![0.5; classes], 0);
    member.path.to_string_lossy().into_owned()
}

#[track_caller]
fn refusal(params: Value, space: &TestSpace) -> String {
    space.run::<ImportModel>(params, &[]).expect_err("refused").chain()
}

#[test]
fn a_model_of_another_program_becomes_a_predictor_with_the_facts_that_were_said() {
    let space = TestSpace::new();
    let mut params = params(&model(&space, Dims::Three, 2), [4, 6, 8]);
    params["spacing_mm"] = json!([2.0, 1.0, 1.0]);
    params["scale"] = json!({ "low": -100.0, "high": 300.0, "mean": 50.0, "sd": 20.0 });
    params["fold"] = json!(3);
    params["name"] = json!("from PyTorch");
    let run = space.run::<ImportModel>(params, &[]).expect("as it was said");
    let Predictor { task, members, .. } = run.load(&PREDICTOR);
    assert_eq!(task.labels.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!((task.channels, task.preparation.spacing_mm), (1, Some([2.0, 1.0, 1.0])));
    let scale = Normalization::Fixed { low: -100.0, high: 300.0, mean: 50.0, sd: 20.0 };
    assert_eq!(task.preparation.normalization, scale);
    let card = &members[0].card;
    assert_eq!((card.name.as_str(), card.dims, card.patch), ("from PyTorch", Dims::Three, [4, 6, 8]));
    assert_eq!((card.fold, card.training.as_ref()), (Some(3), None));
    members[0].read().expect("the file is the one of the card");
}

#[test]
fn what_is_said_must_be_what_the_file_does() {
    let space = TestSpace::new();
    let (volumes, slices) = (model(&space, Dims::Three, 2), model(&space, Dims::Two, 2));
    let mut channels = params(&volumes, [4, 4, 4]);
    channels["channels"] = json!(2);
    for (params, text) in [
        (channels, "has 1 input channels but `channels` says 2"),
        (params(&model(&space, Dims::Three, 3), [4, 4, 4]), "has 3 output channels but `labels` says 2"),
        (params(&slices, [4, 4, 4]), "takes 2D images but `patch` is [4, 4, 4]"),
        (params(&volumes, [1, 4, 4]), "takes 3D images but `patch` is [1, 4, 4]"),
    ] {
        let found = refusal(params, &space);
        assert!(found.contains(text), "{found:?} does not contain {text:?}");
    }
    space.run::<ImportModel>(params(&slices, [1, 4, 4]), &[]).expect("slices");
    let text = space.path().join("text.onnx");
    fs::write(&text, "no model").expect("temporary file");
    let found = refusal(params(&text.to_string_lossy(), [4, 4, 4]), &space);
    assert!(found.contains("is not a model that ONNX Runtime can load"), "{found}");
}

#[test]
fn probabilities_and_numbers_that_are_none_are_told_from_logits() {
    let space = TestSpace::new();
    let mut graph = pipe_onnx::GraphBuilder::new("softmax", 2, pipe_onnx::Dims::Three).expect("a graph");
    let softmax = graph.softmax(&graph.input()).expect("valid");
    let path = space.path().join("softmax.onnx");
    fs::write(&path, graph.build(&softmax).expect("valid")).expect("temporary file");
    let mut said = params(&path.to_string_lossy(), [4, 4, 4]);
    said["channels"] = json!(2);
    let found = refusal(said, &space);
    assert!(found.contains("gives probabilities, but logits are needed"), "{found}");
    assert!(are_probabilities(&[0.25, 1.0, 0.75, 0.0], 2));
    assert!(!are_probabilities(&[0.25, 1.0, 0.5, 0.0], 2) && !are_probabilities(&[2.0, -1.0], 2));

    let huge = voxelwise(&space, Dims::Three, &[f32::MAX, f32::MAX], &[f32::MAX, 0.0], 0);
    let found = refusal(params(&huge.path.to_string_lossy(), [8, 8, 8]), &space);
    assert!(found.contains("gives NaN or infinity"), "{found}");
}

#[test]
fn facts_that_make_no_sense_are_refused_before_anything_runs() {
    #[track_caller]
    fn check(change: &Value, parameter: &str) {
        let mut params = params("model.onnx", [4, 4, 4]);
        params.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let found = problems::<ImportModel>(params);
        assert_eq!(found.iter().map(|problem| problem.parameter).collect::<Vec<_>>(), [parameter]);
    }
    check(&json!({ "labels": { "liver": 1, "tumour": 2 } }), "labels");
    check(&json!({ "labels": { "background": 0, "liver": 1, "tumour": 1 } }), "labels");
    check(&json!({ "channels": 0 }), "channels");
    check(&json!({ "patch": [4, 0, 4] }), "patch");
    check(&json!({ "margin_mm": -1.0 }), "margin_mm");
    check(&json!({ "spacing_mm": [1.0, 0.0, 1.0] }), "spacing_mm");
    check(&json!({ "scale": { "low": 1.0, "high": 0.0, "mean": 0.0, "sd": 1.0 } }), "scale");
    check(
        &json!({ "scale": { "low": 0.0, "high": 1.0, "mean": 0.0, "sd": 1.0 }, "normalize": "min-max" }),
        "scale",
    );
}
