//! How good predicted class probabilities are: ranking, decisions and calibration.
//!
//! Every figure takes how often each case counts, so that a bootstrap draws patients without copying or sorting.

mod compare;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use compare::{DeLong, McNemar};

/// Probabilities that cannot be scored.
#[derive(Debug, Error, PartialEq)]
pub enum ClassificationError {
    #[error("{classes} classes: at least 2 are needed to tell apart")]
    Classes { classes: usize },
    #[error("{probabilities} probabilities of {cases} cases: {classes} classes need {} each", classes)]
    Length { probabilities: usize, cases: usize, classes: usize },
    #[error("case {case} is of class {class} but there are {classes} classes, counted from 0")]
    Class { case: usize, class: usize, classes: usize },
    #[error("case {case} has the probability {found} for class {class}: it must be from 0 to 1")]
    Probability { case: usize, class: usize, found: f64 },
    #[error("the probabilities of case {case} sum to {found}, not to 1")]
    Sum { case: usize, found: f64 },
}

/// How far a sum of probabilities may be from 1: a table with 3 digits and 20 classes is within.
const SUM_TOLERANCE: f64 = 0.01;

/// Probabilities and true classes of a set of cases.
#[derive(Debug, Clone)]
pub struct Probabilities {
    classes: usize,
    /// `[case, class]`.
    values: Vec<f64>,
    truth: Vec<usize>,
    /// The most probable class; the first of equals.
    decision: Vec<usize>,
    /// For every class the cases by falling probability of it.
    order: Vec<Vec<usize>>,
}

/// One bin of a reliability plot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// The bin holds confidences above `from`, up to and with `to`; the first also holds 0.
    pub from: f64,
    pub to: f64,
    pub cases: u64,
    /// Mean confidence of its cases; NaN without any.
    pub confidence: f64,
    /// Share of its cases for which what was predicted is true; NaN without any.
    pub observed: f64,
}

/// A point of a curve over all thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Cases with at least this probability are called positive; infinity for none.
    pub threshold: f64,
    pub x: f64,
    pub y: f64,
}

impl Probabilities {
    /// `values`: `[case, class]`, each row summing to 1; `truth`: a class for each case.
    pub fn new(classes: usize, values: Vec<f64>, truth: Vec<usize>) -> Result<Self, ClassificationError> {
        if classes < 2 {
            return Err(ClassificationError::Classes { classes });
        }
        if truth.len().checked_mul(classes) != Some(values.len()) {
            let (probabilities, cases) = (values.len(), truth.len());
            return Err(ClassificationError::Length { probabilities, cases, classes });
        }
        for (case, (row, &class)) in values.chunks_exact(classes).zip(&truth).enumerate() {
            if class >= classes {
                return Err(ClassificationError::Class { case, class, classes });
            }
            if let Some(class) = row.iter().position(|value| !(0.0..=1.0).contains(value)) {
                return Err(ClassificationError::Probability { case, class, found: row[class] });
            }
            let found: f64 = row.iter().sum();
            if (found - 1.0).abs() > SUM_TOLERANCE {
                return Err(ClassificationError::Sum { case, found });
            }
        }
        let best = |row: &[f64]| {
            (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best })
        };
        let decision = values.chunks_exact(classes).map(best).collect();
        let order = |class: usize| {
            let mut cases: Vec<usize> = (0..truth.len()).collect();
            cases.sort_by(|a, b| values[b * classes + class].total_cmp(&values[a * classes + class]));
            cases
        };
        let order = (0..classes).map(order).collect();
        Ok(Self { classes, values, truth, decision, order })
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    pub fn cases(&self) -> usize {
        self.truth.len()
    }

    /// Every case once.
    pub fn once(&self) -> Vec<u32> {
        vec![1; self.cases()]
    }

    fn probability(&self, case: usize, class: usize) -> f64 {
        self.values[case * self.classes + class]
    }

    /// True and false positives after each group of equal probabilities, from the highest down.
    fn steps(&self, class: usize, times: &[u32]) -> Vec<(f64, f64, f64)> {
        let (mut yes, mut no) = (0.0, 0.0);
        let mut steps = Vec::new();
        let drawn = self.order[class].iter().copied().filter(|&case| times[case] > 0);
        let mut drawn = drawn.peekable();
        while let Some(case) = drawn.next() {
            let count = f64::from(times[case]);
            *(if self.truth[case] == class { &mut yes } else { &mut no }) += count;
            let probability = self.probability(case, class);
            if drawn.peek().is_none_or(|next| self.probability(*next, class) != probability) {
                steps.push((probability, yes, no));
            }
        }
        steps
    }

    /// Area under the ROC curve of one class against the rest: the chance that a case of it has a higher probability than
    /// another, equal ones counted half. NaN without cases of both kinds.
    pub fn auc_roc(&self, class: usize, times: &[u32]) -> f64 {
        let steps = self.steps(class, times);
        let Some(&(_, positives, negatives)) = steps.last() else { return f64::NAN };
        let (mut area, mut before) = (0.0, (0.0, 0.0));
        for (_, yes, no) in steps {
            area += (no - before.1) * f64::midpoint(yes, before.0);
            before = (yes, no);
        }
        if positives * negatives == 0.0 { f64::NAN } else { area / (positives * negatives) }
    }

    /// Average precision of one class: the area under the precision–recall curve as steps, without interpolation. NaN
    /// without cases of the class.
    pub fn auc_pr(&self, class: usize, times: &[u32]) -> f64 {
        let steps = self.steps(class, times);
        let Some(&(_, positives, _)) = steps.last() else { return f64::NAN };
        let (mut area, mut before) = (0.0, 0.0);
        for (_, yes, no) in steps {
            area += (yes - before) * yes / (yes + no);
            before = yes;
        }
        if positives == 0.0 { f64::NAN } else { area / positives }
    }

    /// False positive rate (x) and true positive rate (y) of one class from the strictest threshold to the loosest. Empty
    /// without cases of both kinds.
    pub fn roc_curve(&self, class: usize) -> Vec<CurvePoint> {
        let steps = self.steps(class, &self.once());
        let Some(&(_, positives, negatives)) = steps.last() else { return Vec::new() };
        if positives * negatives == 0.0 {
            return Vec::new();
        }
        let start = CurvePoint { threshold: f64::INFINITY, x: 0.0, y: 0.0 };
        let point = |(threshold, yes, no)| CurvePoint { threshold, x: no / negatives, y: yes / positives };
        std::iter::once(start).chain(steps.into_iter().map(point)).collect()
    }

    /// Recall (x) and precision (y) of one class from the strictest threshold to the loosest. Empty without cases of it.
    pub fn pr_curve(&self, class: usize) -> Vec<CurvePoint> {
        let steps = self.steps(class, &self.once());
        let Some(&(_, positives, _)) = steps.last() else { return Vec::new() };
        if positives == 0.0 {
            return Vec::new();
        }
        let point = |(threshold, yes, no)| CurvePoint { threshold, x: yes / positives, y: yes / (yes + no) };
        steps.into_iter().map(point).collect()
    }

    /// How often each class was taken for each: row is the true class, column the most probable one.
    pub fn decisions(&self, times: &[u32]) -> Decisions {
        let mut counts = vec![vec![0; self.classes]; self.classes];
        for ((&truth, &decision), &times) in self.truth.iter().zip(&self.decision).zip(times) {
            counts[truth][decision] += u64::from(times);
        }
        Decisions { counts }
    }

    /// Brier score, 0 to 1 for two classes (of the second's probability) and 0 to 2 for more (summed over classes); lower
    /// is better. NaN without cases.
    pub fn brier(&self, times: &[u32]) -> f64 {
        let squared = |case: usize, class: usize| {
            let truth = f64::from(u8::from(self.truth[case] == class));
            (self.probability(case, class) - truth).powi(2)
        };
        let of = |case: usize| match self.classes {
            2 => squared(case, 1),
            _ => (0..self.classes).map(|class| squared(case, class)).sum(),
        };
        let all: f64 = times.iter().map(|&times| f64::from(times)).sum();
        (0..self.cases()).map(|case| f64::from(times[case]) * of(case)).sum::<f64>() / all
    }

    /// Confidence and truth in bins of equal width. For two classes the confidence is the probability of the second, for
    /// more that of the most probable one.
    pub fn reliability(&self, bins: usize, times: &[u32]) -> Vec<ReliabilityBin> {
        assert!(bins > 0, "a reliability plot needs a bin");
        let mut sums = vec![(0_u64, 0.0, 0_u64); bins];
        for (case, &times) in times.iter().enumerate() {
            let class = if self.classes == 2 { 1 } else { self.decision[case] };
            let confidence = self.probability(case, class);
            // The first bin whose upper edge is not below, edges as they are shown.
            let bin = (0..bins - 1).find(|bin| confidence <= edge(bin + 1, bins)).unwrap_or(bins - 1);
            let (cases, sum, right) = &mut sums[bin];
            *cases += u64::from(times);
            *sum += f64::from(times) * confidence;
            *right += u64::from(times) * u64::from(self.truth[case] == class);
        }
        let bin = |(at, (cases, sum, right)): (usize, (u64, f64, u64))| ReliabilityBin {
            from: edge(at, bins),
            to: edge(at + 1, bins),
            cases,
            confidence: sum / cases as f64,
            observed: right as f64 / cases as f64,
        };
        sums.into_iter().enumerate().map(bin).collect()
    }

    /// Expected calibration error: the mean distance of confidence and truth over [`reliability`](Self::reliability)'s
    /// bins, by cases. NaN without cases. Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    pub fn ece(&self, bins: usize, times: &[u32]) -> f64 {
        let bins = self.reliability(bins, times);
        let all: u64 = bins.iter().map(|bin| bin.cases).sum();
        let gap = |bin: &ReliabilityBin| bin.cases as f64 * (bin.confidence - bin.observed).abs();
        bins.iter().filter(|bin| bin.cases > 0).map(gap).sum::<f64>() / all as f64
    }
}

fn edge(at: usize, bins: usize) -> f64 {
    at as f64 / bins as f64
}

/// The mean of a figure over all classes; NaN where it is for one of them.
pub fn macro_mean(classes: usize, of: impl Fn(usize) -> f64) -> f64 {
    (0..classes).map(of).sum::<f64>() / classes as f64
}

/// A confusion matrix and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// Row: true class. Column: predicted class.
    pub counts: Vec<Vec<u64>>,
}

impl Decisions {
    fn true_of(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    fn predicted_of(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    fn all(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    fn right(&self) -> u64 {
        (0..self.counts.len()).map(|class| self.counts[class][class]).sum()
    }

    /// Share of cases that were put in the right class; NaN without cases.
    pub fn accuracy(&self) -> f64 {
        ratio(self.right() as f64, self.all() as f64)
    }

    /// Mean of the recalls of the classes that occur; NaN without cases.
    pub fn balanced_accuracy(&self) -> f64 {
        let recalls: Vec<f64> = (0..self.counts.len())
            .map(|class| self.recall(class))
            .filter(|recall| !recall.is_nan())
            .collect();
        ratio(recalls.iter().sum(), recalls.len() as f64)
    }

    /// Share of the cases of a class that were put in it; NaN without any.
    pub fn recall(&self, class: usize) -> f64 {
        ratio(self.counts[class][class] as f64, self.true_of(class) as f64)
    }

    /// Share of the cases put in a class that belong there; NaN without any.
    pub fn precision(&self, class: usize) -> f64 {
        ratio(self.counts[class][class] as f64, self.predicted_of(class) as f64)
    }

    /// Share of the cases of other classes that were not put in this one; NaN without any.
    pub fn specificity(&self, class: usize) -> f64 {
        let others = self.all() - self.true_of(class);
        let wrong = self.predicted_of(class) - self.counts[class][class];
        ratio((others - wrong) as f64, others as f64)
    }

    /// Harmonic mean of precision and recall of a class; NaN where it neither occurs nor is predicted.
    pub fn f1(&self, class: usize) -> f64 {
        let both = self.true_of(class) + self.predicted_of(class);
        ratio(2.0 * self.counts[class][class] as f64, both as f64)
    }

    /// Matthews correlation coefficient for any number of classes, −1 to 1; 0 where all cases are of one class or put in
    /// one. Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient",
    /// Computational Biology and Chemistry 28 (2004).
    pub fn mcc(&self) -> f64 {
        let (all, right) = (self.all() as f64, self.right() as f64);
        let sum = |of: &dyn Fn(usize) -> f64| (0..self.counts.len()).map(of).sum::<f64>();
        let (truth, predicted) =
            (|class| self.true_of(class) as f64, |class| self.predicted_of(class) as f64);
        let above = right * all - sum(&|class| truth(class) * predicted(class));
        let below = (all * all - sum(&|class| truth(class).powi(2)))
            * (all * all - sum(&|class| predicted(class).powi(2)));
        match (all, below) {
            (0.0, _) => f64::NAN,
            (_, 0.0) => 0.0,
            _ => above / below.sqrt(),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { f64::NAN } else { part / whole }
}
