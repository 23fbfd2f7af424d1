//! Leases.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::check::{Check, Path};
use super::format;
use super::table::{self, AGE, NAME, text_column};
use super::text::text;
use crate::resource::ResourceInfo;
use crate::strategy::{Column, Kind};

/// The rules of leases.
pub(super) struct Leases;

impl Kind for Leases {
    type Object = Lease;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
    }

    fn validate(lease: &Lease) -> ErrorList {
        Check::run(|check| {
            let Some(spec) = &lease.spec else { return };
            let path = Path::new("spec");
            if let Some(seconds) = spec.lease_duration_seconds
                && seconds <= 0
            {
                check.invalid(
                    &path.child("leaseDurationSeconds"),
                    seconds,
                    "must be greater than 0",
                );
            }
            check.not_negative(
                &path.child("leaseTransitions"),
                spec.lease_transitions.unwrap_or(0).into(),
            );
            let strategy = text(&spec.strategy);
            if !strategy.is_empty() {
                check.faults(
                    &path.child("strategy"),
                    strategy,
                    format::qualified_name(strategy),
                );
            } else if !text(&spec.preferred_holder).is_empty() {
                check.forbidden(
                    &path.child("preferredHolder"),
                    "may only be specified when `strategy` is defined",
                );
            }
        })
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text_column("Holder", "Who holds the lease."), AGE];
        COLUMNS
    }

    fn cells(lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().map_or("", |spec| text(&spec.holder_identity));
        vec![
            table::name(&lease.metadata),
            holder.into(),
            table::age(&lease.metadata, now),
        ]
    }

    fn create_on_update() -> bool {
        true
    }

    fn unconditional_update() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_lasts() {
        let lease: Lease =
            serde_json::from_value(json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}))
                .unwrap();
        assert_eq!(
            Leases::validate(&lease).to_string(),
            "[spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0, spec.leaseTransitions: Invalid value: \
             -1: must be greater than or equal to 0]"
        );
    }
}
