//! kube-rs: a derived resource through its whole life.

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, CustomResource, CustomResourceExt, ResourceExt};
use orch_api::testkit::TestServer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "kitchen.example.com",
    version = "v1",
    kind = "Kettle",
    namespaced,
    status = "KettleStatus"
)]
#[kube(scale(spec_replicas_path = ".spec.cups", status_replicas_path = ".status.cups"))]
struct KettleSpec {
    cups: i32,
    #[serde(default)]
    tea: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
struct KettleStatus {
    cups: i32,
}

#[tokio::test]
async fn a_derived_resource_lives() {
    let server = TestServer::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    definitions
        .create(&PostParams::default(), &Kettle::crd())
        .await
        .unwrap();
    let kettles: Api<Kettle> = Api::namespaced(server.client(), "default");
    let kettle = Kettle::new("k", KettleSpec { cups: 2, tea: None });
    let created = kettles.create(&PostParams::default(), &kettle).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));

    let apply = json!({"apiVersion": "kitchen.example.com/v1", "kind": "Kettle", "spec": {"cups": 3, "tea": "green"}});
    let params = PatchParams::apply("test").force();
    let applied = kettles.patch("k", &params, &Patch::Apply(&apply)).await.unwrap();
    assert_eq!(
        (applied.spec.cups, applied.spec.tea.as_deref()),
        (3, Some("green"))
    );
    let status = json!({"status": {"cups": 1}});
    let merge = PatchParams::default();
    let updated = kettles
        .patch_status("k", &merge, &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(updated.status, Some(KettleStatus { cups: 1 }));
    let scaled = kettles
        .patch_scale("k", &merge, &Patch::Merge(&json!({"spec": {"replicas": 7}})))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(7));

    let mut events = watcher(kettles.clone(), watcher::Config::default()).boxed();
    let seen = async {
        loop {
            if let watcher::Event::InitApply(kettle) = events.next().await.unwrap().unwrap() {
                return kettle;
            }
        }
    };
    assert_eq!(seen.await.spec.cups, 7);
    let missing = Kettle::new("k2", KettleSpec { cups: 1, tea: None });
    let mut wrong = serde_json::to_value(missing).unwrap();
    wrong["spec"]["cups"] = json!("many");
    let kind = kube::core::GroupVersionKind::gvk("kitchen.example.com", "v1", "Kettle");
    let dynamic: Api<kube::core::DynamicObject> = Api::namespaced_with(
        server.client(),
        "default",
        &kube::core::ApiResource::from_gvk(&kind),
    );
    let error = dynamic
        .create(&PostParams::default(), &serde_json::from_value(wrong).unwrap())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("spec.cups in body must be of type integer"),
        "{error}"
    );

    let name = Kettle::crd().name_any();
    definitions.delete(&name, &Default::default()).await.unwrap();
    assert!(definitions.get_opt(&name).await.unwrap().is_none());
    assert_eq!(
        super::common::code(&kettles.list(&Default::default()).await.unwrap_err()),
        404
    );
}
