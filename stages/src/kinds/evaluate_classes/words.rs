//! The definitions of all figures, in words.

use std::collections::BTreeMap;

pub(super) fn definitions(classes: &[String]) -> BTreeMap<String, String> {
    let last = classes.last().map_or("", String::as_str);
    let two = classes.len() == 2;
    let over = if two {
        format!("of class `{last}`")
    } else {
        "mean over the classes, each against the rest".into()
    };
    let texts = [
        ("auc_roc", format!("Area under the ROC curve, {over}; equal probabilities count half.")),
        ("auc_pr", format!("Average precision, the precision–recall curve as steps, {over}.")),
        ("accuracy", "Share of cases put in the right class; the most probable class is taken.".into()),
        ("balanced_accuracy", "Mean of the recalls of the classes that occur.".into()),
        ("f1", format!("2·TP / (2·TP + FP + FN), {over}.")),
        ("mcc", "Matthews correlation coefficient over all classes.".into()),
        (
            "brier",
            if two {
                "Mean squared error of the probability."
            } else {
                "Squared error of the probabilities, summed over classes."
            }
            .into(),
        ),
        (
            "ece",
            format!(
                "Mean distance of confidence and truth over bins of equal width, by cases. Confidence is the probability of {}.",
                if two { format!("class `{last}`") } else { "the most probable class".into() }
            ),
        ),
        ("intervals", "Percentile intervals from bootstrap samples of patients.".into()),
        (
            "comparison",
            "Differences are this table minus the baseline on the same cases; the interval and p (bootstrap) draw patients. \
             DeLong's test of the area and McNemar's exact test of the accuracy take cases as independent: they are left \
             out where a patient has several. p is two-sided and not corrected for the number of rows."
                .into(),
        ),
        (
            "members",
            "The mean and the sample standard deviation (divided by n − 1) over single networks; the difference is this \
             table minus that mean, its interval draws patients."
                .into(),
        ),
        ("undefined", "Figures are null where a class that they need does not occur.".into()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}
