//! Numbers without a pattern, and comparisons that say where they fail.

use pipe_nn::Geometry;

/// The first CUDA device, opened once a thread. Tests that are built for CUDA need one.
#[cfg(feature = "cuda")]
pub(crate) fn cuda() -> pipe_nn::CudaBackend {
    thread_local! {
        static DEVICE: pipe_nn::CudaBackend =
            pipe_nn::open_cuda(0).expect("tests built with `--features cuda` need a device");
    }
    DEVICE.with(Clone::clone)
}

/// Numbers in [-1, 1) from a linear congruential generator: the same on every machine.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn geometry(samples: usize, size: [usize; 3]) -> Geometry {
    Geometry { samples, size }
}

/// Asserts that the largest difference is at most `tolerance` times the largest expected magnitude.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        let error = (a - b).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}[{index}] is {a}, expected {b}: {error:e} of the largest, {scale}"
        );
    }
}

/// The bits, for comparisons that must be exact.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs on a pool of `threads`.
pub(crate) fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool starts").install(run)
}
