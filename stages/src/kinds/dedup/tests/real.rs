//! Real data, with what is known about it from elsewhere.

use super::*;
use crate::testing::real_data;
use std::time::Instant;

fn hippocampus(space: &TestSpace) -> Option<CaseTable> {
    let root = real_data("Task04_Hippocampus")?;
    let run = space.run::<Import>(json!({ "from": root }), &[]).expect("the import goes through");
    Some(run.load(&import::CASES))
}

/// Number at the end of a case name.
fn number(id: &str) -> usize {
    id.rsplit('_').next().and_then(|digits| digits.parse().ok()).expect("hippocampus cases have numbers")
}

#[test]
fn the_two_sides_of_a_head_are_found_without_names() {
    let space = TestSpace::new();
    let Some(mut table) = hippocampus(&space) else { return };
    let start = Instant::now();
    // Names that tell nothing, in an order that tells nothing.
    let mut original = BTreeMap::new();
    for case in &mut table.cases {
        let name = blake3::hash(case.id.as_bytes()).to_hex()[..16].to_owned();
        original.insert(name.clone(), number(&case.id));
        (case.id, case.patient) = (name.clone(), name);
    }
    table.cases.sort_by(|a, b| a.id.cmp(&b.id));
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    let numbers: BTreeSet<usize> = original.values().copied().collect();
    let sides =
        numbers.iter().filter(|number| **number % 2 == 1 && numbers.contains(&(**number + 1))).count();
    let subject = |name: &str| original[name].div_ceil(2);
    let rows = run.load(&DUPLICATES).rows;
    let right = rows.iter().filter(|row| subject(&row.case) == subject(&row.same_as)).count();
    let (precision, recall) = (right as f64 / rows.len() as f64, right as f64 / sides as f64);
    println!(
        "{} pairs proposed of {sides}: precision {precision:.3}, recall {recall:.3}, {:.1?}",
        rows.len(),
        start.elapsed()
    );
    for row in rows.iter().filter(|row| subject(&row.case) != subject(&row.same_as)) {
        println!("not a pair: {} and {}: {row:?}", original[&row.case], original[&row.same_as]);
    }
    assert!(precision >= 0.95 && recall >= 0.6, "precision {precision}, recall {recall}");
    assert!(rows.iter().all(|row| row.kind == DuplicateKind::Related), "no image is a copy of another");
}

#[test]
fn copies_of_real_cases_are_found_and_no_other() {
    let space = TestSpace::new();
    let Some(table) = hippocampus(&space) else { return };
    let root = space.path().join("changed");
    let mut expected = BTreeSet::new();
    for (place, case) in table.cases.iter().step_by(9).enumerate() {
        let source = real_data("Task04_Hippocampus").expect("was there").join(&case.image().path);
        let original = nifti::read_image(&source).expect("readable");
        let [depth, height, width] = original.shape().0;
        let voxels = original.as_slice();
        let at = |z: usize, y: usize, x: usize| {
            let (z, y, x) = (z.min(depth - 1), y.min(height - 1), x.min(width - 1));
            voxels[(z * height + y) * width + x]
        };
        let mut sorted = voxels.to_vec();
        sorted.sort_by(f32::total_cmp);
        let range = sorted[sorted.len() * 99 / 100] - sorted[sorted.len() / 100];
        let changed = |z: usize, y: usize, x: usize| match place % 5 {
            0 => 0.31 * at(z, y, x) + 17.0,
            1 => at(z, y, width - 1 - x),
            2 => at(z + 1, y + 2, x + 1),
            3 => at(z, y, x) + 0.1 * range * (noise(9, ((z * 99 + y) * 99 + x) as u64) / 2048.0 - 1.0),
            _ => at(z * 4 / 3, y * 4 / 3, x * 4 / 3),
        };
        let shape = if place % 5 == 4 {
            [depth, height, width].map(|size| size * 3 / 4)
        } else {
            [depth, height, width]
        };
        let mut image = Vec::new();
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    image.push(changed(z, y, x));
                }
            }
        }
        let name = format!("z_{place:03}");
        write(&root, &name, shape, image, vec![0; shape.iter().product()]);
        expected.insert((name, case.id.clone()));
    }
    let copies = import_copies(&space, &root);
    let mut all = table.clone();
    all.cases.extend(copies.cases);
    let run = dedup(&space, &all, json!({ "related": "ignore" })).expect("the dedup goes through");
    let rows = run.load(&DUPLICATES).rows;
    let found: BTreeSet<(String, String)> =
        rows.iter().map(|row| (row.case.clone(), row.same_as.clone())).collect();
    let missed: Vec<_> = expected.difference(&found).collect();
    let wrong: Vec<_> = found.difference(&expected).collect();
    for row in &rows {
        println!("{} {} {:.3} {:?} {}", row.case, row.same_as, row.score, row.runner_up, row.remark);
    }
    assert!(missed.is_empty() && wrong.is_empty(), "missed {missed:?}, wrong {wrong:?}");
}

fn import_copies(space: &TestSpace, root: &Path) -> CaseTable {
    let run = space.run::<Import>(json!({ "from": root }), &[]).expect("the import goes through");
    run.load(&import::CASES)
}

#[test]
fn real_labels_010_and_011_are_the_same() {
    let (Some(clean), Some(defects)) =
        (real_data("Task04_Hippocampus"), real_data("Task04_Hippocampus_defects"))
    else {
        return;
    };
    let space = TestSpace::new();
    let root = space.path().join("data");
    for folder in ["imagesTr", "labelsTr"] {
        fs::create_dir_all(root.join(folder)).expect("temporary folder");
    }
    // The image of 010 is not published: another one of the same grid stands in for it.
    let copies = [
        (clean.join("imagesTr/hippocampus_011.nii.gz"), "imagesTr/hippocampus_011.nii.gz"),
        (clean.join("labelsTr/hippocampus_011.nii.gz"), "labelsTr/hippocampus_011.nii.gz"),
        (defects.join("labels/hippocampus_010.nii.gz"), "labelsTr/hippocampus_010.nii.gz"),
    ];
    for (from, to) in copies {
        fs::copy(from, root.join(to)).expect("a file is copied");
    }
    let image = nifti::read_image(&root.join("imagesTr/hippocampus_011.nii.gz")).expect("readable");
    let voxels = (0..image.as_slice().len() as u64).map(|at| noise(10, at)).collect();
    let stand_in = Image::from_vec(voxels, 1, *image.geometry()).expect("one value a voxel");
    nifti::write_image(&root.join("imagesTr/hippocampus_010.nii.gz"), &stand_in).expect("written");
    let table = import_folder(&space, &root);
    let run = dedup(&space, &table, json!({})).expect("the dedup goes through");
    let row = &run.load(&DUPLICATES).rows[0];
    assert_eq!(
        (row.case.as_str(), row.same_as.as_str(), row.kind),
        ("hippocampus_011", "hippocampus_010", DuplicateKind::ExactLabel)
    );
}
