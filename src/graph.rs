//! A plan as a picture: tree, DOT, Mermaid or JSON. Knows how to draw, not how states come about.

use crate::plan::Plan;
use petgraph::graph::NodeIndex;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

/// What a run would do with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Cached,
    /// It would run.
    Stale,
    /// It may run, depending on what the stages before it make.
    Unsure,
    /// It would fail: what it reads cannot be read.
    Failing,
}

impl Standing {
    pub fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::Unsure => "unsure",
            Self::Failing => "failing",
        }
    }
}

/// A box of the picture: one stage, or all stages of one matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Name of the stage, or of the stage of the file that a matrix made many of.
    pub name: String,
    /// Name in the file.
    base: String,
    /// Stages in the box.
    pub count: usize,
    pub kind: &'static str,
    pub standings: BTreeMap<Standing, usize>,
}

impl Shape {
    /// `train ×4` for many.
    fn label(&self) -> String {
        if self.count == 1 { self.name.clone() } else { format!("{} ×{}", self.name, self.count) }
    }
}

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub shapes: Vec<Shape>,
    /// From, to, what flows.
    pub edges: BTreeSet<(usize, usize, String)>,
}

impl Picture {
    /// With `expand` every stage has a box of its own; else the stages of a matrix share one.
    pub fn new(plan: &Plan, standings: &BTreeMap<NodeIndex, Standing>, expand: bool) -> Self {
        let mut picture = Self::default();
        let mut at: BTreeMap<NodeIndex, usize> = BTreeMap::new();
        let mut by_base: BTreeMap<&str, usize> = BTreeMap::new();
        for (node, planned) in plan.stages() {
            let shared = if expand { None } else { by_base.get(planned.id.base.as_str()).copied() };
            let shape = shared.unwrap_or_else(|| {
                let base = planned.id.base.clone();
                let name = if expand { planned.id.to_string() } else { base.clone() };
                let kind = planned.kind();
                picture.shapes.push(Shape { name, base, count: 0, kind, standings: BTreeMap::new() });
                picture.shapes.len() - 1
            });
            by_base.insert(&planned.id.base, shape);
            at.insert(node, shape);
            picture.shapes[shape].count += 1;
            if let Some(standing) = standings.get(&node) {
                *picture.shapes[shape].standings.entry(*standing).or_default() += 1;
            }
        }
        for (node, _) in plan.stages() {
            for (source, edge) in plan.inputs(node) {
                picture.edges.insert((at[&source], at[&node], edge.input.clone()));
            }
        }
        picture
    }

    /// Stages that nothing reads, each with what it needs below it. A repeated part is drawn once.
    pub fn tree(&self) -> String {
        let mut needs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.shapes.len()];
        let mut is_read = vec![false; self.shapes.len()];
        for (from, to, _) in &self.edges {
            needs[*to].insert(*from);
            is_read[*from] = true;
        }
        let mut bases: HashMap<&str, usize> = HashMap::new();
        for (at, shape) in self.shapes.iter().enumerate() {
            bases.entry(&shape.base).or_insert(at);
        }
        // The latest first, as what is nearest; the stages of one matrix in their order.
        let sorted = |needs: BTreeSet<usize>| {
            let mut needs: Vec<usize> = needs.into_iter().collect();
            needs.sort_by_key(|&need| (Reverse(bases[self.shapes[need].base.as_str()]), need));
            needs
        };
        let mut tree = Tree {
            needs: needs.into_iter().map(sorted).collect(),
            drawn: vec![false; self.shapes.len()],
            text: String::new(),
        };
        for root in (0..self.shapes.len()).filter(|&shape| !is_read[shape]) {
            self.branch(root, "", "", &mut tree);
        }
        tree.text
    }

    fn branch(&self, shape: usize, first: &str, rest: &str, tree: &mut Tree) {
        let Tree { needs, drawn, text } = tree;
        let needs = needs[shape].clone();
        let repeated = std::mem::replace(&mut drawn[shape], true) && !needs.is_empty();
        let Shape { base, kind, .. } = &self.shapes[shape];
        let label = self.shapes[shape].label();
        let uses = if base == kind { String::new() } else { format!(" ({kind})") };
        let standing = self.standing(shape).map(|standing| format!("  {standing}")).unwrap_or_default();
        let _ =
            writeln!(text, "{first}{label}{uses}{standing}{}", if repeated { "  ↑ shown above" } else { "" });
        if repeated {
            return;
        }
        let last = needs.len().saturating_sub(1);
        for (at, need) in needs.into_iter().enumerate() {
            let (branch, below) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.branch(need, &format!("{rest}{branch}"), &format!("{rest}{below}"), tree);
        }
    }

    fn standing(&self, shape: usize) -> Option<String> {
        let standings = &self.shapes[shape].standings;
        let total: usize = standings.values().sum();
        let parts: Vec<_> = standings
            .iter()
            .map(|(standing, count)| {
                if *count == total {
                    standing.word().to_owned()
                } else {
                    format!("{count} {}", standing.word())
                }
            })
            .collect();
        (total > 0).then(|| format!("[{}]", parts.join(", ")))
    }

    /// The worst standing colours the box.
    fn color(&self, shape: usize) -> &'static str {
        match self.shapes[shape].standings.keys().next_back() {
            Some(Standing::Cached) => "#d5e8d4",
            Some(Standing::Stale) => "#ffe6cc",
            Some(Standing::Unsure) => "#fff2cc",
            Some(Standing::Failing) => "#f8cecc",
            None => "#ffffff",
        }
    }

    pub fn dot(&self) -> String {
        let mut text = "digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", \
                        fontname=\"sans-serif\"];\n"
            .to_owned();
        for (at, shape) in self.shapes.iter().enumerate() {
            let label = format!("\"{}\\n{}\"", escaped(&shape.label()), escaped(shape.kind));
            let _ = writeln!(text, "  s{at} [label={label}, fillcolor=\"{}\"];", self.color(at));
        }
        for (from, to, input) in &self.edges {
            let _ = writeln!(text, "  s{from} -> s{to} [label=\"{}\", fontsize=9];", escaped(input));
        }
        text + "}\n"
    }

    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (at, shape) in self.shapes.iter().enumerate() {
            let _ = writeln!(text, "  s{at}[\"{}\"]", shape.label().replace('"', "#quot;"));
            if !shape.standings.is_empty() {
                let _ = writeln!(text, "  style s{at} fill:{}", self.color(at));
            }
        }
        let pairs: BTreeSet<_> = self.edges.iter().map(|(from, to, _)| (from, to)).collect();
        for (from, to) in pairs {
            let _ = writeln!(text, "  s{from} --> s{to}");
        }
        text
    }

    pub fn json(&self) -> serde_json::Value {
        let stages: Vec<_> = self
            .shapes
            .iter()
            .map(|shape| {
                let states: BTreeMap<_, _> =
                    shape.standings.iter().map(|(standing, count)| (standing.word(), count)).collect();
                serde_json::json!({ "name": shape.name, "count": shape.count, "kind": shape.kind, "states": states })
            })
            .collect();
        let edges: Vec<_> = self
            .edges
            .iter()
            .map(|(from, to, input)| {
                serde_json::json!({ "from": self.shapes[*from].name, "to": self.shapes[*to].name, "input": input })
            })
            .collect();
        serde_json::json!({ "stages": stages, "edges": edges })
    }
}

/// A drawing of stages below those that read them.
struct Tree {
    /// What each shape reads from, in the order in which it is drawn.
    needs: Vec<Vec<usize>>,
    drawn: Vec<bool>,
    text: String,
}

/// Text for between the quotes of DOT.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
