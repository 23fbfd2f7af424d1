//! The conformance suite on both runtimes, and what only the embedded one can show. The latter needs root, and fails without.
#![allow(clippy::unwrap_used, reason = "a test ends when what it stands on is missing")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orch_node::embedded::{EmbeddedRuntime, HOST_IMAGE};
use orch_node::fake::{FakeRuntime, Script};
use orch_node::runtime::{
    Capabilities, ContainerConfig, ContainerId, ContainerMetadata, ContainerState, LinuxContainerResources,
    Mount, NamespaceMode, PodSandboxConfig, PodSandboxMetadata, Runtime, RuntimeConfig, SandboxId,
    SecurityContext,
};
use orch_node::testkit::{Program, Subject, conformance};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Fake(FakeRuntime);

#[async_trait]
impl Subject for Fake {
    async fn open(&mut self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }
    fn forever(&self) -> Program {
        Program {
            image: "forever".into(),
            command: Vec::new(),
        }
    }
    fn exits_with_3(&self) -> Program {
        Program {
            image: "exits".into(),
            command: Vec::new(),
        }
    }
    fn not_startable(&self) -> Program {
        Program {
            image: "broken".into(),
            command: Vec::new(),
        }
    }
    fn not_pullable(&self) -> String {
        "missing".into()
    }
    fn exec_command(&self) -> Vec<String> {
        vec!["true".into()]
    }
}

#[tokio::test]
async fn the_fake_runtime_conforms() {
    let exits = Script {
        exit_after: Some(Duration::from_millis(20)),
        exit_code: 3,
        ..Script::default()
    };
    let broken = Script {
        start_error: Some("no such file".into()),
        ..Script::default()
    };
    let missing = Script {
        pull_error: Some("not found".into()),
        ..Script::default()
    };
    let fake = FakeRuntime::new()
        .script("exits", exits)
        .script("broken", broken)
        .script("missing", missing);
    conformance(&mut Fake(fake)).await;
}

struct Embedded(tempfile::TempDir);

async fn open(dir: &Path) -> EmbeddedRuntime {
    let builder = EmbeddedRuntime::builder(dir.join("runtime"))
        .allow_host_image(true)
        .helper_program(env!("CARGO_BIN_EXE_orch-node-helper"));
    builder
        .build()
        .await
        .expect("the embedded runtime's tests need root")
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).to_vec()
}

#[async_trait]
impl Subject for Embedded {
    async fn open(&mut self) -> Arc<dyn Runtime> {
        Arc::new(open(self.0.path()).await)
    }
    fn forever(&self) -> Program {
        let command = shell("trap 'exit 0' TERM; while :; do sleep 3600 & wait; done");
        Program {
            image: HOST_IMAGE.into(),
            command,
        }
    }
    fn exits_with_3(&self) -> Program {
        Program {
            image: HOST_IMAGE.into(),
            command: shell("exit 3"),
        }
    }
    fn not_startable(&self) -> Program {
        Program {
            image: HOST_IMAGE.into(),
            command: vec!["no-such-program".into()],
        }
    }
    fn not_pullable(&self) -> String {
        "docker.io/library/nginx".into()
    }
    fn exec_command(&self) -> Vec<String> {
        shell("test $(cat /proc/1/comm) = sh")
    }
}

/// What the runtime may leave in the kernel: mounts, interfaces, control groups, processes.
#[derive(Debug, PartialEq, Eq)]
struct Traces(Vec<String>);

impl Traces {
    /// All traces of the runtime in a directory: its mounts and helpers carry that path, its bridge and groups are named
    /// after it, and a veth pair of its pods is a port of its bridge.
    fn of(dir: &Path) -> Self {
        let dir = dir.canonicalize().unwrap();
        let dir = dir.to_str().unwrap();
        let mut found: Vec<String> = Vec::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(dir))
                .map(str::to_owned),
        );
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(dir) && command.starts_with("orch-node") {
                found.push(command);
            }
        }
        let base = bridge_of(Path::new(dir));
        found.extend(
            Path::new("/sys/class/net")
                .join(&base)
                .exists()
                .then(|| base.clone()),
        );
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .filter_map(Result::ok)
        {
            let group = hierarchy.path().join(&base);
            found.extend(group.exists().then(|| group.display().to_string()));
        }
        Self(found)
    }

    fn none() -> Self {
        Self(Vec::new())
    }
}

/// The documented name of a state directory's bridge: `orch` and the begin of the path's SHA-256.
fn bridge_of(test_dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let state = test_dir.canonicalize().unwrap().join("runtime");
    let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!(
        "orch{}",
        hash.iter()
            .take(4)
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    )
}

fn interfaces() -> BTreeMap<String, ()> {
    let all = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .filter_map(Result::ok);
    all.map(|entry| (entry.file_name().to_string_lossy().into_owned(), ()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_runtime_conforms_and_leaves_nothing_behind() {
    let mut subject = Embedded(tempfile::tempdir().unwrap());
    conformance(&mut subject).await;
    assert_eq!(Traces::of(subject.0.path()), Traces::none());
}

/// A pod of one test, with its runtime.
struct Pod {
    dir: tempfile::TempDir,
    runtime: EmbeddedRuntime,
    sandbox: SandboxId,
}

impl Pod {
    async fn new(name: &str, cidr: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = open(dir.path()).await;
        runtime
            .update_runtime_config(&RuntimeConfig {
                pod_cidr: cidr.into(),
            })
            .await
            .unwrap();
        let sandbox = runtime
            .run_pod_sandbox(&pod_config(name, dir.path()))
            .await
            .unwrap();
        Self {
            dir,
            runtime,
            sandbox,
        }
    }

    async fn ip(&self) -> IpAddr {
        self.runtime
            .pod_sandbox_status(&self.sandbox)
            .await
            .seen()
            .unwrap()
            .ips[0]
    }

    async fn start(&self, config: &ContainerConfig) -> ContainerId {
        let id = self
            .runtime
            .create_container(&self.sandbox, config)
            .await
            .unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a script to its end; its exit code and output.
    async fn run(&self, name: &str, config: ContainerConfig) -> (i32, String) {
        let config = ContainerConfig {
            log_path: format!("{name}.log").into(),
            ..named(name, config)
        };
        let id = self.start(&config).await;
        let status = wait_for_end(&self.runtime, &id).await;
        (status.exit_code, self.log(name))
    }

    fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("logs").join(format!("{name}.log")))
            .unwrap_or_default();
        let content = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
        text.lines().map(content).collect::<Vec<_>>().join("\n")
    }

    async fn remove(self) {
        self.runtime.remove_pod_sandbox(&self.sandbox).await.unwrap();
        assert_eq!(Traces::of(self.dir.path()), Traces::none());
    }
}

fn pod_config(name: &str, dir: &Path) -> PodSandboxConfig {
    let metadata = PodSandboxMetadata {
        name: name.into(),
        uid: format!("uid-{name}"),
        ..PodSandboxMetadata::default()
    };
    PodSandboxConfig {
        metadata,
        hostname: name.into(),
        log_directory: dir.join("logs"),
        pid: NamespaceMode::Container,
        ..PodSandboxConfig::default()
    }
}

fn script(text: &str) -> ContainerConfig {
    ContainerConfig {
        image: HOST_IMAGE.into(),
        command: shell(text),
        ..ContainerConfig::default()
    }
}

fn named(name: &str, config: ContainerConfig) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata {
            name: name.into(),
            attempt: 0,
        },
        ..config
    }
}

async fn wait_for_end(runtime: &dyn Runtime, id: &ContainerId) -> orch_node::runtime::ContainerStatus {
    use futures::StreamExt;
    let mut events = runtime.events();
    loop {
        let status = runtime.container_status(id).await.seen().unwrap();
        if status.state == ContainerState::Exited {
            return status;
        }
        tokio::time::timeout(Duration::from_secs(60), events.next())
            .await
            .expect("the container ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_isolated_from_the_host() {
    let pod = Pod::new("isolated", "10.213.1.0/24").await;
    let marker = format!("/orch-test-{}", std::process::id());
    let text = format!(
        "hostname; echo $$; ls /proc | grep -c '^[0-9]'; touch {marker} && ls {marker}; ls {} | wc -l; cat /sys/class/net/eth0/address",
        pod.dir.path().join("runtime").display()
    );
    let (code, output) = pod.run("look", script(&text)).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(code, 0, "{output}");
    assert_eq!(lines[0], "isolated", "its host name is the pod's");
    assert_eq!(lines[1], "1", "it is process 1");
    assert!(
        lines[2].parse::<u32>().unwrap() <= 4,
        "it sees its own processes only: {output}"
    );
    assert_eq!(lines[3], marker, "it can write to its root");
    assert_eq!(lines[4], "0", "the runtime's state is hidden");
    assert!(lines[5].starts_with("0a:58:"), "{output}");
    assert!(
        !Path::new(&marker).exists(),
        "what it writes does not reach the host"
    );
    pod.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_limited() {
    let pod = Pod::new("rights", "10.213.2.0/24").await;
    let (_, output) = pod.run("caps", script("grep CapBnd /proc/self/status; mknod /tmp/d b 8 0; echo 1 > /proc/sys/kernel/panic || echo read-only")).await;

    let bits = output.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap();
    assert_eq!(
        u64::from_str_radix(bits, 16).unwrap() & (1 << 21 | 1 << 27 | 1 << 12),
        0,
        "no SYS_ADMIN, MKNOD, NET_ADMIN"
    );
    assert!(output.contains("read-only"), "{output}");
    let user = SecurityContext {
        run_as_user: Some(65534),
        run_as_group: Some(65534),
        ..SecurityContext::default()
    };
    let user = SecurityContext {
        supplemental_groups: vec![1234],
        no_new_privs: true,
        readonly_rootfs: true,
        ..user
    };
    let config = ContainerConfig {
        security_context: user,
        ..script("id -u; id -G; touch /x || echo refused; grep NoNewPrivs /proc/self/status")
    };
    let (_, output) = pod.run("user", config).await;
    assert!(output.contains("65534\n65534 1234\n"), "{output}");
    assert!(
        output.contains("refused") && output.contains("NoNewPrivs:\t1"),
        "{output}"
    );
    let add = Capabilities {
        add: vec!["NET_ADMIN".into()],
        drop: vec!["ALL".into()],
    };
    let security_context = SecurityContext {
        capabilities: add,
        ..SecurityContext::default()
    };
    let (_, output) = pod
        .run(
            "add",
            ContainerConfig {
                security_context,
                ..script("grep CapEff /proc/self/status")
            },
        )
        .await;
    assert!(output.ends_with("0000000000001000"), "{output}");
    pod.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_working_directory_and_mounts_are_as_asked() {
    let pod = Pod::new("env", "10.213.3.0/24").await;
    let data = pod.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("in"), "from the host").unwrap();
    let mount = |at: &str, readonly| Mount {
        container_path: at.into(),
        host_path: data.clone(),
        readonly,
    };
    let config = ContainerConfig {
        envs: vec![("GREETING".into(), "hello".into())],
        working_dir: "/made/on/demand".into(),
        mounts: vec![mount("/data", false), mount("/data-ro", true)],
        ..script(
            "echo $GREETING; pwd; cat /data/in; echo; echo out > /data/out; touch /data-ro/x || echo refused; echo oops >&2",
        )
    };
    let (code, output) = pod.run("main", config).await;
    assert_eq!(code, 0, "{output}");
    assert!(
        output.starts_with("hello\n/made/on/demand\nfrom the host\n"),
        "{output}"
    );
    assert!(output.contains("refused") && output.contains("oops"), "{output}");
    assert_eq!(std::fs::read_to_string(data.join("out")).unwrap(), "out\n");
    let log = std::fs::read_to_string(pod.dir.path().join("logs/main.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(" stderr F oops")), "{log}");
    assert!(
        log.lines()
            .all(|line| line.split(' ').next().unwrap().parse::<jiff::Timestamp>().is_ok()),
        "{log}"
    );
    pod.remove().await;
}

/// A program that answers one HTTP request on port 8080; perl is essential in Debian.
const SERVER: &str = r#"exec perl -MIO::Socket::INET -e '$SIG{TERM}=sub{exit 0};
$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,ReuseAddr=>1) or die; print "up\n"; $|=1;
while($c=$s->accept()){<$c>; print $c "HTTP/1.0 200 OK\r\n\r\nhello from the pod\n"; close $c}'"#;

async fn get(ip: IpAddr, port: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match tokio::net::TcpStream::connect((ip, port)).await {
            Ok(mut stream) => {
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
            Err(error) if Instant::now() > deadline => panic!("{ip}:{port}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_and_pods_reach_each_other() {
    let before = interfaces();
    let pod = Pod::new("server", "10.213.4.0/24").await;
    pod.start(&named("server", script(SERVER))).await;
    let ip = pod.ip().await;
    assert!(
        get(ip, 8080).await.ends_with("hello from the pod\n"),
        "the host reaches the pod"
    );

    let listener = tokio::net::TcpListener::bind("10.213.4.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        stream.write_all(b"hello from the host\n").await.unwrap();
        from.ip()
    });
    let other = pod
        .runtime
        .run_pod_sandbox(&pod_config("client", pod.dir.path()))
        .await
        .unwrap();
    let client = format!(
        r#"perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(PeerAddr=>"{ip}:8080") or die; print $s "GET\n"; print <$s>;
$s=IO::Socket::INET->new(PeerAddr=>"10.213.4.1:{port}") or die; print <$s>'"#
    );
    let config = ContainerConfig {
        log_path: "client.log".into(),
        ..named("client", script(&client))
    };
    let id = pod.runtime.create_container(&other, &config).await.unwrap();
    pod.runtime.start_container(&id).await.unwrap();
    wait_for_end(&pod.runtime, &id).await;
    let output = pod.log("client");
    assert!(
        output.contains("hello from the pod") && output.contains("hello from the host"),
        "{output}"
    );
    let client_ip = pod.runtime.pod_sandbox_status(&other).await.seen().unwrap().ips[0];
    assert_eq!(
        served.await.unwrap(),
        client_ip,
        "a pod's own address is seen by the host"
    );
    pod.runtime.remove_pod_sandbox(&other).await.unwrap();
    let after = {
        pod.remove().await;
        interfaces()
    };
    assert!(
        after
            .keys()
            .all(|name| before.contains_key(name) || !name.starts_with("veth")),
        "{before:?} {after:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_where_the_host_allows() {
    let pod = Pod::new("limits", "10.213.5.0/24").await;
    let missing = pod.runtime.missing_limits();
    let limits = LinuxContainerResources {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        memory_limit: Some(64 << 20),
        pids_limit: Some(50),
        ..LinuxContainerResources::default()
    };
    let hog = "perl -e '$x = \"x\" x (256 << 20); print length($x)'";
    let config = ContainerConfig {
        resources: limits,
        ..script(&format!("exec {hog}"))
    };
    let id = pod.start(&named("hog", config)).await;
    let status = wait_for_end(&pod.runtime, &id).await;
    if missing.contains(&"memory") {
        assert_eq!(
            status.exit_code, 0,
            "without a memory controller there is no limit"
        );
    } else {
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    }
    pod.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_shim_is_killed_ends_and_is_reported() {
    let pod = Pod::new("shimless", "10.213.6.0/24").await;
    let id = pod.start(&named("main", script("sleep 3600"))).await;
    let dir = pod.dir.path().join("runtime/containers").join(id.as_str());
    let pid_in = |file: &str| {
        let value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap();
        i32::try_from(value["pid"].as_i64().unwrap()).unwrap()
    };
    let (shim, program) = (pid_in("shim.json"), pid_in("state.json"));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let status = wait_for_end(&pod.runtime, &id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{program}")).exists() {
        assert!(Instant::now() < deadline, "the program ends with its shim");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pod.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_state_directory_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let second = EmbeddedRuntime::builder(dir.path().join("runtime")).build().await;
    assert!(
        second
            .unwrap_err()
            .to_string()
            .contains("another process has the state directory")
    );
    drop(first);
    open(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_root_as_an_image_has_to_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = EmbeddedRuntime::builder(dir.path().join("runtime"))
        .build()
        .await
        .unwrap();
    let error = runtime.pull_image(HOST_IMAGE).await.unwrap_err().to_string();
    assert!(error.contains("not allowed on this node"), "{error}");
    assert!(runtime.list_images().await.unwrap().is_empty());
}

/// A connection to the kernel for links and addresses of this namespace.
fn netlink() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// Whether an interface is administratively up.
fn is_up(link: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{link}/flags")).unwrap();
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap() & 1 == 1
}

/// What the kernel says about each port of a bridge.
fn ports(bridge: &str, setting: &str) -> Vec<String> {
    let ports = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap();
    let value = |port: std::fs::DirEntry| std::fs::read_to_string(port.path().join(setting)).unwrap();
    ports.map(|port| value(port.unwrap()).trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_bridge_is_completed_and_follows_the_pod_cidr() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("runtime")).unwrap();
    let bridge = bridge_of(dir.path());
    // As a process leaves it that is killed right after it made the bridge: no address, not up.
    let half = rtnetlink::LinkBridge::new(&bridge).build();
    netlink().link().add(half).execute().await.unwrap();

    let runtime = open(dir.path()).await;
    let first = with_cidr(&runtime, dir.path(), "first", "10.213.7.0/24").await;
    assert!(is_up(&bridge));
    let listener = tokio::net::TcpListener::bind("10.213.7.1:0").await;
    listener.expect("the host has the gateway's address");

    let second = with_cidr(&runtime, dir.path(), "second", "10.213.8.0/24").await;
    for gateway in ["10.213.7.1:0", "10.213.8.1:0"] {
        let listener = tokio::net::TcpListener::bind(gateway).await;
        listener.expect("the host is the gateway of both CIDRs while pods of both live");
    }
    // A pod that reaches itself through a Service gets its packets back by the port that they came from.
    assert_eq!(ports(&bridge, "hairpin_mode"), ["1", "1"]);
    for sandbox in [first, second] {
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    assert_eq!(Traces::of(dir.path()), Traces::none());
}

async fn with_cidr(runtime: &EmbeddedRuntime, dir: &Path, name: &str, cidr: &str) -> SandboxId {
    let pod_cidr = cidr.into();
    runtime
        .update_runtime_config(&RuntimeConfig { pod_cidr })
        .await
        .unwrap();
    runtime.run_pod_sandbox(&pod_config(name, dir)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_pods_do_not_take_the_bridge_from_the_living_at_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = open(dir.path()).await;
    let living = with_cidr(&runtime, dir.path(), "living", "10.213.9.0/24").await;
    let mut sandboxes = vec![living];
    for index in 0..8 {
        let name = format!("ended-{index}");
        let ended = runtime
            .run_pod_sandbox(&pod_config(&name, dir.path()))
            .await
            .unwrap();
        runtime.stop_pod_sandbox(&ended).await.unwrap();
        sandboxes.push(ended);
    }
    drop(runtime);
    let runtime = open(dir.path()).await;
    assert_eq!(
        ports(&bridge_of(dir.path()), "hairpin_mode"),
        ["1"],
        "the living pod is still on its bridge"
    );
    for sandbox in &sandboxes {
        runtime.remove_pod_sandbox(sandbox).await.unwrap();
    }
    assert_eq!(Traces::of(dir.path()), Traces::none());
}

/// A program that answers a request of lines up to an empty one, on port 8080, with the address it came from.
const WHO: &str = r#"exec perl -MIO::Socket::INET -e '$SIG{TERM}=sub{exit 0};
$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>5,ReuseAddr=>1) or die;
while($c=$s->accept()){while(($h=<$c>)=~/\S/){} print $c $c->peerhost."\n"; close $c}'"#;

fn table_exists(name: &str) -> bool {
    let listed = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output();
    let listed = listed.expect("this test needs nft: apt-get install nftables");
    String::from_utf8(listed.stdout).unwrap().contains(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn masqueraded_pods_show_the_nodes_address_outside() {
    // A pod of another runtime, on a bridge of its own, is the host outside.
    let outside = Pod::new("outside", "10.213.11.0/24").await;
    outside.start(&named("who", script(WHO))).await;
    let target = outside.ip().await;
    assert_ne!(get(target, 8080).await, "");
    let ask = format!(
        r#"perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(PeerAddr=>"{target}:8080",Timeout=>20) or die "$!"; print $s "\n"; print <$s>'"#
    );

    let plain = Pod::new("plain", "10.213.12.0/24").await;
    let (_, seen) = plain.run("ask", script(&ask)).await;
    assert_eq!(seen, plain.ip().await.to_string(), "left alone by default");
    plain.remove().await;

    let dir = tempfile::tempdir().unwrap();
    let builder = EmbeddedRuntime::builder(dir.path().join("runtime"))
        .allow_host_image(true)
        .masquerade(true)
        .helper_program(env!("CARGO_BIN_EXE_orch-node-helper"));
    let runtime = builder.build().await.expect("this test needs root and nft");
    let sandbox = with_cidr(&runtime, dir.path(), "hidden", "10.213.13.0/24").await;
    let table = bridge_of(dir.path());
    assert!(table_exists(&table));
    let hidden = Pod {
        dir,
        runtime,
        sandbox,
    };
    let (_, seen) = hidden.run("ask", script(&ask)).await;
    assert_eq!(
        seen, "10.213.11.1",
        "the host's address on the link to the target"
    );
    hidden.remove().await;
    assert!(!table_exists(&table), "the table goes with the bridge");
    outside.remove().await;
}
