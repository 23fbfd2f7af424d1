//! Deployments, ReplicaSets and what follows from them, against a real API server.

#![allow(clippy::unwrap_used, reason = "tests end where they fail")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Cluster, delayed, eventually};
use http::Method;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use orch_api::testkit::TestServer;
use orch_controllers::garbage_collector::GarbageCollector;
use orch_controllers::{Controllers, Kind};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

fn deployment(image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

async fn complete(cluster: &Cluster, revision: &str) -> Deployment {
    let deployments = cluster.api::<Deployment>();
    eventually("the rollout is complete", || async {
        let deployment = deployments.get("web").await.unwrap();
        let status = deployment.status.clone().unwrap_or_default();
        let done = status.updated_replicas == Some(3)
            && status.available_replicas == Some(3)
            && status.replicas == Some(3)
            && status.observed_generation == deployment.metadata.generation
            && deployment
                .annotations()
                .get("deployment.kubernetes.io/revision")
                .map(String::as_str)
                == Some(revision)
            && reason(&deployment, "Progressing") == Some("NewReplicaSetAvailable");
        done.then_some(deployment)
    })
    .await
}

fn reason<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a str> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_.as_deref() == Some(type_))?;
    condition.reason.as_deref()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_replaces_the_pods_and_keeps_history() {
    let cluster = Cluster::start().await;
    let deployments = cluster.api::<Deployment>();
    deployments
        .create(&PostParams::default(), &deployment("one"))
        .await
        .unwrap();
    let first = complete(&cluster, "1").await;
    assert_eq!(reason(&first, "Available"), Some("MinimumReplicasAvailable"));

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(&image))
        .await
        .unwrap();
    complete(&cluster, "2").await;
    let pods = cluster.api::<Pod>();
    eventually("only new pods are left", || async {
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        let new = pods
            .iter()
            .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("two"));
        (new && pods.len() == 3).then_some(())
    })
    .await;
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    let mut revisions: Vec<_> = sets
        .iter()
        .map(|set| set.annotations()["deployment.kubernetes.io/revision"].clone())
        .collect();
    revisions.sort();
    assert_eq!(revisions, ["1", "2"]);

    // What `kubectl rollout undo` does: the old template comes back under a new revision.
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(&image))
        .await
        .unwrap();
    complete(&cluster, "3").await;
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(sets.len(), 2, "the old ReplicaSet is used again");

    let events = cluster.api::<Event>();
    eventually("events tell of the scaling", || async {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let told = |reason: &str| events.iter().any(|event| event.reason.as_deref() == Some(reason));
        (told("ScalingReplicaSet") && told("SuccessfulCreate") && told("SuccessfulDelete")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced_and_an_orphan_adopted() {
    let cluster = Cluster::start().await;
    cluster
        .api::<Deployment>()
        .create(&PostParams::default(), &deployment("one"))
        .await
        .unwrap();
    complete(&cluster, "1").await;
    let pods = cluster.api::<Pod>();
    let before = pods.list(&ListParams::default()).await.unwrap().items;
    pods.delete(&before[0].name_any(), &DeleteParams::default())
        .await
        .unwrap();
    eventually("another pod is there", || async {
        let now = pods.list(&ListParams::default()).await.unwrap().items;
        (now.len() == 3 && now.iter().all(|pod| pod.uid() != before[0].uid())).then_some(())
    })
    .await;

    let set = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    let orphan: Pod = serde_json::from_value(json!({
        "metadata": {"name": "orphan", "labels": set.spec.template.as_ref().unwrap().metadata.as_ref().unwrap().labels},
        "spec": {"containers": [{"name": "c", "image": "one"}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &orphan).await.unwrap();
    eventually("one of four is deleted again", || async {
        let now = pods.list(&ListParams::default()).await.unwrap().items;
        let owned = now.iter().all(|pod| {
            pod.owner_references()
                .iter()
                .any(|r| Some(&r.uid) == set.uid().as_ref())
        });
        (now.len() == 3 && owned).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_the_pods() {
    let cluster = Cluster::start().await;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))
    .unwrap();
    cluster
        .api::<Service>()
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
    let slices = cluster.api::<EndpointSlice>();
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("an empty slice", || async {
        slices.list(&of_web).await.unwrap().items.pop()
    })
    .await;
    cluster
        .api::<Deployment>()
        .create(&PostParams::default(), &deployment("one"))
        .await
        .unwrap();
    let slice = eventually("three ready endpoints", || async {
        let all = slices.list(&of_web).await.unwrap().items;
        let slice = all.into_iter().next()?;
        let ready = slice.endpoints.iter().flatten();
        let ready = ready.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        (ready.count() == 3).then_some(slice)
    })
    .await;
    assert_eq!(slice.labels()["team"], "a");
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    assert_eq!(slice.address_type, "IPv4");
    assert!(slice.name_any().starts_with("web-"));

    let endpoints = cluster.api::<Endpoints>();
    eventually("the Endpoints object names three", || async {
        let endpoints = endpoints.get_opt("web").await.unwrap()?;
        let subsets = endpoints.subsets.unwrap_or_default();
        (subsets.iter().flat_map(|s| s.addresses.iter().flatten()).count() == 3).then_some(())
    })
    .await;

    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually("they go with their Service", || async {
        let slices = slices.list(&of_web).await.unwrap().items;
        (slices.is_empty() && endpoints.get_opt("web").await.unwrap().is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deployment_owned_goes_with_it() {
    let cluster = Cluster::start().await;
    let deployments = cluster.api::<Deployment>();
    deployments
        .create(&PostParams::default(), &deployment("one"))
        .await
        .unwrap();
    complete(&cluster, "1").await;
    deployments
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    let (sets, pods) = (cluster.api::<ReplicaSet>(), cluster.api::<Pod>());
    eventually("nothing is left", || async {
        let sets = sets.list(&ListParams::default()).await.unwrap().items;
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        (sets.is_empty() && pods.is_empty()).then_some(())
    })
    .await;

    deployments
        .create(&PostParams::default(), &deployment("one"))
        .await
        .unwrap();
    complete(&cluster, "1").await;
    let before = sets.list(&ListParams::default()).await.unwrap().items;
    deployments
        .delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("the Deployment goes last", || async {
        let gone = deployments.get_opt("web").await.unwrap().is_none();
        if gone {
            let left = sets.list(&ListParams::default()).await.unwrap().items;
            let uids = |sets: &[ReplicaSet]| {
                sets.iter()
                    .map(|set| (set.uid(), set.resource_version()))
                    .collect::<Vec<_>>()
            };
            assert!(
                left.is_empty(),
                "left {:?}, before {:?}",
                uids(&left),
                uids(&before)
            );
        }
        gone.then_some(())
    })
    .await;
}

fn replica_set() -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
        },
    }))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_goes_before_its_creation_is_answered_is_replaced() {
    let server = TestServer::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let first = Arc::new(AtomicBool::new(true));
    let deleting = pods.clone();
    let client = delayed(server.client(), move |method, path| {
        let (pods, first) = (deleting.clone(), Arc::clone(&first));
        async move {
            let creation = method == Method::POST && path.ends_with("/pods");
            if creation && first.swap(false, Ordering::AcqRel) {
                let created = pods.list(&ListParams::default()).await.unwrap().items.remove(0);
                let now = DeleteParams::default().grace_period(0);
                pods.delete(&created.name_any(), &now).await.unwrap();
                // Long enough for the controller's informer to hear of it.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let controllers = Controllers::builder(client)
        .only([Kind::ReplicaSet])
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(controllers.run(stop.clone()));
    let sets: Api<ReplicaSet> = Api::default_namespaced(server.client());
    sets.create(&PostParams::default(), &replica_set()).await.unwrap();
    eventually("another pod is made", || async {
        let status = sets.get("web").await.unwrap().status?;
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        (status.replicas == 1 && pods.len() == 1).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_collector_finishes_what_it_is_at_when_it_stops() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let owner = maps.create(&PostParams::default(), &owner).await.unwrap();
    let child: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "child", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]}}))
    .unwrap();
    maps.create(&PostParams::default(), &child).await.unwrap();

    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (at, wait) = (Arc::clone(&reached), Arc::clone(&go));
    let client = delayed(server.client(), move |method, _| {
        let (at, wait) = (Arc::clone(&at), Arc::clone(&wait));
        async move {
            if method == Method::PATCH {
                at.notify_one();
                drop(wait.acquire().await);
            }
        }
    });
    let collector = GarbageCollector::new(client);
    let ready = collector.ready();
    let stop = CancellationToken::new();
    let running = tokio::spawn(collector.run(stop.clone()));
    ready.wait().await;
    maps.delete("owner", &DeleteParams::orphan()).await.unwrap();
    reached.notified().await;
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    go.add_permits(10);
    running.await.unwrap();
    assert!(
        maps.get_opt("owner").await.unwrap().is_none(),
        "the finalizer is removed"
    );
    assert!(maps.get("child").await.unwrap().owner_references().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_deleted_in_the_foreground_takes_dependents_that_do_not_block_it() {
    let server = TestServer::start().await;
    let controllers = Controllers::builder(server.client())
        .only([Kind::GarbageCollector])
        .build()
        .unwrap();
    let ready = controllers.ready();
    let stop = CancellationToken::new();
    let running = tokio::spawn(controllers.run(stop.clone()));
    ready.wait().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    // Keeps the owner waiting.
    let held = json!({"finalizers": ["example.com/held"]});
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let owner = maps.create(&PostParams::default(), &owner).await.unwrap();
    let reference = |blocks: bool| {
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(),
            "blockOwnerDeletion": blocks}])
    };
    for (name, blocks, finalizers) in [("blocks", true, &held["finalizers"]), ("free", false, &json!([]))] {
        let child: ConfigMap = serde_json::from_value(json!({"metadata": {
            "name": name, "ownerReferences": reference(blocks), "finalizers": finalizers}}))
        .unwrap();
        maps.create(&PostParams::default(), &child).await.unwrap();
    }
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    eventually("the dependent that does not block goes, too", || async {
        maps.get_opt("free").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(
        maps.get_opt("owner").await.unwrap().is_some(),
        "waits for the other one"
    );
    let release = json!({"metadata": {"finalizers": []}});
    maps.patch("blocks", &PatchParams::default(), &Patch::Merge(release))
        .await
        .unwrap();
    eventually("the owner goes last", || async {
        maps.get_opt("owner").await.unwrap().is_none().then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_in_another_namespace_is_none() {
    let server = TestServer::start().await;
    let client = server.client();
    let owners: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let owner = owners.create(&PostParams::default(), &owner).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let reference = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid});
    // The second reference has the collector look at the object at all.
    let child: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "child", "ownerReferences": [
        reference(&owner.uid().unwrap()), reference("00000000-0000-0000-0000-000000000000")]}}))
    .unwrap();
    maps.create(&PostParams::default(), &child).await.unwrap();
    let controllers = Controllers::builder(client)
        .only([Kind::GarbageCollector])
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(controllers.run(stop.clone()));
    eventually("the dependent is collected", || async {
        maps.get_opt("child").await.unwrap().is_none().then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}
