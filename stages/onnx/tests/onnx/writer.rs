//! What the graph builder refuses, and what it writes.

use pipe_onnx::writer::DIVISOR_KEY;
use pipe_onnx::{BuildError, Dims, GraphBuilder, Value, Weights, Window};

use crate::networks::{classifier2d, unet2d, unet3d};
use crate::session;

fn graph() -> (GraphBuilder, Value) {
    let graph = GraphBuilder::new("test", 2, Dims::Two).expect("a graph");
    let input = graph.input();
    (graph, input)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, BuildError>, text: &str) {
    let message = result.expect_err("it must be refused").to_string();
    assert!(message.contains(text), "{message:?} does not contain {text:?}");
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    assert_eq!(unet3d().expect("valid"), unet3d().expect("valid"));
}

#[test]
fn the_divisor_follows_from_the_graph() {
    for (model, divisor) in [(unet2d(), [2, 2].as_slice()), (unet3d(), &[2, 4, 4]), (classifier2d(), &[4, 4])]
    {
        let session = session(&model.expect("valid"));
        let interface = session.interface();
        assert_eq!(interface.divisor, divisor);
        let text: Vec<String> = divisor.iter().map(ToString::to_string).collect();
        assert_eq!(interface.metadata[DIVISOR_KEY], text.join(","));
    }
}

#[test]
fn metadata_and_axes_are_read_back() {
    let session = session(&unet2d().expect("valid"));
    let interface = session.interface();
    assert_eq!(interface.metadata["labels"], "background,anterior,posterior");
    assert_eq!((interface.dims, interface.channels, interface.classes), (Dims::Two, Some(2), Some(3)));
    assert_eq!((interface.batch, interface.spatial.as_slice()), (None, [None, None].as_slice()));
}

#[test]
fn the_input_itself_and_a_value_used_twice_can_be_the_output() {
    let (graph, input) = graph();
    let (logits, _) =
        session(&graph.build(&input).expect("valid")).run(&[1.0, 2.0], &[1, 2, 1, 1]).expect("runs");
    assert_eq!(logits, [1.0, 2.0]);

    let (mut graph, input) = self::graph();
    let sum = graph.add(&input, &input).expect("valid");
    graph.relu(&sum).expect("valid");
    let (logits, _) =
        session(&graph.build(&sum).expect("valid")).run(&[1.0, 2.0], &[1, 2, 1, 1]).expect("runs");
    assert_eq!(logits, [2.0, 4.0]);
}

#[test]
fn sigmoid_and_nearest_enlargement_give_the_worked_values() {
    let (mut graph, input) = graph();
    let s = graph.sigmoid(&input).expect("valid");
    let r = graph.resize_nearest(&s, &[1, 3]).expect("valid");
    let (found, shape) = session(&graph.build(&r).expect("valid"))
        .run(&[0.0, 3.0_f32.ln(), 0.0, 0.0], &[1, 2, 1, 2])
        .expect("runs");
    assert_eq!(shape, [1, 2, 1, 6]);
    for (found, expected) in found.iter().zip([0.5, 0.5, 0.5, 0.75, 0.75, 0.75]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn weights_must_fit_their_shape_and_their_input() {
    let (mut graph, input) = graph();
    let same = Window::same(&[1, 1], &[1, 1]);
    let weight = |shape, values| Weights { shape, values };
    refused(graph.conv("a", &input, weight(&[1, 2, 1, 1], &[1.0]), None, &same), "`a.weight` has 1 values");
    refused(
        graph.conv("b", &input, weight(&[1, 3, 1, 1], &[1.0; 3]), None, &same),
        "[1, 3, 1, 1] but [out, 2 / 1",
    );
    refused(graph.conv("c", &input, weight(&[1, 2, 1], &[1.0; 2]), None, &same), "[1, 2, 1]");
    let bias = Some([0.0; 2].as_slice());
    refused(graph.conv("d", &input, weight(&[1, 2, 1, 1], &[1.0; 2]), bias, &same), "`d.bias` has 2 values");
    refused(graph.conv("e", &input, weight(&[1, 2, 1, 1], &[1.0, f32::NAN]), None, &same), "NaN at index 1");
    refused(graph.conv("f", &input, weight(&[1, usize::MAX, 2, 1], &[1.0]), None, &same), "but [out, 2 / 1");
    refused(graph.conv("g", &input, weight(&[0, 2, 1, 1], &[]), None, &same), "[0, 2, 1, 1]");
    refused(
        graph.conv_transpose("h", &input, weight(&[1, 2, 1, 1], &[1.0; 2]), None, &same),
        "but [2, out, kernel, kernel]",
    );
    refused(graph.instance_norm("i", &input, &[1.0], &[1.0], 1e-5), "`i.weight` has 1 values");
    refused(graph.instance_norm("j", &input, &[1.0; 2], &[1.0; 2], 0.0), "epsilon is 0");
    refused(
        graph.batch_norm("k", &input, [&[1.0; 2], &[1.0; 2], &[1.0; 2], &[-1.0; 2]], 1e-5),
        "variance is -1",
    );
    refused(graph.dense("l", &input, weight(&[1, 2], &[1.0; 2]), None), "2 spatial axes but 0");
}

#[test]
fn windows_that_lose_voxels_are_refused() {
    let (mut graph, input) = graph();
    let mut conv = |kernel: usize, window: &Window| {
        let values = vec![0.5; 2 * kernel * kernel];
        let weight = Weights { shape: &[1, 2, kernel, kernel], values: &values };
        graph.conv("conv", &input, weight, None, window)
    };
    refused(conv(3, &Window::tight(&[1, 1])), "do not map n voxels to n / 1 on spatial axis 0");
    refused(conv(1, &Window { padding: vec![1, 1], ..Window::tight(&[1, 1]) }), "padding 1");
    refused(conv(1, &Window::tight(&[1, 0])), "stride 0");
    refused(conv(1, &Window::tight(&[1])), "the stride has 1 spatial axes but 2");
    refused(conv(1, &Window { groups: 0, ..Window::tight(&[1, 1]) }), "groups is 0");
    let values = [0.5; 18];
    let weight = Weights { shape: &[2, 1, 3, 3], values: &values };
    refused(graph.conv_transpose("up", &input, weight, None, &Window::tight(&[2, 2])), "n · 2");
    refused(graph.resize_nearest(&input, &[2, 0]), "factor of 0");
    refused(graph.max_pool(&input, &[3, 3], &Window::tight(&[2, 2])), "n / 2");
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    let (mut graph, input) = graph();
    let half = graph.max_pool(&input, &[2, 2], &Window::tight(&[2, 2])).expect("valid");
    refused(graph.concat(&[&input, &half]), "on spatial axis 0, `input` is 1 of the input's size but");
    let twice = graph.concat(&[&input, &input]).expect("valid");
    refused(graph.add(&input, &twice), "4 channels but 2");
    refused(graph.mean(&[]), "inputs is 0");
    let pooled = graph.global_average_pool(&input).expect("valid");
    refused(
        graph.relu(&pooled).and_then(|value| graph.max_pool(&value, &[2, 2], &Window::tight(&[2, 2]))),
        "0 spatial",
    );
    let (other, _) = self::graph();
    refused(other.build(&half), "not part of this graph");
}

#[test]
fn names_are_used_once() {
    let (mut graph, input) = graph();
    graph.instance_norm("norm", &input, &[1.0; 2], &[1.0; 2], 1e-5).expect("valid");
    refused(graph.instance_norm("norm", &input, &[1.0; 2], &[1.0; 2], 1e-5), "`norm.weight` is used twice");
    refused(graph.metadata(DIVISOR_KEY, "1,1"), "used twice");
    graph.metadata("a", "b").expect("first");
    refused(graph.metadata("a", "c"), "`a` is used twice");
    assert!(GraphBuilder::new("none", 0, Dims::Two).is_err());
}
