//! The demo and the command line, as a new user tries them.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Cluster, KUBECTL, all};

#[test]
fn the_demo_ends_with_status_0_when_every_step_worked() {
    let mut cluster = Cluster::start(&[]);
    assert!(cluster.interrupt());
    let output = cluster
        .cluster_command(&["demo", "--exit"])
        .stdin(Stdio::null())
        .output()
        .expect("the cluster example starts");
    let text = all(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ready in")), "{text}");
    assert!(text.contains("web-"), "no pod answered:\n{text}");
}

#[test]
fn a_signal_before_it_is_ready_stops_it_in_order_too() {
    let mut cluster = Cluster::start(&[]);
    cluster.interrupt();
    for _ in 0..5 {
        let mut child = cluster
            .cluster_command(&[])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the cluster example starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe"))
            .read_line(&mut line)
            .expect("it says what it starts");
        assert!(line.contains("API server"), "{line}");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("SIGINT reaches the cluster");
        let status = child.wait().expect("a child's status");
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_second_cluster_on_the_same_data_is_refused() {
    let cluster = Cluster::start(&[]);
    let output = cluster
        .cluster_command(&["--bind", "127.0.0.1:7443"])
        .stdin(Stdio::null())
        .output()
        .expect("the cluster example starts");
    assert!(!output.status.success());
    assert!(all(&output).contains("another process"), "{}", all(&output));
    cluster.kubectl(KUBECTL, &["get", "nodes"]);
}

#[test]
fn secrets_on_disk_are_readable_by_their_owner_only() {
    let cluster = Cluster::start(&[]);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&cluster.kubeconfig()), 0o600);
    let mut folders = vec![
        cluster.folder().join("data/pki"),
        cluster.folder().join("data/store"),
    ];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a folder")
            .filter_map(Result::ok)
        {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry
                .path()
                .extension()
                .is_none_or(|extension| extension != "crt")
            {
                assert_eq!(
                    mode(&entry.path()) & 0o077,
                    0,
                    "{} can be read by others",
                    entry.path().display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 1, "no key and no store file was seen");
}

#[test]
fn help_explains_every_flag() {
    let cluster = Cluster::start(&["--runtime", "fake"]);
    let output = cluster
        .cluster_command(&["--help"])
        .output()
        .expect("the cluster example starts");
    let help = all(&output);
    for flag in [
        "--data-dir",
        "--bind",
        "--kubeconfig",
        "--node-name",
        "--service-cidr",
        "--pod-cidr",
        "--runtime",
        "--proxy",
        "--store",
        "--log-level",
        "demo",
    ] {
        assert!(help.contains(flag), "{flag} is missing in:\n{help}");
    }
}

#[test]
fn without_root_it_says_what_it_leaves_out_and_runs_the_rest() {
    let mut cluster = Cluster::start_as_nobody();
    let log = cluster.log();
    assert!(
        log.contains("pods are not started") && log.contains("root"),
        "{log}"
    );
    assert!(log.contains("API server") && log.contains("scheduler"), "{log}");
    cluster.kubectl(
        KUBECTL,
        &["create", "deployment", "web", "--image=orch.local/host"],
    );
    cluster.wait_for(&["get", "pods"], std::time::Duration::from_secs(30), |pods| {
        pods.contains("Pending")
    });
    assert!(cluster.interrupt(), "{}", cluster.log());
}
