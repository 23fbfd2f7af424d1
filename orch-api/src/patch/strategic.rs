//! Strategic merge patch: a merge patch that knows which lists merge, and by which field.

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{Identity, arrange};
use crate::schema::{ANY, PatchRule, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

type Fields = Map<String, Value>;

/// Applies a strategic merge patch to an object of the given type.
///
/// Objects merge by field, `null` removes. Lists are replaced unless the type says that they merge: scalars as a set,
/// objects by their merge key. Directives: `$patch: replace` and `$patch: delete` on an object or an item,
/// `$retainKeys`, `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`.
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is no object, for directives in a wrong form, for items without their
/// merge key and for lists or objects in fields that the type doesn't have; [`PatchError::Unprocessable`] for lists of
/// lists.
pub fn strategic(document: Value, patch: Value, ty: &Type) -> Result<Value, PatchError> {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => {
            merge_object(document, patch, ty).map(Value::Object)
        }
        _ => Err(PatchError::malformed("invalid JSON document")),
    }
}

fn merge_object(mut original: Fields, mut patch: Fields, ty: &Type) -> Result<Fields, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(adopt_fields(patch)),
            Some("delete") => Ok(Fields::new()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(&mut original, &patch, &keys)?;
    }
    let orders: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ORDER_PREFIX))
        .cloned()
        .collect();
    for order in orders {
        set_order(&mut original, &mut patch, &order, ty)?;
    }
    let deletions: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(DELETE_PREFIX))
        .cloned()
        .collect();
    for deletion in deletions {
        let items = patch.remove(&deletion).unwrap_or_default();
        delete_scalars(&mut original, target(&deletion, DELETE_PREFIX)?, &items, ty)?;
    }
    for (name, change) in patch {
        merge_field(&mut original, name, change, ty)?;
    }
    Ok(original)
}

fn merge_field(original: &mut Fields, name: String, change: Value, ty: &Type) -> Result<(), PatchError> {
    if change.is_null() {
        original.remove(&name);
        return Ok(());
    }
    let merged = match (original.remove(&name), change) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let (field, rule) = lookup(ty, &name)?;
            if rule.is_some_and(|rule| rule.replace) {
                Value::Object(adopt_fields(new))
            } else {
                Value::Object(merge_object(old, new, field)?)
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let (field, rule) = lookup(ty, &name)?;
            Value::Array(merge_list(old, new, field, rule)?)
        }
        (_, new) => adopt(new),
    };
    original.insert(name, merged);
    Ok(())
}

/// The type and the rule of a field.
fn lookup<'t>(ty: &'t Type, name: &str) -> Result<(&'t Type, Option<&'t PatchRule>), PatchError> {
    match ty.field(name) {
        Some(field) => Ok((field, ty.patch_rule(name))),
        None => {
            let of = ty.name().unwrap_or_default();
            let short = of.rsplit('.').next().unwrap_or(of);
            Err(PatchError::Malformed(format!(
                "unable to find api field in struct {short} for the json field \"{name}\""
            )))
        }
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    ty: &Type,
    rule: Option<&PatchRule>,
) -> Result<Vec<Value>, PatchError> {
    if !rule.is_some_and(|rule| rule.merge) {
        return Ok(adopt_items(patch));
    }
    if !objects(&original, &patch)? {
        let mut merged = original.clone();
        merged.extend(patch.iter().cloned());
        return Ok(arrange(distinct(merged), &patch, &original, Identity(None)));
    }
    let key = merge_key(rule)?;
    let id = Identity(Some(key));
    let (kept, changes) = special_items(original, patch, key)?;
    let mut merged = kept.clone();
    for change in &changes {
        merge_item(&mut merged, change.clone(), key, ty.items().unwrap_or(&ANY))?;
    }
    Ok(arrange(merged, &changes, &kept, id))
}

fn merge_key(rule: Option<&PatchRule>) -> Result<&str, PatchError> {
    rule.and_then(|rule| rule.merge_key.as_deref())
        .ok_or_else(|| PatchError::malformed("cannot merge lists without merge key for type map"))
}

/// Whether the items are objects. They must be all objects or all scalars.
fn objects(original: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let mut all = original.iter().chain(patch);
    if all.clone().any(Value::is_array) {
        return Err(PatchError::unprocessable("lists of lists are not supported"));
    }
    let first = all.next().is_some_and(Value::is_object);
    if all.any(|item| item.is_object() != first) {
        return Err(PatchError::malformed("list element types are not identical"));
    }
    Ok(first)
}

/// Acts on the items that carry `$patch`; gives what remains of the original and of the patch.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut changes = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            changes.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let value = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                original.retain(|other| other.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::malformed(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            _ => {
                return Err(unknown_directive(
                    directive,
                    item.as_object().unwrap_or(&Fields::new()),
                ));
            }
        }
    }
    Ok(if replace {
        (adopt_items(changes), Vec::new())
    } else {
        (original, changes)
    })
}

fn merge_item(list: &mut Vec<Value>, change: Value, key: &str, ty: &Type) -> Result<(), PatchError> {
    let value = change.get(key).ok_or_else(|| no_merge_key(&change, key))?;
    let found = list.iter_mut().find(|item| item.get(key) == Some(value));
    match (found, change) {
        (Some(place), Value::Object(change)) => {
            let old = match place.take() {
                Value::Object(old) => old,
                _ => Fields::new(),
            };
            *place = Value::Object(merge_object(old, change, ty)?);
        }
        (_, change) => list.push(adopt(change)),
    }
    Ok(())
}

/// Merges the list which a `$setElementOrder` directive belongs to, and puts it in that order.
fn set_order(
    original: &mut Fields,
    patch: &mut Fields,
    directive: &str,
    ty: &Type,
) -> Result<(), PatchError> {
    let wrong = || PatchError::malformed("invalid patch format of setElementOrder list");
    let name = target(directive, ORDER_PREFIX)?;
    let Some(Value::Array(wanted)) = patch.remove(directive) else {
        return Err(wrong());
    };
    let change = match patch.get(name) {
        None => None,
        Some(Value::Array(_)) => patch.remove(name).and_then(|list| match list {
            Value::Array(items) => Some(items),
            _ => None,
        }),
        Some(_) => return Err(wrong()),
    };
    let old = match original.get(name) {
        None => None,
        Some(Value::Array(items)) => Some(items.clone()),
        Some(_) => return Err(wrong()),
    };
    let (field, rule) = lookup(ty, name)?;
    let key = rule.and_then(|rule| rule.merge_key.as_deref());
    let id = Identity(key);
    if let Some(change) = &change {
        check_order(change, &wanted, id)?;
    }
    let mut server = old.clone().unwrap_or_default();
    let merged = match (old, change) {
        (None, None) => return Ok(()),
        (Some(old), None) => old,
        (None, Some(change)) => adopt_items(change),
        (Some(old), Some(change)) => merge_list(old, change, field, rule)?,
    };
    take_freed_slots(&mut server, &merged, id);
    if let Some(key) = key
        && let Some(item) = merged.iter().chain(&wanted).find(|item| item.get(key).is_none())
    {
        return Err(no_merge_key(item, key));
    }
    original.insert(
        name.to_owned(),
        Value::Array(arrange(merged, &wanted, &server, id)),
    );
    Ok(())
}

/// Upstream deletes and appends in the array which it then takes the server's order from: new items stand in it where
/// deleted ones made room, after all that was kept.
fn take_freed_slots(server: &mut Vec<Value>, merged: &[Value], id: Identity<'_>) {
    if id.0.is_none() {
        return;
    }
    let before = server.len();
    let fresh: Vec<Value> = merged
        .iter()
        .filter(|item| id.position(server, item).is_none())
        .cloned()
        .collect();
    server.retain(|item| id.position(merged, item).is_some());
    let freed = before - server.len();
    server.extend(fresh.into_iter().take(freed));
}

/// The items of the patch must come in the order of the directive, and be named in it.
fn check_order(change: &[Value], wanted: &[Value], id: Identity<'_>) -> Result<(), PatchError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut positions = wanted.iter();
    for item in change.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !positions.any(|other| id.same(item, other)) {
            return Err(PatchError::Malformed(format!(
                "The order in patch list:\n{}\n doesn't match {ORDER_PREFIX} list:\n{}\n",
                Value::from(change.to_vec()),
                Value::from(wanted.to_vec()),
            )));
        }
    }
    Ok(())
}

fn delete_scalars(original: &mut Fields, name: &str, items: &Value, ty: &Type) -> Result<(), PatchError> {
    let Value::Array(gone) = items else {
        return Err(PatchError::malformed("invalid patch format of primitive list"));
    };
    let Some(Value::Array(list)) = original.get_mut(name) else {
        return Ok(());
    };
    let (_, rule) = lookup(ty, name)?;
    if rule.is_some_and(|rule| rule.merge) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn retain_keys(original: &mut Fields, patch: &Fields, keys: &Value) -> Result<(), PatchError> {
    let wrong = || PatchError::malformed("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else {
        return Err(wrong());
    };
    let kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let stray = patch.iter().any(|(name, value)| {
        !value.is_null() && !name.starts_with(DELETE_PREFIX) && !name.starts_with(ORDER_PREFIX) && !kept(name)
    });
    if stray {
        return Err(wrong());
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// The field which a directive such as `$setElementOrder/ports` is about.
fn target<'k>(directive: &'k str, prefix: &str) -> Result<&'k str, PatchError> {
    let wrong = || {
        PatchError::malformed(if prefix == DELETE_PREFIX {
            "invalid patch format of primitive list"
        } else {
            "invalid patch format of setElementOrder list"
        })
    };
    directive
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or_else(wrong)
}

/// What a patch leaves where the document had nothing: itself, without nulls and directives.
fn adopt(patch: Value) -> Value {
    match patch {
        Value::Object(fields) => Value::Object(adopt_fields(fields)),
        Value::Array(items) => Value::Array(adopt_items(items)),
        other => other,
    }
}

fn adopt_fields(fields: Fields) -> Fields {
    fields
        .into_iter()
        .filter(|(name, value)| {
            let directive = name == DIRECTIVE
                || name == RETAIN_KEYS
                || name.starts_with(DELETE_PREFIX)
                || name.starts_with(ORDER_PREFIX);
            !directive && !value.is_null()
        })
        .map(|(name, value)| (name, adopt(value)))
        .collect()
}

fn adopt_items(items: Vec<Value>) -> Vec<Value> {
    let deleted = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let marker =
        |item: &Value| item.get(DIRECTIVE).is_some() && item.as_object().is_some_and(|f| f.len() == 1);
    items
        .into_iter()
        .filter(|item| !deleted(item) && !marker(item))
        .map(adopt)
        .collect()
}

fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut seen = Vec::with_capacity(items.len());
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Malformed(format!("map: {item} does not contain declared merge key: {key}"))
}

fn unknown_directive(directive: &Value, fields: &Fields) -> PatchError {
    let text = directive
        .as_str()
        .map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::Malformed(format!(
        "unknown patch type: {text} in map: {}",
        Value::Object(fields.clone())
    ))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "literals read best by value")]
mod tests;
