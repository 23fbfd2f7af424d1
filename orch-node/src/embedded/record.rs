//! What the embedded runtime and its shims keep on disk: JSON files, each written whole or not at all.
//!
//! ```text
//! STATE/lock                         held by the process that has the runtime open
//! STATE/sandboxes/ID/record.json     the sandbox; netns, ipcns, utsns: its pinned namespaces; shm: its /dev/shm
//! STATE/containers/ID/config.json    the container, written at its creation
//! STATE/containers/ID/lock           held by the shim while it lives
//! STATE/containers/ID/shim.json      the shim's process, written first by the shim
//! STATE/containers/ID/state.json     the program's process, written when it runs
//! STATE/containers/ID/exit.json      how it ended
//! ```

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime::{ContainerConfig, PodSandboxConfig, PodSandboxState, SandboxId};

pub(super) const RECORD: &str = "record.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const SHIM: &str = "shim.json";
pub(super) const STATE: &str = "state.json";
pub(super) const EXIT: &str = "exit.json";
pub(super) const LOCK: &str = "lock";

/// A sandbox on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) config: PodSandboxConfig,
    pub(super) state: PodSandboxState,
    pub(super) created_at: Timestamp,
    pub(super) boot_id: String,
    pub(super) ip: Option<IpAddr>,
}

/// A container on disk: all that its shim needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) sandbox: SandboxId,
    pub(super) pod_uid: String,
    pub(super) config: ContainerConfig,
    pub(super) created_at: Timestamp,
    /// Namespaces to enter: file and the clone flag of its kind.
    pub(super) namespaces: Vec<(PathBuf, i32)>,
    pub(super) hostname: Option<String>,
    pub(super) shm: Option<PathBuf>,
    pub(super) resolv_conf: PathBuf,
    pub(super) log_path: Option<PathBuf>,
    /// Paths of the host that the container must not see.
    pub(super) hidden: Vec<PathBuf>,
    /// The container's directory in each cgroup hierarchy.
    pub(super) cgroups: Vec<PathBuf>,
    /// Bytes that the container may write to its root file system; absent: half the memory.
    pub(super) scratch_bytes: Option<u64>,
}

/// A process: its number alone can come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    pub(super) pid: i32,
    /// Ticks since boot, from `/proc/PID/stat`.
    pub(super) start_time: u64,
    pub(super) started_at: Timestamp,
}

/// How a container's program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    pub(super) exit_code: i32,
    pub(super) finished_at: Timestamp,
    pub(super) reason: String,
    pub(super) message: String,
}

impl ExitRecord {
    pub(super) fn new(exit_code: i32, reason: &str, message: impl Into<String>) -> Self {
        Self {
            exit_code,
            finished_at: Timestamp::now(),
            reason: reason.into(),
            message: message.into(),
        }
    }
}

impl ProcessRecord {
    /// The record of a process that lives now.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: start_time(pid)?,
            started_at: Timestamp::now(),
        })
    }

    /// Whether the process of that number is still the same one.
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid).is_ok_and(|time| time == self.start_time)
    }
}

/// When a process started, in ticks since boot.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold spaces; the start time is the 22nd.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("unexpected /proc/{pid}/stat")))
}

/// Writes a file so that a reader sees the old content or the new one, also when the writer is killed.
pub(super) fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(&temporary, dir.join(name))
}

/// Reads a file; `None` when there is none.
pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_a_later_one_of_its_number() {
        let own = ProcessRecord::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(
            !ProcessRecord {
                start_time: own.start_time + 1,
                ..own
            }
            .is_alive()
        );
    }

    #[test]
    fn files_are_read_back_and_absence_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read::<ExitRecord>(dir.path(), EXIT).unwrap().is_none());
        let exit = ExitRecord::new(3, "Error", "");
        write(dir.path(), EXIT, &exit).unwrap();
        assert_eq!(read::<ExitRecord>(dir.path(), EXIT).unwrap(), Some(exit));
        std::fs::write(dir.path().join(EXIT), b"{").unwrap();
        assert!(read::<ExitRecord>(dir.path(), EXIT).is_err());
    }
}
