//! How many pods each ReplicaSet should have, as pure functions of what is seen.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision;
use super::template::Sets;

/// A ReplicaSet and the replicas that it should have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resize {
    pub(crate) set: Arc<ReplicaSet>,
    pub(crate) replicas: i32,
}

/// The numbers that govern a rollout, with percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) replicas: i32,
    /// Pods above `replicas` that may exist during a rolling update; 0 for `Recreate`.
    pub(crate) max_surge: i32,
    /// Pods below `replicas` that may be unavailable during a rolling update; 0 for `Recreate`.
    pub(crate) max_unavailable: i32,
    pub(crate) recreate: bool,
}

impl Limits {
    /// The limits of a Deployment: surge is rounded up, unavailability down, and both are never zero.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let replicas = deployment.spec.replicas.unwrap_or(1);
        let strategy = deployment.spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self {
                replicas,
                max_surge: 0,
                max_unavailable: 0,
                recreate: true,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let max_surge = resolve(
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            replicas,
            true,
        );
        let max_unavailable = resolve(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            replicas,
            false,
        );
        let max_unavailable = if max_surge == 0 && max_unavailable == 0 {
            1
        } else {
            max_unavailable
        };
        Self {
            replicas,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
            recreate: false,
        }
    }

    /// The most pods that may exist.
    pub(crate) fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest pods that must be available.
    pub(crate) fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// A number, or a share of `total`.
fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => percentage(text, total, round_up).unwrap_or(0),
        None => percentage("25%", total, round_up).unwrap_or(0),
    }
}

fn percentage(text: &str, total: i32, round_up: bool) -> Option<i32> {
    let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
    let hundredfold = percent.checked_mul(i64::from(total))?;
    i32::try_from((hundredfold + if round_up { 99 } else { 0 }).div_euclid(100)).ok()
}

/// Replicas that a ReplicaSet is asked to have.
pub(crate) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

fn total<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, count: fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| count(set)).sum()
}

/// How many replicas a ReplicaSet for the Deployment's template should start with, or grow to.
pub(crate) fn new_replicas(limits: &Limits, sets: &Sets) -> i32 {
    let now = sets.new.as_deref().map_or(0, wanted);
    if limits.recreate {
        return limits.replicas;
    }
    let room = limits.max_total() - total(sets.all(), wanted);
    if room <= 0 {
        return now;
    }
    now + room.min(limits.replicas - now)
}

/// The resizing of the new ReplicaSet that is due, if any.
pub(crate) fn grow_new(limits: &Limits, sets: &Sets) -> Option<Resize> {
    let new = sets.new.as_ref()?;
    let replicas = match wanted(new) {
        now if now == limits.replicas => return None,
        now if now > limits.replicas => limits.replicas,
        _ => new_replicas(limits, sets),
    };
    (replicas != wanted(new)).then(|| Resize {
        set: Arc::clone(new),
        replicas,
    })
}

/// The shrinking of old ReplicaSets that the limits allow: first pods that are not available anyway, then as many
/// available ones as there are above the minimum.
pub(crate) fn shrink_old(limits: &Limits, sets: &Sets) -> Vec<Resize> {
    if total(&sets.old, wanted) == 0 {
        return Vec::new();
    }
    let Some(new) = &sets.new else { return Vec::new() };
    let new_unavailable = wanted(new) - available(new);
    let mut spare = total(sets.all(), wanted) - limits.min_available() - new_unavailable;
    if spare <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = sets.old.iter().map(|set| wanted(set)).collect();
    for (set, size) in sets.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).clamp(0, spare);
        *size -= unhealthy;
        spare -= unhealthy;
    }
    // After the unhealthy ones, available pods go one for one with what is above the minimum.
    let mut surplus = total(sets.all(), available) - limits.min_available();
    for size in &mut sizes {
        let shrink = (*size).min(surplus.max(0));
        *size -= shrink;
        surplus -= shrink;
    }
    resizes(&sets.old, &sizes)
}

fn resizes(sets: &[Arc<ReplicaSet>], sizes: &[i32]) -> Vec<Resize> {
    let changed = sets.iter().zip(sizes).filter(|(set, size)| wanted(set) != **size);
    changed
        .map(|(set, size)| Resize {
            set: Arc::clone(set),
            replicas: *size,
        })
        .collect()
}

/// Whether the Deployment's own size changed since its ReplicaSets were last sized.
pub(crate) fn is_scaling(limits: &Limits, sets: &Sets) -> bool {
    sets.all()
        .filter(|set| wanted(set) > 0)
        .any(|set| revision::desired(set).is_some_and(|desired| desired != limits.replicas))
}

/// The resizing that a change of the Deployment's size asks for. In the middle of a rollout old and new ReplicaSets
/// share the change in proportion to their sizes.
pub(crate) fn scale(limits: &Limits, sets: &Sets) -> Vec<Resize> {
    let active: Vec<&Arc<ReplicaSet>> = sets.all().filter(|set| wanted(set) > 0).collect();
    let only = match active.as_slice() {
        [] => sets.new.as_ref().or_else(|| sets.old.last()),
        [only] => Some(*only),
        _ => None,
    };
    if let Some(only) = only {
        let resize = Resize {
            set: Arc::clone(only),
            replicas: limits.replicas,
        };
        return if wanted(only) == limits.replicas {
            Vec::new()
        } else {
            vec![resize]
        };
    }
    if let Some(new) = sets
        .new
        .as_ref()
        .filter(|new| wanted(new) == limits.replicas && available(new) == limits.replicas)
    {
        // The new one carries it all: what is left of the old ones goes.
        return resizes(&sets.old, &vec![0; sets.old.len()])
            .into_iter()
            .filter(|resize| !Arc::ptr_eq(&resize.set, new))
            .collect();
    }
    if limits.recreate {
        Vec::new()
    } else {
        proportionally(limits, active)
    }
}

fn proportionally(limits: &Limits, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Resize> {
    let sum = total(active.iter().copied(), wanted);
    let allowed = if limits.replicas > 0 {
        limits.max_total()
    } else {
        0
    };
    let to_add = allowed - sum;
    // The largest first, so that the rounding's rest goes where it weighs least; then the newest when growing, the
    // oldest when shrinking.
    active.sort_by_key(|set| {
        let created = set
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second());
        (Reverse(wanted(set)), if to_add > 0 { -created } else { created })
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = if to_add == 0 { 0 } else { share(limits, set, sum) };
        let left = to_add - added;
        let share = if to_add > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        sizes.push(wanted(set) + share);
        added += share;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    let owned: Vec<_> = active.into_iter().cloned().collect();
    resizes(&owned, &sizes)
}

/// By how much a ReplicaSet should grow or shrink, rounded to the nearest.
fn share(limits: &Limits, set: &ReplicaSet, sum: i32) -> i32 {
    if limits.replicas == 0 {
        return -wanted(set);
    }
    let before = revision::max(set).filter(|max| *max > 0).unwrap_or(sum);
    let target = f64::from(wanted(set)) * f64::from(limits.max_total()) / f64::from(before);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a share of an i32 fits into an i32"
    )]
    let target = target.round() as i32;
    target - wanted(set)
}

/// Old ReplicaSets beyond the history limit, oldest revision first.
pub(crate) fn expired(sets: &Sets, history_limit: i32) -> Vec<Arc<ReplicaSet>> {
    let alive = sets
        .old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none());
    let mut removable: Vec<_> = alive.cloned().collect();
    let surplus = removable
        .len()
        .saturating_sub(usize::try_from(history_limit).unwrap_or_default());
    removable.sort_by_key(|set| revision::of(set.metadata.annotations.as_ref()));
    removable.truncate(surplus);
    removable.retain(|set| {
        let status = set.status.clone().unwrap_or_default();
        wanted(set) == 0
            && status.replicas == 0
            && status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
    });
    removable
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};

    fn set(name: &str, wanted: i32, available: i32) -> Arc<ReplicaSet> {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some(name.into());
        set.spec.replicas = Some(wanted);
        set.status = Some(ReplicaSetStatus {
            available_replicas: Some(available),
            ..ReplicaSetStatus::default()
        });
        Arc::new(set)
    }

    fn sets(new: (i32, i32), old: &[(i32, i32)]) -> Sets {
        Sets {
            new: Some(set("new", new.0, new.1)),
            old: old
                .iter()
                .enumerate()
                .map(|(i, old)| set(&format!("old{i}"), old.0, old.1))
                .collect(),
        }
    }

    fn limits(replicas: i32, max_surge: i32, max_unavailable: i32) -> Limits {
        Limits {
            replicas,
            max_surge,
            max_unavailable,
            recreate: false,
        }
    }

    fn sizes(resizes: &[Resize]) -> Vec<(&str, i32)> {
        resizes
            .iter()
            .map(|r| (r.set.metadata.name.as_deref().unwrap_or_default(), r.replicas))
            .collect()
    }

    #[test]
    fn percentages_round_surge_up_and_unavailability_down() {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(3);
        let expected = Limits {
            replicas: 3,
            max_surge: 1,
            max_unavailable: 0,
            recreate: false,
        };
        assert_eq!(Limits::of(&deployment), expected);
        let zero = Some(IntOrString::String("0%".into()));
        let rolling = RollingUpdateDeployment {
            max_surge: zero.clone(),
            max_unavailable: zero,
        };
        let strategy = DeploymentStrategy {
            rolling_update: Some(rolling),
            ..DeploymentStrategy::default()
        };
        deployment.spec.strategy = Some(strategy);
        assert_eq!(
            Limits::of(&deployment).max_unavailable,
            1,
            "an update must be able to move"
        );
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        assert_eq!(
            sizes(grow_new(&limits(10, 3, 2), &sets((0, 0), &[(10, 10)])).as_slice()),
            [("new", 3)]
        );
        assert_eq!(grow_new(&limits(10, 3, 2), &sets((3, 0), &[(10, 10)])), None);
        assert_eq!(
            sizes(grow_new(&limits(10, 3, 2), &sets((12, 0), &[])).as_slice()),
            [("new", 10)]
        );
    }

    #[test]
    fn old_sets_shrink_as_far_as_availability_allows() {
        // 10 wanted, 2 may be missing: 2 of the 10 old ones can go at once.
        assert_eq!(
            sizes(&shrink_old(&limits(10, 0, 2), &sets((0, 0), &[(10, 10)]))),
            [("old0", 8)]
        );
        // The new ones are not available yet: nothing can go.
        assert_eq!(shrink_old(&limits(10, 3, 0), &sets((3, 0), &[(10, 10)])), []);
        assert_eq!(
            sizes(&shrink_old(&limits(10, 3, 0), &sets((3, 2), &[(10, 10)]))),
            [("old0", 8)]
        );
    }

    #[test]
    fn unavailable_pods_of_old_sets_go_first() {
        let shrunk = shrink_old(&limits(10, 0, 2), &sets((0, 0), &[(3, 0), (8, 8)]));
        assert_eq!(sizes(&shrunk), [("old0", 0)]);
    }

    #[test]
    fn a_change_of_size_in_a_rollout_is_shared_in_proportion() {
        let mut both = sets((5, 5), &[(10, 10)]);
        for set in both.new.iter_mut().chain(&mut both.old) {
            let annotations = Arc::make_mut(set).metadata.annotations.get_or_insert_default();
            revision::set_sizes(annotations, 12, 15);
        }
        assert!(is_scaling(&limits(24, 6, 0), &both));
        assert_eq!(
            sizes(&scale(&limits(24, 6, 0), &both)),
            [("old0", 20), ("new", 10)]
        );
        let shrunk = scale(&limits(0, 0, 0), &both);
        assert_eq!(sizes(&shrunk), [("old0", 0), ("new", 0)]);
    }

    #[test]
    fn a_single_active_set_takes_the_whole_change() {
        assert_eq!(
            sizes(&scale(&limits(5, 2, 0), &sets((3, 3), &[(0, 0)]))),
            [("new", 5)]
        );
        assert_eq!(sizes(&scale(&limits(5, 2, 0), &sets((0, 0), &[]))), [("new", 5)]);
    }

    #[test]
    fn empty_old_sets_beyond_the_history_limit_expire_oldest_first() {
        let mut three = sets((3, 3), &[(0, 0), (0, 0), (1, 1)]);
        for (index, set) in three.old.iter_mut().enumerate() {
            let annotations = Arc::make_mut(set).metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.into(), (index + 1).to_string());
        }
        let names: Vec<_> = expired(&three, 1)
            .iter()
            .filter_map(|set| set.metadata.name.clone())
            .collect();
        assert_eq!(names, ["old0", "old1"]);
        assert!(expired(&three, 3).is_empty());
    }
}
