//! How an etcd lets us in: certificates and user, by the names that etcdctl gives them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Flags that only matter for an etcd.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "etcd")]
#[cfg_attr(
    not(feature = "etcd"),
    allow(
        dead_code,
        reason = "a build without etcd takes the flags and refuses the place"
    )
)]
pub(crate) struct Access {
    /// The authority that has signed the server's certificate (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", requires = "key_file")]
    pub(crate) cert: Option<PathBuf>,
    /// Our certificate's key (PEM).
    #[arg(
        long = "key",
        id = "key_file",
        global = true,
        value_name = "FILE",
        requires = "cert"
    )]
    pub(crate) key: Option<PathBuf>,
    /// The user. The password had better stand in ORCH_STORE_PASSWORD, as others on this machine can see the flags.
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    pub(crate) user: Option<User>,
    /// The password.
    #[arg(
        long,
        global = true,
        env = "ORCH_STORE_PASSWORD",
        hide_env_values = true,
        hide = true,
        value_name = "PASSWORD"
    )]
    pub(crate) password: Option<Secret>,
}

impl Access {
    /// Whether any flag was given. The password does not count: it may stand in the environment for another command.
    pub(crate) fn is_given(&self) -> bool {
        self.cacert.is_some() || self.cert.is_some() || self.key.is_some() || self.user.is_some()
    }
}

/// A user, perhaps with the password.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "as above"))]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: Option<Secret>,
}

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, password) = match text.split_once(':') {
            Some((name, password)) => (name, Some(Secret(password.to_owned()))),
            None => (text, None),
        };
        if name.is_empty() {
            return Err("the name is empty");
        }
        Ok(Self {
            name: name.to_owned(),
            password,
        })
    }
}

/// Text that is never printed.
#[derive(Clone)]
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "as above"))]
pub(crate) struct Secret(pub(crate) String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use anyhow::Context;
    use orch_store::{EtcdOptions, EtcdStore};

    use super::Access;

    impl Access {
        /// What to connect with.
        pub(crate) fn options(&self, endpoints: &[String]) -> anyhow::Result<EtcdOptions> {
            let mut options = EtcdStore::options();
            for endpoint in endpoints {
                options = options.endpoint(endpoint);
            }
            if let Some(path) = &self.cacert {
                options = options.ca(read(path)?);
            }
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                options = options.identity(read(cert)?, read(key)?);
            }
            if let Some(user) = &self.user {
                let password = user.password.as_ref().or(self.password.as_ref());
                let password =
                    password.context("--user needs a password: NAME:PASSWORD, or ORCH_STORE_PASSWORD")?;
                options = options.user(&user.name, &password.0);
            }
            Ok(options)
        }
    }

    fn read(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    }
}
