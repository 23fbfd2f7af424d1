//! Real etcd servers, alone and as clusters, that end with the test.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::Client;
use orch_store::{EtcdOptions, EtcdStore};

/// The two versions that the tests run against.
pub(crate) const DEBIAN: &str = "etcd-debian";
pub(crate) const CURRENT: &str = "etcd-current";

/// How long a server may take to start, or a cluster to elect a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that `cargo xtask setup` has unpacked.
pub(crate) fn peer(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    let program = test.ancestors().nth(3).unwrap().join("peers").join(name);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo xtask setup`",
        program.display()
    );
    program
}

/// Ports that nobody listened on a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// How to start a member.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) program: &'static str,
    pub(crate) name: String,
    pub(crate) client_url: String,
    pub(crate) peer_url: String,
    /// `name=peer_url,…` of all members.
    pub(crate) cluster: String,
    pub(crate) arguments: Vec<String>,
    /// What to put before the command, such as `ip netns exec NAME`.
    pub(crate) within: Vec<String>,
}

impl Plan {
    pub(crate) fn alone(program: &'static str) -> Self {
        let [client, peer] = free_ports();
        let peer_url = format!("http://127.0.0.1:{peer}");
        Self {
            program,
            name: "alone".into(),
            client_url: format!("http://127.0.0.1:{client}"),
            cluster: format!("alone={peer_url}"),
            peer_url,
            arguments: Vec::new(),
            within: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }
}

/// A member of a cluster, perhaps the only one. It is killed when this is dropped.
pub(crate) struct Server {
    plan: Plan,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// Starts a server on its own and waits until it serves.
    pub(crate) async fn alone(program: &'static str) -> Self {
        Self::start_and_wait(Plan::alone(program)).await
    }

    pub(crate) async fn start_and_wait(plan: Plan) -> Self {
        let server = Self::start(plan);
        server.wait().await;
        server
    }

    pub(crate) fn start(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(&plan, folder.path());
        Self { plan, folder, child }
    }

    /// Waits until it answers; only for plain ones without users.
    pub(crate) async fn wait(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = async {
                let mut client = Client::connect([self.url()], None).await?;
                client.get("health", None).await
            };
            match tokio::time::timeout(Duration::from_secs(2), answer).await {
                Ok(Ok(_)) => return,
                last => assert!(Instant::now() < until, "{last:?}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.plan.client_url
    }

    /// Options for a store on this server.
    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdStore::options().endpoint(self.url())
    }

    pub(crate) async fn store(&self) -> EtcdStore {
        self.options().connect().await.unwrap()
    }

    /// etcd-client's own client, for what other users of etcd do.
    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.url()], None).await.unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its data.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.plan, self.folder.path());
    }

    /// SIGSTOP and SIGCONT.
    pub(crate) fn signal(&self, name: &str) {
        run("kill", &[&format!("-{name}"), &self.pid().to_string()]);
    }

    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(peer("etcdctl-debian"))
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", self.url()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("the last words of {}:", self.plan.name);
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn spawn(plan: &Plan, folder: &Path) -> Child {
    let program = peer(plan.program);
    let mut words = plan.within.clone();
    words.push(program.to_str().unwrap().to_owned());
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new(&words[0])
        .args(&words[1..])
        .args(["--name", &plan.name])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-client-urls", &plan.client_url])
        .args(["--advertise-client-urls", &plan.client_url])
        .args(["--listen-peer-urls", &plan.peer_url])
        .args(["--initial-advertise-peer-urls", &plan.peer_url])
        .args(["--initial-cluster", &plan.cluster])
        // Quick elections: the members are on one machine.
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .args(["--logger", "zap", "--log-level", "warn"])
        .args(&plan.arguments)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs a command that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run `cargo xtask setup`"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
}

/// Three members on loopback.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Server>,
}

impl Cluster {
    pub(crate) async fn start(program: &'static str) -> Self {
        let ports: [u16; 6] = free_ports();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<_> = (0..3)
            .map(|index| format!("m{index}={}", url(ports[index])))
            .collect();
        let members = (0..3).map(|index| {
            Server::start(Plan {
                program,
                name: format!("m{index}"),
                client_url: url(ports[3 + index]),
                peer_url: url(ports[index]),
                cluster: cluster.join(","),
                arguments: Vec::new(),
                within: Vec::new(),
            })
        });
        let cluster = Self {
            members: members.collect(),
        };
        for member in &cluster.members {
            member.wait().await;
        }
        cluster
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        let members = self.members.iter();
        members.fold(EtcdStore::options(), |options, member| {
            options.endpoint(member.url())
        })
    }

    /// The index of the member that leads, as any of `among` tells.
    pub(crate) async fn leader(&self, among: &[usize]) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            for &index in among {
                let ask = async {
                    let mut client = Client::connect([self.members[index].url()], None).await?;
                    let status = client.status().await?;
                    let member = status.header().map_or(0, |header| header.member_id());
                    Ok::<_, etcd_client::Error>(member != 0 && member == status.leader())
                };
                if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_secs(1), ask).await {
                    return index;
                }
            }
            assert!(Instant::now() < until, "no member leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
