//! Tokens from a list: kube-apiserver's `--token-auth-file`.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{Authenticated, AuthenticationError, Authenticator, Credentials};
use crate::user::UserInfo;

/// Tokens that never expire, each of one user. Only their digests are kept.
///
/// ```
/// use orch_api::authn::StaticTokens;
///
/// let tokens: StaticTokens = "t0ken,jane,1,\"devs,ops\"\n".parse()?;
/// # Ok::<(), orch_api::authn::TokenFileError>(())
/// ```
#[derive(Clone, Default)]
pub struct StaticTokens {
    users: HashMap<[u8; 32], UserInfo>,
    audiences: Option<Vec<String>>,
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens")
            .field("tokens", &self.users.len())
            .finish_non_exhaustive()
    }
}

/// Why a list of tokens cannot be read. It says nothing of the line's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// A line has too few columns.
    #[error("line {line} must have at least 3 columns (token, user name, user uid), found {columns}")]
    Columns {
        /// Counted from one.
        line: usize,
        /// How many it has.
        columns: usize,
    },
    /// A quoted column does not end.
    #[error("line {line} has a quote that does not end")]
    Quote {
        /// Counted from one.
        line: usize,
    },
    /// A line has no token.
    #[error("line {line} has an empty token")]
    Empty {
        /// Counted from one.
        line: usize,
    },
    /// A token stands there twice.
    #[error("line {line} repeats the token of another line")]
    Repeated {
        /// Counted from one.
        line: usize,
    },
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl StaticTokens {
    /// No tokens yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token.
    #[must_use]
    pub fn token(mut self, token: &str, user: UserInfo) -> Self {
        self.users.insert(digest(token), user);
        self
    }

    /// For whom the tokens are meant: they are not valid elsewhere.
    pub(crate) fn meant_for(mut self, audiences: &[String]) -> Self {
        self.audiences = Some(audiences.to_vec());
        self
    }
}

impl std::str::FromStr for StaticTokens {
    type Err = TokenFileError;

    /// Reads the CSV form: token, user name, user uid, and groups in one column, separated by commas.
    fn from_str(text: &str) -> Result<Self, TokenFileError> {
        let mut tokens = Self::new();
        let lines = text.lines().enumerate().map(|(at, text)| (at + 1, text));
        for (line, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
            let columns = columns(text).ok_or(TokenFileError::Quote { line })?;
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                let columns = columns.len();
                return Err(TokenFileError::Columns { line, columns });
            };
            if token.is_empty() {
                return Err(TokenFileError::Empty { line });
            }
            let groups = rest.first().map(|groups| groups.split(',')).into_iter().flatten();
            let groups = groups.map(str::trim).filter(|group| !group.is_empty());
            let user = UserInfo {
                uid: uid.clone(),
                ..UserInfo::new(name.as_str(), groups)
            };
            if tokens.users.insert(digest(token), user).is_some() {
                return Err(TokenFileError::Repeated { line });
            }
        }
        Ok(tokens)
    }
}

/// The columns of a line of CSV; `None` when a quote does not end.
fn columns(line: &str) -> Option<Vec<String>> {
    let (mut columns, mut column, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                column.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if column.is_empty() => quoted = true,
            ',' if !quoted => columns.push(std::mem::take(&mut column)),
            c => column.push(c),
        }
    }
    columns.push(column);
    (!quoted).then_some(columns)
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
    ) -> Result<Option<Authenticated>, AuthenticationError> {
        let found = credentials.token.and_then(|token| self.users.get(&digest(token)));
        let audiences = match &self.audiences {
            Some(own) => super::common_audiences(credentials.audiences, own),
            None => credentials.audiences.to_vec(),
        };
        if audiences.is_empty() {
            return Ok(None);
        }
        Ok(found.map(|user| Authenticated {
            user: user.clone(),
            audiences,
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    async fn user(tokens: &StaticTokens, token: &str) -> Option<UserInfo> {
        let credentials = Credentials {
            token: Some(token),
            headers: &HeaderMap::new(),
            audiences: &["api".to_owned()],
        };
        let found = tokens.authenticate(&credentials).await.unwrap();
        found.map(|found| found.user)
    }

    #[tokio::test]
    async fn a_line_is_a_token_with_its_user() {
        let tokens: StaticTokens = "abc,jane,7,\"devs,ops\"\n\n\"x\"\"y\",joe,8\n".parse().unwrap();
        let jane = user(&tokens, "abc").await.unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["devs", "ops", "system:authenticated"]);
        assert_eq!(user(&tokens, "x\"y").await.unwrap().name, "joe");
        for wrong in ["", "ab", "abcd", "ABC", "jane"] {
            assert_eq!(user(&tokens, wrong).await, None, "{wrong:?}");
        }
    }

    #[test]
    fn a_bad_line_is_named_without_its_content() {
        let error = |text: &str| text.parse::<StaticTokens>().unwrap_err();
        assert_eq!(
            error("a,b,c\nsecret,jane").to_string(),
            "line 2 must have at least 3 columns (token, user name, user uid), found 2"
        );
        assert_eq!(
            error("\"secret,jane,1").to_string(),
            "line 1 has a quote that does not end"
        );
        assert_eq!(error(",jane,1").to_string(), "line 1 has an empty token");
        assert_eq!(
            error("a,b,c\na,d,e").to_string(),
            "line 2 repeats the token of another line"
        );
        let tokens: StaticTokens = "secret,jane,1".parse().unwrap();
        assert!(!format!("{tokens:?}").contains("secret"));
    }
}
