//! Reads a table of class probabilities and checks it line by line.

use crate::artifacts::class_metrics::ClassifiedCase;
use crate::error::StageError;
use fs_err as fs;
use pipe_metrics::classification::{ClassificationError, Probabilities};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) struct Table {
    /// In the order of the columns.
    pub(super) classes: Vec<String>,
    pub(super) cases: Vec<ClassifiedCase>,
    pub(super) probabilities: Probabilities,
    /// `[case, class]`.
    values: Vec<f64>,
    /// Of each case.
    truth: Vec<usize>,
}

/// The table's usual name.
pub(crate) const FILE: &str = "probabilities.csv";
/// All columns that are no class.
pub(crate) const COLUMNS: [&str; 3] = [CASE, PATIENT, TRUTH];
const CASE: &str = "case";
const TRUTH: &str = "truth";
const PATIENT: &str = "patient";

/// Every column besides `case`, `truth` and `patient` is a class. Without `patient` every case is its own.
pub(super) fn read(path: &Path) -> Result<Table, StageError> {
    let bytes = fs::read(path).map_err(StageError::io("read", path))?;
    parse(&bytes).map_err(|problem| StageError::Data(format!("`{}` {problem}", path.display())))
}

/// The error completes a sentence that names the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Table, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| format!("is no CSV table: {error}"))?.clone();
    let column = |name: &str| header.iter().position(|column| column == name);
    let needed = |name: &str| {
        let columns = header.iter().collect::<Vec<_>>().join(", ");
        column(name).ok_or_else(|| format!("has no column `{name}`; its columns are {columns}"))
    };
    let (case_at, truth_at, patient_at) = (needed(CASE)?, needed(TRUTH)?, column(PATIENT));
    let is_class = |at: &usize| *at != case_at && *at != truth_at && Some(*at) != patient_at;
    let class_columns: Vec<usize> = (0..header.len()).filter(is_class).collect();
    let classes: Vec<String> = class_columns.iter().map(|&at| header[at].to_owned()).collect();
    if let Some(twice) = classes.iter().find(|name| classes.iter().filter(|other| other == name).count() > 1)
    {
        return Err(format!("has two columns `{twice}`"));
    }

    let (mut values, mut truth, mut cases) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for record in reader.records() {
        let record = record.map_err(|error| format!("is no CSV table: {error}"))?;
        let case = &record[case_at];
        if !seen.insert(case.to_owned()) {
            return Err(format!("names case `{case}` twice"));
        }
        let class = classes.iter().position(|class| *class == record[truth_at]);
        let class = class.ok_or_else(|| {
            let (found, known) = (&record[truth_at], classes.join(", "));
            format!("says that case `{case}` is of class `{found}`, but its classes are {known}")
        })?;
        let first = values.len();
        for &at in &class_columns {
            let value = record[at].parse::<f64>().map_err(|_| {
                format!(
                    "gives case `{case}` the probability `{}` for `{}`: no number",
                    &record[at], &header[at]
                )
            })?;
            values.push(value);
        }
        let row = &values[first..];
        // The first of equals, as the confusion matrix takes it.
        let best = (0..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        cases.push(ClassifiedCase {
            case: case.to_owned(),
            patient: patient_at.map_or(case, |at| &record[at]).to_owned(),
            truth: classes[class].clone(),
            predicted: classes.get(best).cloned().unwrap_or_default(),
            probability: row.get(best).copied().unwrap_or(f64::NAN),
        });
        truth.push(class);
    }
    if cases.is_empty() {
        return Err("has no cases".into());
    }
    let name = |case: usize| &cases[case].case;
    let probabilities = Probabilities::new(classes.len(), values.clone(), truth.clone()).map_err(|error| match error {
        ClassificationError::Probability { case, class, found } => {
            format!("gives case `{}` the probability {found} for `{}`: it must be from 0 to 1", name(case), classes[class])
        }
        ClassificationError::Sum { case, found } => {
            format!("gives case `{}` probabilities that sum to {found}, not to 1", name(case))
        }
        ClassificationError::Classes { classes } => {
            format!("has {classes} columns of probabilities: every class needs one, and there must be two at least")
        }
        error => error.to_string(),
    })?;
    Ok(Table { classes, cases, probabilities, values, truth })
}

impl Table {
    /// The probabilities of another table on the cases of this one, in their order and that of their classes. The error
    /// says where the two are not about the same, and completes a sentence that names the other table.
    pub(super) fn aligned(&self, other: &Self) -> Result<Probabilities, String> {
        let position = |class: &String| other.classes.iter().position(|known| known == class);
        let columns: Option<Vec<usize>> = self.classes.iter().map(position).collect();
        let columns = columns.filter(|columns| columns.len() == other.classes.len()).ok_or_else(|| {
            format!("has the classes {}, not {}", other.classes.join(", "), self.classes.join(", "))
        })?;
        let rows: BTreeMap<&str, usize> =
            other.cases.iter().enumerate().map(|(row, case)| (case.case.as_str(), row)).collect();
        let mut values = Vec::with_capacity(self.values.len());
        for case in &self.cases {
            let id = &case.case;
            let row = *rows.get(id.as_str()).ok_or_else(|| format!("lacks case `{id}`"))?;
            let theirs = &other.cases[row];
            for (what, own, found) in
                [("of class", &case.truth, &theirs.truth), ("of patient", &case.patient, &theirs.patient)]
            {
                if own != found {
                    return Err(format!("says that case `{id}` is {what} `{found}`, not `{own}`"));
                }
            }
            values.extend(columns.iter().map(|column| other.values[row * columns.len() + column]));
        }
        let own: BTreeSet<&str> = self.cases.iter().map(|case| case.case.as_str()).collect();
        if let Some(more) = rows.keys().find(|case| !own.contains(*case)) {
            return Err(format!("has a further case, `{more}`"));
        }
        Probabilities::new(columns.len(), values, self.truth.clone()).map_err(|error| error.to_string())
    }
}
