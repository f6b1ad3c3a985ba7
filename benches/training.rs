//! Trains a U-Net on noise for a few steps, for `benches/peers/training.py`, which compares the step with PyTorch's.
//!
//! `training NETWORK STEPS THREADS [DEVICE]`, where NETWORK is `unet2d`, `unet3d` or `nnunet`, and DEVICE `cpu` unless given.
//! Prints the number of trained values, then for each step its CPU time and its wall time in milliseconds, then what the
//! process held before the first step and at most, in KiB (Linux only; memory of the processor).

use std::error::Error;
use std::time::Instant;

use pipe_nn::{
    Adam, Augment, Case, Clip, Device, DiceCe, Dims, Down, Io, Loss, Network, Optimizer, Progress, Sgd,
    TrainConfig, TrainJob, UNet, train_with,
};
use rustix::time::{ClockId, clock_gettime};

/// What is trained: the network, the size of its batch, the optimiser.
struct Work {
    network: Network,
    size: [usize; 3],
    batch_size: usize,
    optimizer: Optimizer,
}

const CLASSES: usize = 3;

fn work(name: &str) -> Result<Work, Box<dyn Error>> {
    let adam = Optimizer::Adam(Adam::default());
    let (unet, dims, size, batch_size, optimizer) = match name {
        "unet2d" => (UNet { base_features: Some(16), ..UNet::default() }, Dims::Two, [1, 64, 64], 8, adam),
        "unet3d" => (UNet { base_features: Some(8), ..UNet::default() }, Dims::Three, [32, 48, 32], 2, adam),
        // The plan of nnU-Net 2 for Task04_Hippocampus, 3d_fullres.
        "nnunet" => (
            UNet {
                levels: 4,
                base_features: Some(32),
                max_features: 320,
                down: Down::Stride,
                deep_supervision: true,
                ..UNet::default()
            },
            Dims::Three,
            [40, 56, 40],
            2,
            Optimizer::Sgd(Sgd { momentum: 0.99, nesterov: true, decoupled: false }),
        ),
        other => return Err(format!("`{other}` is no network: unet2d, unet3d or nnunet").into()),
    };
    Ok(Work {
        network: unet.network(dims, Io { channels: 1, classes: CLASSES, size })?,
        size,
        batch_size,
        optimizer,
    })
}

/// Volumes of noise with labels of noise; in 2D one volume with a slice for each sample.
fn cases(work: &Work, samples: usize) -> Vec<Case> {
    let (count, depth) = match work.network.dims {
        Dims::Two => (1, samples),
        Dims::Three => (samples, work.size[0]),
    };
    let shape = [depth, work.size[1], work.size[2]];
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    // Every sample shares one volume: cases need memory of their own in no engine.
    let voxels = shape.iter().product::<usize>();
    let image: std::sync::Arc<[f32]> = (0..voxels).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect();
    let label: std::sync::Arc<[u8]> = (0..voxels).map(|_| (next() % CLASSES as u64) as u8).collect();
    let case = |index| Case { id: format!("c{index}"), shape, image: image.clone(), label: label.clone() };
    (0..count).map(case).collect()
}

#[expect(clippy::print_stdout, reason = "the script reads it")]
fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (name, steps, threads, device) = match &arguments[..] {
        [name, steps, threads] => (name, steps, threads, Device::Cpu),
        [name, steps, threads, device] => (name, steps, threads, device.parse()?),
        _ => return Err("use: training unet2d|unet3d|nnunet STEPS THREADS [cpu|cuda]".into()),
    };
    let processor = device.choose(0)?.processor;
    let (work, steps) = (work(name)?, steps.parse::<usize>()?);
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let cases = cases(&work, steps * work.batch_size);
    let config = TrainConfig {
        epochs: 1,
        batch_size: work.batch_size,
        optimizer: work.optimizer,
        loss: Loss::DiceCe(DiceCe::default()),
        learning_rate: 1e-3,
        weight_decay: 1e-5,
        clip: Clip { norm: Some(12.0), value: None },
        augmentation: Augment::none(),
        patch: Some(work.size),
        ..TrainConfig::for_dims(work.network.dims)
    };
    let job = TrainJob {
        network: &work.network,
        training: &cases,
        validation: &Vec::<Case>::new(),
        config: &config,
        start: None,
        checkpoint_dir: None,
    };
    println!("{} values", work.network.trained_count());
    let before = memory("VmRSS:")?;
    let mut last = (cpu_milliseconds(), Instant::now());
    train_with(
        processor,
        &job,
        &mut |progress| {
            if let Progress::Step { .. } = progress {
                let now = (cpu_milliseconds(), Instant::now());
                println!("{:.3} {:.3}", now.0 - last.0, (now.1 - last.1).as_secs_f64() * 1e3);
                last = now;
            }
        },
        &|| false,
    )?;
    println!("{before} {}", memory("VmHWM:")?);
    Ok(())
}

/// CPU time of all threads of this process.
fn cpu_milliseconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// A line of the kernel's account of this process, in KiB.
fn memory(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel tells no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
