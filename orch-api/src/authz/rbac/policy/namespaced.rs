//! Upstream's roles and bindings in the system's namespaces.

use super::{BindingSpec, EVENTS, READ, RoleSpec, binding, on, on_named, role};

/// By namespace.
pub(super) const ROLES: &[(&str, RoleSpec)] = &[
    (
        "kube-system",
        role(
            "extension-apiserver-authentication-reader",
            &[on_named(
                READ,
                "core",
                "configmaps",
                "extension-apiserver-authentication",
            )],
        ),
    ),
    (
        "kube-system",
        role(
            "system:controller:bootstrap-signer",
            &[on(READ, "core", "secrets")],
        ),
    ),
    (
        "kube-system",
        role(
            "system:controller:cloud-provider",
            &[on("create get list watch", "core", "configmaps")],
        ),
    ),
    (
        "kube-system",
        role(
            "system:controller:token-cleaner",
            &[on("get list watch delete", "core", "secrets"), EVENTS],
        ),
    ),
    (
        "kube-system",
        role(
            "system::leader-locking-kube-controller-manager",
            &[
                on("watch", "core", "configmaps"),
                on_named("get update", "core", "configmaps", "kube-controller-manager"),
            ],
        ),
    ),
    (
        "kube-system",
        role(
            "system::leader-locking-kube-scheduler",
            &[
                on("watch", "core", "configmaps"),
                on_named("get update", "core", "configmaps", "kube-scheduler"),
            ],
        ),
    ),
    (
        "kube-public",
        role(
            "system:controller:bootstrap-signer",
            &[
                on(READ, "core", "configmaps"),
                on_named("update", "core", "configmaps", "cluster-info"),
                EVENTS,
            ],
        ),
    ),
];

/// By namespace.
pub(super) const BINDINGS: &[(&str, BindingSpec)] = &[
    (
        "kube-system",
        BindingSpec {
            name: "system::extension-apiserver-authentication-reader",
            role: "extension-apiserver-authentication-reader",
            subjects: &[
                "user:system:kube-controller-manager",
                "user:system:kube-scheduler",
            ],
        },
    ),
    (
        "kube-system",
        binding(
            "system::leader-locking-kube-controller-manager",
            &[
                "user:system:kube-controller-manager",
                "account:kube-controller-manager",
            ],
        ),
    ),
    (
        "kube-system",
        binding(
            "system::leader-locking-kube-scheduler",
            &["user:system:kube-scheduler", "account:kube-scheduler"],
        ),
    ),
    (
        "kube-system",
        binding(
            "system:controller:bootstrap-signer",
            &["account:bootstrap-signer"],
        ),
    ),
    (
        "kube-system",
        binding("system:controller:cloud-provider", &["account:cloud-provider"]),
    ),
    (
        "kube-system",
        binding("system:controller:token-cleaner", &["account:token-cleaner"]),
    ),
    (
        "kube-public",
        binding(
            "system:controller:bootstrap-signer",
            &["account:bootstrap-signer"],
        ),
    ),
];
