//! What the container's first process does between `fork` and `execve`: its file system, its rights, its program.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{Gid, Uid, User, chdir, execve, pivot_root, setgid, setgroups, setsid, setuid};

use super::record::ContainerRecord;
use super::sys;
use crate::runtime::{Capabilities, SecurityContext};

/// Where the host's root is seen until the container's own file system is complete.
const HOST: &str = "/.orch-host";

/// Search path of programs when the pod sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities by number, as in `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container keeps by default. Container engines keep MKNOD as well and rely on a device filter, which this
/// runtime does not have.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// Parts of `/proc` that tell or change too much of the host.
const MASKED: [&str; 7] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/acpi",
    "/proc/scsi",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A step that failed, for the container's status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LaunchError(String);

impl From<String> for LaunchError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

type Result<T> = std::result::Result<T, LaunchError>;

fn at<E: std::fmt::Display>(step: impl std::fmt::Display) -> impl FnOnce(E) -> LaunchError {
    move |error| LaunchError(format!("{step}: {error}"))
}

/// Turns this process into the container's program. Returns only the reason why it could not.
pub(super) fn launch(record: &ContainerRecord, scratch: &Path) -> LaunchError {
    match prepare(record, scratch).and_then(|()| become_program(record)) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(record: &ContainerRecord, scratch: &Path) -> Result<()> {
    setsid().map_err(at("start a session"))?;
    join_cgroups(&record.cgroups)?;
    if let Some(adjustment) = record.config.resources.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", adjustment.to_string()).map_err(at("set oom_score_adj"))?;
    }
    for (path, flag) in &record.namespaces {
        let pin = File::open(path).map_err(at(format!("open {}", path.display())))?;
        setns(pin, CloneFlags::from_bits_truncate(*flag)).map_err(at(format!("enter {}", path.display())))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    build_root(record, scratch)
}

/// Moves this process into each of the groups.
pub(super) fn join_cgroups(dirs: &[PathBuf]) -> Result<()> {
    for dir in dirs {
        fs::write(dir.join("cgroup.procs"), "0").map_err(at(format!("join {}", dir.display())))?;
    }
    Ok(())
}

fn build_root(record: &ContainerRecord, scratch: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(at("create the mount namespace"))?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .map_err(at("make the mounts private"))?;
    let sources = canonical_sources(record)?;
    let shm = record
        .shm
        .as_ref()
        .map(|shm| fs::canonicalize(shm).map_err(at("find the pod's shm")))
        .transpose()?;
    mount_overlay(scratch, record.scratch_bytes)?;
    enter_root()?;
    let privileged = record.config.security_context.privileged;
    mount_kernel_file_systems(privileged)?;
    fill_dev(shm.as_deref(), privileged)?;
    write_hostname(record)?;
    for path in &record.hidden {
        hide(path)?;
    }
    for (source, target, readonly) in &sources {
        bind(source, target, *readonly)?;
    }
    if !privileged {
        mask_proc()?;
    }
    umount2(HOST, MntFlags::MNT_DETACH).map_err(at("let go of the host's root"))?;
    fs::remove_dir(HOST).map_err(at("remove the mount point of the host's root"))?;
    if record.config.security_context.readonly_rootfs {
        remount("/", MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

/// Resolves the sources' symbolic links while `/` is still the host's root: later they would lead elsewhere.
fn canonical_sources(record: &ContainerRecord) -> Result<Vec<(PathBuf, PathBuf, bool)>> {
    let mut sources = vec![(
        record.resolv_conf.clone(),
        PathBuf::from("/etc/resolv.conf"),
        false,
    )];
    let mounts = record.config.mounts.iter();
    sources.extend(mounts.map(|m| (m.host_path.clone(), m.container_path.clone(), m.readonly)));
    for (source, _, _) in &mut sources {
        *source = fs::canonicalize(&*source).map_err(at(format!("find {}", source.display())))?;
    }
    Ok(sources)
}

/// Lays a writable layer over the host's root.
///
/// The layer is in memory: overlayfs refuses an upper directory that lies below its lower one, and the lower one is `/`.
/// The tmpfs is mounted in this container's mount namespace, so that it ends with the container.
fn mount_overlay(scratch: &Path, bytes: Option<u64>) -> Result<()> {
    fs::create_dir_all(scratch).map_err(at("create the scratch directory"))?;
    let options = bytes.map_or("mode=755".to_owned(), |bytes| format!("mode=755,size={bytes}"));
    mount(
        Some("orch"),
        scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(at("mount the writable layer"))?;
    // Relative names: the state directory's own name may hold characters that the options cannot.
    chdir(scratch).map_err(at("enter the scratch directory"))?;
    for dir in ["upper", "work", "root"] {
        fs::create_dir(dir).map_err(at("create the writable layer"))?;
    }
    fs::set_permissions("upper", fs::Permissions::from_mode(0o755))
        .map_err(at("create the writable layer"))?;
    let options = "lowerdir=/,upperdir=upper,workdir=work";
    mount(
        Some("orch"),
        "root",
        Some("overlay"),
        MsFlags::empty(),
        Some(options),
    )
    .map_err(at("mount the root file system"))?;
    chdir("root").map_err(at("enter the root file system"))
}

fn enter_root() -> Result<()> {
    let old = HOST.trim_start_matches('/');
    fs::create_dir(old).map_err(at("create the mount point of the host's root"))?;
    pivot_root(".", old).map_err(at("change the root file system"))?;
    chdir("/").map_err(at("change the root file system"))
}

fn mount_kernel_file_systems(privileged: bool) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", "/proc", safe, None)?;
    mount_new(
        "sysfs",
        "/sys",
        if privileged {
            safe
        } else {
            safe | MsFlags::MS_RDONLY
        },
        None,
    )?;
    mount_new(
        "tmpfs",
        "/dev",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("mode=755,size=65536k"),
    )
}

fn mount_new(kind: &str, target: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(target).map_err(at(format!("create {target}")))?;
    mount(Some(kind), target, Some(kind), flags, options).map_err(at(format!("mount {target}")))
}

fn fill_dev(shm: Option<&Path>, privileged: bool) -> Result<()> {
    umask(Mode::empty());
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let path = Path::new("/dev").join(name);
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor))
            .map_err(at(format!("create {}", path.display())))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new(
        "devpts",
        "/dev/pts",
        safe,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    mount_new("mqueue", "/dev/mqueue", safe | MsFlags::MS_NODEV, None)?;
    match shm {
        Some(shm) => bind(shm, Path::new("/dev/shm"), false)?,
        None => mount_new(
            "tmpfs",
            "/dev/shm",
            safe | MsFlags::MS_NODEV,
            Some("mode=1777,size=65536k"),
        )?,
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        symlink(target, Path::new("/dev").join(name)).map_err(at(format!("create /dev/{name}")))?;
    }
    if privileged { add_host_devices() } else { Ok(()) }
}

/// Shows each device of the host's `/dev` to a privileged container.
fn add_host_devices() -> Result<()> {
    let host = Path::new(HOST).join("dev");
    let entries = fs::read_dir(&host).map_err(at("list the host's devices"))?;
    for entry in entries.filter_map(io::Result::ok) {
        use std::os::unix::fs::FileTypeExt;
        let target = Path::new("/dev").join(entry.file_name());
        let is_device = entry
            .file_type()
            .is_ok_and(|kind| kind.is_char_device() || kind.is_block_device());
        if is_device && !target.exists() {
            let source = Path::new("/dev").join(entry.file_name());
            bind(&source, &target, false)?;
        }
    }
    Ok(())
}

fn write_hostname(record: &ContainerRecord) -> Result<()> {
    match &record.hostname {
        Some(name) => fs::write("/etc/hostname", format!("{name}\n")).map_err(at("write /etc/hostname")),
        None => Ok(()),
    }
}

/// Shows a path of the host (as it was called there) at a path of the container, whose links are resolved in here.
fn bind(source: &Path, target: &Path, readonly: bool) -> Result<()> {
    let failed = format!("mount {} at {}", source.display(), target.display());
    let source = Path::new(HOST).join(source.strip_prefix("/").unwrap_or(source));
    make_target(&target.to_path_buf(), source.is_dir()).map_err(at(&failed))?;
    mount(
        Some(&source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(at(&failed))?;
    if readonly {
        remount(target, MsFlags::MS_RDONLY)
    } else {
        Ok(())
    }
}

fn make_target(target: &PathBuf, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // A link that leads nowhere in here, as /etc/resolv.conf often is, gives way to a file.
    if target.is_symlink() && !target.exists() {
        fs::remove_file(target)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(target)
        .map(drop)
}

fn remount(target: impl AsRef<Path>, flags: MsFlags) -> Result<()> {
    let target = target.as_ref();
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .map_err(at(format!("remount {}", target.display())))
}

/// Covers a directory or file of the host's root with nothing.
fn hide(path: &Path) -> Result<()> {
    let step = || format!("hide {}", path.display());
    if path.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        return mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=0,mode=755")).map_err(at(step()));
    }
    if path.exists() {
        return mount(
            Some("/dev/null"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(at(step()));
    }
    Ok(())
}

fn mask_proc() -> Result<()> {
    for path in MASKED {
        hide(Path::new(path))?;
    }
    for path in READ_ONLY.into_iter().filter(|path| Path::new(path).exists()) {
        mount(
            Some(path),
            path,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .map_err(at(format!("protect {path}")))?;
        remount(
            path,
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        )?;
    }
    Ok(())
}

/// Gives up what the program must not have and executes it.
fn become_program(record: &ContainerRecord) -> Result<std::convert::Infallible> {
    let config = &record.config;
    let dir = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    // A missing working directory is created; on a read-only root `chdir` then says what is wrong.
    if let Err(error) = fs::create_dir_all(dir)
        && !Path::new(dir).is_dir()
    {
        return Err(LaunchError(format!("create working directory {dir}: {error}")));
    }
    chdir(dir).map_err(at(format!("enter working directory {dir}")))?;
    let envs = environment(&config.envs, record.hostname.as_deref(), &config.security_context);
    let argv: Vec<&String> = config.command.iter().chain(&config.args).collect();
    drop_rights(&config.security_context)?;
    exec(&argv, &envs)
}

/// Executes a program by its arguments, found by the `PATH` of its environment.
pub(super) fn exec(argv: &[&String], envs: &[(String, String)]) -> Result<std::convert::Infallible> {
    let name = argv
        .first()
        .ok_or_else(|| LaunchError("no command specified".into()))?;
    let path = envs
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let program = find_program(name, path)?;
    let c_string = |text: &[u8]| CString::new(text).map_err(at("argument or variable with a zero byte"));
    let program = c_string(program.as_os_str().as_bytes())?;
    let argv = argv
        .iter()
        .map(|arg| c_string(arg.as_bytes()))
        .collect::<Result<Vec<_>>>()?;
    let envs = envs
        .iter()
        .map(|(key, value)| c_string(format!("{key}={value}").as_bytes()))
        .collect::<Result<Vec<_>>>()?;
    sys::reset_signals().map_err(at("reset the signals"))?;
    execve(&program, &argv, &envs).map_err(at(format!("exec: {name:?}")))
}

fn find_program(name: &str, path: &str) -> Result<PathBuf> {
    if name.contains('/') {
        let program = PathBuf::from(name);
        return match program.metadata() {
            Ok(_) => Ok(program),
            Err(_) => Err(LaunchError(format!(
                "exec: {name:?}: stat {name}: no such file or directory"
            ))),
        };
    }
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    path.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(is_program)
        .ok_or_else(|| LaunchError(format!("exec: {name:?}: executable file not found in $PATH")))
}

/// The program's variables: the defaults of a container, then the pod's.
pub(super) fn environment(
    envs: &[(String, String)],
    hostname: Option<&str>,
    security: &SecurityContext,
) -> Vec<(String, String)> {
    let mut all = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    if let Some(name) = hostname {
        all.push(("HOSTNAME".into(), name.into()));
    }
    let uid = security
        .run_as_user
        .and_then(|uid| u32::try_from(uid).ok())
        .unwrap_or(0);
    let home = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map(|user| user.dir);
    all.push((
        "HOME".into(),
        home.map_or("/".into(), |dir| dir.to_string_lossy().into_owned()),
    ));
    for (key, value) in envs {
        match all.iter_mut().find(|(known, _)| known == key) {
            Some(entry) => entry.1.clone_from(value),
            None => all.push((key.clone(), value.clone())),
        }
    }
    all
}

/// Becomes the container's user with the capabilities it may have.
pub(super) fn drop_rights(security: &SecurityContext) -> Result<()> {
    if !security.privileged {
        limit_capabilities(&security.capabilities)?;
    }
    let id = |value: i64| u32::try_from(value).map_err(at("user or group id"));
    let uid = id(security.run_as_user.unwrap_or(0))?;
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let gid = match security.run_as_group {
        Some(gid) => id(gid)?,
        None => user.map_or(0, |user| user.gid.as_raw()),
    };
    let groups = security
        .supplemental_groups
        .iter()
        .map(|gid| id(*gid).map(Gid::from_raw))
        .collect::<Result<Vec<_>>>()?;
    setgroups(&groups).map_err(at("set the groups"))?;
    setgid(Gid::from_raw(gid)).map_err(at(format!("become group {gid}")))?;
    setuid(Uid::from_raw(uid)).map_err(at(format!("become user {uid}")))?;
    if security.no_new_privs {
        prctl::set_no_new_privs().map_err(at("set no_new_privs"))?;
    }
    // After setuid, which clears it: the program ends with the process that watches it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(at("set the parent death signal"))
}

/// Drops from the bounding set what the container may not have; `execve` derives the rest from it.
fn limit_capabilities(changes: &Capabilities) -> Result<()> {
    let kept = kept_capabilities(changes);
    for number in 0..64 {
        let keep = CAPABILITIES
            .get(number as usize)
            .is_some_and(|name| kept.contains(name));
        if keep {
            continue;
        }
        match sys::drop_bounding_capability(number) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Errno::EPERM) => return Err(LaunchError("drop capabilities: CAP_SETPCAP is missing".into())),
            Err(errno) => return Err(LaunchError(format!("drop capabilities: {errno}"))),
        }
    }
    Ok(())
}

fn kept_capabilities(changes: &Capabilities) -> Vec<&'static str> {
    let named = |list: &[String], name: &str| {
        list.iter().any(|entry| {
            let entry = entry.to_ascii_uppercase();
            entry == "ALL" || entry.strip_prefix("CAP_").unwrap_or(&entry) == name
        })
    };
    let default = |name: &str| DEFAULT_CAPABILITIES.contains(&name) && !named(&changes.drop, name);
    // A name that is added wins over `drop: [ALL]`; one that is dropped by name wins over `add: [ALL]`.
    let explicitly = |list: &[String], name: &str| {
        list.iter().any(|entry| {
            let entry = entry.to_ascii_uppercase();
            entry.strip_prefix("CAP_").unwrap_or(&entry) == name
        })
    };
    let keep = |name: &&&str| {
        explicitly(&changes.add, name)
            || default(name)
            || (named(&changes.add, name) && !explicitly(&changes.drop, name))
    };
    CAPABILITIES.iter().filter(keep).copied().collect()
}

/// Whether every name in the list is a capability.
pub(super) fn unknown_capability(changes: &Capabilities) -> Option<&String> {
    changes.add.iter().chain(&changes.drop).find(|entry| {
        let entry = entry.to_ascii_uppercase();
        entry != "ALL" && !CAPABILITIES.contains(&entry.strip_prefix("CAP_").unwrap_or(&entry))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        kept_capabilities(&Capabilities {
            add: owned(add),
            drop: owned(drop),
        })
    }

    #[test]
    fn capabilities_are_the_defaults_with_the_changes() {
        assert_eq!(kept(&[], &[]).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(kept(&["NET_ADMIN"], &["ALL"]), ["NET_ADMIN"]);
        assert!(
            kept(&["ALL"], &["SYS_ADMIN"])
                .iter()
                .all(|name| *name != "SYS_ADMIN")
        );
        assert_eq!(kept(&["ALL"], &[]).len(), CAPABILITIES.len());
        assert!(!kept(&[], &["CAP_CHOWN"]).contains(&"CHOWN"));
        assert!(!kept(&[], &[]).contains(&"MKNOD"));
    }

    #[test]
    fn unknown_capabilities_are_found() {
        let changes = Capabilities {
            add: vec!["cap_net_admin".into(), "FLY".into()],
            drop: vec!["ALL".into()],
        };
        assert_eq!(unknown_capability(&changes).map(String::as_str), Some("FLY"));
    }

    #[test]
    fn the_pods_variables_replace_the_defaults() {
        let envs = [
            ("PATH".to_owned(), "/x".to_owned()),
            ("A".to_owned(), "1".to_owned()),
        ];
        let all = environment(&envs, Some("web"), &SecurityContext::default());
        assert_eq!(all[0], ("PATH".into(), "/x".into()));
        assert_eq!(all[1], ("HOSTNAME".into(), "web".into()));
        assert_eq!(all[3], ("A".into(), "1".into()));
    }

    #[test]
    fn a_missing_program_is_reported_as_container_engines_do() {
        let error = find_program("no-such-program", "/bin:/usr/bin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "exec: \"no-such-program\": executable file not found in $PATH"
        );
        assert!(find_program("sh", "/bin").is_ok());
    }
}
