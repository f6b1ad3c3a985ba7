//! The artifact types that stages exchange, one file each.

pub mod agreement;
pub mod case_table;
pub mod check_table;
pub mod choice;
pub mod class_metrics;
pub mod dataset;
pub mod duplicate_table;
pub mod files;
pub mod fold_table;
pub mod inspection;
pub mod metrics;
pub mod model;
pub mod predictions;
pub mod predictor;
pub mod preparation;
pub mod report;
pub(crate) mod table_file;
pub mod training_log;
pub mod volumes;
pub use agreement::{Agreement, AnnotatorRow, PairRow, RankRow};
pub use case_table::{Annotation, Case, CaseTable, DatasetInfo, FileRef, OfficialPart};
pub use check_table::{CheckAction, CheckTable, Finding, Severity};
pub use choice::{Choice, ChoiceRow};
pub use dataset::Dataset;
pub use duplicate_table::{Duplicate, DuplicateAction, DuplicateKind, DuplicateTable};
pub use files::Files;
pub use fold_table::{FoldRow, FoldTable, Part};
pub use inspection::{
    Advice, CaseRow, Distribution, Inspection, InspectionSummary, IntensityRow, LabelRow, LabelSummary,
    Outlier,
};
pub use metrics::{MetricRow, MetricSummary, Metrics, MetricsSummary};
pub use model::{Model, ModelCard, TrainingFacts};
pub use predictions::{PredictionRow, Predictions};
pub use predictor::{Combine, Member, MemberCard, Predictor, Task};
pub use preparation::{Preparation, Region};
pub use report::Report;
pub use training_log::{EpochRow, LabelDiceRow, TakenRow, TrainingLog};
pub use volumes::{VolumeRow, Volumes, VolumesInfo};
