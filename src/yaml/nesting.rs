//! How deep brackets are nested, told before the parser sees them: its time grows with the square of it.

use super::SyntaxError;

/// Deeper than any pipeline, and less deep than what the parser gives up at.
const DEEPEST: usize = 100;

/// Refuses brackets in more than so many brackets. A bracket counts where a value may begin, and within brackets
/// everywhere but in quotes and comments.
pub(super) fn check(text: &str) -> Result<(), SyntaxError> {
    let bytes = text.as_bytes();
    let (mut depth, mut indent_of_first) = (0, 0);
    // The last character that is no blank, at first and after a line end as if nothing stood before.
    let mut last = b'\n';
    let (mut line_start, mut at) = (0, 0);
    let mut is_first = true;
    while let Some(&byte) = bytes.get(at) {
        let begins_value = match last {
            b'\n' | b':' | b'-' | b'?' => true,
            b',' | b'[' | b'{' => depth > 0,
            _ => false,
        };
        match byte {
            b'\n' => {
                (line_start, is_first) = (at + 1, true);
                // Within brackets a value may begin where it stood open before.
                last = if depth == 0 { b'\n' } else { last };
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' if at == 0 || bytes[at - 1].is_ascii_whitespace() => {
                at = end_of_line(bytes, at);
                continue;
            }
            b'"' | b'\'' if begins_value => at = end_of_quotes(bytes, at),
            b'[' | b'{' if depth > 0 || begins_value => {
                if depth == 0 {
                    indent_of_first = indent(&bytes[line_start..]);
                }
                depth += 1;
                if depth > DEEPEST {
                    let message = format!("brackets are nested more than {DEEPEST} deep");
                    return Err(SyntaxError { message, at });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            // Text that begins no further in than where the first bracket stands is outside of it, whatever is open.
            _ if is_first && at - line_start <= indent_of_first => depth = 0,
            _ => {}
        }
        (last, is_first) = (byte, false);
        at += 1;
    }
    Ok(())
}

fn indent(line: &[u8]) -> usize {
    line.iter().take_while(|byte| **byte == b' ').count()
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| from + at)
}

/// Where the closing quote stands, or the end of the text.
fn end_of_quotes(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            // Twice, it stands for itself.
            byte if byte == quote && quote == b'\'' && bytes.get(at + 1) == Some(&quote) => at += 1,
            byte if byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the text is refused, if it is.
    #[track_caller]
    fn check_text(text: &str, refused_at: Option<usize>) {
        assert_eq!(check(text).err().map(|error| error.at), refused_at, "{}", &text[..text.len().min(60)]);
    }

    #[test]
    fn brackets_beyond_a_hundred_are_refused_where_they_stand() {
        for open in ["[", "{", "[ ", "{a: ", "[[],", "[\n", "[ # [\n", "[\"[\", ", "['it''s [', "] {
            let deep = open.repeat(1000);
            let step = open.len();
            check_text(&open.repeat(100), (open == "[[],").then_some(99 * step + 1));
            let extra = usize::from(open == "[[],");
            check_text(&deep, Some((100 - extra) * step + extra));
            check_text(&format!("a: {deep}"), Some(3 + (100 - extra) * step + extra));
        }
    }

    #[test]
    fn brackets_that_are_text_do_not_count() {
        let many = "[ { ".repeat(200);
        for text in [
            format!("a: \"{many}\""),
            format!("a: '{many}'"),
            format!("# {many}\na: 1"),
            format!("a: b # {many}"),
            format!("a: text {many}"),
            format!("a: ${{x}} {many}"),
            "a: [b]\n".repeat(200),
            "a: [\n  b,\n]\n".repeat(200),
            "  - [a, {b: c}]\n".repeat(200),
            // Shell text that opens what it never closes.
            "  run: |\n    echo '['\n    [ -e x\n".repeat(200),
        ] {
            check_text(&text, None);
        }
    }
}
