//! Several models as one.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_onnx::merge::{Mean, MergeError, merge};
use pipe_onnx::{Dims, GraphBuilder, Weights, Window, softmax};

use crate::networks::{shallow2d, unet2d, unet3d, values};
use crate::{assert_close, session};

/// A convolution with the shape of [`shallow2d`] and other weights.
fn other2d() -> Vec<u8> {
    let mut graph = GraphBuilder::new("other", 1, Dims::Two).expect("a graph");
    let weight = values(77, 18, 3.0, 0.0);
    let weight = Weights { shape: &[2, 1, 3, 3], values: &weight };
    let window = Window::same(&[3, 3], &[1, 1]);
    let output = graph.conv("conv", &graph.input(), weight, Some(&[0.5, -0.5]), &window).expect("valid");
    graph.metadata("labels", "background,other").expect("free");
    graph.build(&output).expect("valid")
}

#[test]
fn the_whole_computes_the_weighted_mean_of_its_members() {
    let members = [shallow2d().expect("valid"), other2d()];
    let (volume, shape) = (values(5, 6 * 10, 2.0, 0.0), [1, 1, 6, 10]);
    let weighted: Vec<(&[u8], f64)> = members.iter().map(Vec::as_slice).zip([1.0, 3.0]).collect();
    for mean in [Mean::Probabilities, Mean::Logits] {
        let mut expected = vec![0.0; 2 * volume.len()];
        for (bytes, weight) in &weighted {
            let mut own = session(bytes).run(&volume, &shape).expect("runs").0;
            if mean == Mean::Probabilities {
                softmax(&mut own, 2).expect("finite");
            }
            expected.iter_mut().zip(own).for_each(|(sum, own)| *sum += own * (*weight as f32) / 4.0);
        }
        let metadata = BTreeMap::from([("members".to_owned(), "two".to_owned())]);
        let whole = merge(&weighted, mean, &metadata).expect("one input, one output");
        let mut whole = session(&whole);
        assert_eq!(whole.interface().metadata["members"], "two");
        assert!(!whole.interface().metadata.contains_key("labels"));
        let (mut found, found_shape) = whole.run(&volume, &shape).expect("runs");
        assert_eq!(found_shape, [1, 2, 6, 10]);
        if mean == Mean::Probabilities {
            softmax(&mut found, 2).expect("finite");
        }
        assert_close(&found, &expected, 1e-5);
    }
}

#[test]
fn sizes_of_the_whole_divide_by_what_every_member_needs() {
    let model = unet3d().expect("valid");
    let whole = merge(&[(&model, 1.0), (&model, 1.0)], Mean::Logits, &BTreeMap::new()).expect("the same");
    assert_eq!(session(&whole).interface().divisor, session(&model).interface().divisor);
}

#[test]
fn what_cannot_be_one_model_is_refused() {
    #[track_caller]
    fn check(models: &[&[u8]], text: &str) {
        let weighted: Vec<(&[u8], f64)> = models.iter().map(|model| (*model, 1.0)).collect();
        let error = merge(&weighted, Mean::Logits, &BTreeMap::new()).expect_err("refused").to_string();
        assert!(error.contains(text), "{error:?} does not contain {text:?}");
    }
    let (shallow, unet) = (shallow2d().expect("valid"), unet2d().expect("valid"));
    assert_eq!(merge(&[], Mean::Logits, &BTreeMap::new()), Err(MergeError::Empty));
    check(
        &[&shallow, &unet],
        "model 1 has an input of [[None, Some(2), None, None]] but model 0 has [[None, Some(1)",
    );
    check(&[&shallow, b"\xff\xff\xff"], "model 1 is no ONNX model");
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixed_shape.onnx");
    let foreign = std::fs::read(foreign).expect("there");
    check(&[&foreign, &foreign], "model 0");
}
