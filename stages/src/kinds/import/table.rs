//! Cases listed in a CSV file of the user's: `id` and `image`, and `patient`, `label`, `label_ANNOTATOR` and `class` where
//! there are any. Further columns are kept with the case.
//! Looks at names only, never into an image.

use super::is_plain_name;
use super::layout::{Candidate, Layout, finding};
use crate::artifacts::{CheckAction, DatasetInfo, FileRef, Finding, Severity};
use crate::context::ExternalFile;
use crate::error::StageError;
use std::collections::BTreeMap;
use std::path::Path;

const ID: &str = "id";
const IMAGE: &str = "image";
const PATIENT: &str = "patient";
const LABEL: &str = "label";
const CLASS: &str = "class";
/// Begins the column of an annotator's label maps.
const ANNOTATOR: &str = "label_";

/// Matches the rows of a table with files. `table` is its path, for messages; paths in it are relative to the data set.
pub(super) fn read(table: &str, text: &[u8], files: &[ExternalFile]) -> Result<Layout, StageError> {
    if let Err(error) = std::str::from_utf8(text) {
        let before = String::from_utf8_lossy(&text[..error.valid_up_to()]);
        let line = 1 + before.matches('\n').count();
        return Err(StageError::Data(format!(
            "`{table}` is not UTF-8 from line {line} on: save it as UTF-8"
        )));
    }
    let broken = |error: csv::Error| StageError::Data(format!("`{table}` is no table: {error}"));
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter(text)).trim(csv::Trim::All).from_reader(text);
    let columns: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    // Excel puts a byte order mark before the first name.
    let name = |column: &str| column.trim_start_matches('\u{feff}').to_ascii_lowercase();
    let columns: Vec<String> = columns.iter().map(|column| name(column)).collect();
    for needed in [ID, IMAGE] {
        if !columns.iter().any(|column| column == needed) {
            let found = columns.join("`, `");
            return Err(StageError::Data(format!(
                "`{table}` has no column `{needed}`; its columns are `{found}`"
            )));
        }
    }
    let mut rows =
        Rows { table, files: Files::of(files, table), candidates: BTreeMap::new(), findings: Vec::new() };
    let twice = columns.iter().enumerate().find(|(index, column)| columns[..*index].contains(column));
    if let Some((_, column)) = twice {
        return Err(StageError::Data(format!("`{table}` has two columns `{column}`")));
    }
    let annotators: Vec<(&str, &str)> = columns
        .iter()
        .filter_map(|column| {
            let annotator = column.strip_prefix(ANNOTATOR).filter(|annotator| !annotator.is_empty())?;
            Some((column.as_str(), annotator))
        })
        .collect();
    let further = columns.iter().map(String::as_str).filter(|column| {
        !column.is_empty()
            && ![ID, IMAGE, PATIENT, LABEL, CLASS].contains(column)
            && !annotators.iter().any(|(annotation, _)| annotation == column)
    });
    let further: Vec<&str> = further.collect();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |wanted: &str| {
            let index = columns.iter().position(|column| column == wanted)?;
            record.get(index).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        rows.add(line, &field, &annotators, &further);
    }
    let name = Path::new(table).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Layout {
        dataset: DatasetInfo { name, ..DatasetInfo::default() },
        labels_known: false,
        images_only: false,
        candidates: rows.candidates.into_values().collect(),
        findings: rows.findings,
    })
}

/// What parts the columns: of comma, semicolon (which Excel writes where numbers have a decimal comma) and tab the one that
/// the first line has most of.
fn delimiter(text: &[u8]) -> u8 {
    let first = String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let count = |delimiter: &u8| first.matches(char::from(*delimiter)).count();
    // Of equals `max_by_key` takes the last.
    [b'\t', b';', b','].into_iter().max_by_key(count).expect("there are three")
}

struct Rows<'a> {
    table: &'a str,
    files: Files<'a>,
    candidates: BTreeMap<String, Candidate>,
    findings: Vec<Finding>,
}

impl Rows<'_> {
    fn tell(&mut self, case: &str, file: &str, severity: Severity, problem: String, action: CheckAction) {
        self.findings.push(finding(case, file, severity, problem, action));
    }

    /// `annotators` are their columns and names, `further` the columns that mean nothing here.
    fn add(
        &mut self,
        line: u64,
        field: &dyn Fn(&str) -> Option<String>,
        annotators: &[(&str, &str)],
        further: &[&str],
    ) {
        let table = self.table;
        let refuse = |problem: String| finding("", table, Severity::Error, problem, CheckAction::Skipped);
        let Some(id) = field(ID) else {
            return self.findings.push(refuse(format!("line {line} has no `{ID}`")));
        };
        if !is_plain_name(&id) {
            return self.findings.push(refuse(format!("line {line}: id `{id}` is no name of a file")));
        }
        if self.candidates.contains_key(&id) {
            return self
                .findings
                .push(refuse(format!("line {line}: id `{id}` stands there twice; the first is used")));
        }
        let mut candidate =
            Candidate { id, patient: field(PATIENT), class: field(CLASS), ..Candidate::default() };
        match field(IMAGE).as_deref().map(inner_path) {
            None => {
                let problem = format!("line {line} of `{table}` names no image");
                self.tell(&candidate.id, table, Severity::Error, problem, CheckAction::Excluded);
                candidate.incomplete = true;
            }
            Some(path) => match self.files.find(path) {
                Found::File(file) => candidate.image = Some(file),
                Found::Folder(slices) => candidate.slices = slices,
                Found::Nothing => self.missing(&mut candidate, path),
            },
        }
        if let Some(path) = field(LABEL) {
            match self.files.find(inner_path(&path)) {
                Found::File(file) => candidate.label = Some(file),
                Found::Folder(_) | Found::Nothing => self.missing(&mut candidate, &path),
            }
        }
        for (column, annotator) in annotators {
            let Some(path) = field(column) else { continue };
            match self.files.find(inner_path(&path)) {
                Found::File(file) => candidate.annotations.push(((*annotator).to_owned(), file)),
                Found::Folder(_) | Found::Nothing => self.missing(&mut candidate, &path),
            }
        }
        candidate.annotations.sort_by(|one, other| one.0.cmp(&other.0));
        candidate.info =
            further.iter().filter_map(|column| Some(((*column).to_owned(), field(column)?))).collect();
        self.candidates.insert(candidate.id.clone(), candidate);
    }

    fn missing(&mut self, candidate: &mut Candidate, path: &str) {
        let problem = format!("is listed in {}, but there is no such file", self.table);
        self.tell(&candidate.id, path, Severity::Error, problem, CheckAction::Excluded);
        candidate.incomplete = true;
    }
}

fn inner_path(path: &str) -> &str {
    path.trim_start_matches("./").trim_end_matches('/')
}

/// The files of the data set, by path.
struct Files<'a>(BTreeMap<&'a str, &'a ExternalFile>);

enum Found {
    File(FileRef),
    /// The files of a series, by name.
    Folder(Vec<FileRef>),
    Nothing,
}

impl<'a> Files<'a> {
    fn of(files: &'a [ExternalFile], table: &str) -> Self {
        let others = files.iter().filter(|file| file.path != table);
        Self(others.map(|file| (file.path.as_str(), file)).collect())
    }

    fn find(&self, path: &str) -> Found {
        match self.find_as_written(path) {
            // A table from Windows.
            Found::Nothing if path.contains('\\') => {
                self.find_as_written(inner_path(&path.replace('\\', "/")))
            }
            found => found,
        }
    }

    fn find_as_written(&self, path: &str) -> Found {
        let reference = |file: &ExternalFile| FileRef { path: file.path.clone(), digest: file.digest };
        if let Some(file) = self.0.get(path) {
            return Found::File(reference(file));
        }
        let folder = format!("{path}/");
        let inside = self.0.range(folder.as_str()..).take_while(|(path, _)| path.starts_with(&folder));
        let shown = inside.filter(|(path, _)| {
            !path[folder.len()..].starts_with('.') && !path[folder.len()..].contains('/')
        });
        let slices: Vec<FileRef> = shown.map(|(_, file)| reference(file)).collect();
        if slices.is_empty() { Found::Nothing } else { Found::Folder(slices) }
    }
}
