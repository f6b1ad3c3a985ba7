//! The crate's only integration-test binary. Every test that runs a model needs the real ONNX Runtime and gets it the
//! way a user does: found on the machine, or fetched with pip once.

mod merge;
mod networks;
mod predict;
mod reference;
mod runtime;
mod session;
mod writer;

use std::num::NonZeroUsize;

use pipe_onnx::{Policy, Session};

/// Loads a model, after making sure that there is a runtime. There is no skipping: without one, tests fail.
#[track_caller]
fn session(model: &[u8]) -> Session {
    load_runtime();
    Session::from_bytes(model, NonZeroUsize::MIN).expect("the model loads")
}

#[track_caller]
#[expect(clippy::print_stderr, reason = "a fetch must be visible in the output of a test run, too")]
fn load_runtime() {
    pipe_onnx::runtime::load(&Policy::from_environment(), &mut |line| eprintln!("{line}"))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        worst <= tolerance && found.iter().all(|v| !v.is_nan()),
        "the largest difference is {worst}, above {tolerance}"
    );
}
