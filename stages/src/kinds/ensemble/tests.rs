use super::*;
use crate::kinds::inference::testing::{above, labels, predictor, two_labels};
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
