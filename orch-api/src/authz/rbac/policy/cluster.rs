//! Upstream's cluster roles and their bindings, those of controllers apart.

use super::{
    BindingSpec, EVENTS, READ, READ_UPDATE, READ_WRITE, RoleSpec, RuleSpec, WRITE, binding, on, on_named,
    on_urls, role,
};

/// What every node may do, as far as the node authorizer does not look closer.
pub(crate) const NODE_RULES: &[RuleSpec] = &[
    on("create", "authentication.k8s.io", "tokenreviews"),
    on(
        "create",
        "authorization.k8s.io",
        "subjectaccessreviews localsubjectaccessreviews",
    ),
    on(READ, "core", "services"),
    on("create get list watch", "core", "nodes"),
    on("update patch", "core", "nodes/status"),
    on("update patch", "core", "nodes"),
    EVENTS,
    on(READ, "core", "pods"),
    on("create delete", "core", "pods"),
    on("update patch", "core", "pods/status"),
    on("create", "core", "pods/eviction"),
    on(READ, "core", "secrets configmaps"),
    on("get", "core", "persistentvolumeclaims persistentvolumes"),
    on(
        "create get list watch",
        "certificates.k8s.io",
        "certificatesigningrequests",
    ),
    on("get create update patch delete", "coordination.k8s.io", "leases"),
    on("get", "storage.k8s.io", "volumeattachments"),
    on("get update patch", "core", "persistentvolumeclaims/status"),
    on("create", "core", "serviceaccounts/token"),
    on(READ, "storage.k8s.io", "csidrivers"),
    on("get create update patch delete", "storage.k8s.io", "csinodes"),
    on(READ, "node.k8s.io", "runtimeclasses"),
    on("get", "resource.k8s.io", "resourceclaims"),
    on("deletecollection", "resource.k8s.io", "resourceslices"),
];

const PUBLIC: &str = "/livez /readyz /healthz /version /version/";

const EDIT: &[RuleSpec] = &[
    // Reading these is a way to more rights, so that viewers may not.
    on(
        READ,
        "core",
        "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy",
    ),
    on("impersonate", "core", "serviceaccounts"),
    on(
        WRITE,
        "core",
        "pods pods/attach pods/proxy pods/exec pods/portforward",
    ),
    on("create", "core", "pods/eviction"),
    on(
        WRITE,
        "core",
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy \
         persistentvolumeclaims configmaps secrets events",
    ),
    on("create", "core", "serviceaccounts/token"),
    on(
        WRITE,
        "apps",
        "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets \
         replicasets/scale",
    ),
    on(WRITE, "autoscaling", "horizontalpodautoscalers"),
    on(WRITE, "batch", "jobs cronjobs"),
    on(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale \
         replicationcontrollers/scale networkpolicies",
    ),
    on(WRITE, "policy", "poddisruptionbudgets"),
    on(WRITE, "networking.k8s.io", "networkpolicies ingresses"),
    on(READ_WRITE, "coordination.k8s.io", "leases"),
    on(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

const VIEW: &[RuleSpec] = &[
    on(
        READ,
        "core",
        "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints \
         persistentvolumeclaims persistentvolumeclaims/status configmaps",
    ),
    on(
        READ,
        "core",
        "limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status \
         replicationcontrollers/status pods/log",
    ),
    on(READ, "core", "namespaces"),
    on(READ, "discovery.k8s.io", "endpointslices"),
    on(
        READ,
        "apps",
        "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status \
         deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
    ),
    on(
        READ,
        "autoscaling",
        "horizontalpodautoscalers horizontalpodautoscalers/status",
    ),
    on(READ, "batch", "jobs cronjobs cronjobs/status jobs/status"),
    on(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
    ),
    on(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    on(
        READ,
        "networking.k8s.io",
        "networkpolicies ingresses ingresses/status",
    ),
    on(
        READ,
        "resource.k8s.io",
        "resourceclaims resourceclaims/status resourceclaimtemplates",
    ),
];

const CONTROLLER_MANAGER: &[RuleSpec] = &[
    EVENTS,
    on("create", "coordination.k8s.io", "leases"),
    on_named(
        "get update",
        "coordination.k8s.io",
        "leases",
        "kube-controller-manager",
    ),
    on("create", "core", "secrets serviceaccounts"),
    on("delete", "core", "secrets"),
    on("get", "core", "namespaces secrets serviceaccounts configmaps"),
    on("update", "core", "secrets serviceaccounts"),
    on("create", "authentication.k8s.io", "tokenreviews"),
    on("create", "authorization.k8s.io", "subjectaccessreviews"),
    // For the informers that all controllers share.
    on("list watch", "*", "*"),
    on("create", "core", "serviceaccounts/token"),
];

const SCHEDULER: &[RuleSpec] = &[
    EVENTS,
    on("create", "coordination.k8s.io", "leases"),
    on_named(
        "get update list watch",
        "coordination.k8s.io",
        "leases",
        "kube-scheduler",
    ),
    on(READ, "core", "nodes"),
    on("get list watch delete", "core", "pods"),
    on("create", "core", "pods/binding bindings"),
    on("patch update", "core", "pods/status"),
    on(READ, "core", "services replicationcontrollers"),
    on(READ, "apps extensions", "replicasets"),
    on(READ, "apps", "statefulsets"),
    on(READ, "policy", "poddisruptionbudgets"),
    on(READ, "core", "persistentvolumeclaims persistentvolumes"),
    on("create", "authentication.k8s.io", "tokenreviews"),
    on("create", "authorization.k8s.io", "subjectaccessreviews"),
    on(READ, "storage.k8s.io", "csinodes"),
    on(READ, "core", "namespaces"),
    on(READ, "storage.k8s.io", "csidrivers"),
    on(READ, "storage.k8s.io", "csistoragecapacities"),
    on(READ, "storage.k8s.io", "volumeattachments"),
    on(READ, "resource.k8s.io", "deviceclasses"),
    on("get list watch update patch", "resource.k8s.io", "resourceclaims"),
    on("update patch", "resource.k8s.io", "resourceclaims/status"),
    on("update patch", "core", "pods/finalizers"),
    on(READ, "resource.k8s.io", "resourceslices"),
];

pub(super) const ROLES: &[RoleSpec] = &[
    role("cluster-admin", &[on("*", "*", "*"), on_urls("*", "*")]),
    role(
        "system:discovery",
        &[on_urls(
            "get",
            "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",
        )],
    ),
    role(
        "system:monitoring",
        &[on_urls(
            "get",
            "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*",
        )],
    ),
    role(
        "system:basic-user",
        &[
            on(
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            on("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role("system:public-info-viewer", &[on_urls("get", PUBLIC)]),
    RoleSpec {
        aggregates: true,
        ..role("admin", &[])
    },
    RoleSpec {
        aggregates: true,
        aggregates_to: "admin",
        ..role("edit", &[])
    },
    RoleSpec {
        aggregates: true,
        aggregates_to: "edit",
        ..role("view", &[])
    },
    RoleSpec {
        aggregates_to: "admin",
        ..role(
            "system:aggregate-to-admin",
            &[
                on("create", "authorization.k8s.io", "localsubjectaccessreviews"),
                on(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
            ],
        )
    },
    RoleSpec {
        aggregates_to: "edit",
        ..role("system:aggregate-to-edit", EDIT)
    },
    RoleSpec {
        aggregates_to: "view",
        ..role("system:aggregate-to-view", VIEW)
    },
    role(
        "system:heapster",
        &[
            on(READ, "core", "events pods nodes namespaces"),
            on(READ, "extensions", "deployments"),
        ],
    ),
    role("system:node", NODE_RULES),
    role(
        "system:node-problem-detector",
        &[
            on("get", "core", "nodes"),
            on("patch", "core", "nodes/status"),
            EVENTS,
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            on(READ, "core", "nodes"),
            on("proxy", "core", "nodes"),
            on(
                "*",
                "core",
                "nodes/proxy nodes/metrics nodes/stats nodes/log nodes/healthz nodes/pods nodes/configz",
            ),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[on(
            "create get list watch",
            "certificates.k8s.io",
            "certificatesigningrequests",
        )],
    ),
    role(
        "system:auth-delegator",
        &[
            on("create", "authentication.k8s.io", "tokenreviews"),
            on("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role(
        "system:kube-aggregator",
        &[on(READ, "core", "services endpoints")],
    ),
    role("system:kube-controller-manager", CONTROLLER_MANAGER),
    role(
        "system:kube-dns",
        &[on("list watch", "core", "endpoints services")],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            on("get list watch create delete", "core", "persistentvolumes"),
            on("get list watch update", "core", "persistentvolumeclaims"),
            on(READ, "storage.k8s.io", "storageclasses"),
            on("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/nodeclient",
        )],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
    role(
        "system:volume-scheduler",
        &[
            on(READ_UPDATE, "core", "persistentvolumes"),
            on(READ, "storage.k8s.io", "storageclasses"),
            on(READ_UPDATE, "core", "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[on_named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/legacy-unknown",
        )],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[on_named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kubelet-serving",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[on_named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[on_named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[on_urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:node-proxier",
        &[
            on("list watch", "core", "services endpoints"),
            on(READ, "core", "nodes"),
            EVENTS,
            on("list watch", "discovery.k8s.io", "endpointslices"),
            on("list watch", "networking.k8s.io", "servicecidrs"),
        ],
    ),
    role("system:kube-scheduler", SCHEDULER),
];

pub(super) const BINDINGS: &[BindingSpec] = &[
    binding("cluster-admin", &["group:system:masters"]),
    binding("system:monitoring", &["group:system:monitoring"]),
    binding("system:discovery", &["group:system:authenticated"]),
    binding("system:basic-user", &["group:system:authenticated"]),
    binding(
        "system:public-info-viewer",
        &["group:system:authenticated", "group:system:unauthenticated"],
    ),
    binding("system:node-proxier", &["user:system:kube-proxy"]),
    binding(
        "system:kube-controller-manager",
        &["user:system:kube-controller-manager"],
    ),
    binding("system:kube-dns", &["account:kube-dns"]),
    binding("system:kube-scheduler", &["user:system:kube-scheduler"]),
    binding("system:volume-scheduler", &["user:system:kube-scheduler"]),
    // Without subjects, as upstream: what nodes may do is for the node authorizer to say.
    binding("system:node", &[]),
    binding(
        "system:service-account-issuer-discovery",
        &["group:system:serviceaccounts"],
    ),
];
