//! What an image looks like, in so few numbers that all images can be compared. Worked out once for each image.

use crate::artifacts::{Case, CaseTable};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::open;
use fs_err as fs;
use pipe_imaging::similarity::{Thumbnail, align::Pattern, spectrum::spectrum, step::intensity_step};
use pipe_imaging::transform::Transform;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The look of one image. Its pattern stays on disk: a thousand cases need no more memory than a hundred.
pub(super) struct Look {
    /// Index of the case.
    pub(super) case: usize,
    pub(super) seen: Seen,
    pattern: PathBuf,
}

/// What fits in a few numbers. Depends on the files of the image alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The number that all its intensities are multiples of, when it is a telling one.
    pub(super) step: Option<f64>,
    /// Of its thumbnail; `None` when the image is constant.
    pub(super) spectrum: Option<Vec<f32>>,
    pub(super) flat: bool,
}

const PATTERN: &str = "pattern.f32";

impl Look {
    /// Looks at the cases with these indices.
    pub(super) fn of_all(
        table: &CaseTable,
        among: &[usize],
        context: &StageContext,
    ) -> Result<Vec<Self>, StageError> {
        let done = AtomicUsize::new(0);
        let look = |&index: &usize| {
            let case = &table.cases[index];
            let look = Self::of(index, case, context)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            context.progress(done, among.len(), "cases", case.id.as_str());
            Ok(look)
        };
        among.par_iter().map(look).collect()
    }

    fn of(index: usize, case: &Case, context: &StageContext) -> Result<Self, StageError> {
        let files: Vec<_> = case.images.iter().map(|file| file.digest).collect();
        let into = context.scratch.join(index.to_string());
        let seen = context.memo(&json!({ "look": files }), &into, |dir| {
            let image = open::image(case, context)?;
            // Scaled together or not is a matter of the stored numbers; every channel has a scale of its own.
            let step = intensity_step(image.channel(0));
            let upright = Transform::new(image.geometry())
                .canonical()
                .apply_image(&image)
                .map_err(StageError::inner(format!("turning the image of case `{}`", case.id)))?;
            let thumbnail = Thumbnail::of(&upright);
            let bytes = thumbnail.as_ref().map_or_else(Vec::new, |thumbnail| Pattern::new(thumbnail).bytes());
            let path = dir.join(PATTERN);
            fs::write(&path, bytes).map_err(StageError::io("write", &path))?;
            Ok(Seen {
                step,
                spectrum: thumbnail.as_ref().map(spectrum),
                flat: thumbnail.is_some_and(|thumbnail| thumbnail.is_flat()),
            })
        })?;
        Ok(Self { case: index, seen, pattern: into.join(PATTERN) })
    }

    /// The thumbnail, ready to be compared. Of images that are not constant.
    pub(super) fn pattern(&self) -> Result<Pattern, StageError> {
        let bytes = fs::read(&self.pattern).map_err(StageError::io("read", &self.pattern))?;
        let length = bytes.len();
        Pattern::from_bytes(&bytes)
            .ok_or_else(|| StageError::malformed(&self.pattern)(format!("{length} bytes are no pattern")))
    }
}
