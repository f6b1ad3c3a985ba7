//! The words of a shell text that mean themselves: no quotes, no expansion. Only to find which files and programs a
//! text names; what it does, the shell alone knows.

/// Words that the shell itself understands.
const BUILTINS: &[&str] = &[
    "!", ".", ":", "[", "break", "case", "cd", "command", "continue", "do", "done", "echo", "elif", "else",
    "esac", "eval", "exec", "exit", "export", "false", "fi", "for", "if", "in", "printf", "pwd", "read",
    "readonly", "return", "set", "shift", "test", "then", "time", "trap", "true", "type", "ulimit", "umask",
    "unset", "until", "wait", "while", "{", "}",
];

/// Words after which another command begins.
const OPENERS: &[&str] = &["!", "do", "elif", "else", "if", "then", "until", "while", "{"];

/// Commands that run a command which is among their arguments.
const RUNNERS: &[&str] = &[
    "chrt", "command", "env", "exec", "ionice", "mpirun", "nice", "nohup", "numactl", "parallel", "setsid",
    "srun", "stdbuf", "sudo", "taskset", "time", "timeout", "xargs",
];

/// The programs that a text may start, as far as they are named: the words where a command can stand, and all arguments
/// of commands that run another. Functions and patterns of `case` are among them.
pub(super) fn programs(text: &str) -> Vec<&str> {
    enum Place {
        Command,
        Argument,
        ArgumentOfRunner,
    }
    let mut found = Vec::new();
    let mut place = Place::Command;
    for token in tokens(text) {
        let Token::Word { text, value, nested, redirected, .. } = token else {
            place = Place::Command;
            continue;
        };
        found.extend(nested.into_iter().flat_map(programs));
        if redirected {
            continue;
        }
        let value = value.filter(|_| !is_assignment(text));
        match (&place, value) {
            (Place::Command, Some(word)) if OPENERS.contains(&word) => {}
            (Place::Command, Some(word)) => {
                found.push(word);
                place = if RUNNERS.contains(&word) { Place::ArgumentOfRunner } else { Place::Argument };
            }
            (Place::Command, None) if is_assignment(text) => {}
            (Place::Command, None) => place = Place::Argument,
            (Place::ArgumentOfRunner, Some(word)) => found.push(word),
            (Place::ArgumentOfRunner | Place::Argument, _) => {}
        }
    }
    found.retain(|word| !BUILTINS.contains(word) && !word.starts_with('-'));
    found.sort_unstable();
    found.dedup();
    found
}

/// The words without quotes, expansions and comments, outside of here-documents.
pub(super) fn plain_words(text: &str) -> Vec<&str> {
    let word = |token| match token {
        Token::Word { text, plain: true, .. } => Some(text),
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
        /// Without quotes and expansions.
        plain: bool,
        /// What it stands for, if the text alone tells.
        value: Option<&'a str>,
        /// The texts of its `$(…)` and `` `…` ``.
        nested: Vec<&'a str>,
        /// Whether it is where a redirection leads, and so no part of the command.
        redirected: bool,
    },
    /// The end of a simple command.
    End,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut redirected, mut documents) = (text, false, Vec::new());
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '\n' => {
                tokens.push(Token::End);
                rest = after_documents(&rest[1..], &mut documents);
                continue;
            }
            ';' | '&' | '|' | '(' | ')' => {
                tokens.push(Token::End);
                1
            }
            '<' | '>' => {
                let operator = rest.len() - rest.trim_start_matches(['<', '>', '&', '|']).len();
                let dash = usize::from(rest[operator..].starts_with('-'));
                if &rest[..operator] == "<<" {
                    let ending = rest[operator + dash..].trim_start_matches([' ', '\t']);
                    documents.push(ending[..word(ending).length].trim_matches(['"', '\'', '\\']));
                }
                redirected = true;
                operator + dash
            }
            space if space.is_whitespace() => space.len_utf8(),
            _ => {
                let Word { length, plain, nested } = word(rest);
                let (text, after) = rest.split_at(length);
                let is_stream =
                    after.starts_with(['<', '>']) && text.bytes().all(|byte| byte.is_ascii_digit());
                if !is_stream {
                    let value = if plain { Some(text) } else { unquoted(text) };
                    tokens.push(Token::Word { text, plain, value, nested, redirected });
                    redirected = false;
                }
                length
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// What follows the here-documents that the line before named by their endings.
fn after_documents<'a>(text: &'a str, endings: &mut Vec<&str>) -> &'a str {
    let mut rest = text;
    for ending in endings.drain(..) {
        loop {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            if line.trim_start_matches('\t') == ending || rest.is_empty() {
                break;
            }
        }
    }
    rest
}

/// What a word in quotes stands for, where nothing in it is expanded.
fn unquoted(word: &str) -> Option<&str> {
    let inner = |quote| word.strip_prefix(quote)?.strip_suffix(quote);
    let inner = inner('"').or_else(|| inner('\''))?;
    (!inner.is_empty() && !inner.contains(['"', '\'', '$', '`', '\\'])).then_some(inner)
}

struct Word<'a> {
    length: usize,
    /// Whether the shell takes it as it stands.
    plain: bool,
    nested: Vec<&'a str>,
}

/// The word that a text begins with.
fn word(text: &str) -> Word<'_> {
    let (mut plain, mut quote, mut nested) = (true, None, Vec::new());
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at + next.len_utf8()..];
        let mut length = next.len_utf8();
        match (quote, next) {
            (Some(open), _) if next == open => quote = None,
            (None | Some('"'), '\\') => {
                plain = false;
                length += rest.chars().next().map_or(0, char::len_utf8);
            }
            (None | Some('"'), '$') if rest.starts_with('(') && !rest.starts_with("((") => {
                plain = false;
                let inner = up_to_parenthesis(&rest[1..]);
                nested.push(inner);
                length += (inner.len() + 2).min(rest.len());
            }
            (None | Some('"'), '`') => {
                plain = false;
                let inner = &rest[..rest.find('`').unwrap_or(rest.len())];
                nested.push(inner);
                length += (inner.len() + 1).min(rest.len());
            }
            (None, '\'' | '"') => {
                plain = false;
                quote = Some(next);
            }
            (None, '$' | '*' | '?' | '[' | '~') => plain = false,
            // Alone they are words of their own.
            (None, '{' | '}') => plain &= at == 0 && rest.chars().next().is_none_or(char::is_whitespace),
            (None, ';' | '&' | '|' | '<' | '>' | '(' | ')') => break,
            (None, _) if next.is_whitespace() => break,
            _ => {}
        }
        at += length;
    }
    Word { length: at, plain, nested }
}

/// What stands before the parenthesis that closes one which was opened.
fn up_to_parenthesis(text: &str) -> &str {
    let mut depth = 0;
    for (at, next) in text.char_indices() {
        match next {
            '(' => depth += 1,
            ')' if depth == 0 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str], plain: &[&str]) {
        assert_eq!(programs(text), expected, "{text}");
        assert_eq!(plain_words(text), plain, "{text}");
    }

    #[track_caller]
    fn runs(text: &str, expected: &[&str]) {
        assert_eq!(programs(text), expected, "{text}");
    }

    #[test]
    fn a_program_is_the_first_word_of_a_command_that_assigns_nothing() {
        check("python3 train.py", &["python3"], &["python3", "train.py"]);
        check("\n  A=1 B=\"x y\" sort in/a/f>out/o/f", &["sort"], &["A=1", "sort", "in/a/f", "out/o/f"]);
        check("A=1; make", &["make"], &["A=1", "make"]);
        check("# why\n\nmake all.txt", &["make"], &["make", "all.txt"]);
    }

    #[test]
    fn programs_are_found_wherever_a_command_can_stand() {
        for text in [
            "tool x",
            "set -e; tool x",
            "set -e\ntool x",
            "exec tool x",
            "cd x && tool",
            "env A=1 tool",
            "nice -5 tool x",
            "time tool",
            "command tool",
            "\"tool\" x",
            "'tool' x",
            "if true; then tool; fi",
            "{ tool; }",
            "! tool",
            "X=$(tool x)",
            "X=`tool x`",
            "echo \"$(tool)\"",
            "echo | tool",
            "> out/o/x tool",
            "2>err tool",
            "(tool)",
            "while read f; do tool $f; done",
            "echo >&2; tool",
            "echo > \"$(tool)\"",
            "printf x | xargs -n1 tool",
            "cat() { :; }; tool",
            "echo a &&\n  tool",
            "true || tool",
            "tool <<END\nmake\nEND\n",
            "echo $((1 + 2)); tool",
            "read x <<< y; tool",
            "for f in a b; do tool; done",
            "echo \"$(echo \"$(tool)\")\"",
            "tool>out/o/x",
        ] {
            assert!(programs(text).contains(&"tool"), "{text}: {:?}", programs(text));
        }
        runs("A=1 B=2 one | two && three x", &["one", "three", "two"]);
        runs("timeout 5 one two", &["5", "one", "timeout", "two"]);
        runs("one <<END | two\nmake\nEND\nthree", &["one", "three", "two"]);
        runs("one <<-'A' <<B\nx\n\tA\ny\nB\ntwo", &["one", "two"]);
    }

    #[test]
    fn what_the_shell_runs_itself_or_works_out_is_no_program() {
        check("cd data && cat f", &["cat"], &["cd", "data", "cat", "f"]);
        check("$TOOL x", &[], &["x"]);
        check("'my tool' x", &["my tool"], &["x"]);
        check("", &[], &[]);
        runs("echo make", &[]);
        runs("echo 'a; make' \"b | make\" # make", &[]);
        runs("echo hi > make", &[]);
    }

    #[test]
    fn quotes_expansions_comments_and_here_documents_name_nothing() {
        check(r#"cat "see a.txt" 'b.txt c' d\ e.txt f.txt"#, &["cat"], &["cat", "f.txt"]);
        check("cat *.txt $HOME/a.txt x{1,2}.txt", &["cat"], &["cat"]);
        check("cat a.txt # not b.txt\ncat c.txt", &["cat"], &["cat", "a.txt", "cat", "c.txt"]);
        check("python3 - <<END\nopen(a.txt)\nEND\n", &["python3"], &["python3", "-", "END"]);
        check("cat \"a \\\" b.txt\" c.txt", &["cat"], &["cat", "c.txt"]);
        check("cat é.txt;é", &["cat", "é"], &["cat", "é.txt", "é"]);
        check("cat 'no end", &["cat"], &["cat"]);
        for cut in ["cat $(", "cat `x", "cat <<", "cat <<END\nx", "$(", "\\", "echo \"$(a \"b", ">", "<<-"] {
            programs(cut);
            plain_words(cut);
        }
    }
}
