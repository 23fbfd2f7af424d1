//! What etcd's answers mean, in one place.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

use crate::StoreError;

/// How a call to etcd went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// etcd answered, and would answer the same again. Nothing was written.
    Refused(Refused),
    /// Nothing was written; another member, or the same one later, may do it.
    NotDone(String),
    /// The answer was lost: a write may have happened or may happen yet.
    Unknown(String),
}

/// Why etcd refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The revision asked for has been compacted.
    Compacted,
    /// The revision asked for has not happened yet.
    Future,
    /// The request is larger than the server takes.
    TooLarge,
    /// The server's quota is used up.
    NoSpace(String),
    /// The lease has ended.
    NoLease,
    /// The token that went along has ended.
    BadToken(String),
    /// Wrong credentials, or rights that are missing.
    Denied(String),
    /// Something that no caller can act on.
    Other(String),
}

/// A part of a message, and what a message with it means.
type Meaning = (&'static str, fn(&str) -> Failure);

/// Messages of etcd that say more than their code.
const MESSAGES: &[Meaning] = &[
    ("required revision has been compacted", |_| {
        Failure::Refused(Refused::Compacted)
    }),
    ("required revision is a future revision", |_| {
        Failure::Refused(Refused::Future)
    }),
    ("request is too large", |_| Failure::Refused(Refused::TooLarge)),
    ("received message larger than max", |_| {
        Failure::Refused(Refused::TooLarge)
    }),
    ("database space exceeded", |text| {
        Failure::Refused(Refused::NoSpace(text.into()))
    }),
    ("requested lease not found", |_| {
        Failure::Refused(Refused::NoLease)
    }),
    ("invalid auth token", |text| {
        Failure::Refused(Refused::BadToken(text.into()))
    }),
    ("revision of auth store is old", |text| {
        Failure::Refused(Refused::BadToken(text.into()))
    }),
    ("authentication failed", |text| {
        Failure::Refused(Refused::Denied(text.into()))
    }),
    ("user name is empty", |text| {
        Failure::Refused(Refused::Denied(text.into()))
    }),
    ("permission denied", |text| {
        Failure::Refused(Refused::Denied(text.into()))
    }),
    ("too many requests", |text| Failure::NotDone(text.into())),
    ("no leader", |text| Failure::NotDone(text.into())),
    ("not leader", |text| Failure::NotDone(text.into())),
];

impl Failure {
    /// What a message of etcd means that came without a code, or `None` when that alone does not tell.
    pub(super) fn of_message(text: &str) -> Option<Self> {
        let meaning = MESSAGES.iter().find(|(part, _)| text.contains(part));
        meaning.map(|(_, make)| make(text))
    }

    /// Whether the same call may be made again without doing something twice.
    pub(super) fn may_be_repeated(&self, is_write: bool) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::NotDone(_) => true,
            Self::Unknown(_) => !is_write,
        }
    }

    /// The error for a caller, where the call itself says nothing more.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Refused(Refused::NoSpace(reason)) => StoreError::WriteFailed {
                source: Arc::new(io::Error::new(io::ErrorKind::StorageFull, reason)),
            },
            Self::Refused(Refused::Denied(reason) | Refused::BadToken(reason)) => {
                StoreError::Denied { reason }
            }
            Self::Refused(refused) => StoreError::Unavailable {
                reason: format!("etcd refused a call unexpectedly: {refused:?}"),
            },
            Self::NotDone(reason) | Self::Unknown(reason) => StoreError::Unavailable { reason },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            Error::InvalidArgs(_) | Error::InvalidUri(_) => Self::Refused(Refused::Other(error.to_string())),
            // A channel that could not be had: nothing was sent.
            Error::TransportError(_) => Self::NotDone(reasons(&error)),
            other => Self::Unknown(reasons(&other)),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    if let Some(meaning) = Failure::of_message(status.message()) {
        return meaning;
    }
    let text = reasons(status);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Failure::Refused(Refused::Denied(text)),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
            Failure::Refused(Refused::Other(text))
        }
        _ if was_not_sent(status) => Failure::NotDone(text),
        _ => Failure::Unknown(text),
    }
}

/// Whether the connection never came to be.
fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with what caused it, without saying anything twice.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => format!("{:?}: {}", status.code(), status.message()),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Failure {
        Failure::from(Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn etcds_messages_are_understood() {
        for (message, expected) in [
            (
                "etcdserver: mvcc: required revision has been compacted",
                Refused::Compacted,
            ),
            (
                "etcdserver: mvcc: required revision is a future revision",
                Refused::Future,
            ),
            ("etcdserver: request is too large", Refused::TooLarge),
            ("etcdserver: requested lease not found", Refused::NoLease),
        ] {
            assert_eq!(
                of(Code::Unknown, message),
                Failure::Refused(expected),
                "{message}"
            );
        }
        assert!(matches!(
            of(Code::PermissionDenied, "etcdserver: permission denied").into_error(),
            StoreError::Denied { .. }
        ));
        assert!(matches!(
            of(
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded"
            )
            .into_error(),
            StoreError::WriteFailed { .. }
        ));
    }

    #[test]
    fn a_write_is_repeated_only_if_it_surely_did_not_happen() {
        let lost = of(Code::Unavailable, "etcdserver: request timed out");
        assert!(matches!(lost, Failure::Unknown(_)));
        assert!(!lost.may_be_repeated(true) && lost.may_be_repeated(false));
        let no_leader = of(Code::Unavailable, "etcdserver: no leader");
        assert!(no_leader.may_be_repeated(true));
        let refused = of(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(!refused.may_be_repeated(false));
    }
}
