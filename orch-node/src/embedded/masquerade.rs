//! Address translation for pods that talk to hosts outside: one nftables table of the runtime's own, named like its bridge.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::runtime::{Result, RuntimeError};

/// The table and the file that says that there may be one.
#[derive(Debug)]
pub(super) struct Masquerade {
    enabled: bool,
    program: &'static str,
    bridge: String,
    /// Exists whenever the table may, so that a later process finds it, also one that does not want it.
    marker: PathBuf,
}

impl Masquerade {
    pub(super) fn new(enabled: bool, bridge: String, marker: PathBuf) -> Self {
        Self {
            enabled,
            program: "nft",
            bridge,
            marker,
        }
    }

    /// Makes sure that the table can be made, or that none is left which is not wanted any more.
    pub(super) async fn prepare(&self) -> Result<()> {
        if !self.enabled {
            return self.remove().await;
        }
        self.nft(&["--check", "-f", "-"], &self.script(None)).await
    }

    /// Adds a pod CIDR. Those of earlier processes stay: their pods may live.
    pub(super) async fn add(&self, gateway: IpAddr, prefix: u8) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        std::fs::write(&self.marker, "").map_err(RuntimeError::io("note the nftables table"))?;
        self.nft(&["-f", "-"], &self.script(Some((gateway, prefix))))
            .await
    }

    /// Removes the table if there may be one.
    pub(super) async fn remove(&self) -> Result<()> {
        if !self.marker.exists() {
            return Ok(());
        }
        let table = &self.bridge;
        // Added first, since an absent one cannot be deleted.
        let script = format!("add table inet {table}\ndelete table inet {table}\n");
        self.nft(&["-f", "-"], &script).await?;
        match std::fs::remove_file(&self.marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::io("note that the nftables table is gone")(error))
            }
            _ => Ok(()),
        }
    }

    /// One transaction, which changes nothing that is there already.
    fn script(&self, cidr: Option<(IpAddr, u8)>) -> String {
        let table = &self.bridge;
        let mut script = format!(
            "add table inet {table}\n\
             add set inet {table} pods4 {{ type ipv4_addr; flags interval; auto-merge; }}\n\
             add set inet {table} pods6 {{ type ipv6_addr; flags interval; auto-merge; }}\n\
             add chain inet {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}\n\
             flush chain inet {table} postrouting\n\
             add rule inet {table} postrouting ip saddr @pods4 oifname != \"{table}\" masquerade\n\
             add rule inet {table} postrouting ip6 saddr @pods6 oifname != \"{table}\" masquerade\n"
        );
        if let Some((gateway, prefix)) = cidr {
            let set = if gateway.is_ipv4() { "pods4" } else { "pods6" };
            script.push_str(&format!(
                "add element inet {table} {set} {{ {gateway}/{prefix} }}\n"
            ));
        }
        script
    }

    /// Runs nft with a script on its standard input.
    async fn nft(&self, args: &[&str], script: &str) -> Result<()> {
        let refused = |why: String| {
            RuntimeError::Unavailable(format!(
                "masquerading needs the nft program (package nftables) and a kernel with nftables: {why}"
            ))
        };
        let started = Command::new(self.program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = started.map_err(|error| refused(format!("start {}: {error}", self.program)))?;
        // A program that ends before it read its input says why on its standard error.
        let fed = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(script.as_bytes()).await,
            None => Ok(()),
        };
        let output = child.wait_with_output().await;
        let output = output.map_err(|error| refused(format!("wait for nft: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(refused(format!("nft: {said}")));
        }
        fed.map_err(|error| refused(format!("write to nft: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_nft_it_is_refused_and_nothing_is_needed_when_off() {
        let dir = tempfile::tempdir().unwrap();
        let with = |enabled| Masquerade {
            enabled,
            program: "/no/such/nft",
            bridge: "orchtest".into(),
            marker: dir.path().join("masquerade"),
        };
        let error = with(true).prepare().await.unwrap_err().to_string();
        assert!(
            error.contains("needs the nft program") && error.contains("/no/such/nft"),
            "{error}"
        );
        let off = with(false);
        off.prepare().await.unwrap();
        off.add("10.0.0.1".parse().unwrap(), 24).await.unwrap();
        off.remove().await.unwrap();
        assert!(!off.marker.exists());
        // A process before this one made a table: it is not left behind in silence.
        std::fs::write(&off.marker, "").unwrap();
        assert!(off.prepare().await.is_err());
    }
}
