//! The whole cluster: how fast it starts, what it weighs, how soon a Deployment runs.
//!
//! Runs the release build of the cluster example, as root, in a network namespace made for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Figure;
use crate::run::{command, root, target};

const STARTS: usize = 9;
const NAMESPACE: &str = "orch-figures";

/// Measures the figures of the area `cluster`.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    command("cargo", &["build", "--release", "--example", "cluster"])?;
    let place = Place::new()?;
    let mut figures = vec![first_start(&place)?];
    figures.extend(starts(&place)?);
    figures.extend(demo(&place)?);
    figures.push(thousand_pods(&place)?);
    Ok(figures)
}

fn first_start(place: &Place) -> anyhow::Result<Figure> {
    let cluster = Running::start(place, &[])?;
    let took = milliseconds(cluster.ready);
    cluster.stop()?;
    Ok(Figure::report(
        "cold start to ready, empty data directory",
        took,
        "ms",
    ))
}

fn starts(place: &Place) -> anyhow::Result<Vec<Figure>> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let cluster = Running::start(place, &[])?;
        times.push(cluster.ready);
        cluster.stop()?;
    }
    times.sort();
    let cluster = Running::start(place, &[])?;
    // Idle means: whatever the start allocated for a moment has been given back.
    std::thread::sleep(Duration::from_secs(10));
    let idle = cluster.resident()?;
    cluster.stop()?;
    let median = milliseconds(times[STARTS / 2]);
    Ok(vec![
        Figure::under(
            "cold start to ready, existing data directory (median)",
            median,
            "ms",
            100.0,
        ),
        Figure::under("resident memory, idle", idle, "MB", 40.0),
    ])
}

fn demo(place: &Place) -> anyhow::Result<Vec<Figure>> {
    let cluster = Running::start(place, &[])?;
    let began = Instant::now();
    let manifest = root().join("examples/manifests/web.yaml");
    place.kubectl(&["apply", "-f", manifest.to_str().context("a UTF-8 path")?])?;
    let applied = began.elapsed();
    loop {
        let ready = place.kubectl(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ])?;
        if ready == "3" {
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("the demo's Deployment is not ready after 60 s");
        }
    }
    let took = began.elapsed();
    place.kubectl(&["delete", "deployment/web", "service/web", "--wait=true"])?;
    cluster.stop()?;
    Ok(vec![
        Figure::under(
            "kubectl apply to 3 demo replicas Ready",
            took.as_secs_f64(),
            "s",
            2.0,
        ),
        Figure::report("of which kubectl apply itself", applied.as_secs_f64(), "s"),
    ])
}

fn thousand_pods(place: &Place) -> anyhow::Result<Figure> {
    let cluster = Running::start(place, &["--runtime", "fake", "--hollow-nodes", "10"])?;
    place.kubectl(&[
        "create",
        "deployment",
        "crowd",
        "--image=crowd",
        "--replicas=1000",
    ])?;
    let began = Instant::now();
    while place.kubectl(&[
        "get",
        "deployment",
        "crowd",
        "-o",
        "jsonpath={.status.readyReplicas}",
    ])? != "1000"
    {
        if began.elapsed() > Duration::from_secs(300) {
            bail!("1,000 pods are not ready after 300 s");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(10));
    let resident = cluster.resident()?;
    place.kubectl(&["delete", "deployment", "crowd", "--wait=true"])?;
    cluster.stop()?;
    Ok(Figure::report(
        "resident memory, 1,000 pods on 10 fake nodes",
        resident,
        "MB",
    ))
}

/// The network namespace and the data folder of the measured cluster.
struct Place {
    data: PathBuf,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let data = target().join("figures").join("cluster-data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(&data)?;
        if Path::new("/run/netns").join(NAMESPACE).exists() {
            command("ip", &["netns", "delete", NAMESPACE])?;
        }
        command("ip", &["netns", "add", NAMESPACE])?;
        let place = Self { data };
        let up = place.inside("ip").args(["link", "set", "lo", "up"]).status()?;
        if !up.success() {
            bail!("cannot bring lo up in the namespace {NAMESPACE}");
        }
        Ok(place)
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg("--")
            .arg(program);
        inside
    }

    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let program = target().join("peers/kubectl-current");
        let output = self
            .inside(program)
            .arg("--kubeconfig")
            .arg(self.data.join("kubeconfig"))
            .args(arguments)
            .env("HOME", &self.data)
            .output()
            .context("cannot start kubectl: run `cargo xtask setup` once")?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "delete", NAMESPACE]) {
            eprintln!("{error:#}");
        }
    }
}

/// A cluster process that said it is ready.
struct Running {
    child: Child,
    /// From the start of the process to its `ready in` line.
    ready: Duration,
}

impl Running {
    fn start(place: &Place, flags: &[&str]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = place
            .inside(target().join("release/examples/cluster"))
            .arg("--data-dir")
            .arg(&place.data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the cluster example")?;
        let mut output = BufReader::new(child.stdout.take().context("a piped standard output")?);
        let mut line = String::new();
        while !line.starts_with("ready in") {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                bail!("the cluster ended before it was ready: {}", child.wait()?);
            }
        }
        let ready = began.elapsed();
        // The cluster prints little after this; the pipe is kept open so that it never meets a closed one.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Ok(Self { child, ready })
    }

    /// Resident memory of the process in MB (10^6 bytes).
    fn resident(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS in status")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        command("kill", &["-INT", &self.child.id().to_string()])?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the cluster stopped with {status}");
        }
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
