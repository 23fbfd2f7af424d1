use super::*;
use crate::schema::root;
use proptest::prelude::*;
use serde_json::json;

fn pod(document: Value, patch: Value) -> Result<Value, PatchError> {
    strategic(document, patch, root("", "v1", "Pod"))
}

fn containers(document: Value, patch: Value) -> Value {
    let wrap = |list| json!({"spec": {"containers": list}});
    pod(wrap(document), json!({"spec": patch})).unwrap()["spec"]["containers"].clone()
}

#[test]
fn lists_merge_by_their_key_and_new_items_come_first() {
    let live = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    let patch = json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]});
    let expected =
        json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]);
    assert_eq!(containers(live, patch), expected);
    let fresh = containers(json!([{"name": "a"}]), json!({"containers": [{"name": "z"}]}));
    assert_eq!(fresh, json!([{"name": "z"}, {"name": "a"}]));
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    let live = json!([{"name": "a"}, {"name": "b"}]);
    let patch = json!({"containers": [{"$patch": "delete", "name": "a"}]});
    assert_eq!(containers(live.clone(), patch), json!([{"name": "b"}]));
    let patch = json!({"containers": [{"name": "c"}, {"$patch": "replace"}]});
    assert_eq!(containers(live, patch), json!([{"name": "c"}]));
}

#[test]
fn the_order_directive_orders_what_it_names() {
    let live = json!([{"name": "a"}, {"name": "b"}, {"name": "server"}]);
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new", "image": "x"}]
    });
    let expected = json!([{"name": "b"}, {"name": "new", "image": "x"}, {"name": "a"}, {"name": "server"}]);
    assert_eq!(containers(live, patch.clone()), expected);
    let live = json!([{"name": "a"}, {"name": "server"}, {"name": "b"}]);
    let expected = json!([{"name": "server"}, {"name": "b"}, {"name": "new", "image": "x"}, {"name": "a"}]);
    assert_eq!(containers(live, patch), expected);
}

#[test]
fn an_order_that_contradicts_the_patch_is_refused() {
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]
    }});
    let error = pod(json!({"spec": {"containers": [{"name": "a"}]}}), patch).unwrap_err();
    assert!(
        error.to_string().starts_with("The order in patch list:"),
        "{error}"
    );
}

#[test]
fn primitive_lists_merge_as_sets() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    let added = pod(live.clone(), json!({"metadata": {"finalizers": ["c", "a"]}})).unwrap();
    assert_eq!(added["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]
    }});
    assert_eq!(pod(live, patch).unwrap()["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn retain_keys_clears_the_other_fields_of_a_union() {
    let ty = root("apps", "v1", "Deployment");
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = strategic(live.clone(), patch, ty).unwrap();
    assert_eq!(patched, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let text = "invalid patch format of retainKeys";
    assert_eq!(strategic(live, wrong, ty), Err(PatchError::malformed(text)));
}

#[test]
fn objects_are_replaced_or_emptied_by_directive() {
    let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let replaced = pod(
        live.clone(),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
    )
    .unwrap();
    assert_eq!(replaced, json!({"metadata": {"labels": {"c": "3"}}}));
    let emptied = pod(live, json!({"metadata": {"labels": {"$patch": "delete"}}})).unwrap();
    assert_eq!(emptied, json!({"metadata": {"labels": {}}}));
}

#[test]
fn nulls_delete_and_never_appear() {
    let live = json!({"metadata": {"labels": {"a": "1"}}});
    let patch = json!({"metadata": {"labels": {"a": null, "b": null}}, "spec": {"nodeName": null}});
    assert_eq!(
        pod(live, patch).unwrap(),
        json!({"metadata": {"labels": {}}, "spec": {}})
    );
}

#[test]
fn lists_that_do_not_merge_are_replaced() {
    let live =
        json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}});
    let patch =
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}});
    assert_eq!(pod(live, patch.clone()).unwrap(), patch);
}

#[test]
fn service_ports_merge_by_port_alone() {
    let live = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}]}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let patched = strategic(live, patch, root("", "v1", "Service")).unwrap();
    assert_eq!(
        patched["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}])
    );
}

#[test]
fn malformed_patches_are_named() {
    let live = json!({"spec": {"containers": [{"name": "a"}], "foo": {}}});
    let table = [
        (json!([]), "invalid JSON document"),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"foo": {"a": 1}}}),
            "unable to find api field in struct PodSpec for the json field \"foo\"",
        ),
        (
            json!({"spec": {"$patch": "frob"}}),
            "unknown patch type: frob in map: {}",
        ),
        (
            json!({"spec": {"containers": [{"$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}}),
            "invalid patch format of primitive list",
        ),
    ];
    let live = {
        let mut live = live;
        live["metadata"] = json!({});
        live
    };
    for (patch, expected) in table {
        assert_eq!(
            pod(live.clone(), patch.clone()).unwrap_err().to_string(),
            expected,
            "{patch}"
        );
    }
}

/// A patch that turns `old` into `new`, with every directive that kubectl uses.
fn difference(old: &Fields, new: &Fields, ty: &Type) -> Fields {
    let mut patch = Fields::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        let rule = ty.patch_rule(name);
        match (old.get(name), value) {
            (Some(before), after) if before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(
                    name.clone(),
                    Value::Object(difference(before, after, ty.field(name).unwrap())),
                );
            }
            (Some(Value::Array(before)), Value::Array(after)) if rule.is_some_and(|rule| rule.merge) => {
                let key = rule.and_then(|rule| rule.merge_key.as_deref());
                list_difference(
                    &mut patch,
                    name,
                    before,
                    after,
                    key,
                    ty.field(name).and_then(Type::items).unwrap(),
                );
            }
            (_, after) => {
                patch.insert(name.clone(), after.clone());
            }
        }
    }
    patch
}

fn list_difference(
    patch: &mut Fields,
    name: &str,
    old: &[Value],
    new: &[Value],
    key: Option<&str>,
    ty: &Type,
) {
    let order: Vec<Value> = match key {
        Some(key) => new.iter().map(|item| json!({key: item[key]})).collect(),
        None => new.to_vec(),
    };
    patch.insert(format!("{ORDER_PREFIX}/{name}"), Value::Array(order));
    let id = Identity(key);
    let gone = old.iter().filter(|item| id.position(new, item).is_none());
    let Some(key) = key else {
        patch.insert(format!("{DELETE_PREFIX}/{name}"), gone.cloned().collect());
        patch.insert(
            name.to_owned(),
            new.iter().filter(|item| !old.contains(item)).cloned().collect(),
        );
        return;
    };
    let mut items: Vec<Value> = Vec::new();
    for item in new {
        match id.position(old, item) {
            None => items.push(item.clone()),
            Some(at) => {
                let mut change = difference(old[at].as_object().unwrap(), item.as_object().unwrap(), ty);
                change.insert(key.to_owned(), item[key].clone());
                items.push(Value::Object(change));
            }
        }
    }
    items.extend(gone.map(|item| json!({DIRECTIVE: "delete", key: item[key]})));
    patch.insert(name.to_owned(), Value::Array(items));
}

fn some_pod() -> impl Strategy<Value = Value> {
    let container = (
        "[a-d]",
        prop::option::of("[xy]"),
        prop::collection::vec("[pq]", 0..3),
        env(),
    )
        .prop_map(|(name, image, args, env)| {
            let mut container = json!({"name": name, "args": args, "env": env});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            container
        });
    let containers = prop::collection::vec(container, 0..4).prop_map(|items| unique(items, "name"));
    let labels = prop::collection::btree_map("[a-c]", "[xy]", 0..3);
    let finalizers = prop::collection::vec("[a-d]", 0..4)
        .prop_map(|items| distinct(items.into_iter().map(Value::from).collect()));
    (containers, labels, finalizers).prop_map(|(containers, labels, finalizers)| {
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    })
}

fn env() -> impl Strategy<Value = Vec<Value>> {
    let entry = ("[A-C]", "[xy]").prop_map(|(name, value)| json!({"name": name, "value": value}));
    prop::collection::vec(entry, 0..3).prop_map(|items| unique(items, "name"))
}

fn unique(items: Vec<Value>, key: &str) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if kept.iter().all(|other| other[key] != item[key]) {
            kept.push(item);
        }
    }
    kept
}

proptest! {
    #[test]
    fn a_computed_difference_leads_to_the_new_object(old in some_pod(), new in some_pod()) {
        let ty = root("", "v1", "Pod");
        let patch = difference(old.as_object().unwrap(), new.as_object().unwrap(), ty);
        prop_assert_eq!(strategic(old, Value::Object(patch), ty).unwrap(), new);
    }
}
