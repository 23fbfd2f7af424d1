//! Which backend serves a node.

use std::fmt;
use std::str::FromStr;

use crate::backend::{BackendError, ProxyBackend};
use crate::nftables::{NftablesBackend, NftablesConfig};
use crate::userspace::{UserspaceBackend, UserspaceConfig};

/// The backends of this crate, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first of these that the host can carry, in this order: nftables, userspace.
    #[default]
    Auto,
    /// [`nftables`](crate::nftables).
    Nftables,
    /// [`userspace`](crate::userspace).
    Userspace,
}

/// A text that names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown proxy backend {0:?}: must be auto, nftables or userspace")]
pub struct UnknownBackend(String);

impl FromStr for Choice {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        match name {
            "auto" => Ok(Self::Auto),
            "nftables" => Ok(Self::Nftables),
            "userspace" => Ok(Self::Userspace),
            _ => Err(UnknownBackend(name.to_owned())),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
        })
    }
}

/// One of this crate's backends, configured by the proxy, or one's own.
pub enum Backend {
    /// One of this crate's.
    Named(Choice),
    /// One's own, or one of this crate's with a configuration of its own.
    Custom(Box<dyn ProxyBackend>),
}

impl From<Choice> for Backend {
    fn from(choice: Choice) -> Self {
        Self::Named(choice)
    }
}

impl<B: ProxyBackend + 'static> From<B> for Backend {
    fn from(backend: B) -> Self {
        Self::Custom(Box::new(backend))
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(choice) => write!(f, "Named({choice})"),
            Self::Custom(backend) => write!(f, "Custom({})", backend.name()),
        }
    }
}

impl Backend {
    /// A backend that the host can carry. Leftovers of this crate's others are removed, lest two serve one address.
    pub(crate) async fn choose(
        self,
        nftables: NftablesConfig,
        userspace: UserspaceConfig,
    ) -> Result<Box<dyn ProxyBackend>, BackendError> {
        let choice = match self {
            Self::Named(choice) => choice,
            Self::Custom(mut backend) => {
                backend.probe().await?;
                return Ok(backend);
            }
        };
        let mut nftables: Box<dyn ProxyBackend> = Box::new(NftablesBackend::new(nftables));
        let mut userspace: Box<dyn ProxyBackend> = Box::new(UserspaceBackend::new(userspace));
        let kernel = nftables.probe().await;
        match (choice, kernel) {
            (Choice::Nftables | Choice::Auto, Ok(())) => {
                clean(&mut *userspace).await;
                Ok(nftables)
            }
            (Choice::Nftables, Err(error)) => Err(error),
            (Choice::Auto, Err(error)) => {
                tracing::info!(%error, "serving in userspace");
                userspace.probe().await?;
                Ok(userspace)
            }
            (Choice::Userspace, kernel) => {
                userspace.probe().await?;
                if kernel.is_ok() {
                    clean(&mut *nftables).await;
                }
                Ok(userspace)
            }
        }
    }
}

async fn clean(other: &mut dyn ProxyBackend) {
    if let Err(error) = other.cleanup().await {
        tracing::warn!(backend = other.name(), %error, "could not remove what another backend left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_written() {
        for choice in [Choice::Auto, Choice::Nftables, Choice::Userspace] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!(
            "ipvs"
                .parse::<Choice>()
                .unwrap_err()
                .to_string()
                .contains("must be auto")
        );
    }
}
