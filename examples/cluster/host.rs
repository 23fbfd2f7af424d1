//! What this machine is, and may do.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether this process may make namespaces and links.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The host's name as a Node's name: upstream wants lower case.
pub(crate) fn name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname()?
        .to_string_lossy()
        .trim()
        .to_lowercase();
    anyhow::ensure!(
        !name.is_empty(),
        "this machine has no host name: give one with --node-name"
    );
    Ok(name)
}

/// The address by which others reach this machine: that of the default route, loopback without one. No packet is sent.
pub(crate) fn address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // An address for documentation (RFC 5737): connecting a datagram socket only looks up the route.
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The signals by which somebody asks the program to stop: Ctrl-C's SIGINT, and SIGTERM.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes the signals: from now on they no longer end the process by themselves.
    pub(crate) fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Ends when one of them comes, or came since [`StopSignals::install`].
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
