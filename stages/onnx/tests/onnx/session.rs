//! Models and inputs that a session must refuse with a clear error.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use pipe_onnx::{Session, SessionError};

use crate::networks::{unet2d, unet3d};
use crate::{load_runtime, session};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, SessionError>, text: &str) {
    let message = result.expect_err("it must be refused").to_string();
    assert!(message.contains(text), "{message:?} does not contain {text:?}");
    assert!(!message.contains('\n'), "{message:?} has several lines");
}

#[test]
fn garbage_is_not_a_model() {
    load_runtime();
    let threads = NonZeroUsize::MIN;
    let model = unet2d().expect("valid");
    refused(Session::from_bytes(&[], threads), "the model of 0 bytes is not a model");
    refused(
        Session::from_bytes(b"hello, this is text", threads),
        "is not a model that ONNX Runtime can load",
    );
    refused(Session::from_bytes(&model[..model.len() / 2], threads), "is not a model");
    refused(Session::from_bytes(&[0xff; 4096], threads), "is not a model");
    refused(Session::from_file(Path::new("no/such.onnx"), threads), "cannot read the model `no/such.onnx`");
    refused(Session::from_file(&file("origin.json"), threads), "origin.json` is not a model");
}

/// Every byte of the structure is flipped once; the runtime may accept or refuse, the process must live.
#[test]
fn damaged_models_never_end_the_process() {
    load_runtime();
    let model = unet2d().expect("valid");
    for at in (0..model.len()).step_by(97).chain(0..64) {
        let mut damaged = model.clone();
        damaged[at] ^= 0x55;
        drop(Session::from_bytes(&damaged, NonZeroUsize::MIN));
    }
}

#[test]
fn models_of_other_programs_may_name_input_and_output_as_they_like() {
    load_runtime();
    let load = |name: &str| Session::from_file(&file(name), NonZeroUsize::MIN);
    let mut named = load("foreign_names.onnx").expect("one input and one output");
    let found = named.run(&[-1.0, 2.0], &[1, 1, 1, 2]).expect("runs");
    assert_eq!(found, (vec![0.0, 2.0], vec![1, 1, 1, 2]));
    refused(load("two_inputs.onnx"), "needs one input but has `input`, `other`");
    refused(load("two_outputs.onnx"), "needs one output, or one called `logits`, but has `fine`, `coarse`");
    refused(load("integer_input.onnx"), "must be a float32 tensor");
    refused(load("bad_divisor.onnx"), "`spatial_divisor` is `4,zero` but must be 2 numbers above 0");
    let fixed = load("fixed_shape.onnx").expect("its interface is right");
    assert_eq!(
        (fixed.interface().batch, fixed.interface().spatial.as_slice()),
        (Some(2), [Some(8), Some(8)].as_slice())
    );
}

#[test]
fn inputs_are_checked_before_they_run() {
    let mut session = session(&unet3d().expect("valid"));
    let mut run = |values: usize, shape: &[usize]| session.run(&vec![0.0; values], shape);
    refused(run(64, &[1, 1, 8, 8]), "it has 4 axes but the model takes 5");
    refused(run(63, &[1, 1, 4, 4, 4]), "it has 63 values");
    refused(run(128, &[1, 2, 4, 4, 4]), "the channels axis is 2 but must be 1");
    refused(run(96, &[1, 1, 4, 4, 6]), "the width axis is 6, which does not divide by 4");
    refused(run(16, &[1, 1, 1, 4, 4]), "the depth axis is 1, which does not divide by 2");
    refused(run(0, &[0, 1, 4, 4, 4]), "0 values");
    refused(run(0, &[usize::MAX, 1, usize::MAX, 4, 4]), "0 values");
    assert!(run(32, &[1, 1, 2, 4, 4]).is_ok(), "a session is usable after errors");
}

#[test]
fn sessions_run_in_parallel_and_agree() {
    let model = unet2d().expect("valid");
    let data = crate::networks::values(3, 2 * 16 * 16, 1.0, 0.0);
    let run = || session(&model).run(&data, &[1, 2, 16, 16]).expect("it runs").0;
    let expected = run();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        for worker in workers {
            assert_eq!(worker.join().expect("no panic"), expected);
        }
    });
}
