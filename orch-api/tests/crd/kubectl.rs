//! Both kubectls against custom resources.

use super::common::kubectl::{BOTH, Try};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crd/data");

const OBJECT: &str = "
apiVersion: storage.example.com/v1
kind: Database
metadata: {name: main}
spec: {engine: postgres, replicas: 2, users: [{name: app}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_defines_and_uses_a_resource() {
    for name in BOTH {
        let kubectl = Try::new(name).await;
        let object = kubectl.write("object.yaml", OBJECT);
        kubectl.ok(&["apply", "-f", DATA]).await;
        kubectl
            .ok(&[
                "wait",
                "--for=condition=Established",
                "crd/databases.storage.example.com",
            ])
            .await;
        let applied = kubectl.ok(&["apply", "-f", &object]).await;
        assert!(
            applied.contains("database.storage.example.com/main created"),
            "{name}: {applied}"
        );
        let table = kubectl.ok(&["get", "db"]).await;
        assert!(
            table.starts_with("NAME   ENGINE     REPLICAS   READY   AGE\nmain   postgres   2"),
            "{name}: {table}"
        );
        let wide = kubectl.ok(&["get", "storage", "-o", "wide"]).await;
        assert!(wide.contains("SIZE") && wide.contains("1Gi"), "{name}: {wide}");
        kubectl.ok(&["scale", "db/main", "--replicas=3"]).await;
        let replicas = kubectl
            .ok(&["get", "db", "main", "-o", "jsonpath={.spec.replicas}"])
            .await;
        assert_eq!(replicas, "3", "{name}");
        let explained = kubectl.ok(&["explain", "db.spec.engine"]).await;
        assert!(
            explained.contains("The program that keeps the data."),
            "{name}: {explained}"
        );
        let recursive = kubectl.ok(&["explain", "db", "--recursive"]).await;
        assert!(recursive.contains("grants"), "{name}: {recursive}");
        let changed = OBJECT.replace("replicas: 2", "replicas: 4");
        kubectl
            .ok(&["replace", "-f", &kubectl.write("object.yaml", &changed)])
            .await;
        let wrong = kubectl.write(
            "wrong.yaml",
            &OBJECT.replace("engine: postgres", "engine: oracle"),
        );
        let refused = kubectl.fails(&["apply", "--validate=false", "-f", &wrong]).await;
        assert!(
            refused.contains(
                "spec.engine: Unsupported value: \"oracle\": supported values: \"postgres\", \"mysql\""
            ),
            "{name}: {refused}"
        );
        let deleted = kubectl
            .ok(&["delete", "crd", "databases.storage.example.com"])
            .await;
        assert!(deleted.contains("deleted"), "{name}: {deleted}");
        kubectl.fails(&["get", "db"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_follows_its_definition_at_once() {
    let kubectl = Try::new("kubectl-current").await;
    let definition = std::fs::read_to_string(format!("{DATA}/databases.yaml")).unwrap();
    let both = kubectl.write("both.yaml", &format!("{definition}---\n{OBJECT}"));
    // kubectl looks up all kinds before it writes anything, whatever the server; what it says is to apply again.
    let first = kubectl.fails(&["apply", "-f", &both]).await;
    assert!(first.contains("databases.storage.example.com created"), "{first}");
    assert!(first.contains("ensure CRDs are installed first"), "{first}");
    let second = kubectl.ok(&["apply", "-f", &both]).await;
    assert!(
        second.contains("database.storage.example.com/main created"),
        "{second}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_validation_refuses_unknown_fields() {
    let kubectl = Try::new("kubectl-current").await;
    kubectl.ok(&["apply", "-f", DATA]).await;
    let wrong = kubectl.write("wrong.yaml", &OBJECT.replace("replicas: 2", "replica: 2"));
    let refused = kubectl.fails(&["apply", "--validate=strict", "-f", &wrong]).await;
    assert!(refused.contains("unknown field \"spec.replica\""), "{refused}");
    let applied = kubectl
        .ok(&[
            "apply",
            "--server-side",
            "-f",
            &kubectl.write("object.yaml", OBJECT),
        ])
        .await;
    assert!(applied.contains("serverside-applied"), "{applied}");
    let deprecated = kubectl.ok(&["get", "backups.v1beta1.storage.example.com"]).await;
    assert!(
        deprecated.contains("Backup is deprecated; use v1"),
        "{deprecated}"
    );
}
