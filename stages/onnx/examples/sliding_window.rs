//! Times the sliding window on one volume, round by round, for `benches/peers/predict.py`.
//!
//! Patches lie and count as in MONAI.
//!
//! ```text
//! sliding_window MODEL.onnx VOLUME.f32 C Z Y X PATCH OVERLAP BLEND SESSIONS THREADS PROBABILITIES.f32
//! ```
//!
//! Runs a round for each line on stdin and answers with wall and CPU seconds; the first round also writes the
//! probabilities. `SESSIONS` tiles run at the same time, each with `THREADS` threads.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::io::BufRead;
use std::num::NonZeroUsize;
use std::time::Instant;

use pipe_onnx::{Blend, Planes, Policy, PredictOptions, Session, Tiling, softmax};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, volume, c, z, y, x, patch, overlap, blend, sessions, threads, output] = arguments.as_slice()
    else {
        return Err("needs 12 arguments: see the first lines of the source".into());
    };
    let shape = [c.parse()?, z.parse()?, y.parse()?, x.parse()?];
    let patch: usize = patch.parse()?;
    let options = PredictOptions {
        overlap: overlap.parse()?,
        blend: match blend.as_str() {
            "gaussian" => Blend::Gaussian,
            "constant" => Blend::Constant,
            other => return Err(format!("`{other}` is no blend: gaussian or constant").into()),
        },
        tiling: Tiling::Monai,
        ..PredictOptions::new([patch; 3])
    };
    let volume: Vec<f32> =
        fs_err::read(volume)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    pipe_onnx::runtime::load(&Policy::from_environment(), &mut |_| {})?;
    let threads: NonZeroUsize = threads.parse()?;
    let bytes = fs_err::read(model)?;
    let mut sessions = (0..sessions.parse()?)
        .map(|_| Session::from_bytes(&bytes, threads))
        .collect::<Result<Vec<_>, _>>()?;

    let mut first = true;
    for line in std::io::stdin().lock().lines() {
        line?;
        let (wall, cpu) = (Instant::now(), cpu_seconds()?);
        let mut planes = Planes::new(&mut sessions, &volume, shape, &options)?;
        let mut probabilities = Vec::new();
        for _ in 0..shape[1] {
            let mut plane = planes.next_plane()?;
            let classes = plane.len() / (shape[2] * shape[3]);
            softmax(&mut plane, classes).map_err(|at| format!("no softmax at {at}"))?;
            probabilities.push(plane);
        }
        println!("{} {}", wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        if std::mem::take(&mut first) {
            // Planes of classes: [z, classes, y, x].
            let bytes: Vec<u8> =
                probabilities.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
            fs_err::write(output, bytes)?;
        }
    }
    Ok(())
}

/// User and system time of this process, in ticks of 1/100 s as Linux tells them.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs_err::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit_once(')').ok_or("no such format")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
