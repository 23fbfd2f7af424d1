//! ServiceAccounts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use orch_core::field::ErrorList;
use serde_json::Value;

use super::table::{self, AGE, NAME, number};
use super::text::list;
use crate::resource::{ResourceInfo, Subresource};
use crate::strategy::{Column, Kind};

/// The rules of service accounts.
pub(super) struct ServiceAccounts;

impl Kind for ServiceAccounts {
    type Object = ServiceAccount;

    fn info() -> ResourceInfo {
        ResourceInfo::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
            .short(["sa"])
            .subresource(Subresource::Token)
    }

    fn validate(_account: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn columns() -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            number("Secrets", "How many secrets it may use by name."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        let meta = &account.metadata;
        vec![
            table::name(meta),
            list(&account.secrets).len().into(),
            table::age(meta, now),
        ]
    }

    fn unconditional_update() -> bool {
        false
    }
}
