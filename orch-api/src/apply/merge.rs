//! Who owns what after a write: the rules of updating and of applying, apart from how owners are named and timed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::conflict::Conflicts;
use super::fields::FieldSet;
use super::managed::{ManagerId, Managers, Owned};
use super::walk::{Comparison, compare, fields_of, merge, without};
use crate::schema::{Type, TypeRef};

/// Gives objects of one kind in the kind's other API versions.
pub trait Versions {
    /// The object in an API version (`autoscaling/v1`) with that version's type, or `None` if the kind isn't served in
    /// it: entries of `managedFields` in such versions are dropped.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, TypeRef)>;

    /// An object of another API version in the one that writes are in.
    fn convert_back(&self, object: &Value, from: &str) -> Option<Value>;
}

/// A kind with one version.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert(&self, _: &Value, _: &str) -> Option<(Value, TypeRef)> {
        None
    }

    fn convert_back(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }
}

/// A type at a version, with what is needed to get to others.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) ty: &'a Type,
    pub(super) api_version: &'a str,
    pub(super) versions: &'a dyn Versions,
    pub(super) ignored: &'a FieldSet,
}

enum TypeAt<'a> {
    Own(&'a Type),
    Other(TypeRef),
}

impl std::ops::Deref for TypeAt<'_> {
    type Target = Type;

    fn deref(&self) -> &Type {
        match self {
            Self::Own(ty) => ty,
            Self::Other(ty) => ty,
        }
    }
}

impl<'a> Frame<'a> {
    fn at<'o>(&self, object: &'o Value, version: &str) -> Option<(Cow<'o, Value>, TypeAt<'a>)> {
        if version == self.api_version {
            return Some((Cow::Borrowed(object), TypeAt::Own(self.ty)));
        }
        let (object, ty) = self.versions.convert(object, version)?;
        Some((Cow::Owned(object), TypeAt::Other(ty)))
    }

    fn back(&self, object: Value, version: &str) -> Option<Value> {
        if version == self.api_version {
            Some(object)
        } else {
            self.versions.convert_back(&object, version)
        }
    }

    fn comparison(&self, old: &Value, new: &Value, version: &str) -> Option<Comparison> {
        let (old, ty) = self.at(old, version)?;
        let (new, _) = self.at(new, version)?;
        Some(compare(&old, &new, &ty).without(self.ignored))
    }

    /// Takes what changed away from everyone but `me`.
    ///
    /// # Errors
    /// The fields that others own, unless `force`.
    fn disown(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        me: &ManagerId,
        force: bool,
    ) -> Result<(), Conflicts> {
        let mut comparisons: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let mut conflicts = BTreeMap::new();
        for (id, owned) in managers.0.iter().filter(|(id, _)| *id != me) {
            let found = comparisons
                .entry(owned.api_version.clone())
                .or_insert_with(|| self.comparison(old, new, &owned.api_version));
            if let Some(found) = found {
                let taken = owned.fields.intersection(&found.changed());
                if !taken.is_empty() {
                    conflicts.insert(id.clone(), taken);
                }
            }
        }
        if !force && !conflicts.is_empty() {
            return Err(Conflicts::of(&conflicts));
        }
        managers.0.retain(|id, owned| {
            if id == me {
                return !owned.fields.is_empty();
            }
            let Some(Some(found)) = comparisons.get(&owned.api_version) else {
                return false;
            };
            if let Some(taken) = conflicts.get(id) {
                owned.fields = owned.fields.difference(taken);
            }
            owned.fields = owned.fields.difference(&found.removed);
            !owned.fields.is_empty()
        });
        Ok(())
    }

    /// The owners after a write that isn't an apply: the writer owns what it changed.
    pub(super) fn update(&self, live: &Value, new: &Value, managers: &mut Managers, me: &ManagerId) {
        // With force there are no conflicts.
        if self.disown(live, new, managers, me, true).is_err() {
            return;
        }
        let found = compare(live, new, self.ty);
        let before = managers.0.remove(me);
        let kept = before
            .as_ref()
            .map(|owned| owned.fields.difference(&found.removed))
            .unwrap_or_default();
        let fields = kept.union(&found.changed()).recursive_difference(self.ignored);
        if !fields.is_empty() {
            let owned = Owned {
                fields,
                api_version: self.api_version.to_owned(),
                time: before.and_then(|owned| owned.time),
            };
            managers.0.insert(me.clone(), owned);
        }
    }

    /// The object and the owners after an apply.
    ///
    /// # Errors
    /// The fields that others own and that the configuration changes, unless `force`.
    pub(super) fn apply(
        &self,
        live: &Value,
        config: &Value,
        managers: &mut Managers,
        me: &ManagerId,
        force: bool,
    ) -> Result<Value, Conflicts> {
        let merged = merge(live, config, self.ty);
        let last = managers.0.remove(me);
        let owned = Owned {
            fields: fields_of(config, self.ty).recursive_difference(self.ignored),
            api_version: self.api_version.to_owned(),
            time: last.as_ref().and_then(|owned| owned.time.clone()),
        };
        managers.0.insert(me.clone(), owned);
        let new = match &last {
            Some(last) if !last.fields.is_empty() => self.prune(&merged, managers, last).unwrap_or(merged),
            _ => merged,
        };
        self.disown(live, &new, managers, me, force)?;
        Ok(new)
    }

    /// Removes what the applier owned and gave up, and nobody else owns.
    fn prune(&self, merged: &Value, managers: &Managers, last: &Owned) -> Option<Value> {
        let (merged, ty) = self.at(merged, &last.api_version)?;
        let last_fields = last.fields.with_named_parents(&ty);
        let mut pruned = without(&merged, &last_fields, &ty);
        let mut claims: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for owned in managers.0.values() {
            claims
                .entry(&owned.api_version)
                .or_default()
                .extend(&owned.fields);
        }
        if let Some(claimed) = claims.remove(last.api_version.as_str()) {
            pruned = add_back(&merged, &pruned, &claimed, &ty);
        }
        for (version, claimed) in claims {
            let Some(merged_there) = self.at(&merged, version) else {
                continue;
            };
            let Some(pruned_there) = self.at(&pruned, version) else {
                continue;
            };
            let kept = add_back(&merged_there.0, &pruned_there.0, &claimed, &merged_there.1);
            pruned = self.back(kept, version)?;
        }
        // Only what this applier owned may go.
        let lost = fields_of(&merged, &ty)
            .with_named_parents(&ty)
            .difference(&fields_of(&pruned, &ty).with_named_parents(&ty))
            .intersection(&last_fields);
        self.back(without(&merged, &lost, &ty), &last.api_version)
    }
}

/// The pruned object with what is claimed put back.
fn add_back(merged: &Value, pruned: &Value, claimed: &FieldSet, ty: &Type) -> Value {
    let kept = fields_of(pruned, ty)
        .with_named_parents(ty)
        .union(&claimed.with_named_parents(ty));
    let gone = fields_of(merged, ty).with_named_parents(ty).difference(&kept);
    without(merged, &gone, ty)
}
