//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use orch_core::ipam::Cidr;

/// A whole Kubernetes cluster in one process: API server, controllers, scheduler, node agent and service proxy.
///
/// Needs nothing installed. Prints how to reach it with kubectl; Ctrl-C stops it, and the next start goes on where
/// it was. As root it runs pods and serves ClusterIPs; without root it says what it leaves out and runs the rest.
#[derive(Clone, Debug, Parser)]
#[command(name = "cluster", version)]
pub(crate) struct Options {
    /// Where everything that must survive is kept: objects, certificates, pod state
    #[arg(long, global = true, default_value = "orch-data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    /// Where the API server listens (HTTPS)
    #[arg(
        long,
        global = true,
        default_value = "127.0.0.1:6443",
        value_name = "ADDRESS:PORT"
    )]
    pub(crate) bind: SocketAddr,

    /// Where to write the administrator's kubeconfig (mode 0600) [default: DATA_DIR/kubeconfig]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Name of this machine's Node [default: the host name]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) node_name: Option<String>,

    /// Addresses for Services (ClusterIPs); without root below 127.0.0.0/8
    #[arg(long, global = true, value_name = "CIDR")]
    pub(crate) service_cidr: Option<Cidr>,

    /// Addresses for pods; each node gets a /24 of it
    #[arg(long, global = true, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub(crate) pod_cidr: Cidr,

    /// What runs the containers
    #[arg(long, global = true, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub(crate) runtime: RuntimeChoice,

    /// What carries packets from ClusterIPs to pods
    #[arg(long, global = true, value_enum, default_value_t = ProxyChoice::Auto)]
    pub(crate) proxy: ProxyChoice,

    /// Where objects are kept
    #[arg(long, global = true, value_enum, default_value_t = StoreChoice::Embedded)]
    pub(crate) store: StoreChoice,

    #[command(flatten)]
    pub(crate) etcd: EtcdFlags,

    /// Further nodes whose containers only pretend to run, for trying out large clusters
    #[arg(long, global = true, default_value_t = 0, value_name = "COUNT")]
    pub(crate) hollow_nodes: u32,

    /// What to log: error, warn, info, debug, trace, or directives such as `orch_api=debug,info`
    #[arg(
        long,
        global = true,
        default_value = "warn",
        env = "ORCH_LOG",
        value_name = "LEVEL"
    )]
    pub(crate) log_level: String,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Also roll out examples/manifests/web.yaml, and show which pod answers behind its ClusterIP
    Demo {
        /// Stop after the demo; the status is 0 only if every step worked
        #[arg(long)]
        exit: bool,
    },
    /// Stop the pods and remove the links and rules that a killed cluster left behind; objects stay
    Clean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// The embedded runtime as root, none otherwise
    Auto,
    /// Namespaces and cgroups, no daemon; image orch.local/host is this machine's own file system, copy on write
    Embedded,
    /// Containers that only pretend to run
    Fake,
    /// No node agent
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProxyChoice {
    /// nftables when this machine can, else userspace
    Auto,
    /// Rules in the kernel, through the `nft` program
    Nftables,
    /// A relay in this process
    Userspace,
    /// No service proxy
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    /// Durable, below DATA_DIR/store
    Embedded,
    /// In memory: everything is gone when the process ends
    Memory,
    /// On the etcd cluster that the --etcd-... flags name; needs a build with `--features etcd`
    Etcd,
}

/// How to reach etcd. The flags are those of kube-apiserver.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EtcdFlags {
    /// With --store etcd: client URLs of its members, separated by commas [default: http://127.0.0.1:2379]
    #[arg(long, global = true, value_delimiter = ',', value_name = "URLS")]
    etcd_servers: Vec<String>,

    /// With --store etcd: certificate of the authority that certifies its members (PEM), for https
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,

    /// With --store etcd: certificate to show to its members (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,

    /// With --store etcd: private key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
}

impl EtcdFlags {
    /// The members' client URLs.
    pub(crate) fn servers(&self) -> Vec<String> {
        if self.etcd_servers.is_empty() {
            return vec!["http://127.0.0.1:2379".to_owned()];
        }
        self.etcd_servers.clone()
    }

    /// Whether any of them was given.
    pub(crate) fn are_given(&self) -> bool {
        !self.etcd_servers.is_empty() || self.etcd_cafile.is_some() || self.etcd_certfile.is_some()
    }
}

impl Options {
    /// The kubeconfig's path.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig
            .clone()
            .unwrap_or_else(|| self.data_dir.join("kubeconfig"))
    }
}
