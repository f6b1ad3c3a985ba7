//! What is measured: each figure by name, from how often each case counts.

use pipe_metrics::classification::{Probabilities, macro_mean};

/// A figure by name, of one class or of all, from how often each case counts.
pub(super) type Figure<'a> = (&'static str, Option<usize>, Box<dyn Fn(&[u32]) -> f64 + Send + Sync + 'a>);

/// The figures of all classes first.
pub(super) fn figures(found: &Probabilities, bins: usize) -> Vec<Figure<'_>> {
    let classes = found.classes();
    let mut figures: Vec<Figure> = vec![
        ("accuracy", None, Box::new(|times| found.decisions(times).accuracy())),
        ("balanced_accuracy", None, Box::new(|times| found.decisions(times).balanced_accuracy())),
        ("mcc", None, Box::new(|times| found.decisions(times).mcc())),
        ("brier", None, Box::new(|times| found.brier(times))),
        ("ece", None, Box::new(move |times| found.ece(bins, times))),
    ];
    if classes == 2 {
        figures.push(("auc_roc", None, Box::new(|times| found.auc_roc(1, times))));
        figures.push(("auc_pr", None, Box::new(|times| found.auc_pr(1, times))));
        figures.push(("f1", None, Box::new(|times| found.decisions(times).f1(1))));
    } else {
        let all = move |of: &dyn Fn(usize) -> f64| macro_mean(classes, of);
        figures.push(("auc_roc", None, Box::new(move |times| all(&|class| found.auc_roc(class, times)))));
        figures.push(("auc_pr", None, Box::new(move |times| all(&|class| found.auc_pr(class, times)))));
        figures.push((
            "f1",
            None,
            Box::new(move |times| {
                let decisions = found.decisions(times);
                all(&|class| decisions.f1(class))
            }),
        ));
    }
    for class in 0..classes {
        let one = Some(class);
        figures.push(("auc_roc", one, Box::new(move |times| found.auc_roc(class, times))));
        figures.push(("auc_pr", one, Box::new(move |times| found.auc_pr(class, times))));
        figures.push(("precision", one, Box::new(move |times| found.decisions(times).precision(class))));
        figures.push(("recall", one, Box::new(move |times| found.decisions(times).recall(class))));
        figures.push(("specificity", one, Box::new(move |times| found.decisions(times).specificity(class))));
        figures.push(("f1", one, Box::new(move |times| found.decisions(times).f1(class))));
    }
    figures
}
