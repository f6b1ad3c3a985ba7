//! Kills at any moment: nothing is lost, nothing is wrong, the next run ends with the same bytes.

use crate::space::TestSpace;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

/// How often a run is killed. `PIPE_TEST_KILLS` changes it; 200 take a minute and a half on two cores.
const KILLS: u32 = 40;

/// Ten chains of five stages. Each stage reads the one before and one line of `seeds/`, so that an edit
/// of one seed leaves work in one chain, from the third stage on.
fn fifty_stages() -> TestSpace {
    let mut text = "name: fifty\nstages:\n".to_owned();
    for chain in 0..10 {
        for step in 0..5 {
            let (input, read) = match step {
                0 => (String::new(), String::new()),
                _ => (
                    format!("    in: {{ before: s{chain}_{} }}\n", step - 1),
                    "cat in/before/f > out/o/f; ".to_owned(),
                ),
            };
            let (file, seed) = match step {
                2 => (format!("      files: [seeds/{chain}]\n"), format!("cat seeds/{chain} >> out/o/f; ")),
                _ => Default::default(),
            };
            write!(
                text,
                "  s{chain}_{step}:\n    uses: command\n{input}    with:\n{file}      outputs: [o]\n      \
                 environment: [DIR]\n      run: '{read}{seed}echo {chain}.{step} | tee -a \"$DIR/stages.log\" >> out/o/f'\n"
            )
            .unwrap();
        }
    }
    let space = TestSpace::new(&text);
    for chain in 0..10 {
        space.write(&format!("seeds/{chain}"), "0\n");
    }
    space
}

/// What must stand in `results/` for these seeds.
fn expected(seeds: &[u64; 10]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (chain, seed) in seeds.iter().enumerate() {
        let mut content = String::new();
        for step in 0..5 {
            if step == 2 {
                writeln!(content, "{seed}").unwrap();
            }
            writeln!(content, "{chain}.{step}").unwrap();
            files.insert(format!("s{chain}_{step}/o/f"), content.clone());
        }
    }
    files
}

fn found(space: &TestSpace) -> BTreeMap<String, String> {
    let read = |file: String| (file.clone(), space.read(&format!("results/fifty/{file}")));
    space.files("results/fifty").into_iter().map(read).collect()
}

/// The stages whose programs ran since it was asked last, sorted.
fn ran(space: &TestSpace) -> Vec<String> {
    let log = fs::read_to_string(space.path("stages.log")).unwrap_or_default();
    let _ = fs::remove_file(space.path("stages.log"));
    let mut ran: Vec<_> = log.lines().map(str::to_owned).collect();
    ran.sort();
    ran
}

/// Numbers below `below` that are spread like random ones and are the same in every test run.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 (SplitMix64).
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below
}

#[test]
fn a_run_killed_at_any_moment_is_finished_by_the_next_with_the_same_bytes() {
    let kills = std::env::var("PIPE_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let space = fifty_stages();
    space.run(&["-j", "2"]).code(0);
    let mut seeds = [0; 10];
    assert_eq!(found(&space), expected(&seeds));
    let mut state = 20_260_301;
    let mut whole_run = Duration::ZERO;
    let mut midway = 0;
    for kill in 0..kills {
        // Three chains have work to do.
        for _ in 0..3 {
            let chain = random(&mut state, 10);
            seeds[chain as usize] = u64::from(kill) + 1;
            space.write(&format!("seeds/{chain}"), format!("{}\n", kill + 1));
        }
        if kill == 0 {
            // How long it takes here, when nobody kills it.
            let since = Instant::now();
            space.run(&["-j", "2"]).code(0);
            whole_run = since.elapsed();
            continue;
        }
        ran(&space);
        let running = space.start(&["-j", "2"]);
        std::thread::sleep(whole_run.mul_f64(random(&mut state, 1_000) as f64 / 1_000.0));
        running.signal("KILL");
        let killed = running.finish().code.is_none();
        midway += u32::from(killed && !ran(&space).is_empty());
        if kill % 4 == 0 {
            space.run(&["-j", "2"]).code(0);
            assert_eq!(found(&space), expected(&seeds), "after kill {kill}");
        }
    }
    space.run(&["-j", "2"]).code(0);
    assert_eq!(found(&space), expected(&seeds));
    assert!(midway * 4 > kills, "only {midway} of {kills} kills met a run at work");
    space.run(&[]).code(0).says("nothing to do");
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
    space.pipe(&["gc", "--yes", "--grace", "0s"]).code(0);
    for folder in ["work", "tmp", "quarantine", "checkpoints"] {
        let left = fs::read_dir(space.path(".pipe").join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder}: {:?}", space.files(&format!(".pipe/{folder}")));
    }
    space.run(&[]).code(0).says("nothing to do");
}

#[test]
fn eight_processes_at_once_run_each_stage_once() {
    let space = fifty_stages();
    let running: Vec<_> = (0..8).map(|_| space.start(&["-j", "2"])).collect();
    for process in running {
        process.finish().code(0);
    }
    let each: Vec<_> = (0..10).flat_map(|chain| (0..5).map(move |step| format!("{chain}.{step}"))).collect();
    assert_eq!(ran(&space), each);
    assert_eq!(found(&space), expected(&[0; 10]));
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
}
