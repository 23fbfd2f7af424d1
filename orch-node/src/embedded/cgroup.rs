//! Limits, by writing the control groups' files: version 1 and version 2.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::runtime::LinuxContainerResources;

/// The controllers that limits need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

/// The host's cgroup hierarchies, as far as limits need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cgroups {
    /// One mount a controller.
    V1(BTreeMap<String, PathBuf>),
    /// The unified hierarchy with these controllers.
    V2 { root: PathBuf, controllers: Vec<String> },
    /// None that can be used.
    Absent,
}

impl Cgroups {
    /// What this host has.
    pub(super) fn detect() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::from_mountinfo(&mounts, |root| {
            std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
    }

    fn from_mountinfo(mounts: &str, controllers_of: impl Fn(&Path) -> String) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split_whitespace().nth(4) else {
                continue;
            };
            let mut right = right.split_whitespace();
            match right.next() {
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    for name in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                        v1.insert(name.to_owned(), PathBuf::from(point));
                    }
                }
                Some("cgroup2") => v2 = Some(PathBuf::from(point)),
                _ => {}
            }
        }
        if !v1.is_empty() {
            return Self::V1(v1);
        }
        let Some(root) = v2 else { return Self::Absent };
        let present = controllers_of(&root);
        let controllers: Vec<String> = present
            .split_whitespace()
            .filter(|name| CONTROLLERS.contains(name))
            .map(str::to_owned)
            .collect();
        if controllers.is_empty() {
            Self::Absent
        } else {
            Self::V2 { root, controllers }
        }
    }

    /// What cannot be limited on this host, for people.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let has = |name: &str| match self {
            Self::V1(mounts) => mounts.contains_key(name),
            Self::V2 { controllers, .. } => controllers.iter().any(|c| c == name),
            Self::Absent => false,
        };
        ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|name| !has(name))
            .collect()
    }

    /// Makes a group and sets its limits. Answers its directories and the limits that could not be set.
    pub(super) fn create(
        &self,
        path: &Path,
        limits: &LinuxContainerResources,
    ) -> (Vec<PathBuf>, Vec<String>) {
        let mut failed = Vec::new();
        let mut dirs = Vec::new();
        for dir in self.directories(path) {
            match self.make(&dir) {
                Ok(()) => dirs.push(dir),
                Err(error) => failed.push(format!("{}: {error}", dir.display())),
            }
        }
        for (controller, file, value) in self.settings(limits) {
            let dir = self.directory(path, controller).filter(|dir| dirs.contains(dir));
            let Some(dir) = dir else {
                failed.push(format!("no {controller} controller"));
                continue;
            };
            if let Err(error) = std::fs::write(dir.join(file), &value) {
                failed.push(format!("{file}={value}: {error}"));
            }
        }
        (dirs, failed)
    }

    /// The directories that a group of this path has.
    pub(super) fn directories(&self, path: &Path) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = match self {
            Self::V1(mounts) => mounts.values().map(|mount| mount.join(path)).collect(),
            Self::V2 { root, .. } => vec![root.join(path)],
            Self::Absent => Vec::new(),
        };
        dirs.dedup();
        dirs
    }

    fn directory(&self, path: &Path, controller: &str) -> Option<PathBuf> {
        match self {
            Self::V1(mounts) => mounts.get(controller).map(|mount| mount.join(path)),
            Self::V2 { root, controllers } => controllers
                .iter()
                .any(|c| c == controller)
                .then(|| root.join(path)),
            Self::Absent => None,
        }
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let Self::V2 { root, controllers } = self else {
            return Ok(());
        };
        let enable: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
        let mut ancestors: Vec<&Path> = dir
            .ancestors()
            .skip(1)
            .take_while(|a| a.starts_with(root))
            .collect();
        ancestors.reverse();
        for ancestor in ancestors {
            std::fs::write(ancestor.join("cgroup.subtree_control"), enable.join(" "))?;
        }
        Ok(())
    }

    /// Controller, file and value for each limit.
    fn settings(&self, limits: &LinuxContainerResources) -> Vec<(&'static str, &'static str, String)> {
        let mut all = Vec::new();
        let period = limits.cpu_period.unwrap_or(100_000);
        let v2 = matches!(self, Self::V2 { .. });
        if let Some(shares) = limits.cpu_shares {
            all.push(if v2 {
                ("cpu", "cpu.weight", weight_of_shares(shares).to_string())
            } else {
                ("cpu", "cpu.shares", shares.to_string())
            });
        }
        match limits.cpu_quota {
            Some(quota) if v2 => all.push(("cpu", "cpu.max", format!("{quota} {period}"))),
            Some(quota) => {
                all.push(("cpu", "cpu.cfs_period_us", period.to_string()));
                all.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
            }
            None => {}
        }
        if let Some(bytes) = limits.memory_limit {
            all.push((
                "memory",
                if v2 { "memory.max" } else { "memory.limit_in_bytes" },
                bytes.to_string(),
            ));
        }
        if let Some(count) = limits.pids_limit {
            all.push(("pids", "pids.max", count.to_string()));
        }
        all
    }
}

/// The weight of version 2 that stands for version 1's shares: [2, 262144] to [1, 10000].
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Whether the kernel killed a process of the group for want of memory.
pub(super) fn was_oom_killed(dirs: &[PathBuf]) -> bool {
    let count = |file: &str| {
        let text = dirs
            .iter()
            .find_map(|dir| std::fs::read_to_string(dir.join(file)).ok())?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|n| n.parse::<u64>().ok())
    };
    count("memory.oom_control")
        .or_else(|| count("memory.events"))
        .is_some_and(|n| n > 0)
}

/// Removes groups; an absent one is no error. The kernel may take a moment to let go of the last process.
pub(super) fn remove(dirs: &[PathBuf]) -> io::Result<()> {
    for dir in dirs {
        let mut attempts = 0;
        loop {
            match std::fs::remove_dir(dir) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempts < 200 => {
                    attempts += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_one_is_used_where_it_has_the_controllers() {
        let found = Cgroups::from_mountinfo(V1, |_| String::new());
        assert_eq!(found.missing(), ["pids"]);
        let dirs = found.directories(Path::new("orch/c1"));
        assert_eq!(
            dirs,
            [
                Path::new("/sys/fs/cgroup/cpu,cpuacct/orch/c1"),
                Path::new("/sys/fs/cgroup/memory/orch/c1")
            ]
        );
    }

    #[test]
    fn version_two_needs_its_controllers_enabled() {
        assert_eq!(Cgroups::from_mountinfo(V2, |_| String::new()), Cgroups::Absent);
        let found = Cgroups::from_mountinfo(V2, |_| "cpuset cpu io memory pids\n".into());
        assert!(found.missing().is_empty());
        assert_eq!(Cgroups::Absent.missing(), ["cpu", "memory", "pids"]);
    }

    #[test]
    fn limits_become_the_files_of_each_version() {
        let limits = LinuxContainerResources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            memory_limit: Some(1 << 20),
            pids_limit: Some(10),
            ..LinuxContainerResources::default()
        };
        let files = |cgroups: Cgroups| -> Vec<String> {
            cgroups
                .settings(&limits)
                .into_iter()
                .map(|(_, file, value)| format!("{file}={value}"))
                .collect()
        };
        let v1 = files(Cgroups::from_mountinfo(V1, |_| String::new()));
        let expected = "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 memory.limit_in_bytes=1048576 pids.max=10";
        assert_eq!(v1.join(" "), expected);
        let v2 = files(Cgroups::from_mountinfo(V2, |_| "cpu memory pids".into()));
        assert_eq!(
            v2,
            [
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "memory.max=1048576",
                "pids.max=10"
            ]
        );
    }
}
