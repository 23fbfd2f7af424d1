//! Projected volumes: several sources in one folder.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;

use super::volumes::{downward_file, items, local_path, mode, no_user};
use crate::kinds::check::{Check, Path};
use crate::kinds::text::list;
use crate::kinds::{format, selectors};

pub(super) fn validate(check: &mut Check, volume: &core::ProjectedVolumeSource, path: &Path) {
    mode(check, volume.default_mode, &path.child("defaultMode"));
    no_user(check, volume.default_user, &path.child("defaultUser"));
    let mut taken = Taken {
        paths: BTreeSet::new(),
        at: path,
    };
    for (i, source) in list(&volume.sources).iter().enumerate() {
        let at = path.child("sources").index(i);
        one(check, source, &mut taken, path, &at);
        let given = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() > 1 {
            check.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// File names given out so far; two sources may not write the same one.
struct Taken<'a> {
    paths: BTreeSet<&'a str>,
    at: &'a Path,
}

impl<'a> Taken<'a> {
    fn take(&mut self, check: &mut Check, path: &'a str, named: &str) {
        if !path.is_empty() && !self.paths.insert(path) {
            check.invalid(self.at, named, "conflicting duplicate paths");
        }
    }
}

fn one<'a>(
    check: &mut Check,
    source: &'a core::VolumeProjection,
    taken: &mut Taken<'a>,
    volume: &Path,
    path: &Path,
) {
    if let Some(secret) = &source.secret {
        let path = path.child("secret");
        check.present(&path.child("name"), &secret.name);
        items(check, list(&secret.items), &path.child("items"));
        list(&secret.items)
            .iter()
            .for_each(|item| taken.take(check, &item.path, &secret.name));
    }
    if let Some(map) = &source.config_map {
        let path = path.child("configMap");
        check.present(&path.child("name"), &map.name);
        items(check, list(&map.items), &path.child("items"));
        list(&map.items)
            .iter()
            .for_each(|item| taken.take(check, &item.path, &map.name));
    }
    if let Some(downward) = &source.downward_api {
        for file in list(&downward.items) {
            downward_file(check, file, &path.child("downwardAPI"));
            taken.take(check, &file.path, &file.path);
        }
    }
    if let Some(token) = &source.service_account_token {
        service_account_token(check, token, volume, &path.child("serviceAccountToken"));
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        trust_bundle(check, bundle, &path.child("clusterTrustBundle"));
        taken.take(check, &bundle.path, &bundle.path);
    }
    if source.pod_certificate.is_some() {
        check.forbidden(&path.child("podCertificate"), "is not supported by this server");
    }
}

fn service_account_token(
    check: &mut Check,
    token: &core::ServiceAccountTokenProjection,
    volume: &Path,
    path: &Path,
) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    if seconds < 600 {
        let why = "may not specify a duration less than 10 minutes";
        check.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    if seconds > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        check.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    if token.path.is_empty() {
        check.required(&volume.child("path"), "");
    } else {
        local_path(check, &token.path, &volume.child("path"));
    }
    no_user(check, token.user, &path.child("user"));
}

fn trust_bundle(check: &mut Check, bundle: &core::ClusterTrustBundleProjection, path: &Path) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => check.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                check.required(&path.child("name"), "must be a valid object name");
            }
            if let Some(selector) = &bundle.label_selector {
                let why = "labelSelector must be unset if name is specified";
                check.invalid(&path.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                check.required(&path.child("signerName"), "must be a valid signer name");
            } else {
                check.faults(&path.child("signerName"), signer, format::qualified_name(signer));
            }
            selectors::validate(
                check,
                bundle.label_selector.as_ref(),
                &path.child("labelSelector"),
            );
        }
        (None, None) => check.required(path, "either name or signerName must be specified"),
    }
    check.present(&path.child("path"), &bundle.path);
    local_path(check, &bundle.path, &path.child("path"));
    no_user(check, bundle.user, &path.child("user"));
}
