//! Additions, column sums and the joining and splitting of channels, over channels-last rows.

use rayon::prelude::*;

use super::MAX_PARTS;

/// Values per task.
const CHUNK: usize = 1 << 15;
/// Rows per task.
const ROWS: usize = 4096;

/// `to += from`.
pub(crate) fn add_assign(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "internal error: lengths of a sum");
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += *from);
    });
}

/// Adds the sum over all rows of `x`: `[rows, columns]` to `to`: `[columns]`, in parts that the size alone defines.
pub(crate) fn column_sums(x: &[f32], to: &mut [f32]) {
    let columns = to.len();
    let rows = x.len() / columns;
    let parts: Vec<Vec<f32>> = (0..MAX_PARTS)
        .into_par_iter()
        .map(|part| {
            let mut sums = vec![0.0; columns];
            let range = rows * part / MAX_PARTS * columns..rows * (part + 1) / MAX_PARTS * columns;
            for row in x[range].chunks_exact(columns) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value);
            }
            sums
        })
        .collect();
    for part in parts {
        to.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
}

/// Joins `[rows, a]` and `[rows, b]` to `[rows, a + b]`.
pub(crate) fn concat([first, second]: [&[f32]; 2], [a, b]: [usize; 2], joined: &mut [f32]) {
    assert_eq!(joined.len(), first.len() + second.len(), "internal error: joined length");
    let sources = first.par_chunks(ROWS * a).zip(second.par_chunks(ROWS * b));
    joined.par_chunks_mut(ROWS * (a + b)).zip(sources).for_each(|(joined, (first, second))| {
        let rows = joined.chunks_exact_mut(a + b);
        for (row, (first, second)) in rows.zip(first.chunks_exact(a).zip(second.chunks_exact(b))) {
            row[..a].copy_from_slice(first);
            row[a..].copy_from_slice(second);
        }
    });
}

/// The inverse of [`concat()`].
pub(crate) fn split(joined: &[f32], [first, second]: [&mut [f32]; 2], [a, b]: [usize; 2]) {
    assert_eq!(joined.len(), first.len() + second.len(), "internal error: joined length");
    let targets = first.par_chunks_mut(ROWS * a).zip(second.par_chunks_mut(ROWS * b));
    joined.par_chunks(ROWS * (a + b)).zip(targets).for_each(|(joined, (first, second))| {
        let rows = joined.chunks_exact(a + b);
        for (row, (first, second)) in rows.zip(first.chunks_exact_mut(a).zip(second.chunks_exact_mut(b))) {
            first.copy_from_slice(&row[..a]);
            second.copy_from_slice(&row[a..]);
        }
    });
}
