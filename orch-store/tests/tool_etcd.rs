//! The tool `orch-store` with real etcd servers.
//!
//! `cargo xtask setup` brings the programs.

#![allow(clippy::unwrap_used, reason = "this is a test")]

#[allow(
    dead_code,
    reason = "shared with the tests of the store on etcd, which use the rest"
)]
#[path = "etcd/server.rs"]
mod server;
#[allow(
    dead_code,
    reason = "shared with the tests of the tool on folders, which use the rest"
)]
#[path = "tool/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orch_store::{EmbeddedStore, ListOptions, Revision, Store};

use self::server::{CURRENT, Cluster, DEBIAN, Plan, Server};
use self::support::{Folder, items, put, run, store, texts, tool};

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default"}}"#;

fn registry() -> Vec<(String, String)> {
    let mut keys: Vec<_> = (0..700)
        .map(|number| {
            let name = format!("cm-{number:04}");
            let value = format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
            (format!("/registry/configmaps/default/{name}"), value)
        })
        .collect();
    keys.push(("/registry/pods/default/web".into(), POD.into()));
    keys
}

fn fill(path: &std::path::Path) {
    let keys = registry();
    let keys: Vec<_> = keys
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    store(path, &keys);
}

/// What etcdctl prints: keys and values in turn.
fn pairs(told: &str) -> Vec<(String, String)> {
    let lines: Vec<_> = told.lines().map(str::to_owned).collect();
    lines
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

async fn a_copy_to_etcd_is_what_etcdctl_shows(program: &'static str) {
    let server = Server::alone(program).await;
    let folder = Folder::new();
    let (from, back) = (folder.path("from"), folder.path("back"));
    fill(&from);
    let url = server.url().to_owned();
    run([&"copy", &from, &url]).code(0).tells("701 keys written");
    assert_eq!(
        pairs(&server.etcdctl(&["get", "--prefix", "/registry/"])),
        registry()
    );
    let pod = server.etcdctl(&["get", "--print-value-only", "/registry/pods/default/web"]);
    assert_eq!(pod, format!("{POD}\n"));

    // And back, with what another client has written meanwhile.
    server.etcdctl(&["put", "/registry/pods/default/other", "{}"]);
    run([&"copy", &url, &back]).code(0).tells("702 keys written");
    let mut expected = registry();
    expected.insert(700, ("/registry/pods/default/other".into(), "{}".into()));
    assert_eq!(texts(&back), expected);
    run([&"copy", &url, &back])
        .code(0)
        .tells("0 keys written, 702 skipped");
    run([&"copy", &back, &url])
        .code(0)
        .tells("0 keys written, 702 skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_debians_etcd_is_what_etcdctl_shows() {
    a_copy_to_etcd_is_what_etcdctl_shows(DEBIAN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_a_current_etcd_is_what_etcdctl_shows() {
    a_copy_to_etcd_is_what_etcdctl_shows(CURRENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_goes_on() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let from = folder.path("from");
    fill(&from);
    let child = tool()
        .arg("copy")
        .arg(&from)
        .args([server.url(), "--parallel", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let store = server.store().await;
    let count = async || {
        let options = ListOptions::default().limit(0).count();
        store.list(b"", options).await.unwrap().remaining.unwrap()
    };
    while count().await < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server::run("kill", &["-INT", &child.id().to_string()]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let done = count().await;
    assert!(done < 701, "it was interrupted in between");
    let url = server.url().to_owned();
    run([&"copy", &from, &url])
        .code(0)
        .tells(&format!("{} keys written, {done} skipped", 701 - done));
    assert_eq!(pairs(&server.etcdctl(&["get", "--prefix", ""])), registry());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_etcd_in_use_is_one_state() {
    const WRITERS: usize = 4;
    let server = Server::alone(CURRENT).await;
    let folder = Folder::new();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, stop) = (server.store().await, Arc::clone(&stop));
        writers.spawn(async move {
            let mut writes = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                put(&store, &format!("/{writer}/{}", fastrand::u32(..300)), "v").await;
                writes += 1;
            }
            writes
        });
    }
    let url = server.url().to_owned();
    for number in 0..5 {
        let (file, new) = (
            folder.path(&format!("{number}.bak")),
            folder.path(&format!("{number}.new")),
        );
        let url = url.clone();
        let before = server.store().await.current_revision().await.unwrap();
        let kept = tokio::task::spawn_blocking(move || {
            run([&"backup", &url, &file]).code(0);
            run([&"restore", &file, &new, &"--bump-revision", &"0"]).code(0);
            new
        });
        let kept = kept.await.unwrap();
        let snapshot = EmbeddedStore::snapshot_of(&kept).await.unwrap();
        assert!(snapshot.revision() >= before);
        let found = snapshot.list(b"", &ListOptions::default()).unwrap().items;
        // Every revision was one write of one key.
        let writes: u64 = found.iter().map(|kv| kv.version).sum();
        assert_eq!(snapshot.revision(), Revision(1 + writes));
        let listed = server
            .store()
            .await
            .list(b"", ListOptions::default().at(snapshot.revision()))
            .await
            .unwrap();
        assert_eq!(found, listed.items, "with etcd's own revisions");
    }
    stop.store(true, Ordering::Relaxed);
    let writes: u64 = writers.join_all().await.into_iter().sum();
    assert!(writes > 50, "there was load");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_into_an_empty_etcd_only() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let (from, file) = (folder.path("from"), folder.path("x.bak"));
    fill(&from);
    run([&"backup", &from, &file]).code(0);
    let url = server.url().to_owned();
    run([&"restore", &file, &url]).code(0).tells("701 keys written");
    assert_eq!(pairs(&server.etcdctl(&["get", "--prefix", ""])), registry());

    server.etcdctl(&["del", "--prefix", "/registry/configmaps/default/cm-00"]);
    server.etcdctl(&["put", "/registry/pods/default/web", "{}"]);
    run([&"restore", &file, &url])
        .code(2)
        .complains("is not empty, it has /registry/configmaps/default/cm-0100 for instance: --merge");
    run([&"restore", &file, &url, &"--merge"])
        .code(1)
        .tells("100 keys written, 600 skipped, being there with the same value, 1 refused");
    run([&"restore", &file, &url, &"--merge", &"--overwrite"]).code(0);
    assert_eq!(pairs(&server.etcdctl(&["get", "--prefix", ""])), registry());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_below_the_backups_revision_is_spoken_of() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let (from, file) = (folder.path("from"), folder.path("x.bak"));
    {
        let store = EmbeddedStore::open(&from).await.unwrap();
        for number in 0..20 {
            put(&store, "/a", &number.to_string()).await;
        }
    }
    let url = server.url().to_owned();
    run([&"backup", &from, &file]).code(0);
    run([&"restore", &file, &url])
        .code(0)
        .tells("stands at revision 2")
        .complains("note:  this is below the backup's revision 21");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_to_live_become_leases_and_come_back() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let from = folder.path("from");
    {
        let store = EmbeddedStore::open(&from).await.unwrap();
        let ttl = Some(Duration::from_secs(600));
        store.create("/lease".into(), "v".into(), ttl).await.unwrap();
        store.create("/permanent".into(), "v".into(), None).await.unwrap();
    }
    let url = server.url().to_owned();
    run([&"copy", &from, &url]).code(0).tells("2 keys written");
    let of = |key: &str| -> serde_json::Value {
        let told = server.etcdctl(&["get", "-w", "json", key]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told["kvs"][0]["lease"].clone()
    };
    assert!(of("/permanent").is_null());
    let lease = format!("{:x}", of("/lease").as_i64().unwrap());
    let told = server.etcdctl(&["lease", "timetolive", &lease]);
    let granted = told
        .split("granted with TTL(")
        .nth(1)
        .unwrap()
        .split('s')
        .next()
        .unwrap();
    let granted: u64 = granted.parse().unwrap();
    assert!((590..=660).contains(&granted), "{told}");

    // Back again, directly and through a backup.
    let (copied, file, restored) = (
        folder.path("copied"),
        folder.path("x.bak"),
        folder.path("restored"),
    );
    run([&"copy", &url, &copied]).code(0).tells("2 keys written");
    run([&"backup", &url, &file]).code(0);
    run([&"restore", &file, &restored]).code(0);
    for folder in [&copied, &restored] {
        let snapshot = EmbeddedStore::snapshot_of(folder).await.unwrap();
        let ends = |key: &[u8]| snapshot.expires(&snapshot.get(key, None).unwrap().kv.unwrap());
        assert_eq!(ends(b"/permanent"), None);
        let left = ends(b"/lease")
            .unwrap()
            .duration_since(std::time::SystemTime::now());
        assert!((500..=660).contains(&left.unwrap().as_secs()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_looked_into_like_a_folder() {
    let server = Server::alone(DEBIAN).await;
    let url = server.url().to_owned();
    for value in ["1", "2", "3"] {
        server.etcdctl(&["put", "/a", value]);
    }
    server.etcdctl(&["put", "/b", "x"]);
    assert_eq!(run([&"get", &url, &"/a"]).code(0).out, "3");
    assert_eq!(run([&"get", &url, &"/a", &"--at", &"2"]).code(0).out, "1");
    run([&"get", &url, &"/none"])
        .code(1)
        .complains("/none does not exist at revision 5");
    let said = run([&"list", &url]).code(0);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(
        lines,
        [
            "    REVISION  VERSION       SIZE  KEY",
            "           4        3          1  /a",
            "           5        1          1  /b",
        ]
    );
    run([&"verify", &url])
        .code(0)
        .tells("revision   5\n")
        .tells("keys       2\n")
        .tells("it answers, and all keys could be read");
    run([&"compact", &url, &"--keep", &"1"])
        .code(0)
        .tells("history before revision 4 is forgotten");
    run([&"get", &url, &"/a", &"--at", &"2"])
        .code(2)
        .complains("hint:  what happened before revision 4");
    run([&"watch", &url, &"--from", &"2"])
        .code(2)
        .complains("hint:  what happened before revision 4");
    run([&"compact", &url, &"--keep", &"1"])
        .code(0)
        .tells("nothing to forget");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_follows_an_etcd_over_a_restart() {
    let mut server = Server::alone(CURRENT).await;
    let mut child = tool()
        .args(["watch", server.url(), "/registry/", "--from", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    server.etcdctl(&["put", "/other", "x"]);
    server.etcdctl(&["put", "/registry/a", "1"]);
    server.etcdctl(&["del", "/registry/a"]);
    assert_eq!(next(), "           3 CREATE /registry/a (1 bytes)");
    assert_eq!(next(), "           4 DELETE /registry/a");
    server.kill();
    server.restart();
    server.wait().await;
    server.etcdctl(&["put", "/registry/b", "22"]);
    assert_eq!(next(), "           5 CREATE /registry/b (2 bytes)");
    server::run("kill", &["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_used_while_a_member_is_down() {
    let mut cluster = Cluster::start(DEBIAN).await;
    let folder = Folder::new();
    let (from, back) = (folder.path("from"), folder.path("back"));
    fill(&from);
    let urls: Vec<_> = cluster
        .members
        .iter()
        .map(|member| member.url().to_owned())
        .collect();
    // Endpoints after the first need no scheme.
    let place = urls.join(",").replace(",http://", ",");
    cluster.members[0].kill();
    run([&"copy", &from, &place]).code(0).tells("701 keys written");
    run([&"copy", &place, &back]).code(0).tells("701 keys written");
    assert_eq!(texts(&back), registry());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_etcd_does_not_take_are_named() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let from = folder.path("from");
    store(&from, &[("/small", "x"), ("/too-large", &"x".repeat(1_570_000))]);
    let url = server.url().to_owned();
    run([&"copy", &from, &url])
        .code(2)
        .complains("cannot write /too-large: the value is 1570000 bytes large")
        .complains("hint:  this store does not take so large a key or value");
    run([&"copy", &from, &url, &"--exclude", &"/too-large"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_need_their_password_which_is_never_shown() {
    let server = Server::alone(CURRENT).await;
    for words in [
        &["user", "add", "root:rootpw"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        server.etcdctl(words);
    }
    let url = server.url().to_owned();
    let with_root = |words: &[&str]| {
        let output = tool()
            .env("ORCH_STORE_PASSWORD", "rootpw")
            .args(words)
            .output()
            .unwrap();
        support::Said::from(output)
    };
    with_root(&["--user", "root", "list", &url]).code(0);
    run([&"list", &url, &"--user", &"root:rootpw"]).code(0);
    for said in [
        run([&"list", &url, &"--user", &"root:wrongpw"]).code(2),
        run([&"list", &url, &"--user", &"root"]).code(2),
        run([&"list", &url]).code(2),
    ] {
        let said = said.complains("error:");
        assert!(!said.err.contains("pw"), "{said:?}");
    }
    run([&"list", &url, &"--user", &"root:wrongpw"]).complains("hint:  --user NAME");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_lets_in_whom_it_should() {
    let folder = Folder::new();
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, ca_key);
    std::fs::write(path("ca.crt"), ca.pem()).unwrap();
    for name in ["server", "me"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        std::fs::write(path(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let mut plan = Plan::alone(CURRENT).with(&["--client-cert-auth", "--trusted-ca-file", &path("ca.crt")]);
    plan = plan.with(&[
        "--cert-file",
        &path("server.crt"),
        "--key-file",
        &path("server.key"),
    ]);
    plan.client_url = plan.client_url.replace("http://", "https://");
    let url = plan.client_url.clone();
    let _server = Server::start(plan);

    let (ca, cert, key) = (path("ca.crt"), path("me.crt"), path("me.key"));
    let flags = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let from = folder.path("from");
    store(&from, &[("/a", "1")]);
    // The server tells nobody that it has started but those with a certificate.
    let mut said;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let output = tool().args(flags).args(["list", &url]).output().unwrap();
        said = support::Said::from(output);
        if said.code == 0 || std::time::Instant::now() > until {
            break;
        }
    }
    said.code(0);
    let output = tool()
        .args(flags)
        .arg("copy")
        .arg(&from)
        .arg(&url)
        .output()
        .unwrap();
    support::Said::from(output).code(0).tells("1 key written");
    let output = tool().args(flags).args(["get", &url, "/a"]).output().unwrap();
    assert_eq!(support::Said::from(output).code(0).out, "1");

    run([&"list", &url]).code(2).complains("hint:");
    run([&"list", &url, &"--cacert", &ca]).code(2).complains("hint:");
    run([&"list", &url, &"--cacert", &path("none")])
        .code(2)
        .complains("cannot read");
    run([&"list", &url, &"--cert", &cert]).code(2).complains("--key");
}

#[test]
fn an_etcd_that_is_not_there_is_told_in_good_time() {
    let [port] = server::free_ports();
    let url = format!("http://127.0.0.1:{port}");
    run([&"list", &url])
        .code(2)
        .complains("the store is unavailable")
        .complains("hint:  are address and port right");
    let folder = Folder::new();
    let file = folder.path("x.bak");
    run([&"backup", &url, &file]).code(2);
    assert!(!file.exists() && !folder.path("x.bak.tmp").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_etcd_has_no_revision_that_its_clients_have_seen() {
    let server = Server::alone(DEBIAN).await;
    let folder = Folder::new();
    let to = folder.path("to");
    for number in 0..30 {
        server.etcdctl(&["put", "/a", &number.to_string()]);
    }
    let url = server.url().to_owned();
    run([&"copy", &url, &to]).code(0).tells("at revision 31 to");
    let revisions: BTreeMap<_, _> = items(&to)
        .into_iter()
        .map(|kv| (kv.key, kv.mod_revision))
        .collect();
    assert_eq!(revisions.into_values().collect::<Vec<_>>(), [Revision(32)]);
}
