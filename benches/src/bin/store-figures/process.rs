use std::fs;
use std::process::Child;

use anyhow::Context;

/// A child process that does not outlive this value.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Either fails only when the process has ended and been waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All that is resident, pages of mapped files too, in MB (10^6 bytes).
    pub(crate) resident: f64,
    /// Without the pages of files, which the kernel can take back.
    pub(crate) anonymous: f64,
}

pub(crate) fn memory(id: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let text = line.with_context(|| format!("no {name} in the status"))?;
        let kib: f64 = text.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        anonymous: field("RssAnon:")?,
    })
}

/// How much this process has read from disks, in MB, beside what was in the page cache.
pub(crate) fn read_from_disk() -> anyhow::Result<f64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes:"));
    let bytes: f64 = line.context("no read_bytes")?.trim().parse()?;
    Ok(bytes / 1e6)
}
