//! Networks that begin with the weights of others: of a stage, of a file of PyTorch, of an ONNX file, of a folder.
//! The files are those of `stages/nn/tests/reference/pretrained.py`.

use super::*;
use crate::artifacts::TakenRow;

fn reference(name: &str) -> String {
    format!("{}/nn/tests/reference/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A training of PyTorch's module under our names.
fn module(file: &str) -> Value {
    json!({
        "fold": 0, "epochs": 1, "augment": { "none": {} }, "keep": "last", "freeze": ["stem", "stage"],
        "model": { "classifier2d": { "levels": 1, "base_features": 3 } },
        "pretrained": { "file": file, "names": {
            "stem.conv": "stem.0", "stem.norm": "stem.1", "head": "fc",
            "stage.0.block0.conv0": "layer1.conv1", "stage.0.block0.norm0": "layer1.bn1",
            "stage.0.block0.conv1": "layer1.conv2", "stage.0.block0.norm1": "layer1.bn2",
        } },
    })
}

fn weights(run: &TestRun) -> Parameters {
    Parameters::from_safetensors(&run.load(&MODEL).weights).expect("readable")
}

/// The error of a training, with its causes.
#[track_caller]
fn refused(space: &TestSpace, params: &Value, more: &[(&str, &Path)]) -> String {
    let (cohort, classes) = (cohort(space), classes(space));
    let inputs = [("volumes", cohort.volumes.as_path()), ("split", &cohort.split), ("cases", &classes)];
    let error = space.run::<Train>(params.clone(), &[&inputs, more].concat());
    error.expect_err("it is refused").chain()
}

#[test]
fn files_of_pytorch_give_start_values_and_an_account_of_each() {
    let space = TestSpace::new();
    let (cohort, classes) = (cohort(&space), classes(&space));
    let run = |file| train(&space, &cohort, module(&reference(file)), &[("cases", &classes)]);
    let (safetensors, onnx) = (run("pretrained.safetensors"), run("pretrained.onnx"));
    // One tensor in half precision, one in bfloat16 and one in float64, against floats: the same values.
    assert_eq!(weights(&safetensors), weights(&onnx));
    let file = fs::read(reference("pretrained.safetensors")).expect("kept with the tests");
    let theirs = pipe_nn::Tensors::from_safetensors(&file).expect("readable");
    let network = safetensors.load(&MODEL).card.architecture;
    let io = Io { channels: 1, classes: 2, size: [1, 8, 8] };
    let names = serde_json::from_value(module("")["pretrained"]["names"].clone()).expect("texts");
    let start = theirs.transfer(&network.network(io).expect("valid"), &names).expect("all are there").start;
    for entry in start.iter() {
        let same = weights(&safetensors).get(&entry.name).expect("in both").1 == entry.values;
        assert_eq!(same, !entry.name.starts_with("head."), "{}", entry.name);
    }
    assert_eq!(safetensors.facts["pretrained parameters"], json!("17 of 17"));
    let unknown = "nothing says how the images that `pretrained.onnx` was trained on were normalised; these volumes are \
                   normalised by \"none\"";
    assert!(onnx.warnings.iter().any(|text| text == unknown), "{:?}", onnx.warnings);
    let taken = safetensors.load(&LOG).taken;
    let row = |parameter: Option<&str>, shape: Option<&str>, tensor: &str, tensor_shape: &str, fate: &str| {
        TakenRow {
            parameter: parameter.map(Into::into),
            shape: shape.map(Into::into),
            tensor: Some(tensor.into()),
            tensor_shape: Some(tensor_shape.into()),
            fate: fate.into(),
        }
    };
    assert_eq!(taken.len(), 20);
    assert_eq!(
        taken[0],
        row(Some("stem.conv.weight"), Some("3x1x3x3"), "module.stem.0.weight", "3x1x3x3", "taken")
    );
    assert_eq!(taken[17], row(None, None, "module.layer1.bn1.num_batches_tracked", "scalar", "no weights"));
    assert!(safetensors.dir("log").join("pretrained.csv").exists());
}

#[test]
fn what_does_not_fit_is_an_error_unless_a_part_is_enough() {
    let space = TestSpace::new();
    let mut params = module(&reference("pretrained.safetensors"));
    params["model"] = json!({ "classifier2d": { "levels": 1, "base_features": 3, "blocks": 2 } });
    params["freeze"] = json!([]);
    let text = refused(&space, &params, &[]);
    let start = "`pretrained.safetensors` fits 17 of 27 parameters of this network, and the rest does not:\n  \
                 `stage.0.block1.conv0.weight` [3, 3, 3, 3] is not in the file\n";
    assert!(text.starts_with(start) && text.contains("`partial: true` takes over what fits"), "{text}");
    params["pretrained"]["partial"] = json!(true);
    let (cohort, classes) = (cohort(&space), classes(&space));
    let run = train(&space, &cohort, params.clone(), &[("cases", &classes)]);
    let told = "17 of 27 parameters begin with the values of `pretrained.safetensors`; what does not fit begins anew or is \
                left over (log/pretrained.csv has all):";
    assert!(run.warnings.iter().any(|text| text.starts_with(told)), "{:?}", run.warnings);
    params["pretrained"]["names"] = json!({});
    let text = refused(&space, &params, &[]);
    assert!(text.contains("has nothing that this network could take over"), "{text}");
}

#[test]
fn files_that_are_no_weights_are_told_by_what_they_are() {
    let space = TestSpace::new();
    let check = |bytes: &[u8], expected: &str| {
        let path = space.path().join("weights");
        fs::write(&path, bytes).expect("temporary folder");
        let text = refused(&space, &module(path.to_str().expect("text")), &[]);
        assert!(text.contains(expected), "{text}");
    };
    let good = fs::read(reference("pretrained.safetensors")).expect("kept with the tests");
    check(&good[..good.len() - 3], "of the data, of which the file holds");
    check(
        &[&u64::MAX.to_le_bytes(), &good[8..]].concat(),
        "its header says to have 18446744073709551615 bytes",
    );
    check(b"PK\x03\x04archive/data.pkl", "is an archive of Python objects, which only Python can read");
    check(b"not a model at all", "is neither a safetensors file (no header of JSON) nor an ONNX file");
    check(
        b"",
        "is neither a safetensors file (no header of JSON) nor an ONNX file (it is no ONNX model: it has no graph)",
    );
    let onnx = fs::read(reference("pretrained.onnx")).expect("kept with the tests");
    for length in (0..onnx.len()).step_by(97) {
        check(&onnx[..length], "nor an ONNX file");
    }
}

#[test]
fn the_folder_of_a_model_gives_its_weights_and_says_how_its_images_were_prepared() {
    let space = TestSpace::new();
    let cohort = cohort(&space);
    let first = train(&space, &cohort, small(), &[]);
    let mut params = small();
    params["pretrained"] = json!({ "file": first.dir("model") });
    params["freeze_first"] = json!(4);
    let second = train(&space, &cohort, params.clone(), &[]);
    let same = |name: &str| weights(&first).get(name) == weights(&second).get(name);
    assert!(same("encoder.1.norm1.bias") && !same("decoder.0.up.weight"));
    assert!(!second.warnings.iter().any(|text| text.contains("normalised")), "{:?}", second.warnings);
    cohort.edit_info(|info| info.preparation.normalization = Normalization::Zscore);
    let inputs = [("volumes", cohort.volumes.as_path()), ("split", cohort.split.as_path())];
    let text = space.run::<Train>(params.clone(), &inputs).expect_err("another scale").chain();
    assert!(text.contains("normalised by \"none\" but these volumes are normalised by \"zscore\""), "{text}");
    params["pretrained"] = json!({ "file": space.path() });
    let text = space.run::<Train>(params, &inputs).expect_err("no model").chain();
    assert!(text.contains("and not model.json and model.safetensors alone"), "{text}");
}

#[test]
fn one_network_at_most_is_taken_over_and_none_is_an_error() {
    let space = TestSpace::new();
    let params = module(&reference("pretrained.safetensors"));
    let other = {
        let run = train(&space, &cohort(&space), small(), &[]);
        run.dir("model").to_owned()
    };
    let text = refused(&space, &params, &[("pretrained", &other)]);
    assert!(text.contains("the input `pretrained` is wired and `pretrained.file` is"), "{text}");
    let mut params = module("");
    params["pretrained"] = json!({ "partial": true });
    let text = refused(&space, &params, &[]);
    assert!(text.contains("not which one: give `file`, or wire the input `pretrained`"), "{text}");
    params["pretrained"] = json!({ "names": { "body": "x" } });
    let found = problems::<Train>(params);
    assert_eq!(found[0].message, "`names` speaks of `body`, but no parameter of the network begins so");
}

#[test]
fn frozen_parts_without_a_network_to_begin_with_are_told() {
    let space = TestSpace::new();
    let mut params = small();
    params["freeze_first"] = json!(1);
    let run = train(&space, &cohort(&space), params, &[]);
    let told =
        "parts of the network are frozen but nothing is `pretrained`: they keep values drawn at random";
    assert!(run.warnings.iter().any(|text| text == told), "{:?}", run.warnings);
}
