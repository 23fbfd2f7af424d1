//! A pod's namespaces: made by a thread that ends, kept alive by bind mounts of their files.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::statfs;
use rtnetlink::Handle;
use tokio::sync::oneshot;

use crate::runtime::{NamespaceMode, PodSandboxConfig, Result, RuntimeError};

/// The file system of namespace files.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// File name of a pin, name in `/proc/self/ns` and the flag that makes one.
const KINDS: [(&str, &str, CloneFlags); 3] = [
    ("netns", "net", CloneFlags::CLONE_NEWNET),
    ("ipcns", "ipc", CloneFlags::CLONE_NEWIPC),
    ("utsns", "uts", CloneFlags::CLONE_NEWUTS),
];

/// A connection to the kernel from inside a new network namespace. It works while its task is driven.
pub(super) struct NewNamespaces {
    pub(super) netns: Option<OwnedFd>,
    pub(super) inside: Option<(Handle, futures::future::BoxFuture<'static, ()>)>,
}

/// The namespaces that a pod has of its own.
pub(super) fn flags(config: &PodSandboxConfig) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    if config.network == NamespaceMode::Pod {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if config.ipc == NamespaceMode::Pod {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    flags
}

/// The pins in a sandbox's directory with their flags, for `setns`.
pub(super) fn pins(dir: &Path, config: &PodSandboxConfig) -> Vec<(PathBuf, i32)> {
    let own = flags(config);
    let kinds = KINDS.iter().filter(|(_, _, flag)| own.contains(*flag));
    kinds
        .map(|(file, _, flag)| (dir.join(file), flag.bits()))
        .collect()
}

/// Whether each pin still holds a namespace; after a reboot the files are there and empty.
pub(super) fn are_pinned(dir: &Path, config: &PodSandboxConfig) -> bool {
    pins(dir, config)
        .iter()
        .all(|(path, _)| statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == NSFS_MAGIC))
}

/// Makes and pins a pod's namespaces.
pub(super) async fn create(dir: PathBuf, config: PodSandboxConfig) -> Result<NewNamespaces> {
    let (sender, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    // A thread of its own, since entering a namespace cannot be undone for the threads of a pool.
    std::thread::Builder::new()
        .name("orch-sandbox".into())
        .spawn(move || {
            let _context = runtime.enter();
            // The receiver is gone only when the caller was cancelled: then the pins are found at the next start.
            drop(sender.send(unshare_and_pin(&dir, &config)));
        })
        .map_err(RuntimeError::io("start a thread"))?;
    receiver
        .await
        .map_err(|_| RuntimeError::State("the sandbox's thread ended early".into()))?
}

fn unshare_and_pin(dir: &Path, config: &PodSandboxConfig) -> Result<NewNamespaces> {
    let own = flags(config);
    unshare(own).map_err(RuntimeError::errno("create the pod's namespaces"))?;
    if own.contains(CloneFlags::CLONE_NEWUTS) {
        nix::unistd::sethostname(&config.hostname).map_err(RuntimeError::errno("set the pod's host name"))?;
    }
    for (key, value) in &config.sysctls {
        set_sysctl(key, value, own)?;
    }
    let task = PathBuf::from("/proc/thread-self/ns");
    for (file, name, _) in KINDS.iter().filter(|(_, _, flag)| own.contains(*flag)) {
        let pin = dir.join(file);
        File::create(&pin).map_err(RuntimeError::io(format!("create {}", pin.display())))?;
        mount(
            Some(&task.join(name)),
            &pin,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(RuntimeError::errno(format!(
            "pin a namespace at {}",
            pin.display()
        )))?;
    }
    if !own.contains(CloneFlags::CLONE_NEWNET) {
        return Ok(NewNamespaces {
            netns: None,
            inside: None,
        });
    }
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(RuntimeError::io("open a netlink socket"))?;
    let netns = File::open(dir.join("netns")).map_err(RuntimeError::io("open the network namespace"))?;
    Ok(NewNamespaces {
        netns: Some(netns.into()),
        inside: Some((handle, Box::pin(connection))),
    })
}

/// Sets a kernel setting of the new namespaces; one that belongs to the whole node is refused.
fn set_sysctl(key: &str, value: &str, own: CloneFlags) -> Result<()> {
    let namespaced = if key.starts_with("net.") {
        own.contains(CloneFlags::CLONE_NEWNET)
    } else {
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
        ipc.iter().any(|prefix| key.starts_with(prefix)) && own.contains(CloneFlags::CLONE_NEWIPC)
    };
    if !namespaced || key.contains("..") || key.contains('/') {
        return Err(RuntimeError::Config(format!(
            "sysctl {key:?} is not namespaced in this pod"
        )));
    }
    let file = Path::new("/proc/sys").join(key.replace('.', "/"));
    std::fs::write(&file, value).map_err(RuntimeError::io(format!("set sysctl {key}={value}")))
}

/// Mounts the memory that the pod's containers share as `/dev/shm`.
pub(super) fn mount_shm(dir: &Path) -> Result<()> {
    let shm = dir.join("shm");
    std::fs::create_dir_all(&shm).map_err(RuntimeError::io("create the pod's shm"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("shm"),
        &shm,
        Some("tmpfs"),
        flags,
        Some("mode=1777,size=67108864"),
    )
    .map_err(RuntimeError::errno("mount the pod's shm"))
}

/// Unmounts all pins of a sandbox; absent ones are no error.
pub(super) fn unpin(dir: &Path) -> Result<()> {
    for name in KINDS.iter().map(|(file, _, _)| *file).chain(["shm"]) {
        unmount(&dir.join(name))?;
    }
    Ok(())
}

fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(RuntimeError::errno(format!("unmount {}", path.display()))(errno)),
        }
    }
}
