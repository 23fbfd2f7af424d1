//! Runs the `cluster` example as a process in a network namespace of its own, and drives it with real kubectls.
//!
//! A namespace per cluster lets tests run side by side with the default ports and address ranges, and keeps the
//! machine's own links and rules untouched. Needs root, and the peers of `cargo xtask setup`: a test without them
//! fails and says so.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The kubectls that users have: Debian's stable one and a current one.
pub(crate) const KUBECTLS: [Kubectl; 2] = [Kubectl("kubectl-debian"), Kubectl("kubectl-current")];

/// The current kubectl, for what need not be tried with both.
pub(crate) const KUBECTL: Kubectl = KUBECTLS[1];

/// One of the kubectls that `cargo xtask setup` unpacked, by its file name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kubectl(pub(crate) &'static str);

impl Kubectl {
    fn program(self) -> PathBuf {
        peer(self.0)
    }
}

/// A program that `cargo xtask setup` unpacked.
fn peer(name: &str) -> PathBuf {
    let path = target().join("peers").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo xtask setup` once",
        path.display()
    );
    path
}

/// Debian's etcd beside a cluster, in its network, at the usual port.
#[derive(Debug)]
pub(crate) struct Etcd {
    program: PathBuf,
    data: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    /// Starts it on the data that is there, and waits until it answers.
    pub(crate) fn start(&mut self, cluster: &Cluster) {
        let child = cluster
            .host_command(self.program.to_str().expect("a path that is text"))
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        self.process = Some(child);
        self.ctl(cluster, &["get", "health"]);
    }

    /// What etcdctl prints.
    pub(crate) fn ctl(&self, cluster: &Cluster, arguments: &[&str]) -> String {
        let program = peer("etcdctl-debian");
        let mut command = cluster.host_command(program.to_str().expect("a path that is text"));
        command
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout", "30s"])
            .args(arguments);
        let output = command.output().expect("etcdctl starts");
        assert!(output.status.success(), "{}", all(&output));
        String::from_utf8(output.stdout).expect("etcdctl prints text")
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("SIGKILL reaches etcd");
            child.wait().expect("etcd ends");
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "orch-e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        run(namespace.command("ip").args(["link", "set", "lo", "up"]));
        namespace
    }

    /// A command that will run inside. `nsenter` leaves the mounts alone, which `ip netns exec` does not.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "delete", &self.name]).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("could not remove network namespace {}", self.name);
        }
    }
}

/// A running cluster, or one that was stopped and can be started again on the same data.
#[derive(Debug)]
pub(crate) struct Cluster {
    namespace: Namespace,
    folder: tempfile::TempDir,
    program: PathBuf,
    /// What starts the program with other rights.
    launcher: Vec<String>,
    flags: Vec<String>,
    process: Option<Child>,
    log: PathBuf,
}

impl Cluster {
    /// Starts a cluster with these further flags and waits until it says that it is ready.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(flags, Vec::new());
        cluster.start_again();
        cluster
    }

    /// Starts a cluster without root's rights.
    pub(crate) fn start_as_nobody() -> Self {
        let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut cluster = Self::prepare(&[], words.map(str::to_owned).to_vec());
        // Neither the folder that cargo builds in nor a new temporary one need be open to everybody.
        let program = cluster.folder().join("cluster");
        fs::copy(example("cluster"), &program).expect("a copy of the example");
        run(Command::new("chown")
            .arg("-R")
            .arg("65534:65534")
            .arg(cluster.folder()));
        cluster.program = program;
        cluster.start_again();
        cluster
    }

    /// A cluster that keeps its objects on an etcd of its own. Nothing runs yet.
    pub(crate) fn on_etcd(flags: &[&str]) -> (Self, Etcd) {
        let mut flags = flags.to_vec();
        flags.extend(["--store", "etcd"]);
        let cluster = Self::prepare(&flags, Vec::new());
        let etcd = Etcd {
            program: peer("etcd-debian"),
            data: cluster.folder().join("etcd"),
            process: None,
        };
        (cluster, etcd)
    }

    fn prepare(flags: &[&str], launcher: Vec<String>) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces and pods: run them as root"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("cluster.log");
        Self {
            namespace: Namespace::new(),
            folder,
            program: example("cluster"),
            launcher,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
            log,
        }
    }

    /// Starts the process on the data that is there.
    pub(crate) fn start_again(&mut self) {
        let mut command = self.cluster_command(&[]);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let before = fs::read_to_string(&self.log)
            .unwrap_or_default()
            .matches("ready in")
            .count();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("the cluster example starts");
        self.process = Some(child);
        self.wait("ready", Duration::from_secs(60), |cluster| {
            cluster.assert_runs();
            cluster.log().matches("ready in").count() > before
        });
    }

    /// The cluster example's command line with this cluster's folders, followed by `arguments`.
    pub(crate) fn cluster_command(&self, arguments: &[&str]) -> Command {
        let words = self
            .launcher
            .iter()
            .map(PathBuf::from)
            .chain([self.program.clone()]);
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut command = self.namespace.command(words.next().expect("the program itself"));
        command.args(words);
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(&self.flags)
            .args(arguments);
        command
    }

    /// Moves the calling thread into the cluster's network, so that a client on this thread reaches it.
    pub(crate) fn enter(&self) {
        let file =
            File::open(Path::new("/run/netns").join(&self.namespace.name)).expect("the namespace's file");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }

    /// The kubeconfig's path.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the process has printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.as_ref().expect("the cluster runs").id() as i32)
    }

    fn assert_runs(&mut self) {
        if let Some(status) = self
            .process
            .as_mut()
            .and_then(|child| child.try_wait().expect("a child's status"))
        {
            panic!("the cluster ended with {status}:\n{}", self.log());
        }
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("SIGKILL reaches the cluster");
            child.wait().expect("the cluster ends");
        }
    }

    /// Ends the process as Ctrl-C does, and returns whether its status was 0.
    pub(crate) fn interrupt(&mut self) -> bool {
        let mut child = self.process.take().expect("the cluster runs");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("SIGINT reaches the cluster");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child's status") {
                return status.success();
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the cluster does not stop:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A kubectl command for this cluster.
    pub(crate) fn command(&self, kubectl: Kubectl, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(kubectl.program());
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl and returns its standard output; panics with all that was printed when it fails.
    pub(crate) fn kubectl(&self, kubectl: Kubectl, arguments: &[&str]) -> String {
        let output = self.command(kubectl, arguments).output().expect("kubectl starts");
        assert!(
            output.status.success(),
            "{} {} failed:\n{}\n--- log\n{}",
            kubectl.0,
            arguments.join(" "),
            all(&output),
            tail(&self.log())
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs kubectl, expects it to fail, and returns what it said on standard error.
    pub(crate) fn kubectl_fails(&self, kubectl: Kubectl, arguments: &[&str]) -> String {
        let output = self.command(kubectl, arguments).output().expect("kubectl starts");
        assert!(
            !output.status.success(),
            "{} should have failed:\n{}",
            arguments.join(" "),
            all(&output)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs kubectl with a manifest on standard input.
    pub(crate) fn kubectl_with(&self, kubectl: Kubectl, arguments: &[&str], input: &str) -> Output {
        let path = self.folder.path().join(format!("input-{}.yaml", next_number()));
        // A document that begins with a brace is JSON to kubectl; these are YAML.
        fs::write(&path, format!("---\n{input}")).expect("a manifest file");
        self.command(kubectl, arguments)
            .stdin(File::open(&path).expect("the manifest file"))
            .output()
            .expect("kubectl starts")
    }

    /// Applies a manifest; panics when that fails.
    pub(crate) fn apply(&self, kubectl: Kubectl, further: &[&str], manifest: &str) -> String {
        let mut arguments = vec!["apply", "-f", "-"];
        arguments.extend(further);
        let output = self.kubectl_with(kubectl, &arguments, manifest);
        assert!(output.status.success(), "apply failed:\n{}", all(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One HTTP GET from the host to `address` (`host:port`), the way a user's curl would; the body, or an error.
    pub(crate) fn http_get(&self, address: &str) -> Result<String, String> {
        let script = format!(
            "exec 3<>/dev/tcp/{} && printf 'GET / HTTP/1.0\\r\\nHost: web\\r\\n\\r\\n' >&3 && cat <&3",
            address.replace(':', "/")
        );
        let output = self
            .namespace
            .command("timeout")
            .args(["5", "bash", "-c", &script])
            .output()
            .map_err(|error| error.to_string())?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
            _ => Err(all(&output)),
        }
    }

    /// A command inside the cluster's network.
    pub(crate) fn host_command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Waits until `condition` holds; panics with the log when `bound` passes first.
    pub(crate) fn wait(&mut self, what: &str, bound: Duration, mut condition: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(
                began.elapsed() < bound,
                "waited {bound:?} for: {what}\n{}",
                tail(&self.log())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until kubectl's output satisfies a condition; panics with the last output when `bound` passes first.
    pub(crate) fn wait_for(
        &self,
        arguments: &[&str],
        bound: Duration,
        mut condition: impl FnMut(&str) -> bool,
    ) -> String {
        let began = Instant::now();
        loop {
            let output = self.kubectl(KUBECTL, arguments);
            if condition(&output) {
                return output;
            }
            assert!(
                began.elapsed() < bound,
                "waited {bound:?}: {}\n{output}\n{}",
                arguments.join(" "),
                tail(&self.log())
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.process.is_some() && !std::thread::panicking() {
            self.interrupt();
        } else if let Some(mut child) = self.process.take() {
            let _ended = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
            std::thread::sleep(Duration::from_secs(3));
            let _killed = child.kill();
            let _reaped = child.wait();
        }
        // Pods of a cluster that was killed outlive it: a last clean stop removes them.
        if let Ok(mut child) = self
            .cluster_command(&["clean"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        {
            let _status = child.wait();
        }
    }
}

/// The lines that a running command prints, as they come.
pub(crate) fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let output = child.stdout.take().expect("a piped standard output");
    BufReader::new(output).lines().map_while(Result::ok)
}

/// Everything that a process printed.
pub(crate) fn all(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn run(command: &mut Command) {
    let output = command.output().expect("iproute2 and util-linux are installed");
    assert!(output.status.success(), "{command:?}: {}", all(&output));
}

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An example binary that cargo built beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/TEST")
        .join("examples")
        .join(name);
    assert!(
        path.is_file(),
        "{} is not built: `cargo build -p orch-examples --examples` builds it",
        path.display()
    );
    path
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("the workspace")
                .join("target")
        },
        PathBuf::from,
    )
}
