//! Containers: created, started, stopped, removed and found again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::exec::ExecRequest;
use super::record::{self, CONFIG, ContainerRecord, EXIT, ExitRecord, LOCK, ProcessRecord, SHIM, STATE};
use super::shim::Report;
use super::{Inner, cgroup, init, launch, namespaces, new_id, sys};
use crate::runtime::{
    Container, ContainerConfig, ContainerEventType, ContainerFilter, ContainerId, ContainerState,
    ContainerStatus, ExecSyncResponse, NamespaceMode, PodSandboxState, Result, RuntimeError, SandboxId,
};

/// How long a killed program may take to vanish.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Output of a command that is kept.
const MAX_OUTPUT: u64 = 16 << 20;

/// A container in memory.
#[derive(Debug)]
pub(super) struct ContainerEntry {
    record: Arc<ContainerRecord>,
    run: Run,
    exited: watch::Sender<bool>,
}

/// Where a container is in its life; each state leads to the ones after it.
#[derive(Debug, Clone)]
enum Run {
    Created,
    Starting,
    Running(ProcessRecord),
    Exited(Option<ProcessRecord>, ExitRecord),
}

impl ContainerEntry {
    fn new(record: ContainerRecord, run: Run) -> Self {
        Self {
            record: Arc::new(record),
            exited: watch::Sender::new(matches!(run, Run::Exited(..))),
            run,
        }
    }

    pub(super) fn matches(&self, filter: &ContainerFilter) -> bool {
        filter
            .pod_uid
            .as_ref()
            .is_none_or(|uid| self.record.pod_uid == *uid)
            && filter
                .pod_sandbox_id
                .as_ref()
                .is_none_or(|id| self.record.sandbox == *id)
    }

    fn state(&self) -> ContainerState {
        match self.run {
            Run::Created | Run::Starting => ContainerState::Created,
            Run::Running(_) => ContainerState::Running,
            Run::Exited(..) => ContainerState::Exited,
        }
    }

    pub(super) fn listed(&self, id: &ContainerId) -> Container {
        Container {
            id: id.clone(),
            pod_sandbox_id: self.record.sandbox.clone(),
            metadata: self.record.config.metadata.clone(),
            state: self.state(),
            created_at: self.record.created_at,
            labels: self.record.config.labels.clone(),
        }
    }

    pub(super) fn status(&self, id: &ContainerId) -> ContainerStatus {
        let (process, exit) = match &self.run {
            Run::Created | Run::Starting => (None, None),
            Run::Running(process) => (Some(process), None),
            Run::Exited(process, exit) => (process.as_ref(), Some(exit)),
        };
        let config = &self.record.config;
        ContainerStatus {
            id: id.clone(),
            pod_sandbox_id: self.record.sandbox.clone(),
            metadata: config.metadata.clone(),
            state: self.state(),
            created_at: self.record.created_at,
            started_at: process.map(|process| process.started_at),
            finished_at: exit.map(|exit| exit.finished_at),
            exit_code: exit.map_or(0, |exit| exit.exit_code),
            image: config.image.clone(),
            image_ref: super::HOST_IMAGE.into(),
            reason: exit.map(|exit| exit.reason.clone()).unwrap_or_default(),
            message: exit.map(|exit| exit.message.clone()).unwrap_or_default(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: self.record.log_path.clone(),
        }
    }
}

impl Inner {
    pub(super) fn containers_in(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        let state = self.state.lock();
        state
            .containers
            .iter()
            .filter(|(_, e)| e.record.sandbox == *sandbox)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.dir.join("containers").join(id.as_str())
    }

    pub(super) fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId> {
        self.check(config)?;
        let id = ContainerId::from(new_id());
        let mut record = self.new_record(sandbox, config)?;
        let group = self.pod_cgroup_of(sandbox)?.join(id.as_str());
        let (cgroups, failed) = self.cgroups.create(&group, &config.resources);
        if !failed.is_empty() {
            tracing::warn!(container = %config.metadata.name, limits = failed.join("; "), "limits that could not be set");
        }
        record.cgroups = cgroups;
        let dir = self.container_dir(&id);
        let saved = fs::create_dir(&dir).and_then(|()| record::write(&dir, CONFIG, &record));
        if let Err(error) = saved {
            cgroup::remove(&record.cgroups).map_err(RuntimeError::io("remove the control group"))?;
            self.discard("containers", id.as_str())?;
            return Err(RuntimeError::io("save the container")(error));
        }
        let pod_uid = record.pod_uid.clone();
        self.state
            .lock()
            .containers
            .insert(id.clone(), ContainerEntry::new(record, Run::Created));
        self.events.send(&id, &pod_uid, ContainerEventType::Created);
        Ok(id)
    }

    fn pod_cgroup_of(&self, sandbox: &SandboxId) -> Result<PathBuf> {
        let state = self.state.lock();
        let record = state
            .sandboxes
            .get(sandbox)
            .ok_or_else(|| RuntimeError::no_sandbox(sandbox))?;
        Ok(self.pod_cgroup(sandbox, &record.config))
    }

    fn new_record(&self, sandbox: &SandboxId, config: &ContainerConfig) -> Result<ContainerRecord> {
        let state = self.state.lock();
        let pod = state
            .sandboxes
            .get(sandbox)
            .ok_or_else(|| RuntimeError::no_sandbox(sandbox))?;
        if pod.state != PodSandboxState::Ready {
            return Err(RuntimeError::State(format!("sandbox {sandbox} is not ready")));
        }
        let dir = self.sandbox_dir(sandbox);
        let mut config = config.clone();
        config.mounts.splice(0..0, self.programs.iter().cloned());
        let log_dir = &pod.config.log_directory;
        let has_log = !log_dir.as_os_str().is_empty() && !config.log_path.as_os_str().is_empty();
        Ok(ContainerRecord {
            sandbox: sandbox.clone(),
            pod_uid: pod.config.metadata.uid.clone(),
            log_path: has_log.then(|| log_dir.join(&config.log_path)),
            config,
            created_at: Timestamp::now(),
            namespaces: namespaces::pins(&dir, &pod.config),
            hostname: pod.config.has_own_network().then(|| pod.config.hostname.clone()),
            shm: (pod.config.ipc == NamespaceMode::Pod).then(|| dir.join("shm")),
            resolv_conf: dir.join("resolv.conf"),
            hidden: self.hidden.clone(),
            cgroups: Vec::new(),
            scratch_bytes: None,
        })
    }

    /// Refuses what this runtime does not do.
    fn check(&self, config: &ContainerConfig) -> Result<()> {
        if !self.is_host_image(&config.image) {
            return Err(RuntimeError::NotFound {
                kind: "image",
                id: config.image.clone(),
            });
        }
        if config.command.is_empty() && config.args.is_empty() {
            return Err(RuntimeError::Config("no command specified".into()));
        }
        if config.tty {
            return Err(RuntimeError::Unsupported(
                "tty is not built into the embedded runtime yet".into(),
            ));
        }
        let security = &config.security_context;
        if let Some(profile) = &security.seccomp_profile {
            let message = format!("seccomp profile {profile} is not built into the embedded runtime yet");
            return Err(RuntimeError::Unsupported(message));
        }
        if let Some(unknown) = launch::unknown_capability(&security.capabilities) {
            return Err(RuntimeError::Config(format!("unknown capability {unknown:?}")));
        }
        if security.run_as_non_root && security.run_as_user.unwrap_or(0) == 0 {
            return Err(RuntimeError::Config(
                "container has runAsNonRoot and image will run as root".into(),
            ));
        }
        let relative = config
            .mounts
            .iter()
            .find(|mount| !mount.container_path.is_absolute());
        if let Some(mount) = relative {
            let message = format!("mount path {} is not absolute", mount.container_path.display());
            return Err(RuntimeError::Config(message));
        }
        stop_signal(config).map(drop)
    }

    /// Starts the shim. The work goes on when the caller stops waiting.
    pub(super) fn start_container(
        self: &Arc<Self>,
        id: &ContainerId,
        tasks: &mut JoinSet<()>,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        {
            let mut state = self.state.lock();
            let entry = state
                .containers
                .get_mut(id)
                .ok_or_else(|| RuntimeError::no_container(id))?;
            if !matches!(entry.run, Run::Created) {
                return Err(RuntimeError::State(format!("container {id} was started before")));
            }
            entry.run = Run::Starting;
        }
        let (sender, receiver) = oneshot::channel();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(Arc::clone(self).start_and_watch(id.clone(), sender));
        Ok(receiver)
    }

    async fn start_and_watch(self: Arc<Self>, id: ContainerId, started: oneshot::Sender<Result<()>>) {
        let (dir, helper) = (self.container_dir(&id), self.helper.clone());
        let spawned = tokio::task::spawn_blocking(move || spawn_shim(&dir, &helper)).await;
        let result =
            spawned.unwrap_or_else(|error| Err(RuntimeError::State(format!("start the shim: {error}"))));
        let shim = match result {
            Ok((shim, Report::Started(process))) => {
                self.set_running(&id, process);
                drop(started.send(Ok(())));
                shim
            }
            Ok((shim, Report::Failed(message))) => {
                self.set_exited(&id, ExitRecord::new(128, "StartError", message.clone()));
                drop(started.send(Err(RuntimeError::Start(message))));
                shim
            }
            Err(error) => {
                self.set_exited(&id, ExitRecord::new(128, "StartError", error.to_string()));
                drop(started.send(Err(error)));
                return;
            }
        };
        self.watch(&id, shim).await;
    }

    fn set_running(&self, id: &ContainerId, process: ProcessRecord) {
        let mut state = self.state.lock();
        let Some(entry) = state.containers.get_mut(id) else {
            return;
        };
        entry.run = Run::Running(process);
        let pod_uid = entry.record.pod_uid.clone();
        drop(state);
        self.events.send(id, &pod_uid, ContainerEventType::Started);
    }

    fn set_exited(&self, id: &ContainerId, exit: ExitRecord) {
        let mut state = self.state.lock();
        let Some(entry) = state.containers.get_mut(id) else {
            return;
        };
        let process = match entry.run {
            Run::Running(process) => Some(process),
            Run::Created | Run::Starting => None,
            Run::Exited(..) => return,
        };
        entry.run = Run::Exited(process, exit);
        entry.exited.send_replace(true);
        let pod_uid = entry.record.pod_uid.clone();
        drop(state);
        self.events.send(id, &pod_uid, ContainerEventType::Stopped);
    }

    /// Waits for the end of a container's shim, and takes over what it recorded.
    async fn watch(&self, id: &ContainerId, shim: ShimHandle) {
        shim.wait().await;
        let exit = self.read_exit(id);
        self.set_exited(id, exit);
    }

    /// The record that a shim left. A shim that left none was killed, and its program with it.
    fn read_exit(&self, id: &ContainerId) -> ExitRecord {
        let dir = self.container_dir(id);
        match record::read(&dir, EXIT) {
            Ok(Some(exit)) => return exit,
            Ok(None) => {}
            Err(error) => tracing::warn!(container = %id, %error, "unreadable exit record"),
        }
        let exit = ExitRecord::new(137, "Error", "the process that watched the container was killed");
        if let Err(error) = record::write(&dir, EXIT, &exit) {
            tracing::warn!(container = %id, %error, "exit record could not be saved");
        }
        exit
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        let (process, mut exited, config) = {
            let state = self.state.lock();
            let Some(entry) = state.containers.get(id) else {
                return Ok(());
            };
            match entry.run {
                Run::Running(process) => (process, entry.exited.subscribe(), Arc::clone(&entry.record)),
                Run::Starting => return Err(RuntimeError::State(format!("container {id} is being started"))),
                Run::Created | Run::Exited(..) => return Ok(()),
            }
        };
        if !timeout.is_zero() {
            signal(process, stop_signal(&config.config)?)?;
            if tokio::time::timeout(timeout, exited.wait_for(|exited| *exited))
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        signal(process, Signal::SIGKILL)?;
        match tokio::time::timeout(KILL_WAIT, exited.wait_for(|exited| *exited)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::DeadlineExceeded(format!("killing container {id}"))),
        }
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.stop_container(id, Duration::ZERO).await?;
        let Some(record) = self
            .state
            .lock()
            .containers
            .get(id)
            .map(|entry| Arc::clone(&entry.record))
        else {
            return Ok(());
        };
        let groups = record.cgroups.clone();
        let removed = tokio::task::spawn_blocking(move || cgroup::remove(&groups)).await;
        removed
            .map_err(|error| RuntimeError::State(error.to_string()))?
            .map_err(RuntimeError::io("remove control group"))?;
        if let Some(log) = &record.log_path {
            remove_file(log)?;
        }
        self.discard("containers", id.as_str())?;
        self.state.lock().containers.remove(id);
        self.events.send(id, &record.pod_uid, ContainerEventType::Deleted);
        Ok(())
    }

    pub(super) async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let request = self.exec_request(id, command)?;
        let input = serde_json::to_vec(&request).map_err(|error| RuntimeError::State(error.to_string()))?;
        let mut child = tokio::process::Command::new(&self.helper)
            .arg0(init::EXEC)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(RuntimeError::io("start the exec helper"))?;
        let run = async {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(&input).await?;
            }
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
            let (out, err) = tokio::join!(
                read_up_to(out.as_mut(), &mut stdout),
                read_up_to(err.as_mut(), &mut stderr)
            );
            out.and(err)?;
            let status = child.wait().await?;
            Ok(ExecSyncResponse {
                stdout,
                stderr,
                exit_code: status.code().unwrap_or(137),
            })
        };
        if timeout.is_zero() {
            return run
                .await
                .map_err(RuntimeError::io("run a command in the container"));
        }
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => result.map_err(RuntimeError::io("run a command in the container")),
            Err(_) => Err(RuntimeError::DeadlineExceeded(format!("command {command:?}"))),
        }
    }

    fn exec_request(&self, id: &ContainerId, command: &[String]) -> Result<ExecRequest> {
        let state = self.state.lock();
        let entry = state
            .containers
            .get(id)
            .ok_or_else(|| RuntimeError::no_container(id))?;
        let Run::Running(process) = entry.run else {
            return Err(RuntimeError::State(format!("container {id} is not running")));
        };
        let config = &entry.record.config;
        Ok(ExecRequest {
            process,
            command: command.to_vec(),
            envs: config.envs.clone(),
            working_dir: config.working_dir.clone(),
            hostname: entry.record.hostname.clone(),
            security_context: config.security_context.clone(),
            cgroups: entry.record.cgroups.clone(),
        })
    }

    /// Finds the containers of earlier processes and watches over those that run.
    pub(super) async fn adopt_containers(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<()> {
        let entries =
            fs::read_dir(self.dir.join("containers")).map_err(RuntimeError::io("list the containers"))?;
        for entry in entries {
            let entry = entry.map_err(RuntimeError::io("list the containers"))?;
            let id = ContainerId::from(entry.file_name().to_string_lossy().into_owned());
            match record::read::<ContainerRecord>(&entry.path(), CONFIG) {
                Ok(Some(record)) => self.adopt_container(id, record, tasks).await?,
                Ok(None) => self.discard("containers", id.as_str())?,
                Err(error) => {
                    tracing::warn!(container = %id, %error, "unreadable container is removed");
                    self.discard("containers", id.as_str())?;
                }
            }
        }
        Ok(())
    }

    async fn adopt_container(
        self: &Arc<Self>,
        id: ContainerId,
        record: ContainerRecord,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let dir = self.container_dir(&id);
        if let Some(shim) = find_shim(&dir).await? {
            let run = wait_for_start(&dir, &shim).await?;
            let watch = matches!(run, Run::Running(_));
            self.state
                .lock()
                .containers
                .insert(id.clone(), ContainerEntry::new(record, run));
            if watch {
                let inner = Arc::clone(self);
                tasks.spawn(async move { inner.watch(&id, shim).await });
            }
            return Ok(());
        }
        let process = read_state(&dir, STATE)?;
        let was_started = dir.join(SHIM).exists();
        let run = if was_started || dir.join(EXIT).exists() {
            Run::Exited(process, self.read_exit(&id))
        } else {
            Run::Created
        };
        self.state
            .lock()
            .containers
            .insert(id, ContainerEntry::new(record, run));
        Ok(())
    }
}

/// The signal that asks the container's program to end.
fn stop_signal(config: &ContainerConfig) -> Result<Signal> {
    match &config.stop_signal {
        None => Ok(Signal::SIGTERM),
        Some(name) => name
            .parse()
            .map_err(|_| RuntimeError::Config(format!("unknown stop signal {name:?}"))),
    }
}

/// Signals a program; one that is gone is no error.
fn signal(process: ProcessRecord, signal: Signal) -> Result<()> {
    let handle = match sys::pidfd_open(process.pid) {
        Ok(handle) => handle,
        Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(RuntimeError::errno("find the container's process")(errno)),
    };
    // The handle was taken first, so what is alive now is what the handle means.
    if !process.is_alive() {
        return Ok(());
    }
    match sys::pidfd_send_signal(&handle, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(RuntimeError::errno("signal the container's process")(errno)),
    }
}

/// A running shim.
struct ShimHandle {
    pid: i32,
    handle: AsyncFd<OwnedFd>,
}

impl ShimHandle {
    fn open(pid: i32) -> Result<Self> {
        let handle = sys::pidfd_open(pid).map_err(RuntimeError::errno("find the shim"))?;
        Ok(Self {
            pid,
            handle: crate::fd::watch(handle).map_err(RuntimeError::io("watch the shim"))?,
        })
    }

    /// Waits for its end.
    async fn wait(&self) {
        if let Err(error) = self.handle.readable().await {
            tracing::error!(%error, "the shim can no longer be watched");
        }
        // Only the process that started it can collect it; for others this is an error without meaning.
        waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)).ok();
    }
}

/// Starts a shim and waits until its program runs or has failed.
fn spawn_shim(dir: &Path, helper: &Path) -> Result<(ShimHandle, Report)> {
    // Locked here and handed over: there is no moment in which the lock is free and the shim lives.
    let lock = lock(dir)?.ok_or_else(|| RuntimeError::State("the container has a shim already".into()))?;
    let stderr = File::create(dir.join("shim.log")).map_err(RuntimeError::io("create shim.log"))?;
    let mut child = Command::new(helper)
        .arg0(init::SHIM)
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(lock))
        .stdout(Stdio::piped())
        .stderr(Stdio::from(stderr))
        .spawn()
        .map_err(RuntimeError::io(format!("start {}", helper.display())))?;
    let shim = ShimHandle::open(child.id().cast_signed());
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(RuntimeError::io("listen to the shim"))?;
    }
    let report = serde_json::from_str(&line).unwrap_or_else(|_| {
        let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
        let helper = helper.display();
        Report::Failed(format!(
            "{helper} did not act as a shim; does its main begin with embedded::init()? {said}"
        ))
    });
    Ok((shim?, report))
}

/// Takes a container's lock; `None` when its shim has it. It is free again when the last copy of the file is closed.
fn lock(dir: &Path) -> Result<Option<File>> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().create(true).append(true).open(&path);
    let file = open.map_err(RuntimeError::io(format!("open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(RuntimeError::io(format!("lock {}", path.display()))(error)),
    }
}

/// The shim of a container when one lives.
async fn find_shim(dir: &Path) -> Result<Option<ShimHandle>> {
    // A shim that has the lock and not yet written who it is needs some milliseconds.
    for _ in 0..500 {
        if !dir.join(LOCK).exists() || lock(dir)?.is_some() {
            return Ok(None);
        }
        if let Some(process) = read_state(dir, SHIM)?
            && let Ok(shim) = ShimHandle::open(process.pid)
            && process.is_alive()
        {
            return Ok(Some(shim));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(RuntimeError::State(format!(
        "the shim of {} holds its lock and cannot be found",
        dir.display()
    )))
}

/// Waits until a shim has started its program or ended.
async fn wait_for_start(dir: &Path, shim: &ShimHandle) -> Result<Run> {
    loop {
        if let Some(process) = read_state(dir, STATE)? {
            return Ok(Run::Running(process));
        }
        if let Some(exit) = record::read(dir, EXIT).map_err(RuntimeError::io("read the exit record"))? {
            return Ok(Run::Exited(None, exit));
        }
        if tokio::time::timeout(Duration::from_millis(10), shim.wait())
            .await
            .is_ok()
        {
            let exit = record::read(dir, EXIT).map_err(RuntimeError::io("read the exit record"))?;
            return Ok(Run::Exited(
                None,
                exit.unwrap_or_else(|| ExitRecord::new(128, "StartError", "the shim ended")),
            ));
        }
    }
}

fn read_state(dir: &Path, name: &str) -> Result<Option<ProcessRecord>> {
    record::read(dir, name).map_err(RuntimeError::io(format!("read {name}")))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

async fn read_up_to(
    from: Option<&mut (impl AsyncReadExt + Unpin)>,
    into: &mut Vec<u8>,
) -> std::io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    from.take(MAX_OUTPUT).read_to_end(into).await?;
    // What comes after is read, so that the command can end, and thrown away.
    tokio::io::copy(from, &mut tokio::io::sink()).await.map(drop)
}
