//! Scores pairs of raw label maps a number of times, on one thread, for `benches/peers/metrics.py` to time:
//!
//! `score_pairs REPEATS LIST` where each line of LIST is `reference prediction z y x mm_z mm_y mm_x labels…`.
//!
//! Prints Dice, HD95, ASSD and NSD at 1 mm of every label, so that the script can tell that the work is the same.

use std::process::ExitCode;

use pipe_metrics::grid::Grid;
use pipe_metrics::segmentation::{OneEmpty, Settings, score};

struct Pair {
    reference: Vec<u8>,
    prediction: Vec<u8>,
    grid: Grid,
    labels: Vec<u8>,
}

fn pair(line: &str) -> Result<Pair, Box<dyn std::error::Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [reference, prediction, z, y, x, mm_z, mm_y, mm_x, labels @ ..] = words.as_slice() else {
        return Err(format!("`{line}` has {} words: at least 8 are needed", words.len()).into());
    };
    Ok(Pair {
        reference: std::fs::read(reference)?,
        prediction: std::fs::read(prediction)?,
        grid: Grid::new([z.parse()?, y.parse()?, x.parse()?], [mm_z.parse()?, mm_y.parse()?, mm_x.parse()?])?,
        labels: labels.iter().map(|label| label.parse()).collect::<Result<_, _>>()?,
    })
}

#[expect(clippy::print_stdout, reason = "its output is what the script reads")]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repeats, list] = arguments.as_slice() else { return Err("usage: score_pairs REPEATS LIST".into()) };
    let pairs: Vec<Pair> = std::fs::read_to_string(list)?.lines().map(pair).collect::<Result<_, _>>()?;
    // The libraries are compared with what they do of an empty mask.
    let settings = Settings { one_empty: OneEmpty::Library, ..Settings::default() };
    for repeat in 0..repeats.parse::<usize>()? {
        for Pair { reference, prediction, grid, labels } in &pairs {
            let scored = std::hint::black_box(score(reference, prediction, grid, labels, &settings)?);
            if repeat == 0 {
                for score in scored.scores {
                    let numbers: Vec<String> =
                        score.values.iter().map(|value| value.number.to_string()).collect();
                    println!("{}", numbers.join(" "));
                }
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program that fails says why")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
