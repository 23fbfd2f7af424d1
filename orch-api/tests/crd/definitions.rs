use serde_json::{Value, json};

use super::common::{get, raw};
use super::{DEFINITIONS, WIDGETS, post, widget, widgets, with_widgets};
use orch_api::testkit::TestServer;

fn condition<'v>(definition: &'v Value, ty: &str) -> &'v Value {
    let conditions = definition["status"]["conditions"].as_array().expect("conditions");
    conditions
        .iter()
        .find(|one| one["type"] == ty)
        .expect("the condition")
}

#[tokio::test]
async fn a_definition_is_served_when_its_creation_is_answered() {
    let server = with_widgets(json!({"type": "object"}), json!({})).await;
    let (code, created) = post(&server, WIDGETS, widget("a", json!({}))).await;
    assert_eq!(code, 201, "{created}");
    let definition = get(&server, &format!("{DEFINITIONS}/widgets.example.com"))
        .await
        .json();
    assert_eq!(condition(&definition, "Established")["status"], "True");
    assert_eq!(condition(&definition, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(definition["status"]["acceptedNames"]["listKind"], "WidgetList");
    assert_eq!(definition["spec"]["conversion"]["strategy"], "None");
}

#[tokio::test]
async fn discovery_has_the_resource_with_its_parts() {
    let parts = json!({"subresources": {
        "status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
    }});
    let server = with_widgets(
        json!({"type": "object", "properties": {"replicas": {"type": "integer"}}}),
        parts,
    )
    .await;
    let list = get(&server, "/apis/example.com/v1").await.json();
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(list["resources"][0]["categories"], json!(["all"]));
    assert_eq!(list["resources"][0]["singularName"], "widget");
    let group = get(&server, "/apis/example.com").await.json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
    let document = get(&server, "/openapi/v3/apis/example.com/v1").await.json();
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["replicas"]["type"],
        "integer"
    );
}

#[tokio::test]
async fn names_in_use_are_not_accepted() {
    let server = with_widgets(json!({"type": "object"}), json!({})).await;
    let mut other = widgets(json!({"type": "object"}), json!({}));
    other["metadata"]["name"] = json!("wheels.example.com");
    other["spec"]["names"] = json!({"plural": "wheels", "kind": "Widget"});
    assert_eq!(post(&server, DEFINITIONS, other).await.0, 201);
    let definition = get(&server, &format!("{DEFINITIONS}/wheels.example.com"))
        .await
        .json();
    assert_eq!(
        condition(&definition, "NamesAccepted")["reason"],
        "ListKindConflict"
    );
    assert_eq!(condition(&definition, "Established")["status"], "False");
    assert_eq!(get(&server, "/apis/example.com/v1/wheels").await.status, 404);
    // With the first one gone, the second is taken.
    assert_eq!(
        raw(
            &server,
            "DELETE",
            &format!("{DEFINITIONS}/widgets.example.com"),
            &[],
            ""
        )
        .await
        .status,
        200
    );
    assert_eq!(get(&server, "/apis/example.com/v1/wheels").await.status, 200);
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_with_it() {
    let server = with_widgets(json!({"type": "object"}), json!({})).await;
    for name in ["a", "b"] {
        assert_eq!(post(&server, WIDGETS, widget(name, json!({}))).await.0, 201);
    }
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    assert_eq!(post(&server, WIDGETS, held).await.0, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = raw(&server, "DELETE", &path, &[], "").await;
    assert_eq!(deleted.status, 200);
    assert_eq!(
        deleted.json()["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let left = get(&server, WIDGETS).await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
    let refused = raw(
        &server,
        "POST",
        WIDGETS,
        &[],
        &widget("new", json!({})).to_string(),
    )
    .await;
    assert_eq!(refused.status, 405);
    let release = json!({"metadata": {"finalizers": null}});
    let (code, _) = super::patch(
        &server,
        &format!("{WIDGETS}/held"),
        "application/merge-patch+json",
        release,
    )
    .await;
    assert_eq!(code, 200);
    let gone = async {
        while get(&server, WIDGETS).await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone)
        .await
        .expect("the definition goes");
    assert_eq!(get(&server, &path).await.status, 404);
    // Made anew, it has none of the old objects.
    assert_eq!(
        post(
            &server,
            DEFINITIONS,
            widgets(json!({"type": "object"}), json!({}))
        )
        .await
        .0,
        201
    );
    assert_eq!(get(&server, WIDGETS).await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_wrong_definition_is_refused_with_every_fault() {
    let server = TestServer::start().await;
    let mut wrong = widgets(json!({"properties": {"a": {"type": "text"}}}), json!({}));
    wrong["spec"]["group"] = json!("example");
    wrong["spec"]["versions"][0]["storage"] = json!(false);
    let (code, status) = post(&server, DEFINITIONS, wrong).await;
    assert_eq!(code, 422);
    let causes: Vec<String> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| {
            format!(
                "{}: {}",
                cause["field"].as_str().unwrap(),
                cause["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        causes,
        [
            "metadata.name: Invalid value: \"widgets.example.com\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
            "status.storedVersions: Invalid value: []: must have at least one stored version",
        ]
    );
}

#[tokio::test]
async fn scope_and_names_stay() {
    let server = with_widgets(json!({"type": "object"}), json!({})).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let changes = json!({"spec": {"scope": "Cluster", "names": {"kind": "Other"}}});
    let (code, status) = super::patch(&server, &path, "application/merge-patch+json", changes).await;
    assert_eq!(code, 422);
    let fields: Vec<&Value> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| &cause["field"])
        .collect();
    assert_eq!(fields, ["spec.scope", "spec.names.kind"]);
}
