//! A pipeline file as written: names, references and untyped parameters, each with its node. Nothing is resolved
//! here but `params:`.

use crate::params::{Environment, Scope};
use crate::problem::{At, Problem, Problems, suggest};
use crate::yaml::{self, Key, Node, NodeId, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A pipeline file as written.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub name: String,
    /// The file, as it was named by the user.
    pub file: PathBuf,
    pub text: String,
    pub scope: Scope,
    /// Where params did not come from the file, as the user would write it.
    pub overrides: Vec<String>,
    /// Used by seeded stages that have none of their own.
    pub seed: Node,
    pub stages: Vec<StageDecl>,
    /// Stages that are named but could not be read.
    pub unread: Vec<Key>,
    /// What is wrong so far; planning adds to it, so that all is told at once.
    pub problems: Vec<Problem>,
}

/// One entry under `stages:`.
#[derive(Debug, Clone)]
pub struct StageDecl {
    pub name: Key,
    pub uses: Node,
    /// Parameters, a mapping or nothing.
    pub with: Node,
    /// Input name → references; `None` where what is written cannot be read as such, which was told.
    pub inputs: Option<Vec<(Key, Vec<Node>)>>,
    pub matrix: Option<Node>,
    pub seed: Option<Node>,
    pub resources: Option<Node>,
    pub retries: Option<Node>,
    pub timeout: Option<Node>,
}

/// Values that win over those of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--set NAME=VALUE`, in the order given.
    pub set: Vec<(String, String)>,
    /// `--params FILE`: path and text, in the order given.
    pub files: Vec<(PathBuf, String)>,
    pub environment: Rc<Environment>,
}

/// Environment variables with this prefix set the param named after it: `PIPE_PARAM_folds=3`.
pub const PARAM_PREFIX: &str = "PIPE_PARAM_";

impl Overrides {
    /// Each as the user would write it.
    fn told(&self) -> Vec<String> {
        let set = self.set.iter().map(|(name, value)| format!("--set {name}={value}"));
        let files = self.files.iter().map(|(path, _)| format!("--params {}", path.display()));
        let variables = self.environment.names().filter(|name| name.starts_with(PARAM_PREFIX));
        let variables = variables.map(|name| (name, self.environment.get(name).unwrap_or_default()));
        set.chain(files).chain(variables.map(|(name, value)| format!("{name}={value}"))).collect()
    }
}

/// The top level, as messages name it.
const PIPELINE: &str = "a pipeline file";
const TOP_KEYS: [&str; 5] = ["name", "description", "params", "seed", "stages"];
const STAGE_KEYS: [&str; 9] =
    ["uses", "description", "in", "with", "matrix", "seed", "resources", "retries", "timeout"];

impl Pipeline {
    /// Reads a pipeline file's text. Fails only where there is nothing to plan; other problems are kept in
    /// [`Pipeline::problems`].
    pub fn parse(file: &Path, text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        let shown = file.display().to_string();
        // Editors on Windows begin a file with it.
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let fail = |problems| Problems::new(&shown, text, problems);
        let root = yaml::parse(text).map_err(|error| fail(vec![syntax_problem(&error)]))?;
        let mut reader = Reader::default();
        let pipeline = reader.pipeline(&root, file, text, overrides);
        let mut problems = reader.problems;
        problems.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        problems.dedup();
        match pipeline {
            Some(pipeline) => Ok(Self { problems, ..pipeline }),
            None => Err(fail(problems)),
        }
    }
}

fn syntax_problem(error: &yaml::SyntaxError) -> Problem {
    Problem {
        message: format!("this is not YAML: {}", error.message),
        label: "here".into(),
        help: "check the indentation, quotes and brackets around this place".into(),
        at: At::Byte(error.at),
    }
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn pipeline(&mut self, root: &Node, file: &Path, text: &str, overrides: &Overrides) -> Option<Pipeline> {
        let top = self.map(root, PIPELINE, &TOP_KEYS)?;
        let name = self.name(top.get("name").copied(), file);
        let scope = self.scope(top.get("params").copied(), overrides);
        let seed =
            top.get("seed").map_or_else(|| Node::scalar("0"), |node| scope.fill(node, &mut self.problems));
        let Some(stages) = top.get("stages") else {
            self.problems.push(
                Problem::new(root.id, "a pipeline needs `stages:`")
                    .help("add `stages:` with one entry per stage, e.g. `cases: { uses: import, with: { from: data } }`"),
            );
            return None;
        };
        let Value::Map(entries) = &stages.value else {
            let message =
                format!("`stages` must be a mapping from names to stages, not {}", stages.describe());
            self.problems
                .push(Problem::new(stages.id, message).help("write `NAME: { uses: KIND }` for each stage"));
            return None;
        };
        if entries.is_empty() {
            let help = "add at least one stage, e.g. `cases: { uses: import, with: { from: phantom } }`";
            self.problems.push(Problem::new(stages.id, "`stages` is empty").help(help));
        }
        let mut first: BTreeMap<&str, NodeId> = BTreeMap::new();
        let (mut declared, mut unread) = (Vec::new(), Vec::new());
        for (key, node) in entries {
            if first.insert(&key.text, key.id).is_some() {
                let message = format!("two stages are named `{}`", key.text);
                self.problems.push(
                    Problem::new(key.id, message)
                        .label("this one again")
                        .help("give one of them another name"),
                );
                continue;
            }
            self.stage_name(key);
            match self.stage(key, node) {
                Some(stage) => declared.push(stage),
                None => unread.push(key.clone()),
            }
        }
        let (file, text, overrides) = (file.to_owned(), text.to_owned(), overrides.told());
        Some(Pipeline {
            name,
            file,
            text,
            scope,
            overrides,
            seed,
            stages: declared,
            unread,
            problems: Vec::new(),
        })
    }

    /// The name, which is also the name of the folder of results.
    fn name(&mut self, node: Option<&Node>, file: &Path) -> String {
        let Some(node) = node else {
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            return stem.chars().map(|c| if is_name(c) { c } else { '_' }).collect();
        };
        match node.text() {
            Some(text) if is_name_of_folder(text) => text.to_owned(),
            Some(text) => {
                let message = format!("`{text}` cannot name a pipeline");
                let help = format!("{NAME_RULE}: it becomes a folder below `results/`");
                self.problems.push(Problem::new(node.id, message).help(help));
                String::new()
            }
            None => {
                let message = format!("`name` must be text, not {}", node.describe());
                self.problems
                    .push(Problem::new(node.id, message).help("write a word, e.g. `name: hippocampus`"));
                String::new()
            }
        }
    }

    fn stage_name(&mut self, key: &Key) {
        if !is_name_of_folder(&key.text) {
            let message = format!("`{}` cannot name a stage", key.text);
            self.problems.push(Problem::new(key.id, message).help(NAME_RULE));
        }
    }

    fn stage(&mut self, key: &Key, node: &Node) -> Option<StageDecl> {
        let what = format!("stage `{}`", key.text);
        let fields = self.map(node, &what, &STAGE_KEYS)?;
        let Some(uses) = fields.get("uses") else {
            let help = "add `uses: KIND`; `pipe stages` lists the kinds";
            self.problems.push(Problem::new(key.id, format!("{what} does not say what it uses")).help(help));
            return None;
        };
        let nothing = Node { id: key.id, value: Value::Null };
        Some(StageDecl {
            name: key.clone(),
            uses: (*uses).clone(),
            with: fields.get("with").map_or(nothing, |node| (*node).clone()),
            inputs: fields.get("in").map_or(Some(Vec::new()), |node| self.inputs(node, &what)),
            matrix: fields.get("matrix").map(|node| (*node).clone()),
            seed: fields.get("seed").map(|node| (*node).clone()),
            resources: fields.get("resources").map(|node| (*node).clone()),
            retries: fields.get("retries").map(|node| (*node).clone()),
            timeout: fields.get("timeout").map(|node| (*node).clone()),
        })
    }

    fn inputs(&mut self, node: &Node, what: &str) -> Option<Vec<(Key, Vec<Node>)>> {
        let Value::Map(pairs) = &node.value else {
            let message = format!("`in` of {what} must map input names to stages, not {}", node.describe());
            self.problems.push(Problem::new(node.id, message).help("write `in: { cases: STAGE }`"));
            return None;
        };
        self.unique_keys(pairs, &format!("`in` of {what}"));
        let references = |value: &Node| match &value.value {
            Value::List(items) => items.clone(),
            _ => vec![value.clone()],
        };
        Some(pairs.iter().map(|(key, value)| (key.clone(), references(value))).collect())
    }

    fn scope(&mut self, params: Option<&Node>, overrides: &Overrides) -> Scope {
        let mut scope = Scope { environment: overrides.environment.clone(), ..Scope::default() };
        let declared = params.map(|node| self.pairs(node, "`params`")).unwrap_or_default();
        for (key, node) in declared {
            // Text of the file may use params above it and the environment.
            let node = match self.override_for(&key.text, overrides) {
                Some((node, origin)) => {
                    scope.origins.insert(key.text.clone(), origin);
                    node
                }
                None => node.clone(),
            };
            let filled = scope.fill(&node, &mut self.problems);
            scope.params.insert(key.text.clone(), filled);
        }
        self.unknown_overrides(&scope, overrides);
        scope
    }

    /// The value that wins over that of the file, and where it comes from: the command line wins over files, files
    /// over the environment.
    fn override_for(&mut self, name: &str, overrides: &Overrides) -> Option<(Node, String)> {
        if let Some((_, value)) = overrides.set.iter().rev().find(|(set, _)| set == name) {
            return Some((self.override_text(name, value)?, format!("`--set {name}={value}`")));
        }
        let mut found = None;
        for (path, content) in &overrides.files {
            if let Some((_, node)) =
                self.params_file(path, content).into_iter().find(|(key, _)| key.text == name)
            {
                found = Some((node, format!("`{name}` in `{}`", path.display())));
            }
        }
        if found.is_some() {
            return found;
        }
        let variable = format!("{PARAM_PREFIX}{name}");
        let value = overrides.environment.get(&variable)?;
        Some((self.override_text(name, value)?, format!("environment variable `{variable}`")))
    }

    fn override_text(&mut self, name: &str, text: &str) -> Option<Node> {
        match yaml::parse(text) {
            Ok(node) => Some(nowhere(node)),
            Err(error) => {
                let message = format!("the value `{text}` for `{name}` is not YAML: {}", error.message);
                let help = "quote it for the shell, e.g. --set 'spacing=[1, 1, 1]'";
                self.problems.push(Problem::new(NodeId::NOWHERE, message).help(help));
                None
            }
        }
    }

    fn params_file(&mut self, path: &Path, content: &str) -> Vec<(Key, Node)> {
        match yaml::parse(content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content)).map(nowhere) {
            Ok(Node { value: Value::Map(pairs), .. }) => pairs,
            Ok(Node { value: Value::Null, .. }) => Vec::new(),
            Ok(_) => {
                let message = format!("`{}` must be a mapping of params", path.display());
                let help = "write `NAME: VALUE` on a line each";
                self.problems.push(Problem::new(NodeId::NOWHERE, message).help(help));
                Vec::new()
            }
            Err(error) => {
                let line = content[..error.at].matches('\n').count() + 1;
                let message = format!("{}:{line}: {}", path.display(), error.message);
                let help = "check the indentation, quotes and brackets around this line";
                self.problems.push(Problem::new(NodeId::NOWHERE, message).help(help));
                Vec::new()
            }
        }
    }

    fn unknown_overrides(&mut self, scope: &Scope, overrides: &Overrides) {
        let mut names: Vec<(String, String)> =
            overrides.set.iter().map(|(name, _)| (name.clone(), format!("--set {name}=…"))).collect();
        for (path, content) in &overrides.files {
            for (key, _) in self.params_file(path, content) {
                names.push((key.text.clone(), format!("`{}` in `{}`", key.text, path.display())));
            }
        }
        for variable in overrides.environment.names() {
            if let Some(name) = variable.strip_prefix(PARAM_PREFIX) {
                names.push((name.to_owned(), format!("environment variable `{variable}`")));
            }
        }
        for (name, origin) in names {
            if !scope.params.contains_key(&name) {
                let message = format!("{origin} sets no param of this pipeline");
                let help = suggest(&name, scope.params.keys().map(String::as_str), "params");
                self.problems.push(Problem::new(NodeId::NOWHERE, message).help(help));
            }
        }
    }

    fn pairs<'a>(&mut self, node: &'a Node, what: &str) -> Vec<&'a (Key, Node)> {
        match &node.value {
            Value::Map(pairs) => {
                self.unique_keys(pairs, what);
                pairs.iter().collect()
            }
            Value::Null => Vec::new(),
            _ => {
                let message = format!("{what} must be a mapping, not {}", node.describe());
                self.problems.push(Problem::new(node.id, message).help("write `NAME: VALUE` on a line each"));
                Vec::new()
            }
        }
    }

    fn map<'a>(&mut self, node: &'a Node, what: &str, keys: &[&str]) -> Option<BTreeMap<&'a str, &'a Node>> {
        let Value::Map(pairs) = &node.value else {
            self.problems.push(
                Problem::new(node.id, format!("{what} must be a mapping, not {}", node.describe()))
                    .help(format!("it has the keys {}", keys.join(", "))),
            );
            return None;
        };
        self.unique_keys(pairs, what);
        for (key, _) in pairs {
            if !keys.contains(&key.text.as_str()) && !is_extension(what, &key.text) {
                let help = suggest(&key.text, keys.iter().copied(), "keys");
                let message = format!("{what} has an unknown key `{}`", key.text);
                self.problems.push(Problem::new(key.id, message).label("no such key").help(help));
            }
        }
        Some(pairs.iter().map(|(key, node)| (key.text.as_str(), node)).collect())
    }

    fn unique_keys(&mut self, pairs: &[(Key, Node)], what: &str) {
        for (at, (key, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(before, _)| before.text == key.text) {
                let message = format!("{what} has the key `{}` twice", key.text);
                self.problems
                    .push(Problem::new(key.id, message).label("this one again").help("remove one of them"));
            }
        }
    }
}

/// A key of the top level that begins with `x-` holds what the user likes, such as anchors.
fn is_extension(what: &str, key: &str) -> bool {
    what == PIPELINE && key.starts_with("x-")
}

/// Strips places: ids of another text must not be looked up in the pipeline file.
fn nowhere(node: Node) -> Node {
    let value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(nowhere).collect()),
        Value::Map(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| (Key { id: NodeId::NOWHERE, text: key.text }, nowhere(value)))
                .collect(),
        ),
        value => value,
    };
    Node { id: NodeId::NOWHERE, value }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

const BYTE_ORDER_MARK: char = '\u{feff}';
const NAME_RULE: &str = "use up to 100 letters, digits, `_` and `-`, and begin with another than `-`";

/// Whether a text can be given on the command line, and be the name of a folder.
fn is_name_of_folder(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && !text.starts_with('-') && text.chars().all(is_name)
}
