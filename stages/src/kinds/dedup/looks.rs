//! What an image looks like, in so few numbers that all images can be compared. Worked out once for each image.

use crate::artifacts::{Case, CaseTable};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::open;
use fs_err as fs;
use pipe_imaging::similarity::{Thumbnail, align::Pattern, spectrum::spectrum, step::intensity_step};
use pipe_imaging::transform::Transform;
use rayon::prelude::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The look of one image. Its thumbnail stays on disk: a thousand cases need no more memory than a hundred.
pub(super) struct Look {
    /// Index of the case.
    pub(super) case: usize,
    /// Of its thumbnail; `None` when the image is constant.
    pub(super) spectrum: Option<Vec<f32>>,
    pub(super) flat: bool,
    /// The number that all its intensities are multiples of, when it is a telling one.
    pub(super) step: Option<f64>,
    thumbnail: PathBuf,
}

const THUMBNAIL: &str = "thumbnail.f32";

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
            context.progress(
                done.fetch_add(1, Ordering::Relaxed) + 1,
                among.len(),
                "cases",
                case.id.as_str(),
            );
            Ok(look)
        };
        among.par_iter().map(look).collect()
    }

    fn of(index: usize, case: &Case, context: &StageContext) -> Result<Self, StageError> {
        let files: Vec<_> = case.images.iter().map(|file| file.digest).collect();
        let into = context.scratch.join(index.to_string());
        let step: Option<f64> = context.memo(&json!({ "look": files }), &into, |dir| {
            let image = open::image(case, context)?;
            // Scaled together or not is a matter of the stored numbers; every channel has a scale of its own.
            let step = intensity_step(image.channel(0));
            let upright = Transform::new(image.geometry()).canonical();
            let image = upright
                .apply_image(&image)
                .map_err(StageError::inner(format!("turning the image of case `{}`", case.id)))?;
            let bytes = Thumbnail::of(&image).map_or_else(Vec::new, |thumbnail| thumbnail.bytes());
            let path = dir.join(THUMBNAIL);
            fs::write(&path, bytes).map_err(StageError::io("write", &path))?;
            Ok(step)
        })?;
        let mut look =
            Self { case: index, spectrum: None, flat: false, step, thumbnail: into.join(THUMBNAIL) };
        if let Some(thumbnail) = look.thumbnail()? {
            (look.spectrum, look.flat) = (Some(spectrum(&thumbnail)), thumbnail.is_flat());
        }
        Ok(look)
    }

    /// The thumbnail, ready to be compared; `None` when the image is constant.
    pub(super) fn pattern(&self) -> Result<Option<Pattern>, StageError> {
        Ok(self.thumbnail()?.as_ref().map(Pattern::new))
    }

    fn thumbnail(&self) -> Result<Option<Thumbnail>, StageError> {
        let bytes = fs::read(&self.thumbnail).map_err(StageError::io("read", &self.thumbnail))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = bytes.len();
        Thumbnail::from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| StageError::malformed(&self.thumbnail)(format!("{length} bytes are no thumbnail")))
    }
}
