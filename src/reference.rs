//! References to stages: `split`, `split.folds`, `train[*]`, `train[fold=0]`, `train[fold=0,model=unet3d].model`.

use crate::matrix::StageId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub base: String,
    /// Axes that must have these values; `None` without brackets.
    pub axes: Option<Vec<(String, String)>>,
    pub port: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (base, axes, rest) = match text.split_once('[') {
            None => {
                let (base, port) =
                    text.split_once('.').map_or((text, ""), |(base, _)| (base, &text[base.len()..]));
                (base, None, port)
            }
            Some((base, rest)) => {
                let (inside, rest) =
                    rest.split_once(']').ok_or_else(|| format!("`{text}` has a `[` without its `]`"))?;
                (base, Some(parse_axes(inside).ok_or_else(|| bad(text))?), rest)
            }
        };
        let port = match rest {
            "" => None,
            rest => Some(
                rest.strip_prefix('.').filter(|port| !port.is_empty()).ok_or_else(|| bad(text))?.to_owned(),
            ),
        };
        if base.is_empty() {
            return Err(bad(text));
        }
        Ok(Self { base: base.to_owned(), axes, port })
    }

    /// Without brackets only a stage without a matrix is meant.
    pub fn selects(&self, id: &StageId) -> bool {
        match &self.axes {
            None => id.base == self.base && id.axes.is_empty(),
            Some(axes) => id.base == self.base && axes.iter().all(|axis| id.axes.contains(axis)),
        }
    }

    /// On the command line, the name of a matrix stage means all of it.
    pub fn selects_or_names(&self, id: &StageId) -> bool {
        self.selects(id) || (self.axes.is_none() && id.base == self.base)
    }
}

fn bad(text: &str) -> String {
    format!("`{text}` is not a reference to a stage")
}

fn parse_axes(inside: &str) -> Option<Vec<(String, String)>> {
    inside
        .split(',')
        .map(str::trim)
        .filter(|part| *part != "*")
        .map(|part| {
            let (axis, value) = part.split_once('=')?;
            Some((axis.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(fold: &str) -> StageId {
        let axes = vec![("fold".into(), fold.into()), ("model".into(), "unet".into())];
        StageId { base: "train".into(), axes }
    }

    #[test]
    fn brackets_select_combinations() {
        let selects = |text: &str| {
            let reference = Reference::parse(text).unwrap();
            (reference.selects(&id("0")), reference.selects(&id("1")))
        };
        assert_eq!(selects("train[*]"), (true, true));
        assert_eq!(selects("train[fold=0]"), (true, false));
        assert_eq!(selects("train[model=unet, fold=1].model"), (false, true));
        assert_eq!(selects("train[fold=1,*]"), (false, true));
        assert_eq!(selects("train"), (false, false));
        assert_eq!(selects("test[*]"), (false, false));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["", "[*]", "a[", "a[x]", "a[]", "a.", "a[*]x", ".port"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert_eq!(Reference::parse("split.folds").unwrap().port.as_deref(), Some("folds"));
    }
}
