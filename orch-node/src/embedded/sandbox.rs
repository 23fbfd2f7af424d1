//! Pod sandboxes: made, stopped, removed and found again.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;

use super::network::{Attachment, bring_up_loopback, short_hash};
use super::record::{self, RECORD, SandboxRecord};
use super::{Inner, namespaces, new_id};
use crate::runtime::{
    DnsConfig, NamespaceMode, PodSandbox, PodSandboxConfig, PodSandboxState, Result, RuntimeError, SandboxId,
};

impl SandboxRecord {
    pub(super) fn listed(&self, id: &SandboxId) -> PodSandbox {
        PodSandbox {
            id: id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

/// The host's end of a sandbox's veth pair.
fn veth_of(id: &SandboxId) -> String {
    format!("veth{}", short_hash(id.as_str().as_bytes()))
}

impl Inner {
    pub(super) fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.dir.join("sandboxes").join(id.as_str())
    }

    /// The parent control group of a pod's containers.
    pub(super) fn pod_cgroup(&self, id: &SandboxId, config: &PodSandboxConfig) -> PathBuf {
        if config.cgroup_parent.is_empty() {
            self.cgroup_base.join(id.as_str())
        } else {
            self.cgroup_base
                .join(config.cgroup_parent.trim_start_matches('/'))
        }
    }

    pub(super) async fn run_sandbox(&self, config: &PodSandboxConfig) -> Result<SandboxId> {
        check(config)?;
        let id = SandboxId::from(new_id());
        let attachment = if config.has_own_network() {
            Some(self.allocate()?)
        } else {
            None
        };
        let mut record = SandboxRecord {
            config: config.clone(),
            state: PodSandboxState::NotReady,
            created_at: Timestamp::now(),
            boot_id: self.boot_id.clone(),
            ip: attachment.map(|attachment| attachment.address),
        };
        // In the list before anything is made, so that nothing can be left over unseen.
        self.state.lock().sandboxes.insert(id.clone(), record.clone());
        match self.set_up(&id, &record, attachment).await {
            Ok(()) => {
                record.state = PodSandboxState::Ready;
                self.save(&id, &record)?;
                self.state.lock().sandboxes.insert(id.clone(), record);
                Ok(id)
            }
            Err(error) => {
                self.remove_sandbox(&id).await?;
                Err(error)
            }
        }
    }

    async fn set_up(
        &self,
        id: &SandboxId,
        record: &SandboxRecord,
        attachment: Option<Attachment>,
    ) -> Result<()> {
        let dir = self.sandbox_dir(id);
        fs::create_dir(&dir).map_err(RuntimeError::io(format!("create {}", dir.display())))?;
        self.save(id, record)?;
        let resolv_conf = resolv_conf(record.config.dns_config.as_ref());
        fs::write(dir.join("resolv.conf"), resolv_conf).map_err(RuntimeError::io("write resolv.conf"))?;
        if record.config.ipc == NamespaceMode::Pod {
            namespaces::mount_shm(&dir)?;
        }
        let made = namespaces::create(dir, record.config.clone()).await?;
        let (Some(netns), Some((inside, connection)), Some(attachment)) =
            (made.netns, made.inside, attachment)
        else {
            return Ok(());
        };
        let veth = veth_of(id);
        let configure = async {
            bring_up_loopback(&inside).await?;
            self.network.attach(&veth, &netns, &inside, attachment).await
        };
        tokio::select! {
            result = configure => result,
            () = connection => Err(RuntimeError::Network("the connection to the pod's namespace ended".into())),
        }
    }

    fn save(&self, id: &SandboxId, record: &SandboxRecord) -> Result<()> {
        record::write(&self.sandbox_dir(id), RECORD, record).map_err(RuntimeError::io("save the sandbox"))
    }

    fn allocate(&self) -> Result<Attachment> {
        let mut state = self.state.lock();
        let pool = state
            .pool
            .as_mut()
            .ok_or_else(|| RuntimeError::Network("the node has no pod CIDR yet".into()))?;
        let free = pool
            .allocate()
            .ok_or_else(|| RuntimeError::Network("no free address in the pod CIDR".into()))?;
        Ok(Attachment {
            address: free,
            gateway: pool.gateway(),
            prefix: pool.prefix(),
        })
    }

    fn release(&self, address: Option<IpAddr>) {
        if let (Some(pool), Some(address)) = (self.state.lock().pool.as_mut(), address) {
            pool.release(address);
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(mut record) = self.state.lock().sandboxes.get(id).cloned() else {
            return Ok(());
        };
        let containers = self.containers_in(id);
        let stops = containers
            .iter()
            .map(|container| self.stop_container(container, std::time::Duration::ZERO));
        futures::future::try_join_all(stops).await?;
        if record.state == PodSandboxState::NotReady && record.ip.is_none() {
            return Ok(());
        }
        self.tear_down(id, &record).await?;
        let address = record.ip.take();
        record.state = PodSandboxState::NotReady;
        self.save(id, &record)?;
        self.state.lock().sandboxes.insert(id.clone(), record);
        self.release(address);
        Ok(())
    }

    /// Gives back what a sandbox holds in the kernel. It may hold any part of it, or nothing.
    async fn tear_down(&self, id: &SandboxId, record: &SandboxRecord) -> Result<()> {
        if record.config.has_own_network() {
            self.network.detach(&veth_of(id)).await?;
        }
        namespaces::unpin(&self.sandbox_dir(id))
    }

    pub(super) async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(record) = self.state.lock().sandboxes.get(id).cloned() else {
            return Ok(());
        };
        for container in self.containers_in(id) {
            self.remove_container(&container).await?;
        }
        self.tear_down(id, &record).await?;
        self.remove_pod_cgroup(id, &record.config);
        self.discard("sandboxes", id.as_str())?;
        self.state.lock().sandboxes.remove(id);
        self.release(record.ip);
        Ok(())
    }

    /// Removes the pod's control group and those above it that are empty.
    fn remove_pod_cgroup(&self, id: &SandboxId, config: &PodSandboxConfig) {
        let mut path = self.pod_cgroup(id, config);
        while path.starts_with(&self.cgroup_base) {
            for dir in self.cgroups.directories(&path) {
                // Another sandbox's group may be in it: then it stays.
                if let Err(error) = fs::remove_dir(&dir) {
                    tracing::trace!(dir = %dir.display(), %error, "control group stays");
                }
            }
            if !path.pop() {
                return;
            }
        }
    }

    /// Finds the sandboxes of earlier processes. The living come first: the bridge goes with the last pod that is known to
    /// be on it, so none may be taken off before all of those are known.
    pub(super) async fn adopt_sandboxes(&self) -> Result<()> {
        let root = self.dir.join("sandboxes");
        let entries = fs::read_dir(&root).map_err(RuntimeError::io("list the sandboxes"))?;
        let mut ended = Vec::new();
        for entry in entries {
            let entry = entry.map_err(RuntimeError::io("list the sandboxes"))?;
            let id = SandboxId::from(entry.file_name().to_string_lossy().into_owned());
            match record::read::<SandboxRecord>(&entry.path(), RECORD) {
                Ok(Some(record)) if self.is_alive(&id, &record) => {
                    if record.config.has_own_network() {
                        self.network.adopt(&veth_of(&id)).await;
                    }
                    self.state.lock().sandboxes.insert(id, record);
                }
                found => ended.push((id, found)),
            }
        }
        for (id, found) in ended {
            match found {
                Ok(Some(record)) => self.adopt_ended(id, record).await?,
                // Nothing is made before the record is written, so there is nothing else to give back.
                Ok(None) => self.discard("sandboxes", id.as_str())?,
                Err(error) => {
                    tracing::warn!(sandbox = %id, %error, "unreadable sandbox is removed");
                    self.network.detach(&veth_of(&id)).await?;
                    namespaces::unpin(&self.sandbox_dir(&id))?;
                    self.discard("sandboxes", id.as_str())?;
                }
            }
        }
        Ok(())
    }

    fn is_alive(&self, id: &SandboxId, record: &SandboxRecord) -> bool {
        record.state == PodSandboxState::Ready
            && record.boot_id == self.boot_id
            && namespaces::are_pinned(&self.sandbox_dir(id), &record.config)
    }

    async fn adopt_ended(&self, id: SandboxId, mut record: SandboxRecord) -> Result<()> {
        self.tear_down(&id, &record).await?;
        record.state = PodSandboxState::NotReady;
        record.ip = None;
        self.save(&id, &record)?;
        self.state.lock().sandboxes.insert(id, record);
        Ok(())
    }
}

/// Refuses what this runtime does not do.
fn check(config: &PodSandboxConfig) -> Result<()> {
    let refused = match (config.pid, config.network) {
        (NamespaceMode::Pod, _) => Some("shareProcessNamespace"),
        (NamespaceMode::Node, _) => Some("hostPID"),
        (NamespaceMode::Container, NamespaceMode::Container) => {
            Some("a network namespace for each container")
        }
        (NamespaceMode::Container, _) => None,
    };
    match refused {
        Some(what) => Err(RuntimeError::Unsupported(format!(
            "{what} is not built into the embedded runtime yet"
        ))),
        None if config.cgroup_parent.split('/').any(|part| part == "..") => Err(RuntimeError::Config(
            format!("invalid cgroup parent {:?}", config.cgroup_parent),
        )),
        None => Ok(()),
    }
}

fn resolv_conf(dns: Option<&DnsConfig>) -> String {
    let Some(dns) = dns else {
        return fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_settings_become_resolv_conf() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let expected =
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(Some(&dns)), expected);
    }

    #[test]
    fn what_is_not_built_is_refused() {
        let config = PodSandboxConfig {
            pid: NamespaceMode::Node,
            ..PodSandboxConfig::default()
        };
        assert!(check(&config).unwrap_err().to_string().contains("hostPID"));
        let container = NamespaceMode::Container;
        assert!(
            check(&PodSandboxConfig {
                pid: container,
                ..PodSandboxConfig::default()
            })
            .is_ok()
        );
    }
}
