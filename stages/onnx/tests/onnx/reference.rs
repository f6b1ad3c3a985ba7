//! Files written by the builder and run by ONNX Runtime against PyTorch's values for the same networks.

use std::path::Path;

use pipe_onnx::BuildError;

use crate::networks::{classifier2d, shallow2d, unet2d, unet3d, values};
use crate::{assert_close, session};

/// Reads a little-endian float32 file of `tests/reference`.
pub(crate) fn reference(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
    let bytes = std::fs::read(path).expect("the reference file");
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect()
}

/// Logits are of order 1, sums run over at most 300 products, and both sides may sum in any order: 2e-5 absolute.
#[track_caller]
fn check(name: &str, model: Result<Vec<u8>, BuildError>, seed: i64, input: &[usize], output: &[usize]) {
    let model = model.expect("the network is valid");
    // For `make.py check`, which runs onnx.checker over what was written.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join(format!("{name}.onnx")), &model).expect("the model is written");

    let data = values(seed, input.iter().product(), 2.0, 0.0);
    let (logits, shape) = session(&model).run(&data, input).expect("the model runs");
    assert_eq!(shape, output);
    assert_close(&logits, &reference(&format!("{name}.f32")), 2e-5);
}

#[test]
fn a_2d_unet_gives_the_logits_of_pytorch() {
    check("unet2d", unet2d(), 101, &[2, 2, 8, 12], &[2, 3, 8, 12]);
}

#[test]
fn a_3d_unet_gives_the_logits_of_pytorch() {
    check("unet3d", unet3d(), 102, &[1, 1, 4, 8, 12], &[1, 2, 4, 8, 12]);
}

#[test]
fn a_classifier_of_two_averaged_heads_gives_the_logits_of_pytorch() {
    check("classifier2d", classifier2d(), 103, &[3, 1, 16, 24], &[3, 3]);
}

#[test]
fn one_file_runs_at_any_batch_and_spatial_size() {
    let model = shallow2d().expect("the network is valid");
    let mut session = session(&model);
    for shape in [[1, 1, 5, 7], [3, 1, 9, 4], [1, 1, 1, 1]] {
        let data = values(7, shape.iter().product(), 2.0, 0.0);
        let (_, found) = session.run(&data, &shape).expect("the model runs");
        assert_eq!(found, [shape[0], 2, shape[2], shape[3]]);
    }
}
