use super::*;
use crate::artifacts::Part;
use crate::kinds::inference::testing::{Cohort, above, labels, predictor, row_case, two_labels, voxelwise};
use crate::testing::{TestSpace, problems};
use pipe_imaging::normalize::Normalization;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn single(space: &TestSpace, threshold: f32, fold: usize) -> PathBuf {
    predictor(space, &two_labels(), vec![above(space, threshold, fold)])
}

#[track_caller]
fn shares(space: &TestSpace, params: Value, models: &[&Path]) -> Vec<(String, f64)> {
    let run = space.run_many::<Ensemble>(params, &[("models", models.to_vec())]).expect("the models agree");
    let members = run.load(&PREDICTOR).members;
    assert_eq!(run.facts["members"], members.len());
    members.into_iter().map(|member| (member.card.name, member.card.weight)).collect()
}

#[test]
fn members_are_named_after_their_models_and_count_the_same() {
    let space = TestSpace::new();
    let (a, b) = (single(&space, 0.0, 0), single(&space, 1.0, 1));
    let found = shares(&space, json!({}), &[&a, &b]);
    assert_eq!(found, [("models[0]".into(), 1.0), ("models[1]".into(), 1.0)]);
}

#[test]
fn weights_belong_to_models_and_an_ensemble_shares_its_weight_among_its_members() {
    let space = TestSpace::new();
    let (a, b, c) = (single(&space, 0.0, 0), single(&space, 1.0, 1), single(&space, 2.0, 2));
    let inner = space
        .run_many::<Ensemble>(json!({ "weights": [3.0, 1.0] }), &[("models", vec![&a, &b])])
        .expect("the models agree");
    let found = shares(&space, json!({ "weights": [2.0, 0.5] }), &[inner.dir("predictor"), &c]);
    assert_eq!(
        found,
        [("models[0]/models[0]".into(), 1.5), ("models[0]/models[1]".into(), 0.5), ("models[1]".into(), 0.5)]
    );
}

#[test]
fn the_networks_themselves_are_kept_in_order() {
    let space = TestSpace::new();
    let (a, b) = (above(&space, 0.0, 0), above(&space, 1.0, 1));
    let digests = [a.card.digest, b.card.digest];
    let (a, b) = (predictor(&space, &two_labels(), vec![a]), predictor(&space, &two_labels(), vec![b]));
    let run = space.run_many::<Ensemble>(json!({}), &[("models", vec![&b, &a])]).expect("the models agree");
    let members = run.load(&PREDICTOR).members;
    assert_eq!(members.iter().map(|member| member.card.digest).collect::<Vec<_>>(), [digests[1], digests[0]]);
    for member in &members {
        member.read().expect("the file is the one of the card");
    }
}

#[test]
fn models_that_do_another_task_are_named_with_both_values() {
    #[track_caller]
    fn check(edit: impl FnOnce(&mut Predictor), expected: &str) {
        let space = TestSpace::new();
        let mut other =
            crate::artifact::Artifact::load(&single(&space, 1.0, 1)).expect("a predictor stored just now");
        edit(&mut other);
        let (a, b) = (single(&space, 0.0, 0), space.stored(&other));
        let error =
            space.run_many::<Ensemble>(json!({}), &[("models", vec![&a, &b])]).expect_err("they disagree");
        assert_eq!(error.to_string(), format!("the models do not do the same task: {expected}"));
    }
    check(
        |other| other.task.labels = labels(&[(0, "background"), (2, "body")]),
        "labels are 0 background, 1 body in `models[0]` but 0 background, 2 body in `models[1]`",
    );
    check(|other| other.task.channels = 2, "the number of channels is 1 in `models[0]` but 2 in `models[1]`");
    check(
        |other| other.task.preparation.spacing_mm = Some([1.0, 1.0, 2.5]),
        "spacing is each volume's own in `models[0]` but 1 × 1 × 2.5 mm (z×y×x) in `models[1]`",
    );
    check(
        |other| other.task.preparation.normalization = Normalization::Zscore,
        r#"normalisation is "none" in `models[0]` but "zscore" in `models[1]`"#,
    );
}

#[test]
fn a_weight_is_needed_for_each_model() {
    let space = TestSpace::new();
    let (a, b) = (single(&space, 0.0, 0), single(&space, 1.0, 1));
    let params = json!({ "weights": [1.0, 1.0, 1.0] });
    let error =
        space.run_many::<Ensemble>(params, &[("models", vec![&a, &b])]).expect_err("too many weights");
    assert!(error.to_string().starts_with("`weights` has 3 numbers but there are 2 models"), "{error}");
    let found = problems::<Ensemble>(json!({ "weights": [1.0, 0.0, -1.0] }));
    assert_eq!(
        found.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(),
        ["0 is no weight", "-1 is no weight"]
    );
}

#[test]
fn a_network_that_is_there_twice_is_told() {
    let space = TestSpace::new();
    let a = single(&space, 0.0, 0);
    let run = space.run_many::<Ensemble>(json!({}), &[("models", vec![&a, &a])]).expect("the models agree");
    assert_eq!(run.warnings, ["`models[0]` and `models[1]` are the same network: it counts twice"]);
}

/// A model of two folds, each of whose networks labels what is above the threshold.
fn model(space: &TestSpace, threshold: f32) -> PathBuf {
    let network = |fold: usize| {
        let mut member = above(space, threshold, fold);
        member.card.name = format!("x[fold={fold}]");
        member
    };
    predictor(space, &two_labels(), vec![network(0), network(1)])
}

/// Four validation cases of two folds whose label is what is above 1, and a test case where it is what is above 2.
fn cohort(space: &TestSpace) -> Cohort {
    let row = [-1.0, 0.5, 1.5, 2.5, 3.5];
    let case = |id, part, threshold: f32| {
        row_case(id, part, &row, Some(&row.map(|value| u8::from(value > threshold))))
    };
    let cases = [
        case("a", Part::Fold(0), 1.0),
        case("b", Part::Fold(0), 1.0),
        case("c", Part::Fold(1), 1.0),
        case("d", Part::Fold(1), 1.0),
        case("e", Part::Test, 2.0),
    ];
    Cohort::plain(space, &two_labels(), &cases)
}

#[test]
fn the_best_model_or_ensemble_on_validation_cases_is_taken_and_the_table_says_why() {
    let space = TestSpace::new();
    let cohort = cohort(&space);
    let models = [model(&space, 0.0), model(&space, 1.0), model(&space, 2.0)];
    let inputs = [
        ("models", models.iter().map(PathBuf::as_path).collect::<Vec<_>>()),
        ("volumes", vec![cohort.volumes.as_path()]),
        ("split", vec![cohort.split.as_path()]),
    ];
    let run = space.run_many::<Ensemble>(json!({ "choose": "best" }), &inputs).expect("the models agree");
    let rows = run.load(&CHOICE).rows;
    let found: Vec<(&str, f64, bool, &str)> = rows
        .iter()
        .map(|row| {
            let dice = (row.mean_dice.expect("defined") * 1e4).round() / 1e4;
            (row.candidate.as_str(), dice, row.chosen, row.reason.as_str())
        })
        .collect();
    // Above 0 marks one voxel too many: 6/7. Above 2 misses one: 4/5. Their mean is above 1, as is that of all three.
    let (a, b, c) = ("models[0]/x", "models[1]/x", "models[2]/x");
    let best = "highest mean Dice over 4 validation cases";
    let equal = "as high, with no fewer networks";
    assert_eq!(found[0], (b, 1.0, true, best));
    assert!(found.contains(&(&format!("{a} + {c}"), 1.0, false, equal)), "{found:?}");
    assert!(found.contains(&(a, 0.8571, false, "0.1429 below the highest")), "{found:?}");
    assert!(found.contains(&(c, 0.8, false, "0.2000 below the highest")), "{found:?}");
    assert_eq!(found.len(), 7, "three models, three pairs, all");
    assert!(rows.iter().all(|row| row.cases == 4 && row.networks == 2 * row.models));
    let members = run.load(&PREDICTOR).members;
    let names: Vec<&str> = members.iter().map(|member| member.card.name.as_str()).collect();
    assert_eq!(names, ["models[1]/x[fold=0]", "models[1]/x[fold=1]"]);
}

#[test]
fn networks_that_differ_in_their_fold_are_one_model_and_others_are_told() {
    #[track_caller]
    fn check(names: &[(&str, usize)], expected: Result<&[&str], &str>) {
        let space = TestSpace::new();
        let member = |(name, fold): &(&str, usize)| {
            let mut member = above(&space, 0.0, *fold);
            member.card.name = (*name).to_owned();
            member
        };
        let members: Vec<Member> = names.iter().map(member).collect();
        match (choice::configurations(&members), expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }
    check(&[("onnx[fold=0]", 0), ("onnx[fold=1]", 1)], Ok(&["onnx"]));
    check(
        &[("o[fold=0,m=a]", 0), ("o[fold=0,m=b]", 0), ("o[fold=1,m=a]", 1), ("o[fold=1,m=b]", 1)],
        Ok(&["o[m=a]", "o[m=b]"]),
    );
    check(
        &[("o[fold=0]", 0), ("p[fold=0]", 0), ("o[fold=1]", 1)],
        Err("networks of fold 0, 1 but `p` of fold 0"),
    );
    check(&[("o[fold=0]", 0), ("o[fold=1]", 0)], Err("both left fold 0 out"));
}

#[test]
fn every_model_every_pair_and_all_together_are_tried() {
    assert_eq!(choice::candidates(1), [vec![0]]);
    assert_eq!(choice::candidates(2), [vec![0], vec![1], vec![0, 1]]);
    assert_eq!(choice::candidates(4).len(), 4 + 6 + 1);
}

#[test]
fn an_ensemble_is_one_onnx_model_where_its_members_see_the_same() {
    // Above 0 with weight 1 and above 1 with weight 2: 0.9 is above the mean threshold of 2/3, but only the lighter network is
    // sure of it.
    for (combine, marked) in [("mean-probabilities", false), ("mean-logits", true)] {
        let space = TestSpace::new();
        let (a, b) = (single(&space, 0.0, 0), single(&space, 1.0, 1));
        let params = json!({ "combine": combine, "graph": true, "weights": [1.0, 2.0] });
        let run = space.run_many::<Ensemble>(params, &[("models", vec![&a, &b])]).expect("the same input");
        assert!(run.facts["graph_difference"].as_f64().expect("a number") <= 1e-4);
        let onnx = std::fs::read(run.dir("graph").join("model.onnx")).expect("written");
        let threads = std::num::NonZeroUsize::MIN;
        let mut session = pipe_onnx::Session::from_bytes(&onnx, threads).expect("loads");
        assert_eq!(session.interface().metadata["members"], r#"["models[0]","models[1]"]"#);
        let (logits, _) = session.run(&[0.9, -3.0], &[1, 1, 1, 1, 2]).expect("runs");
        assert_eq!(logits[2] > logits[0], marked, "{combine}: {logits:?}");
        assert!(logits[1] > logits[3], "{combine}: {logits:?}");
    }
    let space = TestSpace::new();
    let flat = voxelwise(&space, pipe_nn::Dims::Two, &[-1.0, 1.0], &[0.0, 0.0], 1);
    let (a, b) = (single(&space, 0.0, 0), predictor(&space, &two_labels(), vec![flat]));
    let error = space.run_many::<Ensemble>(json!({ "graph": true }), &[("models", vec![&a, &b])]);
    let error = error.expect_err("slices and volumes").to_string();
    assert!(error.contains("volumes of 8×8×8 voxels") && error.contains("slices of 8×8 voxels"), "{error}");
}

#[test]
fn parameters_that_contradict_each_other_are_told() {
    #[track_caller]
    fn check(params: Value, parameter: &str) {
        let found = problems::<Ensemble>(params);
        assert_eq!(found.iter().map(|problem| problem.parameter).collect::<Vec<_>>(), [parameter]);
    }
    check(json!({ "combine": "staple", "weights": [1.0, 2.0] }), "weights");
    check(json!({ "combine": "majority", "graph": true }), "graph");
}

#[test]
fn an_ensemble_within_must_combine_in_the_same_way() {
    let space = TestSpace::new();
    let (a, b, c) = (single(&space, 0.0, 0), single(&space, 1.0, 1), single(&space, 2.0, 2));
    let inner = space
        .run_many::<Ensemble>(json!({ "combine": "majority" }), &[("models", vec![&a, &b])])
        .expect("the models agree");
    let models = [("models", vec![inner.dir("predictor"), c.as_path()])];
    let error = space.run_many::<Ensemble>(json!({}), &models).expect_err("another way").to_string();
    assert!(error.contains(r#"combines by "majority" but this one by "mean-probabilities""#), "{error}");
    space.run_many::<Ensemble>(json!({ "combine": "majority" }), &models).expect("the same way");
}
