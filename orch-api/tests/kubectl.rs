//! Both kubectls, an old one and a current one, against a server on loopback. The current one writes protobuf, the old
//! one JSON.

mod common;

use std::process::Stdio;

use common::kubectl::{BOTH, Try};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const CREATIONS: &str = "namespace other
configmap one --from-literal=a=b
secret generic one --from-literal=a=b
service clusterip one --tcp=80:8080
service nodeport two --tcp=80:8080
service externalname three --external-name=example.org
serviceaccount one
deployment web --image=nginx --replicas=2
job one --image=busybox -- date
ingress one --rule=foo.com/bar=svc:80
quota one --hard=pods=3,cpu=2
role one --verb=get,list --resource=pods,deployments.apps
rolebinding one --role=one --user=jane
clusterrole one --verb=get --resource=pods
clusterrolebinding one --clusterrole=one --serviceaccount=default:one
priorityclass one --value=100";

/// Kinds that the old kubectl writes in versions which are long gone.
const NEWER_CREATIONS: &str = "pdb one --selector=app=x --min-available=1
cronjob one --image=busybox --schedule=@daily -- date
job two --from=cronjob/one";

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_kubectl_can_create_is_created() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        let newer = if name == "kubectl-current" {
            NEWER_CREATIONS
        } else {
            ""
        };
        for line in CREATIONS.lines().chain(newer.lines()) {
            let arguments: Vec<&str> = std::iter::once("create").chain(line.split(' ')).collect();
            let said = kubectl.ok(&arguments).await;
            assert!(said.ends_with(" created\n"), "{name} {line}: {said}");
        }
        let secret = kubectl.json(&["get", "secret", "one"]).await;
        assert_eq!(secret["data"], json!({"a": "Yg=="}));
        let job = kubectl.json(&["get", "job", "one"]).await;
        assert_eq!(
            job["spec"]["template"]["spec"]["containers"][0]["command"],
            json!(["date"])
        );
        let role = kubectl.json(&["get", "role", "one"]).await;
        assert_eq!(role["rules"][1]["apiGroups"], json!(["apps"]));
        let said = kubectl.fails(&["create", "configmap", "UPPER"]).await;
        assert!(
            said.contains(r#"ConfigMap "UPPER" is invalid: metadata.name: Invalid value: "UPPER""#),
            "{said}"
        );
        let said = kubectl.fails(&["create", "configmap", "one"]).await;
        assert!(said.contains(r#"configmaps "one" already exists"#), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_change_an_object_changes_it() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        let replicas = async |expected: &str| {
            let path = "jsonpath={.spec.replicas}";
            assert_eq!(kubectl.ok(&["get", "deploy", "web", "-o", path]).await, expected);
        };
        kubectl
            .ok(&["create", "deployment", "web", "--image=nginx", "--replicas=2"])
            .await;
        let mut edit = kubectl.command(&["edit", "deploy", "web"]);
        let edited = edit
            .env("KUBE_EDITOR", "sed -i s/replicas:.2/replicas:\\ 3/")
            .output();
        assert!(edited.await.expect("kubectl starts").status.success());
        replicas("3").await;
        kubectl
            .ok(&["patch", "deploy", "web", "-p", r#"{"spec":{"replicas":4}}"#])
            .await;
        replicas("4").await;
        let merge = ["--type=merge", "-p", r#"{"spec":{"replicas":5}}"#];
        kubectl
            .ok(&[&["patch", "deploy", "web"], &merge[..]].concat())
            .await;
        replicas("5").await;
        let patch = r#"[{"op":"replace","path":"/spec/replicas","value":6}]"#;
        kubectl
            .ok(&["patch", "deploy", "web", "--type=json", "-p", patch])
            .await;
        replicas("6").await;
        kubectl.ok(&["scale", "deploy", "web", "--replicas=7"]).await;
        replicas("7").await;
        kubectl.ok(&["annotate", "deploy", "web", "a=b"]).await;
        kubectl.ok(&["annotate", "deploy", "web", "a-"]).await;
        let metadata = kubectl.json(&["get", "deploy", "web"]).await;
        assert_eq!(metadata["metadata"].get("annotations"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_applied_compared_and_replaced() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value}});
        let file = kubectl.file(&map("b"));
        assert_eq!(
            kubectl.ok(&["apply", "-f", &file]).await,
            "configmap/one created\n"
        );
        assert_eq!(
            kubectl.ok(&["apply", "-f", &file]).await,
            "configmap/one unchanged\n"
        );
        kubectl.ok(&["diff", "-f", &file]).await;
        let file = kubectl.file(&map("c"));
        let difference = kubectl.fails(&["diff", "-f", &file]).await;
        // An old kubectl shows the times of managed fields too.
        assert!(difference.contains("\n-  a: b\n+  a: c\n"), "{difference}");
        assert!(!difference.contains("annotations: {}"), "{difference}");
        kubectl.ok(&["replace", "-f", &file]).await;
        kubectl
            .ok(&["apply", "--server-side", "--force-conflicts", "-f", &file])
            .await;
        let found = kubectl.json(&["get", "cm", "one"]).await;
        assert_eq!(found["data"], json!({"a": "c"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_sorted_selected_paged_and_explained() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        for one in ["c", "a", "b"] {
            kubectl.ok(&["create", "configmap", one]).await;
        }
        kubectl.ok(&["label", "configmap", "b", "x=y"]).await;
        let names = async |arguments: &[&str]| {
            let all = [&["get", "cm", "-o", "name"], arguments].concat();
            kubectl
                .ok(&all)
                .await
                .replace("configmap/", "")
                .replace('\n', " ")
        };
        assert_eq!(names(&["--chunk-size=1"]).await, "a b c ");
        assert_eq!(names(&["-l", "x=y"]).await, "b ");
        assert_eq!(names(&["--field-selector=metadata.name!=a"]).await, "b c ");
        assert_eq!(
            names(&["--sort-by=.metadata.creationTimestamp"]).await.len(),
            "a b c ".len()
        );
        let said = kubectl.fails(&["get", "cm", "--field-selector=bad=x"]).await;
        assert!(said.contains("\"bad\" is not a known field selector"), "{said}");
        let said = kubectl.fails(&["get", "nothing"]).await;
        assert!(
            said.contains(r#"the server doesn't have a resource type "nothing""#),
            "{said}"
        );
        let said = kubectl.ok(&["explain", "pods.spec", "--recursive"]).await;
        assert!(said.contains("terminationGracePeriodSeconds"), "{said}");
        let said = kubectl.ok(&["api-versions"]).await;
        assert!(said.contains("events.k8s.io/v1\n"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_and_a_wait_end_when_it_happens() {
    let kubectl = Try::new("kubectl-current").await;
    kubectl
        .ok(&["create", "deployment", "web", "--image=nginx"])
        .await;
    let mut watch = kubectl
        .command(&["get", "cm", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    kubectl.ok(&["create", "configmap", "one"]).await;
    let line = lines.next_line().await.expect("a read line");
    assert_eq!(line.as_deref(), Some("configmap/one"));
    watch.kill().await.expect("a process to kill");

    let mut wait = kubectl.command(&["wait", "--for=condition=Available", "deploy/web", "--timeout=60s"]);
    let wait = tokio::spawn(wait.output());
    let status = r#"{"status":{"conditions":[{"type":"Available","status":"True"}]}}"#;
    kubectl
        .ok(&[
            "patch",
            "deploy",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])
        .await;
    let waited = wait.await.expect("no panic").expect("kubectl starts");
    assert!(waited.status.success());

    kubectl
        .ok(&["delete", "deploy", "web", "--cascade=foreground", "--wait=false"])
        .await;
    let found = kubectl.json(&["get", "deploy", "web"]).await;
    assert_eq!(found["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    kubectl.ok(&["delete", "cm", "--all"]).await;
    assert_eq!(kubectl.ok(&["get", "cm", "-o", "name"]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_either_version_are_shown() {
    let kubectl = Try::new("kubectl-current").await;
    let file = kubectl.file(&json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Binding", "reason": "Scheduled", "type": "Normal",
        "note": "assigned default/web to n1",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web"},
        "reportingController": "default-scheduler", "reportingInstance": "default-scheduler-n1",
    }));
    kubectl.ok(&["create", "-f", &file]).await;
    for arguments in [
        &["events"][..],
        &["events", "--for=pod/web"],
        &["get", "events"],
        &["get", "events.events.k8s.io"],
    ] {
        let said = kubectl.ok(arguments).await;
        assert!(
            said.contains("assigned default/web to n1"),
            "{arguments:?}: {said}"
        );
        assert!(said.to_lowercase().contains("pod/web"), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_acts_as_somebody_else() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]).await, "yes\n");
        let said = kubectl
            .fails(&["auth", "can-i", "create", "pods", "--as=jane"])
            .await;
        assert!(said.contains("no"), "{said}");
        let said = kubectl.fails(&["get", "pods", "--as=jane"]).await;
        assert!(
            said.contains(r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#),
            "{said}"
        );
        kubectl
            .ok(&["get", "pods", "--as=jane", "--as-group=system:masters"])
            .await;
    }
}

/// The old kubectl asks for compression, the current one does not.
#[tokio::test]
async fn long_lists_come_whole() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        let items: Vec<Value> = (0..300)
            .map(|number| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number:03}")},
                       "data": {"text": "x".repeat(2000)}})
            })
            .collect();
        let manifest = kubectl.directory.path().join("list.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        std::fs::write(&manifest, list.to_string()).expect("a written file");
        kubectl
            .ok(&["create", "-f", manifest.to_str().expect("a path that is text")])
            .await;
        let printed = kubectl
            .ok(&["get", "configmaps", "--chunk-size=0", "-o", "json"])
            .await;
        let printed: Value = serde_json::from_str(&printed).expect("kubectl prints JSON");
        assert_eq!(printed["items"].as_array().map(Vec::len), Some(300), "{name}");
    }
}
