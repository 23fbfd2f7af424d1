//! Disruption budgets.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orch_core::field::ErrorList;

use super::check::{Check, Path};
use super::stored::{status_apart, table};
use super::table::{self as cell, AGE, NAME, number, text_column};
use super::{int_or_percent, selectors};
use crate::resource::ResourceInfo;
use crate::strategy::Kind;

/// The rules of disruption budgets.
pub(super) struct PodDisruptionBudgets;

impl Kind for PodDisruptionBudgets {
    type Object = PodDisruptionBudget;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .short(["pdb"])
            .status()
    }

    status_apart!();

    fn validate(budget: &PodDisruptionBudget) -> ErrorList {
        Check::run(|check| {
            let Some(spec) = &budget.spec else { return };
            let path = Path::new("spec");
            if spec.min_available.is_some() && spec.max_unavailable.is_some() {
                check.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
            }
            for (field, value) in [
                ("minAvailable", &spec.min_available),
                ("maxUnavailable", &spec.max_unavailable),
            ] {
                if let Some(value) = value {
                    int_or_percent::validate(check, value, &path.child(field));
                    int_or_percent::at_most_all(check, value, &path.child(field));
                }
            }
            selectors::validate(check, spec.selector.as_ref(), &path.child("selector"));
            let policy = spec.unhealthy_pod_eviction_policy.as_deref();
            let known = ["AlwaysAllow", "IfHealthyBudget"];
            check.optional_one_of(&path.child("unhealthyPodEvictionPolicy"), policy, &known);
        })
    }

    table!(
        [
            NAME,
            text_column("Min Available", "How many pods have to stay."),
            text_column("Max Unavailable", "How many pods may be away."),
            number("Allowed Disruptions", "How many pods may be evicted now."),
            AGE,
        ],
        |budget, now| {
            let spec = budget.spec.clone().unwrap_or_default();
            let shown = |value: &Option<IntOrString>| match value {
                None => "N/A".to_owned(),
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(text)) => text.clone(),
            };
            let allowed = budget
                .status
                .as_ref()
                .and_then(|status| status.disruptions_allowed)
                .unwrap_or(0);
            vec![
                cell::name(&budget.metadata),
                shown(&spec.min_available).into(),
                shown(&spec.max_unavailable).into(),
                allowed.into(),
                cell::age(&budget.metadata, now),
            ]
        }
    );
}
