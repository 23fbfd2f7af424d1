//! Facts of the machine that the agent runs on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Memory that eviction keeps free by default, which pods therefore cannot have: 100Mi.
const RESERVED_MEMORY: u64 = 100 << 20;

/// The version of Kubernetes whose behaviour the agent has.
pub(crate) const KUBELET_VERSION: &str = concat!("v1.37.0+orch-", env!("CARGO_PKG_VERSION"));

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Bytes of a path's file system: all and free. The nearest directory that exists is asked.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    let block = stat.fragment_size();
    Some((block * stat.blocks(), block * stat.blocks_available()))
}

fn kib(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

/// What the machine has and what of it pods may use, as upstream's kubelet reports it with its default settings.
pub(crate) fn resources(
    data_dir: &Path,
    max_pods: u32,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = meminfo("MemTotal").unwrap_or(0);
    let storage = disk(data_dir).map_or(0, |(all, _)| all);
    let with = |memory: Quantity, storage: Quantity| -> BTreeMap<String, Quantity> {
        [
            ("cpu".to_owned(), Quantity(cpus.to_string())),
            ("memory".to_owned(), memory),
            ("ephemeral-storage".to_owned(), storage),
            ("pods".to_owned(), Quantity(max_pods.to_string())),
        ]
        .into()
    };
    let capacity = with(kib(memory), kib(storage));
    let allocatable = with(
        kib(memory.saturating_sub(RESERVED_MEMORY)),
        Quantity((storage / 10 * 9).to_string()),
    );
    (capacity, allocatable)
}

/// The address by which this machine would reach others: nothing is sent to find it.
pub(crate) fn internal_ip() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe()
        .ok()
        .filter(|ip| !ip.is_unspecified())
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// `amd64`, `arm64` and so on, as Go names them.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// `nodeInfo`.
pub(crate) fn system_info(runtime_version: String) -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let release = read("/etc/os-release");
    let os_image = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().into(),
        operating_system: std::env::consts::OS.into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        machine_id: read("/etc/machine-id"),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        os_image: os_image.unwrap_or("Linux").trim_matches('"').into(),
        container_runtime_version: runtime_version,
        kubelet_version: KUBELET_VERSION.into(),
        kube_proxy_version: String::new(),
        ..NodeSystemInfo::default()
    }
}

/// Which resources run out, by upstream's default thresholds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Less than 100Mi of memory available.
    pub(crate) memory: bool,
    /// Less of the disk free than there should be.
    pub(crate) disk: bool,
    /// Nine tenths of the process ids in use.
    pub(crate) pids: bool,
}

/// Measures. `disk_percent` of the disk should be free.
pub(crate) fn pressure(data_dir: &Path, disk_percent: u8) -> Pressure {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // `/proc/loadavg`: … RUNNING/ALL …
    let tasks = std::fs::read_to_string("/proc/loadavg").ok();
    let tasks = tasks.and_then(|text| {
        text.split_whitespace()
            .nth(3)?
            .split_once('/')?
            .1
            .parse::<u64>()
            .ok()
    });
    Pressure {
        memory: meminfo("MemAvailable").is_some_and(|available| available < RESERVED_MEMORY),
        disk: disk(data_dir).is_some_and(|(all, free)| free < all / 100 * u64::from(disk_percent)),
        pids: matches!((tasks, number("/proc/sys/kernel/pid_max")), (Some(tasks), Some(max)) if tasks > max / 10 * 9),
    }
}
