//! Looks once at everything that a state watches.

use super::stored::View;
use pipe_cache::Watched;
use rustix::fs::CWD;
use std::fs::File;
use std::os::fd::AsFd;

/// What of all that is watched is as it was.
pub(super) struct Held {
    /// The pipeline, its parameter files and its lock file.
    pub(super) files: bool,
    /// By stage, what it reads.
    pub(super) reads: Vec<bool>,
    /// By stage, its results.
    pub(super) placed: Vec<bool>,
}

impl Held {
    /// Looks at everything once. `None` if the state contradicts itself.
    pub(super) fn look(view: &View<'_>) -> Option<Self> {
        let stages = view.head.stages as usize;
        let table = view.table();
        let mut needed = vec![false; table.len()];
        for &place in (0..stages).flat_map(|node| view.reads(node)) {
            *needed.get_mut(place as usize)? = true;
        }
        let mut reads: Vec<&Watched<'_>> =
            table.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(watched, _)| *watched).collect();
        let read_by_stages = reads.len();
        reads.extend(&view.tail().files);
        let holds = look_at(&reads, |watched| watched.holds(CWD));
        let (holds, files) = holds.split_at(read_by_stages);
        // Back to the places in the table. What no stage reads any more does not matter.
        let mut holds = holds.iter();
        let of_table: Vec<bool> =
            needed.iter().map(|needed| !needed || holds.next() == Some(&true)).collect();
        let placed: Vec<&Watched<'_>> = (0..stages).flat_map(|node| view.placed(node)).collect();
        // What is relative to a folder is found faster from that folder.
        let stands = match File::open(&*view.head.results) {
            Ok(results) => look_at(&placed, |watched| watched.holds(results.as_fd())),
            Err(_) => vec![false; placed.len()],
        };
        let mut rest = &stands[..];
        let mut stand = |node: usize| {
            let (of_stage, others) = rest.split_at(view.placed(node).len());
            rest = others;
            of_stage.iter().all(|stands| *stands)
        };
        Some(Self {
            files: files.iter().all(|holds| *holds),
            placed: (0..stages).map(&mut stand).collect(),
            reads: (0..stages)
                .map(|node| view.reads(node).iter().all(|&place| of_table[place as usize]))
                .collect(),
        })
    }
}

/// A thread is worth its start for so many paths.
const PATHS_A_THREAD: usize = 700;

/// Looks at many paths on a few threads. They are started here: a pool would cost more than a small pipeline takes.
fn look_at<'w>(watched: &[&Watched<'w>], look: impl Fn(&Watched<'w>) -> bool + Sync) -> Vec<bool> {
    let most = watched.len() / PATHS_A_THREAD;
    let threads = if most > 1 {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4).min(most)
    } else {
        1
    };
    let mut holds = vec![false; watched.len()];
    let look_at_part = |watched: &[&Watched<'w>], holds: &mut [bool]| {
        for (watched, holds) in watched.iter().zip(holds) {
            *holds = look(watched);
        }
    };
    let part = watched.len().div_ceil(threads).max(1);
    let mut parts = watched.chunks(part).zip(holds.chunks_mut(part));
    let own = parts.next();
    std::thread::scope(|scope| {
        for (watched, holds) in parts {
            scope.spawn(move || look_at_part(watched, holds));
        }
        if let Some((watched, holds)) = own {
            look_at_part(watched, holds);
        }
    });
    holds
}
