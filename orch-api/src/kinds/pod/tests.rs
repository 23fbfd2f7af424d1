use serde_json::json;

use super::*;

fn pod(spec: Value) -> Pod {
    let mut pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec})).unwrap();
    Pods::default(&mut pod);
    Pods::prepare_for_create(&mut pod);
    pod
}

fn sound() -> Value {
    json!({"containers": [{"name": "web", "image": "nginx:1.27"}]})
}

/// A sound spec with some fields changed.
fn with(change: Value) -> Value {
    let mut spec = sound();
    spec.as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    spec
}

/// A sound spec whose container has some fields changed.
fn with_container(change: Value) -> Value {
    let mut spec = sound();
    spec["containers"][0]
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    spec
}

fn errors(spec: Value) -> String {
    Pods::validate(&pod(spec)).to_string()
}

#[test]
fn a_sound_pod_starts_pending_with_a_class() {
    let pod = pod(sound());
    assert_eq!(Pods::validate(&pod).to_string(), "[]");
    assert_eq!(
        serde_json::to_value(&pod.status).unwrap(),
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    assert_eq!(pod.metadata.generation, Some(1));
    assert_eq!(pod.spec.unwrap().enable_service_links, Some(true));
}

#[test]
fn a_limit_is_also_the_request() {
    let pod = pod(with_container(
        json!({"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}),
    ));
    let requests = pod.spec.as_ref().unwrap().containers[0]
        .resources
        .as_ref()
        .unwrap()
        .requests
        .clone()
        .unwrap();
    assert_eq!(requests["cpu"].0, "500m");
    assert_eq!(pod.status.unwrap().qos_class.as_deref(), Some("Guaranteed"));
}

#[test]
fn on_the_hosts_network_ports_are_the_hosts() {
    let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}]}]});
    let pod = pod(spec);
    assert_eq!(
        list(&pod.spec.unwrap().containers[0].ports)[0].host_port,
        Some(80)
    );
}

#[test]
fn faults_of_the_spec_are_told_with_their_fields() {
    for (change, expected) in [
        (json!({"containers": []}), "spec.containers: Required value"),
        (
            json!({"restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            json!({"tolerations": [{"key": "a", "tolerationSeconds": 1}]}),
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"volumes": [{"name": "a"}, {"name": "a"}]}),
            "spec.volumes[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"volumes": [{"name": "a", "secret": {"secretName": "s", "defaultMode": 512}}]}),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both \
             inclusive",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            json!({"ephemeralContainers": [{"name": "debug", "image": "b"}]}),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            json!({"nodeName": "n", "schedulingGates": [{"name": "a.b/c"}]}),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
        (
            json!({"hostUsers": false, "hostPID": true}),
            "spec.hostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when \
             serviceAccountName is not set",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": []}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: \
             must have at least one node selector term",
        ),
        (
            json!({"os": {"name": "windows"}, "securityContext": {"runAsUser": 1}}),
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
        ),
        (
            json!({"evictionResponders": [{"name": "a.b/c", "priority": 1}]}),
            "spec.evictionResponders: Forbidden: is not supported by this server",
        ),
    ] {
        assert_eq!(errors(with(change.clone())), expected, "{change}");
    }
}

#[test]
fn faults_of_a_container_are_told_with_their_fields() {
    for (change, expected) in [
        (json!({"name": ""}), "spec.containers[0].name: Required value"),
        (json!({"image": ""}), "spec.containers[0].image: Required value"),
        (
            json!({"image": " nginx"}),
            "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
        ),
        (
            json!({"imagePullPolicy": "Maybe"}),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
        (
            json!({"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]}),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8\"",
        ),
        (
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            json!({"volumeMounts": [{"name": "none", "mountPath": "/x"}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"none\"",
        ),
        (
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            json!({"readinessProbe": {}}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"readinessProbe": {"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}}),
            "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
             terminationGracePeriodSeconds (30)",
        ),
        (
            json!({"securityContext": {"runAsUser": -1}}),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            json!({"resources": {"claims": [{"name": "gpu"}]}}),
            "spec.containers[0].resources.claims[0]: Not found: \"gpu\"",
        ),
    ] {
        assert_eq!(errors(with_container(change.clone())), expected, "{change}");
    }
}

#[test]
fn only_sidecars_among_init_containers_have_probes() {
    let init = |restart: Value| {
        with(
            json!({"initContainers": [{"name": "i", "image": "b", "restartPolicy": restart,
            "readinessProbe": {"exec": {"command": ["a"]}}}]}),
        )
    };
    assert_eq!(errors(init(json!("Always"))), "[]");
    assert_eq!(
        errors(init(Value::Null)),
        "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
         restartPolicy=Always"
    );
}

#[test]
fn an_update_may_change_images_and_add_tolerations() {
    let old = pod(sound());
    let mut new = old.clone();
    let spec = new.spec.as_mut().unwrap();
    spec.containers[0].image = Some("nginx:1.28".into());
    spec.active_deadline_seconds = Some(60);
    spec.tolerations = Some(serde_json::from_value(json!([{"operator": "Exists"}])).unwrap());
    Pods::prepare_for_update(&mut new, &old);
    assert_eq!(Pods::validate_update(&new, &old).to_string(), "[]");
    assert_eq!(new.metadata.generation, Some(2));
}

#[test]
fn an_update_may_change_nothing_else() {
    let old = pod(with(
        json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 60}),
    ));
    let changed = |change: fn(&mut PodSpec)| {
        let mut new = old.clone();
        change(new.spec.as_mut().unwrap());
        Pods::validate_update(&new, &old).to_string()
    };
    let errors = changed(|spec| spec.hostname = Some("other".into()));
    assert!(
        errors.starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        ),
        "{errors}"
    );
    assert!(errors.ends_with("\n+ spec.hostname: \"other\""), "{errors}");
    assert_eq!(
        changed(|spec| spec.containers.push(spec.containers[0].clone()))
            .lines()
            .last(),
        Some(
            "[spec.containers[1].name: Duplicate value: \"web\", spec.containers: Forbidden: pod updates may not add or \
             remove containers]"
        )
    );
    assert_eq!(
        changed(|spec| spec.tolerations = None),
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    );
    assert_eq!(
        changed(|spec| spec.active_deadline_seconds = Some(61)),
        "spec.activeDeadlineSeconds: Invalid value: 61: must be less than or equal to previous value"
    );
}

#[test]
fn gates_are_only_taken_away() {
    let old = pod(with(json!({"schedulingGates": [{"name": "a.b/c"}]})));
    let condition = &list(&old.status.as_ref().unwrap().conditions)[0];
    assert_eq!(
        (condition.type_.as_str(), text(&condition.reason)),
        ("PodScheduled", "SchedulingGated")
    );
    let mut new = old.clone();
    new.spec.as_mut().unwrap().scheduling_gates = None;
    assert!(Pods::validate_update(&new, &old).is_empty());
    assert_eq!(
        Pods::validate_update(&old, &new).to_string(),
        "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a.b/c'"
    );
}

#[test]
fn a_status_update_leaves_the_spec_and_keeps_the_class() {
    let old = pod(sound());
    let mut new = old.clone();
    new.spec.as_mut().unwrap().hostname = Some("other".into());
    new.status = Some(serde_json::from_value(json!({"phase": "Running"})).unwrap());
    Pods::prepare_for_status_update(&mut new, &old);
    assert_eq!(new.spec, old.spec);
    assert_eq!(text(&new.status.as_ref().unwrap().qos_class), "BestEffort");
    assert!(Pods::validate_status_update(&new, &old).is_empty());
}

#[test]
fn what_has_ended_for_good_does_not_come_back() {
    let mut old = pod(with(json!({"restartPolicy": "Never"})));
    let status = |state: Value| {
        Some(vec![
            serde_json::from_value(
                json!({"name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}),
            )
            .unwrap(),
        ])
    };
    let mut new = old.clone();
    old.status.as_mut().unwrap().container_statuses = status(json!({"terminated": {"exitCode": 0}}));
    new.status.as_mut().unwrap().container_statuses = status(json!({"running": {}}));
    assert_eq!(
        Pods::validate_status_update(&new, &old).to_string(),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
}

#[test]
fn match_label_keys_narrow_the_selector_to_the_pods_own_labels() {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"labels": {"hash": "1"}},
        "spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "a", "labelSelector": {"matchLabels": {"app": "x"}}, "matchLabelKeys": ["hash"]},
        ]}}},
    }))
    .unwrap();
    Pods::prepare_for_create(&mut pod);
    let value = serde_json::to_value(&pod).unwrap();
    let term = &value["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(
        term["labelSelector"]["matchExpressions"],
        json!([{"key": "hash", "operator": "In", "values": ["1"]}])
    );
}

#[test]
fn a_pod_on_a_node_gets_time_to_stop() {
    let mut one = pod(sound());
    assert_eq!(Pods::grace_period(&one, None), Some(0), "not on a node");
    one.spec.as_mut().unwrap().node_name = Some("n".into());
    assert_eq!(Pods::grace_period(&one, None), Some(30));
    assert_eq!(Pods::grace_period(&one, Some(5)), Some(5));
    assert_eq!(Pods::grace_period(&one, Some(-1)), Some(1));
    one.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert_eq!(Pods::grace_period(&one, None), Some(0), "ended");
}

/// Ready, status and restarts as kubectl shows them, an hour into 2026.
fn shown(spec: Value, status: Value, deleted: bool) -> (String, String, String) {
    let mut pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec, "status": status})).unwrap();
    if deleted {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    }
    let cells = Pods::cells(&pod, "2026-01-01T01:00:00Z".parse().unwrap());
    let text = |i: usize| cells[i].as_str().unwrap().to_owned();
    (text(1), text(2), text(3))
}

fn container(state: Value, ready: bool, restarts: i32) -> Value {
    json!({"name": "web", "image": "", "imageID": "", "ready": ready, "restartCount": restarts, "state": state,
    "lastState": if restarts > 0 {
        json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}})
    } else {
        json!({})
    }})
}

#[test]
fn the_status_column_says_what_the_containers_do() {
    for (status, expected) in [
        (json!({"phase": "Pending"}), ("0/1", "Pending", "0")),
        (
            json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {"reason": "ContainerCreating"}}), false, 0)]}),
            ("0/1", "ContainerCreating", "0"),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container(json!({"running": {}}), true, 0)]}),
            ("1/1", "Running", "0"),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 2)]}),
            ("0/1", "CrashLoopBackOff", "2 (5m ago)"),
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), false, 0)]}),
            ("0/1", "Completed", "0"),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [container(json!({"terminated": {"exitCode": 3}}), false, 0)]}),
            ("0/1", "ExitCode:3", "0"),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [container(json!({"terminated": {"exitCode": 137, "signal": 9}}), false, 0)]}),
            ("0/1", "Signal:9", "0"),
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted"}),
            ("0/1", "Evicted", "0"),
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ("0/1", "SchedulingGated", "0"),
        ),
    ] {
        let (ready, word, restarts) = shown(sound(), status.clone(), false);
        assert_eq!(
            (ready.as_str(), word.as_str(), restarts.as_str()),
            expected,
            "{status}"
        );
    }
}

#[test]
fn a_deleted_pod_is_terminating_until_it_has_ended() {
    let running =
        json!({"phase": "Running", "containerStatuses": [container(json!({"running": {}}), true, 0)]});
    assert_eq!(shown(sound(), running, true).1, "Terminating");
    assert_eq!(
        shown(sound(), json!({"phase": "Running", "reason": "NodeLost"}), true).1,
        "Unknown"
    );
    assert_eq!(shown(sound(), json!({"phase": "Succeeded"}), true).1, "Succeeded");
}

#[test]
fn init_containers_are_counted_and_sidecars_are_ready_too() {
    let spec = with(json!({"initContainers": [
        {"name": "first", "image": "b"}, {"name": "side", "image": "b", "restartPolicy": "Always"},
    ]}));
    let init = |name: &str, state: Value, started: bool| {
        let mut one = container(state, started, 0);
        one["name"] = json!(name);
        one["started"] = json!(started);
        one
    };
    let waiting = json!({"phase": "Pending", "initContainerStatuses": [
        init("first", json!({"running": {}}), false), init("side", json!({"waiting": {}}), false),
    ]});
    assert_eq!(
        shown(spec.clone(), waiting, false),
        ("0/2".into(), "Init:0/2".into(), "0".into())
    );
    let failed = json!({"phase": "Pending", "initContainerStatuses": [
        init("first", json!({"terminated": {"exitCode": 1, "reason": "Error"}}), false),
    ]});
    assert_eq!(shown(spec.clone(), failed, false).1, "Init:Error");
    let running = json!({"phase": "Running",
        "initContainerStatuses": [
            init("first", json!({"terminated": {"exitCode": 0}}), false), init("side", json!({"running": {}}), true),
        ],
        "containerStatuses": [container(json!({"running": {}}), true, 0)]});
    assert_eq!(
        shown(spec, running, false),
        ("2/2".into(), "Running".into(), "0".into())
    );
}

#[test]
fn wide_columns_and_selectable_fields_tell_where_a_pod_is() {
    let mut one = pod(with(
        json!({"nodeName": "n1", "readinessGates": [{"conditionType": "a.b/c"}]}),
    ));
    one.status = Some(serde_json::from_value(json!({"phase": "Running", "podIP": "10.1.0.2"})).unwrap());
    let cells = Pods::cells(&one, Timestamp::UNIX_EPOCH);
    assert_eq!(
        cells[4..],
        [
            json!("<unknown>"),
            json!("10.1.0.2"),
            json!("n1"),
            json!("<none>"),
            json!("0/1")
        ]
    );
    let fields: BTreeMap<_, _> = Pods::selectable_fields(&one).into_iter().collect();
    assert_eq!(fields["spec.nodeName"], "n1");
    assert_eq!(fields["status.podIP"], "10.1.0.2");
    assert_eq!(fields["status.phase"], "Running");
    assert_eq!(fields["spec.schedulerName"], "default-scheduler");
}
