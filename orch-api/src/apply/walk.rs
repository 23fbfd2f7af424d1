//! The four walks over typed objects: which fields an object has, what differs between two, their merge, and an object
//! without some fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::FieldSet;
use super::path::Step;
use crate::schema::{ANY, ListKind, Type};

/// How a value is taken apart.
enum Parts<'v> {
    /// Not at all.
    Leaf,
    /// By field or key. Null is an object without any.
    Object(Option<&'v Map<String, Value>>),
    /// By item. Null is a list without any.
    List(Option<&'v Vec<Value>>),
}

fn parts<'v>(value: &'v Value, ty: &Type) -> Parts<'v> {
    if ty.is_atomic() {
        return Parts::Leaf;
    }
    match (ty, value) {
        (Type::Struct(_) | Type::Map(_) | Type::Any(_), Value::Object(fields)) => Parts::Object(Some(fields)),
        (Type::Struct(_) | Type::Map(_) | Type::Any(_), Value::Null) => Parts::Object(None),
        (Type::List(_), Value::Array(items)) => Parts::List(Some(items)),
        (Type::List(_), Value::Null) => Parts::List(None),
        _ => Parts::Leaf,
    }
}

fn field_type<'t>(ty: &'t Type, name: &str) -> &'t Type {
    ty.field(name).unwrap_or(&ANY)
}

fn item_type(ty: &Type) -> &Type {
    ty.items().unwrap_or(&ANY)
}

/// What tells an item of a list apart.
///
/// # Errors
/// Why nothing does, in upstream's words.
pub(super) fn identify(item: &Value, list: &Type) -> Result<Step, String> {
    let Type::List(list) = list else {
        return Err("invalid indexing of non-associative list".to_owned());
    };
    match &list.kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => Ok(Step::value(scalar)),
        },
        ListKind::Map(keys) => match item {
            Value::Object(fields) => {
                let names: Vec<&str> = keys.iter().map(|key| &**key).collect();
                by_keys(fields, &names, &list.items)
            }
            Value::Null => Err("associative list with keys may not have a null element".to_owned()),
            _ => Err("associative list with keys may not have non-map elements".to_owned()),
        },
    }
}

fn by_keys(fields: &Map<String, Value>, keys: &[&str], items: &Type) -> Result<Step, String> {
    let defaults: Vec<Option<Value>> = keys
        .iter()
        .map(|key| match items {
            Type::Struct(s) if !fields.contains_key(*key) => {
                s.field(key).and_then(|field| field.key_default())
            }
            _ => None,
        })
        .collect();
    let found: Vec<(String, &Value)> = keys
        .iter()
        .zip(&defaults)
        .filter_map(|(key, default)| Some(((*key).to_owned(), fields.get(*key).or(default.as_ref())?)))
        .collect();
    match (found.is_empty(), keys) {
        (false, _) => Ok(Step::key(found)),
        (true, [key]) => Err(format!(
            "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
        )),
        (true, keys) => Err(format!(
            "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default \
             values for any key fields)"
        )),
    }
}

/// The fields which an object has.
#[must_use]
pub fn fields_of(object: &Value, ty: &Type) -> FieldSet {
    let mut set = FieldSet::new();
    collect(object, ty, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, ty: &Type, path: &mut Vec<Step>, set: &mut FieldSet) {
    match parts(value, ty) {
        Parts::Leaf => set.insert(path),
        Parts::Object(fields) => {
            for (name, inner) in fields.into_iter().flatten() {
                path.push(Step::field(name.as_str()));
                collect(inner, field_type(ty, name), path, set);
                let hollow = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                let named = matches!(ty, Type::Struct(s) if s.field(name).is_some());
                if hollow || !named {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Parts::List(items) => {
            let steps: Vec<(Step, &Value)> = identified(items, ty);
            for (index, (step, inner)) in steps.iter().enumerate() {
                let twin = steps
                    .iter()
                    .enumerate()
                    .any(|(other, (s, _))| other != index && s == step);
                path.push(step.clone());
                if !twin {
                    collect(inner, item_type(ty), path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
    }
}

fn identified<'v>(items: Option<&'v Vec<Value>>, ty: &Type) -> Vec<(Step, &'v Value)> {
    items
        .into_iter()
        .flatten()
        .filter_map(|item| Some((identify(item, ty).ok()?, item)))
        .collect()
}

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that only the second has.
    pub added: FieldSet,
    /// Fields whose values differ.
    pub modified: FieldSet,
    /// Fields that only the first has.
    pub removed: FieldSet,
}

impl Comparison {
    /// Added or modified.
    #[must_use]
    pub fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }

    /// Without some fields and what is below them.
    pub(super) fn without(&self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }
}

/// What differs between two objects of a type.
#[must_use]
pub fn compare(old: &Value, new: &Value, ty: &Type) -> Comparison {
    let mut found = Comparison::default();
    differ(Some(old), Some(new), ty, &mut Vec::new(), &mut found);
    found
}

fn differ(old: Option<&Value>, new: Option<&Value>, ty: &Type, path: &mut Vec<Step>, found: &mut Comparison) {
    if let (Some(before), Some(after)) = (old, new)
        && std::mem::discriminant(&parts(before, ty)) != std::mem::discriminant(&parts(after, ty))
    {
        differ_inside(Some(before), None, ty, path, found);
        differ_inside(None, Some(after), ty, path, found);
        if matches!(parts(after, ty), Parts::Leaf) || matches!(parts(before, ty), Parts::Leaf) {
            found.modified.insert(path);
        }
        return;
    }
    if differ_inside(old, new, ty, path, found) {
        match (old, new) {
            (None, _) => found.added.insert(path),
            (_, None) => found.removed.insert(path),
            _ => {}
        }
        return;
    }
    match (old, new) {
        (None, _) => found.added.insert(path),
        (_, None) => found.removed.insert(path),
        (Some(before), Some(after)) if before != after => found.modified.insert(path),
        _ => {}
    }
}

/// Goes into the parts of the values, and says whether there are any: two leaves, or two empty values, have none.
fn differ_inside(
    old: Option<&Value>,
    new: Option<&Value>,
    ty: &Type,
    path: &mut Vec<Step>,
    found: &mut Comparison,
) -> bool {
    let before = old.map(|value| parts(value, ty));
    let after = new.map(|value| parts(value, ty));
    match (before, after) {
        (Some(Parts::Leaf), _) | (_, Some(Parts::Leaf)) | (None, None) => false,
        (Some(Parts::List(_)), _) | (_, Some(Parts::List(_))) => {
            let list = |value: Option<&'_ Value>| {
                value
                    .and_then(Value::as_array)
                    .is_some_and(|items| !items.is_empty())
            };
            if !list(old) && !list(new) {
                return false;
            }
            differ_items(
                old.and_then(Value::as_array),
                new.and_then(Value::as_array),
                ty,
                path,
                found,
            );
            true
        }
        (Some(Parts::Object(_)), _) | (_, Some(Parts::Object(_))) => {
            let empty = Map::new();
            let before = old.and_then(Value::as_object).unwrap_or(&empty);
            let after = new.and_then(Value::as_object).unwrap_or(&empty);
            for (name, inner) in before {
                path.push(Step::field(name.as_str()));
                differ(Some(inner), after.get(name), field_type(ty, name), path, found);
                path.pop();
            }
            for (name, inner) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                path.push(Step::field(name.as_str()));
                differ(None, Some(inner), field_type(ty, name), path, found);
                path.pop();
            }
            !before.is_empty() || !after.is_empty()
        }
    }
}

fn differ_items(
    old: Option<&Vec<Value>>,
    new: Option<&Vec<Value>>,
    ty: &Type,
    path: &mut Vec<Step>,
    found: &mut Comparison,
) {
    let mut all: BTreeMap<Step, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    for (step, item) in identified(old, ty) {
        all.entry(step).or_default().0.get_or_insert(item);
    }
    for (step, item) in identified(new, ty) {
        all.entry(step).or_default().1.get_or_insert(item);
    }
    for (step, (before, after)) in all {
        path.push(step);
        differ(before, after, item_type(ty), path, found);
        path.pop();
    }
}

/// The first object with the fields of the second laid over it.
#[must_use]
pub fn merge(base: &Value, over: &Value, ty: &Type) -> Value {
    match (parts(base, ty), parts(over, ty)) {
        (Parts::Object(before), Parts::Object(after)) => {
            let empty = Map::new();
            let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
            if before.is_empty() && after.is_empty() {
                return over.clone();
            }
            let mut merged = before.clone();
            for (name, inner) in after {
                let value = match before.get(name) {
                    Some(old) => merge(old, inner, field_type(ty, name)),
                    None => inner.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::List(before), Parts::List(after)) => {
            if before.is_none_or(Vec::is_empty) && after.is_none_or(Vec::is_empty) {
                return over.clone();
            }
            Value::Array(merge_items(before, after, ty))
        }
        _ => over.clone(),
    }
}

/// Merges two lists. What both have comes in the order of the second; what only the first has keeps its place between
/// its neighbours as well as can be.
fn merge_items(old: Option<&Vec<Value>>, new: Option<&Vec<Value>>, ty: &Type) -> Vec<Value> {
    let before = distinct(identified(old, ty));
    let after = distinct(identified(new, ty));
    let in_old: BTreeMap<&Step, &Value> = before.iter().map(|(step, item)| (step, *item)).collect();
    let in_new: BTreeMap<&Step, &Value> = after.iter().map(|(step, item)| (step, *item)).collect();
    let mut shared = after
        .iter()
        .map(|(step, _)| step)
        .filter(|step| in_old.contains_key(step))
        .peekable();
    let mut merged = Vec::with_capacity(before.len().max(after.len()));
    let take = |step: &Step, item: &Value| match in_old.get(step) {
        Some(old) => merge(old, item, item_type(ty)),
        None => item.clone(),
    };
    let (mut left, mut right) = (before.iter().peekable(), after.iter().peekable());
    while left.peek().is_some() || right.peek().is_some() {
        if let (Some((ours, _)), Some((theirs, item))) = (left.peek(), right.peek()) {
            if ours == theirs {
                merged.push(take(theirs, item));
                left.next();
                right.next();
                shared.next();
                continue;
            }
            if in_new.contains_key(ours) && shared.peek().is_some_and(|next| *next != ours) {
                left.next();
                continue;
            }
        }
        if let Some((ours, item)) = left.peek()
            && !in_new.contains_key(ours)
        {
            merged.push((*item).clone());
            left.next();
            continue;
        }
        match right.next() {
            Some((theirs, item)) => {
                merged.push(take(theirs, item));
                if shared.peek().is_some_and(|next| *next == theirs) {
                    shared.next();
                }
            }
            None => {
                left.next();
            }
        }
    }
    merged
}

fn distinct<'v>(items: Vec<(Step, &'v Value)>) -> Vec<(Step, &'v Value)> {
    let mut kept: Vec<(Step, &'v Value)> = Vec::with_capacity(items.len());
    for (step, item) in items {
        if kept.iter().all(|(other, _)| *other != step) {
            kept.push((step, item));
        }
    }
    kept
}

/// The object without some fields. An object or a list that loses all it had becomes null.
#[must_use]
pub(super) fn without(object: &Value, gone: &FieldSet, ty: &Type) -> Value {
    if gone.is_empty() {
        return object.clone();
    }
    match parts(object, ty) {
        Parts::Leaf if object.is_object() || object.is_array() => Value::Null,
        Parts::Leaf => object.clone(),
        Parts::Object(fields) => {
            let mut kept = Map::new();
            for (name, inner) in fields.into_iter().flatten() {
                let step = Step::field(name.as_str());
                if gone.has(&step) {
                    continue;
                }
                let inner = match gone.below(&step) {
                    Some(below) => without(inner, below, field_type(ty, name)),
                    None => inner.clone(),
                };
                kept.insert(name.clone(), inner);
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        Parts::List(items) => {
            let kept = items
                .into_iter()
                .flatten()
                .filter_map(|item| match identify(item, ty) {
                    Err(_) => Some(item.clone()),
                    Ok(step) if gone.has(&step) => None,
                    Ok(step) => Some(match gone.below(&step) {
                        Some(below) => without(item, below, item_type(ty)),
                        None => item.clone(),
                    }),
                });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
    }
}

/// Takes out the nulls which removing fields and explicit nulls left, except those the live object has.
pub(super) fn drop_nulls(object: &mut Value, live: Option<&Value>) {
    match object {
        Value::Object(fields) => {
            fields.retain(|name, inner| {
                !inner.is_null() || live.and_then(|live| live.get(name)).is_some_and(Value::is_null)
            });
            for (name, inner) in fields {
                drop_nulls(inner, live.and_then(|live| live.get(name)));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(item, None)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::root;
    use serde_json::json;

    fn pod() -> &'static Type {
        root("", "v1", "Pod")
    }

    #[test]
    fn the_fields_of_an_object_are_its_leaves_items_and_keys() {
        let object = json!({
            "metadata": {"labels": {"app": "x"}, "finalizers": ["a"]},
            "spec": {
                "nodeSelector": {"a": "b"}, "securityContext": {},
                "containers": [{"name": "c", "args": ["1"], "ports": [{"containerPort": 80}]}]
            }
        });
        let expected = json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"a\"": {}}},
            "f:spec": {
                "f:nodeSelector": {}, "f:securityContext": {},
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
                }}
            }
        });
        assert_eq!(fields_of(&object, pod()).to_json(), expected);
    }

    #[test]
    fn what_is_added_counts_with_all_its_levels() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}]}});
        let new = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "a", "image": "2"}]}});
        let found = compare(&old, &new, pod());
        assert_eq!(
            found.added.to_json(),
            json!({"f:metadata": {".": {}, "f:labels": {".": {}, "f:x": {}}}})
        );
        assert_eq!(
            found.modified.to_json(),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}})
        );
        assert!(found.removed.is_empty());
        let back = compare(&new, &old, pod());
        assert_eq!((back.removed, back.added), (found.added, found.removed));
    }

    #[test]
    fn the_order_of_a_keyed_list_is_no_difference() {
        let old = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let new = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(compare(&old, &new, pod()), Comparison::default());
    }

    #[test]
    fn a_merge_lays_fields_over_and_orders_by_the_second() {
        let base =
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "s"}, {"name": "b"}]}});
        let over =
            json!({"spec": {"containers": [{"name": "b"}, {"name": "n"}, {"name": "a", "tty": true}]}});
        let merged = merge(&base, &over, pod());
        let names: Vec<&str> = merged["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["s", "b", "n", "a"]);
        assert_eq!(
            merged["spec"]["containers"][3],
            json!({"name": "a", "image": "1", "tty": true})
        );
    }

    #[test]
    fn removing_the_last_part_leaves_null() {
        let object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n"}});
        let gone = FieldSet::of_fields(&[&["metadata", "labels", "a"]]);
        let left = without(&object, &gone, pod());
        assert_eq!(
            left,
            json!({"metadata": {"labels": null}, "spec": {"nodeName": "n"}})
        );
    }

    #[test]
    fn untyped_values_may_change_their_shape() {
        let ty = root("example.com", "v1", "Widget");
        let found = compare(&json!({"spec": {"x": {"a": 1}}}), &json!({"spec": {"x": 2}}), ty);
        assert_eq!(found.modified, FieldSet::of_fields(&[&["spec", "x"]]));
        assert_eq!(found.removed, FieldSet::of_fields(&[&["spec", "x", "a"]]));
    }
}
