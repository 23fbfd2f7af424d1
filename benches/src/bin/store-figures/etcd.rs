use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use etcd_client::Client;

use crate::process::Owned;

/// A single etcd with its default settings. Dropping it ends it.
pub(crate) struct Etcd {
    process: Owned,
    url: String,
    /// From its start to its first answer.
    pub(crate) start: Duration,
}

impl Etcd {
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (url, peer) = (free_url()?, free_url()?);
        let log = File::create(folder.join("log"))?;
        let began = Instant::now();
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--name", "figures"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("figures={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}: run `cargo xtask setup` once", program.display()))?;
        let mut etcd = Self {
            process: Owned(child),
            url,
            start: Duration::ZERO,
        };
        etcd.wait().await?;
        etcd.start = began.elapsed();
        Ok(etcd)
    }

    /// Connections of their own, as separate clients have them.
    pub(crate) async fn connect(&self, connections: usize) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(Client::connect([&self.url], None).await?);
        }
        Ok(clients)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits until it answers a read of all of its state.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(mut client) = Client::connect([&self.url], None).await
                && client.get("a", None).await.is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.process.0.try_wait()? {
                bail!("etcd ended with {status}");
            }
            if began.elapsed() > Duration::from_secs(120) {
                bail!("etcd does not answer");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn free_url() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("http://{}", listener.local_addr()?))
}
