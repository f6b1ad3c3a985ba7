//! The words of a shell text that mean themselves: no quotes, no expansion. Only to find which files and programs a
//! text names; what it does, the shell alone knows.

/// Words that the shell itself understands.
const BUILTINS: &[&str] = &[
    "!", ".", ":", "[", "break", "case", "cd", "command", "continue", "echo", "eval", "exec", "exit",
    "export", "false", "for", "if", "printf", "pwd", "read", "readonly", "return", "set", "shift", "test",
    "time", "trap", "true", "type", "ulimit", "umask", "unset", "until", "wait", "while",
];

/// The program that a text starts first, where that can be told.
pub(super) fn first_program(text: &str) -> Option<&str> {
    let is_end = |token: &Token| matches!(token, Token::End);
    // Empty lines and comments come before it.
    let first_command = tokens(text).into_iter().skip_while(is_end).take_while(|token| !is_end(token));
    let mut words = first_command.filter_map(|token| match token {
        Token::Word { text, plain } => Some((text, plain)),
        Token::End => None,
    });
    let (word, plain) = words.find(|(word, _)| !is_assignment(word))?;
    (plain && !BUILTINS.contains(&word)).then_some(word)
}

/// The words without quotes, expansions and comments, up to the first here-document.
pub(super) fn plain_words(text: &str) -> Vec<&str> {
    let word = |token| match token {
        Token::Word { text, plain: true } => Some(text),
        Token::Word { .. } | Token::End => None,
    };
    tokens(text).into_iter().filter_map(word).collect()
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

enum Token<'a> {
    Word {
        text: &'a str,
        plain: bool,
    },
    /// The end of a simple command.
    End,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("<<") {
            break;
        }
        let length = match next {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                tokens.push(Token::End);
                1
            }
            '<' | '>' => 1,
            space if space.is_whitespace() => space.len_utf8(),
            _ => {
                let (length, plain) = word(rest);
                tokens.push(Token::Word { text: &rest[..length], plain });
                length
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the word that a text begins with, and whether the shell takes it as it stands.
fn word(text: &str) -> (usize, bool) {
    let mut plain = true;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, next)) = chars.next() {
        match (quote, next) {
            (Some(open), _) if next == open => quote = None,
            (None | Some('"'), '\\') => {
                plain = false;
                chars.next();
            }
            (None, '\'' | '"') => {
                plain = false;
                quote = Some(next);
            }
            (None, '$' | '`' | '*' | '?' | '[' | '{' | '}' | '~') => plain = false,
            (None, ';' | '&' | '|' | '<' | '>' | '(' | ')') => return (at, plain),
            (None, _) if next.is_whitespace() => return (at, plain),
            _ => {}
        }
    }
    (text.len(), plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, first: Option<&str>, plain: &[&str]) {
        assert_eq!(first_program(text), first, "{text}");
        assert_eq!(plain_words(text), plain, "{text}");
    }

    #[test]
    fn the_first_program_is_the_first_word_that_assigns_nothing() {
        check("python3 train.py", Some("python3"), &["python3", "train.py"]);
        check("\n  A=1 B=\"x y\" sort in/a/f>out/o/f", Some("sort"), &["A=1", "sort", "in/a/f", "out/o/f"]);
        check("A=1; make", None, &["A=1", "make"]);
        check("# why\n\nmake all.txt", Some("make"), &["make", "all.txt"]);
    }

    #[test]
    fn what_the_shell_runs_itself_or_works_out_is_no_program() {
        check("cd data && cat f", None, &["cd", "data", "cat", "f"]);
        check("$TOOL x", None, &["x"]);
        check("'my tool' x", None, &["x"]);
        check("", None, &[]);
    }

    #[test]
    fn quotes_expansions_comments_and_here_documents_name_nothing() {
        check(r#"cat "see a.txt" 'b.txt c' d\ e.txt f.txt"#, Some("cat"), &["cat", "f.txt"]);
        check("cat *.txt $HOME/a.txt x{1,2}.txt", Some("cat"), &["cat"]);
        check("cat a.txt # not b.txt\ncat c.txt", Some("cat"), &["cat", "a.txt", "cat", "c.txt"]);
        check("python3 - <<END\nopen(a.txt)\nEND\n", Some("python3"), &["python3", "-"]);
        check("cat \"a \\\" b.txt\" c.txt", Some("cat"), &["cat", "c.txt"]);
        check("cat é.txt;é", Some("cat"), &["cat", "é.txt", "é"]);
        check("cat 'no end", Some("cat"), &["cat"]);
    }
}
