//! Sets of fields: who owns what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value};

use super::path::{Step, StepError, display};
use crate::schema::Type;

/// A set of paths in an object. Being in the set is a matter of each path: having a child in the set doesn't put the
/// parent in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    // No node is without purpose: each is a member or has children.
    nodes: BTreeMap<Step, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    children: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of paths of field names, such as `[["metadata", "name"]]`.
    #[must_use]
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let steps: Vec<Step> = path.iter().map(|name| Step::field(*name)).collect();
            set.insert(&steps);
        }
        set
    }

    /// Puts a path in the set. The empty path, the whole object, is nobody's.
    pub fn insert(&mut self, path: &[Step]) {
        match path {
            [] => {}
            [last] => self.nodes.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.nodes.entry(first.clone()).or_default().children.insert(rest),
        }
    }

    /// Whether the set has no path.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many paths the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes
            .values()
            .map(|node| usize::from(node.member) + node.children.len())
            .sum()
    }

    /// Whether the path is in the set.
    #[must_use]
    pub fn contains(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self
                .nodes
                .get(first)
                .is_some_and(|node| node.children.contains(rest)),
        }
    }

    pub(super) fn has(&self, step: &Step) -> bool {
        self.nodes.get(step).is_some_and(|node| node.member)
    }

    /// What the set has below a step, if anything.
    pub(super) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.nodes
            .get(step)
            .map(|node| &node.children)
            .filter(|set| !set.is_empty())
    }

    /// The paths of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.extend(other);
        all
    }

    /// Adds the paths of the other set.
    pub fn extend(&mut self, other: &Self) {
        for (step, node) in &other.nodes {
            match self.nodes.entry(step.clone()) {
                Entry::Vacant(place) => {
                    place.insert(node.clone());
                }
                Entry::Occupied(mut place) => {
                    place.get_mut().member |= node.member;
                    place.get_mut().children.extend(&node.children);
                }
            }
        }
    }

    /// The paths of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(|step, node| {
            let other = other.nodes.get(step)?;
            Some(Node {
                member: node.member && other.member,
                children: node.children.intersection(&other.children),
            })
        })
    }

    /// The paths of this set that aren't in the other. Paths below one of the other's stay.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(|step, node| match other.nodes.get(step) {
            None => Some(node.clone()),
            Some(other) => Some(Node {
                member: node.member && !other.member,
                children: node.children.difference(&other.children),
            }),
        })
    }

    /// The paths of this set that are neither in the other nor below one of the other's.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.combine(|step, node| match other.nodes.get(step) {
            None => Some(node.clone()),
            Some(other) if other.member => None,
            Some(other) => Some(Node {
                member: node.member,
                children: node.children.recursive_difference(&other.children),
            }),
        })
    }

    /// The paths that have no path of the set below them.
    #[must_use]
    pub fn leaves(&self) -> Self {
        self.combine(|_, node| {
            Some(Node {
                member: node.member && node.children.is_empty(),
                children: node.children.leaves(),
            })
        })
    }

    /// With the named fields of structs that lead to the paths of the set. Keys of maps and items of lists exist or
    /// don't, and are in the set for themselves.
    #[must_use]
    pub(super) fn with_named_parents(&self, ty: &Type) -> Self {
        self.combine(|step, node| {
            let named = match (ty, step) {
                (Type::Struct(s), Step::Field(name)) => s.field(name).is_some() && !node.children.is_empty(),
                _ => false,
            };
            let children = match child_type(ty, step) {
                Some(ty) => node.children.with_named_parents(ty),
                None => node.children.clone(),
            };
            Some(Node {
                member: node.member || named,
                children,
            })
        })
    }

    fn combine(&self, rule: impl Fn(&Step, &Node) -> Option<Node>) -> Self {
        let nodes = self.nodes.iter().filter_map(|(step, node)| {
            let node = rule(step, node)?;
            (!node.is_empty()).then(|| (step.clone(), node))
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// All paths, parents before children.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, prefix: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        for (step, node) in &self.nodes {
            prefix.push(step.clone());
            if node.member {
                found.push(prefix.clone());
            }
            node.children.collect(prefix, found);
            prefix.pop();
        }
    }

    /// Reads `FieldsV1`. Steps of unknown kinds are passed over.
    ///
    /// # Errors
    /// [`StepError::Malformed`] if a key can't be read or a value is no object.
    pub fn from_json(fields: &Value) -> Result<Self, StepError> {
        let Value::Object(fields) = fields else {
            return Err(StepError::Malformed(fields.to_string()));
        };
        let mut set = Self::new();
        for (key, inner) in fields {
            if key == "." {
                continue;
            }
            let step = match Step::parse(key) {
                Ok(step) => step,
                Err(StepError::UnknownKind(_)) => continue,
                Err(malformed) => return Err(malformed),
            };
            let children = Self::from_json(inner)?;
            let member = inner.get(".").is_some() || children.is_empty();
            set.nodes.insert(step, Node { member, children });
        }
        Ok(set)
    }

    /// Writes `FieldsV1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fields = self.nodes.iter().map(|(step, node)| {
            let mut inner = match node.children.to_json() {
                Value::Object(inner) => inner,
                _ => Map::new(),
            };
            if node.member && !inner.is_empty() {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (step.to_key(), Value::Object(inner))
        });
        Value::Object(fields.collect())
    }
}

/// The type of what a step leads to.
pub(super) fn child_type<'t>(ty: &'t Type, step: &Step) -> Option<&'t Type> {
    match step {
        Step::Field(name) => ty.field(name),
        Step::Key(_) | Step::Value(_) | Step::Index(_) => ty.items(),
    }
}

impl fmt::Display for FieldSet {
    /// One path a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.paths().iter().map(|path| display(path)).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(paths: &[&[&str]]) -> FieldSet {
        FieldSet::of_fields(paths)
    }

    #[test]
    fn fields_are_read_and_written() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:finalizers": {"v:\"x\"": {}}}
        });
        let set = FieldSet::from_json(&fields).unwrap();
        assert_eq!(set.to_json(), fields);
        assert_eq!(set.len(), 5);
        assert!(FieldSet::from_json(&json!({"k:{": {}})).is_err());
        assert!(FieldSet::from_json(&json!({"q:later": {}})).unwrap().is_empty());
    }

    #[test]
    fn differences_differ_in_what_is_below() {
        let whole = set(&[&["a"], &["a", "b"], &["a", "b", "c"], &["d"]]);
        let part = set(&[&["a", "b"]]);
        assert_eq!(whole.difference(&part), set(&[&["a"], &["a", "b", "c"], &["d"]]));
        assert_eq!(whole.recursive_difference(&part), set(&[&["a"], &["d"]]));
        assert_eq!(whole.leaves(), set(&[&["a", "b", "c"], &["d"]]));
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let step = prop_oneof![
            "[ab]".prop_map(Step::field),
            "[ab]".prop_map(|v| Step::value(&Value::from(v))),
            (0..2i64).prop_map(|n| Step::key(vec![("n".to_owned(), &json!(n))])),
        ];
        let path = prop::collection::vec(step, 1..4);
        prop::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = FieldSet::new();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn sets_follow_the_laws_of_sets(a in any_set(), b in any_set(), c in any_set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
            prop_assert_eq!(a.intersection(&b), a.difference(&a.difference(&b)));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.union(&b).difference(&b), a.difference(&b));
            prop_assert_eq!(a.union(&b).len() + a.intersection(&b).len(), a.len() + b.len());
            prop_assert!(a.recursive_difference(&b).difference(&a.difference(&b)).is_empty());
            prop_assert_eq!(FieldSet::from_json(&a.to_json()).unwrap(), a);
        }

        #[test]
        fn membership_agrees_with_the_paths(a in any_set(), b in any_set()) {
            for path in a.paths() {
                prop_assert!(a.contains(&path));
                prop_assert_eq!(a.difference(&b).contains(&path), !b.contains(&path));
            }
        }
    }
}
