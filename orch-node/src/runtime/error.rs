//! Why a runtime could not do what it was asked.

/// A result of a [`Runtime`](super::Runtime) call.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Why a runtime call failed. The variant decides the reason that the pod's status shows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such sandbox or container.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// The identifier asked for.
        id: String,
    },
    /// The image could not be pulled (`ErrImagePull`).
    #[error("failed to pull image {image:?}: {message}")]
    ImagePull {
        /// The image as the pod names it.
        image: String,
        /// What went wrong.
        message: String,
    },
    /// The image's name is not a reference (`InvalidImageName`).
    #[error("couldn't parse image name {image:?}: {message}")]
    InvalidImageName {
        /// The image as the pod names it.
        image: String,
        /// What is wrong with it.
        message: String,
    },
    /// The configuration asks for something that this runtime does not do (`CreateContainerConfigError`).
    #[error("not supported by this runtime: {0}")]
    Unsupported(String),
    /// The configuration cannot work (`CreateContainerConfigError`).
    #[error("{0}")]
    Config(String),
    /// The container's program could not be started (`RunContainerError`).
    #[error("failed to start container: {0}")]
    Start(String),
    /// The call is not possible in the present state, for example exec in a container that does not run.
    #[error("{0}")]
    State(String),
    /// The time given has passed.
    #[error("{0} timed out")]
    DeadlineExceeded(String),
    /// The pod network could not be set up or taken down.
    #[error("pod network: {0}")]
    Network(String),
    /// The runtime could not be reached or asked.
    #[error("runtime is not available: {0}")]
    Unavailable(String),
    /// The operating system refused a step.
    #[error("{step}: {source}")]
    Io {
        /// The step that failed, with the path when there is one.
        step: String,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl RuntimeError {
    /// An operating system error at a named step; for `map_err`.
    pub fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }

    /// An `errno` at a named step; for `map_err`.
    pub(crate) fn errno(step: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let step = step.into();
        move |errno| Self::Io {
            step,
            source: errno.into(),
        }
    }

    /// There is no sandbox of that id.
    pub fn no_sandbox(id: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound {
            kind: "sandbox",
            id: id.to_string(),
        }
    }

    /// There is no container of that id.
    pub fn no_container(id: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound {
            kind: "container",
            id: id.to_string(),
        }
    }

    /// Whether the thing asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The waiting reason that upstream shows when creating or starting a container fails like this.
    #[must_use]
    pub fn create_reason(&self) -> &'static str {
        match self {
            Self::Unsupported(_) | Self::Config(_) => "CreateContainerConfigError",
            Self::Start(_) => "RunContainerError",
            Self::ImagePull { .. } => "ErrImagePull",
            Self::InvalidImageName { .. } => "InvalidImageName",
            _ => "CreateContainerError",
        }
    }
}
