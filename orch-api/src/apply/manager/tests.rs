use super::*;
use crate::schema::root;
use proptest::prelude::*;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn deployments() -> FieldManager<'static> {
    FieldManager::new(root("apps", "v1", "Deployment"), "apps/v1", "Deployment")
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn config_maps() -> FieldManager<'static> {
    FieldManager::new(root("", "v1", "ConfigMap"), "v1", "ConfigMap")
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn entry<'o>(object: &'o Value, manager: &str) -> Option<&'o Value> {
    object["metadata"]["managedFields"]
        .as_array()?
        .iter()
        .find(|entry| entry["manager"] == manager)
}

fn fields(object: &Value, manager: &str) -> Value {
    entry(object, manager).unwrap_or_else(|| panic!("{manager} in {object:#}"))["fieldsV1"].clone()
}

fn conflict(outcome: Result<Value, ApplyError>) -> Conflicts {
    match outcome {
        Err(ApplyError::Conflict(conflicts)) => conflicts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_create_is_tracked_as_upstream_tracks_it() {
    let new = deployment(json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "x", "resources": {}}], "securityContext": {}}
        }
    }));
    let made = deployments().update(None, new, "kubectl-create", at(0));
    let expected = json!({"f:spec": {
        "f:replicas": {}, "f:selector": {},
        "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
        "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:resources": {}}},
                "f:securityContext": {}
            }
        }
    }});
    let found = entry(&made, "kubectl-create").unwrap();
    assert_eq!(found["fieldsV1"], expected);
    assert_eq!(found["operation"], "Update");
    assert_eq!(found["apiVersion"], "apps/v1");
    assert_eq!(found["time"], "2027-01-15T08:00:00Z");
}

#[test]
fn a_conflict_is_told_in_upstreams_words() {
    let live = deployments().update(
        None,
        deployment(json!({"replicas": 1, "paused": true})),
        "x",
        at(0),
    );
    let error = deployments()
        .apply(
            Some(&live),
            &deployment(json!({"replicas": 3})),
            "me",
            false,
            at(1),
        )
        .unwrap_err();
    let text = "Apply failed with 1 conflict: conflict with \"x\" using apps/v1: .spec.replicas";
    assert_eq!(error.to_string(), text);
    let api: ApiError = error.into();
    assert_eq!((api.code(), api.reason()), (409, "Conflict"));
    let causes = api.causes();
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(causes[0].field.as_deref(), Some(".spec.replicas"));
    assert_eq!(
        causes[0].message.as_deref(),
        Some("conflict with \"x\" using apps/v1")
    );
    let both = deployment(json!({"replicas": 3, "paused": false}));
    let text = conflict(deployments().apply(Some(&live), &both, "me", false, at(1))).to_string();
    assert_eq!(
        text,
        "Apply failed with 2 conflicts: conflicts with \"x\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn force_takes_the_field_and_its_ownership() {
    let live = deployments().update(
        None,
        deployment(json!({"replicas": 1, "paused": true})),
        "x",
        at(0),
    );
    let new = deployments()
        .apply(
            Some(&live),
            &deployment(json!({"replicas": 3})),
            "me",
            true,
            at(1),
        )
        .unwrap();
    assert_eq!(new["spec"], json!({"replicas": 3, "paused": true}));
    assert_eq!(fields(&new, "me"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&new, "x"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn equal_values_are_shared_and_go_only_when_all_gave_them_up() {
    let m = config_maps();
    let one = m
        .apply(
            None,
            &config_map(json!({"a": "1", "b": "1"})),
            "one",
            false,
            at(0),
        )
        .unwrap();
    let two = m
        .apply(Some(&one), &config_map(json!({"a": "1"})), "two", false, at(1))
        .unwrap();
    assert_eq!(fields(&two, "two"), json!({"f:data": {"f:a": {}}}));
    let left = m
        .apply(Some(&two), &config_map(json!({"b": "1"})), "one", false, at(2))
        .unwrap();
    assert_eq!(left["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(fields(&left, "one"), json!({"f:data": {"f:b": {}}}));
    let gone = m
        .apply(Some(&left), &config_map(json!({})), "two", false, at(3))
        .unwrap();
    assert_eq!(gone["data"], json!({"b": "1"}));
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let empty = m.apply(Some(&gone), &nothing, "one", false, at(4)).unwrap();
    assert_eq!(empty.get("data").cloned().unwrap_or(json!({})), json!({}));
    assert!(entry(&empty, "one").is_none());
}

#[test]
fn list_items_are_owned_by_key_and_removed_with_their_owner() {
    let pods = FieldManager::new(root("", "v1", "Pod"), "v1", "Pod");
    let pod = |containers: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
    let one = pods
        .apply(
            None,
            &pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
            "one",
            false,
            at(0),
        )
        .unwrap();
    let two = pods
        .apply(
            Some(&one),
            &pod(json!([{"name": "c", "image": "1"}])),
            "two",
            false,
            at(1),
        )
        .unwrap();
    let left = pods
        .apply(
            Some(&two),
            &pod(json!([{"name": "b", "image": "2"}])),
            "one",
            false,
            at(2),
        )
        .unwrap();
    assert_eq!(
        left["spec"]["containers"],
        json!([{"name": "b", "image": "2"}, {"name": "c", "image": "1"}])
    );
    assert_eq!(
        fields(&left, "two"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}}}})
    );
}

#[test]
fn what_an_update_sets_inside_of_an_applied_item_outlives_only_the_item() {
    let m = config_maps();
    let one = m
        .apply(None, &config_map(json!({"a": "1"})), "one", false, at(0))
        .unwrap();
    let mut edited = one.clone();
    edited["data"]["b"] = "2".into();
    let edited = m.update(Some(&one), edited, "edit", at(1));
    assert_eq!(fields(&edited, "edit"), json!({"f:data": {"f:b": {}}}));
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let left = m.apply(Some(&edited), &nothing, "one", false, at(2)).unwrap();
    assert_eq!(left["data"], json!({"b": "2"}));
}

#[test]
fn an_update_takes_what_it_changes_and_forgets_what_it_removes() {
    let m = config_maps();
    let one = m
        .apply(
            None,
            &config_map(json!({"a": "1", "b": "1", "c": "1"})),
            "one",
            false,
            at(0),
        )
        .unwrap();
    let mut edited = one.clone();
    edited["data"] = json!({"a": "2", "c": "1"});
    let edited = m.update(Some(&one), edited, "edit", at(1));
    assert_eq!(fields(&edited, "one"), json!({"f:data": {"f:c": {}}}));
    assert_eq!(fields(&edited, "edit"), json!({"f:data": {"f:a": {}}}));
}

#[test]
fn a_write_that_changes_nothing_leaves_entries_and_times_alone() {
    let m = config_maps();
    let one = m
        .apply(None, &config_map(json!({"a": "1"})), "one", false, at(0))
        .unwrap();
    assert_eq!(m.update(Some(&one), one.clone(), "edit", at(5)), one);
    assert_eq!(
        m.apply(Some(&one), &config_map(json!({"a": "1"})), "one", false, at(5))
            .unwrap(),
        one
    );
}

#[test]
fn objects_without_owners_stay_so_until_the_first_apply() {
    let m = config_maps();
    let live = config_map(json!({"a": "1"}));
    let mut edited = live.clone();
    edited["data"]["b"] = "2".into();
    assert_eq!(m.update(Some(&live), edited.clone(), "edit", at(0)), edited);
    let applied = m
        .apply(Some(&live), &config_map(json!({"b": "3"})), "one", false, at(1))
        .unwrap();
    assert_eq!(
        fields(&applied, "before-first-apply"),
        json!({"f:data": {".": {}, "f:a": {}}})
    );
    let text =
        conflict(m.apply(Some(&live), &config_map(json!({"a": "3"})), "one", false, at(1))).to_string();
    assert_eq!(
        text,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
}

#[test]
fn an_empty_list_forgets_all_owners() {
    let m = config_maps();
    let live = m
        .apply(None, &config_map(json!({"a": "1"})), "one", false, at(0))
        .unwrap();
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        assert_eq!(
            m.update(Some(&live), new, "edit", at(1))["metadata"],
            json!({"name": "c"})
        );
    }
    let mut absent = live.clone();
    absent["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(m.update(Some(&live), absent, "edit", at(1)), live);
}

#[test]
fn subresources_have_entries_of_their_own() {
    let ignored = FieldSet::of_fields(&[&["spec"]]);
    let status = deployments().subresource("status").ignoring(&ignored);
    let live = deployments().update(None, deployment(json!({"replicas": 1})), "x", at(0));
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1});
    new["spec"]["replicas"] = json!(9);
    new["metadata"]["managedFields"] = json!([]);
    let new = status.update(Some(&live), new, "x", at(1));
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let error = deployments().apply(Some(&new), &json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 2}
    }), "me", false, at(2)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("conflict with \"x\" with subresource \"status\" using apps/v1: .status.replicas"),
        "{error}"
    );
}

#[test]
fn ignored_fields_are_nobodys() {
    let ignored = FieldSet::of_fields(&[&["status"]]);
    let mut config = deployment(json!({"replicas": 1}));
    config["status"] = json!({"replicas": 7});
    let made = deployments()
        .ignoring(&ignored)
        .apply(None, &config, "me", false, at(0))
        .unwrap();
    assert_eq!(fields(&made, "me"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn kubectl_goes_over_from_client_side_apply() {
    let m = config_maps();
    let mut first = config_map(json!({"a": "1", "b": "1"}));
    first["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": config_map(json!({"a": "1", "b": "1"})).to_string()});
    let live = m.update(None, first, "kubectl-client-side-apply", at(0));
    let change = config_map(json!({"a": "2", "b": "1"}));
    let applied = m.apply(Some(&live), &change, "kubectl", false, at(1)).unwrap();
    assert_eq!(applied["data"]["a"], "2");
    let noted = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(noted).unwrap(), change);
    conflict(m.apply(Some(&live), &change, "other", false, at(1)));
    let mut edited = live.clone();
    edited["data"]["a"] = "9".into();
    let edited = m.update(Some(&live), edited, "edit", at(1));
    let found = conflict(m.apply(Some(&edited), &change, "kubectl", false, at(2)));
    assert_eq!(
        found.to_string(),
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.a"
    );
}

#[test]
fn malformed_configurations_are_refused() {
    let table = [
        (
            json!({"apiVersion": "v1", "kind": "Secret"}),
            "invalid object type: v1, Kind=Secret",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "dat": {}}),
            "failed to create typed patch object (n/c; v1, Kind=ConfigMap): .dat: field not declared in schema",
        ),
    ];
    for (config, expected) in table {
        let error = config_maps()
            .apply(None, &config, "me", false, at(0))
            .unwrap_err();
        assert_eq!(error, ApplyError::BadConfiguration(expected.to_owned()));
    }
}

struct Scaler;

impl Versions for Scaler {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, crate::schema::TypeRef)> {
        (api_version == "autoscaling/v1").then(|| {
            let mut old = object.clone();
            old["apiVersion"] = "autoscaling/v1".into();
            (
                old,
                crate::schema::TypeRef::Static(root("autoscaling", "v1", "HorizontalPodAutoscaler")),
            )
        })
    }

    fn convert_back(&self, object: &Value, _: &str) -> Option<Value> {
        let mut new = object.clone();
        new["apiVersion"] = "autoscaling/v2".into();
        Some(new)
    }
}

#[test]
fn appliers_keep_their_entry_when_they_move_to_another_version() {
    let ty = |version| root("autoscaling", version, "HorizontalPodAutoscaler");
    let config = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec});
    let v1 = FieldManager::new(ty("v1"), "autoscaling/v1", "HorizontalPodAutoscaler");
    let live = v1
        .apply(
            None,
            &config("autoscaling/v1", json!({"minReplicas": 1, "maxReplicas": 5})),
            "me",
            false,
            at(0),
        )
        .unwrap();
    let v2 = FieldManager::new(ty("v2"), "autoscaling/v2", "HorizontalPodAutoscaler");
    let change = config("autoscaling/v2", json!({"maxReplicas": 6}));
    let moved = v2
        .versions(&Scaler)
        .apply(Some(&live), &change, "me", false, at(1))
        .unwrap();
    assert_eq!(moved["spec"], json!({"maxReplicas": 6}));
    assert_eq!(moved["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    assert_eq!(entry(&moved, "me").unwrap()["apiVersion"], "autoscaling/v2");
    let other = v2.apply(Some(&live), &change, "other", false, at(1)).unwrap();
    assert!(entry(&other, "me").is_none());
}

fn some_config() -> impl Strategy<Value = Value> {
    let container = (
        "[a-c]",
        prop::option::of("[xy]"),
        prop::collection::btree_map("[A-B]", "[12]", 0..3),
    )
        .prop_map(|(name, image, env)| {
            let env: Vec<Value> = env
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
            let mut container = json!({"name": name, "env": env});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            container
        });
    let containers = prop::collection::btree_map("[a-c]", container, 0..3).prop_map(|items| {
        items
            .into_iter()
            .map(|(name, mut item)| {
                item["name"] = name.into();
                item
            })
            .collect::<Vec<Value>>()
    });
    (
        containers,
        prop::collection::btree_map("[a-c]", "[xy]", 0..3),
        prop::option::of("[nm]"),
    )
        .prop_map(|(containers, labels, node)| {
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
                "spec": {"containers": containers}
            });
            if let Some(node) = node {
                pod["spec"]["nodeName"] = node.into();
            }
            pod
        })
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in some_config(), second in some_config()) {
        let pods = FieldManager::new(root("", "v1", "Pod"), "v1", "Pod");
        let live = pods.apply(None, &first, "one", false, at(0)).unwrap();
        let once = pods.apply(Some(&live), &second, "two", true, at(1)).unwrap();
        let twice = pods.apply(Some(&once), &second, "two", false, at(2)).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn one_applier_gets_exactly_its_last_configuration(first in some_config(), second in some_config()) {
        let pods = FieldManager::new(root("", "v1", "Pod"), "v1", "Pod");
        let live = pods.apply(None, &first, "one", false, at(0)).unwrap();
        let direct = pods.apply(None, &second, "one", false, at(1)).unwrap();
        let moved = pods.apply(Some(&live), &second, "one", false, at(1)).unwrap();
        let ty = root("", "v1", "Pod");
        let leaves = |object: &Value| super::super::walk::fields_of(object, ty).leaves();
        let (direct, moved) = (leaves(&direct), leaves(&moved));
        prop_assert!(moved.difference(&direct).is_empty(), "{} kept", moved.difference(&direct));
    }

    #[test]
    fn what_an_applier_asked_for_is_there_and_its_own(first in some_config(), second in some_config()) {
        let pods = FieldManager::new(root("", "v1", "Pod"), "v1", "Pod");
        let live = pods.apply(None, &first, "one", false, at(0)).unwrap();
        let new = pods.apply(Some(&live), &second, "two", true, at(1)).unwrap();
        let ty = root("", "v1", "Pod");
        prop_assert!(super::super::walk::compare(&second, &new, ty).modified.is_empty());
        let wanted = super::super::walk::fields_of(&second, ty).difference(&untracked());
        let owned = FieldSet::from_json(&fields_or_none(&new, "two")).unwrap();
        prop_assert_eq!(owned, wanted);
    }
}

fn fields_or_none(object: &Value, manager: &str) -> Value {
    entry(object, manager).map_or(json!({}), |entry| entry["fieldsV1"].clone())
}
