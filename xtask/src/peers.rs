//! The real peers that the tests talk to, installed from Debian's packages.
//!
//! Programs which the system must know go through `apt-get install`. The kubectls and etcds are only unpacked, below
//! `target/peers`, so that whatever kubectl a machine has stays as it is, no etcd is started as a service, and the tests
//! name theirs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run::{as_root, command, found, target};

/// What tests and builds need, by the name of a program or the path of a file, and the Debian package that brings it.
const SYSTEM: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
    ("protoc", "protobuf-compiler"),
    ("/usr/include/google/protobuf/descriptor.proto", "libprotobuf-dev"),
    ("strace", "strace"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
];

const SID: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n";
const STABLE: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n";

/// A program that is unpacked from a package of a suite which the system's own apt need not know.
struct Unpacked {
    /// What it is called below `target/peers`.
    name: &'static str,
    source: &'static str,
    package: &'static str,
    /// Where it is in the package.
    path: &'static str,
}

const fn unpacked(
    name: &'static str,
    source: &'static str,
    package: &'static str,
    path: &'static str,
) -> Unpacked {
    Unpacked {
        name,
        source,
        package,
        path,
    }
}

const UNPACKED: &[Unpacked] = &[
    unpacked("kubectl-debian", STABLE, "kubernetes-client", "usr/bin/kubectl"),
    unpacked("kubectl-current", SID, "kubectl", "usr/bin/kubectl"),
    unpacked("etcd-debian", STABLE, "etcd-server", "usr/bin/etcd"),
    unpacked("etcd-current", SID, "etcd-server", "usr/bin/etcd"),
    unpacked("etcdctl-debian", STABLE, "etcd-client", "usr/bin/etcdctl"),
];

/// Installs whatever is missing; a second call does nothing.
pub(crate) fn install() -> anyhow::Result<()> {
    system()?;
    for peer in UNPACKED {
        unpack(peer)?;
    }
    python()?;
    if !found_in_cargo("cargo-deny") {
        command("cargo", &["install", "--locked", "--quiet", "cargo-deny"])?;
    }
    Ok(())
}

fn system() -> anyhow::Result<()> {
    let missing: Vec<&str> = SYSTEM
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !found("apt-get") {
        bail!(
            "no apt-get here: install {} by hand, then run this again",
            missing.join(", ")
        );
    }
    as_root("apt-get", &["update", "-q"])?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    as_root("apt-get", &arguments)
}

/// The Python client of Kubernetes, in a folder of its own.
const PYTHON_CLIENT: &str = "kubernetes==37.0.2";

fn python() -> anyhow::Result<()> {
    let folder = target().join("peers").join("python");
    if folder.join("kubernetes").is_dir() {
        return Ok(());
    }
    let folder = text(&folder)?;
    let quiet = [
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
    ];
    let install = ["-m", "pip", "install", "--target", folder, PYTHON_CLIENT];
    command("python3", &[&install[..], &quiet].concat())
}

/// Unpacks one program to `target/peers/NAME`.
fn unpack(peer: &Unpacked) -> anyhow::Result<()> {
    let (name, package) = (peer.name, peer.package);
    let program = target().join("peers").join(name);
    if program.is_file() {
        return Ok(());
    }
    let work = target().join("peers").join(format!("{name}.work"));
    for folder in ["lists/partial", "cache/archives/partial", "unpacked"] {
        fs::create_dir_all(work.join(folder))?;
    }
    fs::write(work.join("sources.list"), peer.source)?;
    let archive = download(&work, package)?;
    command(
        "dpkg-deb",
        &["-x", text(&archive)?, text(&work.join("unpacked"))?],
    )?;
    fs::copy(work.join("unpacked").join(peer.path), &program)
        .with_context(|| format!("package {package} holds no {}", peer.path))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Downloads a package's archive with an apt state of its own, so that nothing of the system changes.
fn download(work: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let options = [
        format!("Dir::Etc::SourceList={}", text(&work.join("sources.list"))?),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", text(&work.join("lists"))?),
        "Dir::State::status=/dev/null".to_owned(),
        format!("Dir::Cache={}", text(&work.join("cache"))?),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let with = |tail: &[&str]| -> Vec<String> {
        options
            .iter()
            .flat_map(|option| ["-o".to_owned(), option.clone()])
            .chain(tail.iter().map(|word| (*word).to_owned()))
            .collect()
    };
    apt(&with(&["-q", "update"]))?;
    // `install --download-only` would follow dependencies; these programs need only the C library.
    let output = std::process::Command::new("apt-get")
        .args(with(&["-q", "download", package]))
        .current_dir(work)
        .status()
        .context("cannot start apt-get")?;
    if !output.success() {
        bail!("apt-get could not download {package}");
    }
    fs::read_dir(work)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no archive of {package}"))
}

fn apt(arguments: &[String]) -> anyhow::Result<()> {
    command(
        "apt-get",
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

fn found_in_cargo(program: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    found(program) || home.is_some_and(|home| home.join("bin").join(program).is_file())
}
