//! Lists: a consistent state, in pages, in the bytes that are cached.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta as StatusMeta, Status};
use orch_core::status::{ApiError, Reason};
use orch_store::StoreError;
use serde::{Deserialize, Serialize};

use super::Resource;
use super::options::{ListOptions, VersionMatch};
use super::selection::Selection;
use super::table::{self, IncludeObject, ListMeta};
use crate::cache::entry::Entry;
use crate::cache::snapshot::Snapshot;
use crate::http::accept::Shape;
use crate::http::body::Body;
use crate::http::response;
use crate::store_error;

/// Pieces of an answer smaller than this are copied together.
const PIECE: usize = 32 << 10;

/// Where the next page begins, as clients carry it: base64 of JSON, as upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of all pages; -1 goes on with whatever is newest.
    rv: i64,
    /// The last key of the page before, below the list's prefix, with a zero byte after it.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn new(revision: i64, after: &str) -> Self {
        Self {
            v: TOKEN_VERSION.into(),
            rv: revision,
            start: format!("{after}\0"),
        }
    }

    fn encode(&self) -> Result<String, ApiError> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).map_err(ApiError::internal)?))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .or_else(|_| STANDARD.decode(text));
        let bytes = bytes.map_err(|error| invalid(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(invalid("server does not recognize this encoded version"));
        }
        if token.rv == 0 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() {
            return Err(invalid("no continue start key encoded (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Entry>>,
    pub(crate) revision: u64,
    continue_token: String,
    remaining: Option<usize>,
}

/// Finds the page that a client asks for.
pub(crate) async fn page(
    resource: &Resource,
    selection: &Selection,
    options: &ListOptions,
) -> Result<Page, ApiError> {
    let (snapshot, after, paged_at) = state(resource, selection, options).await?;
    let prefix = selection.prefix(&*resource.strategy);
    let start = after
        .as_ref()
        .map_or(Bound::Unbounded, |key| Bound::Included(key.as_bytes()));
    let limit = if options.limit == 0 {
        usize::MAX
    } else {
        options.limit
    };
    let mut items = Vec::new();
    let mut rest = snapshot
        .range(prefix.as_bytes(), start)
        .filter(|entry| selection.matches(&*resource.strategy, entry));
    items.extend(rest.by_ref().take(limit).cloned());
    let more = rest.count();
    let mut page = Page {
        items,
        revision: snapshot.revision,
        continue_token: String::new(),
        remaining: None,
    };
    if let (true, Some(last)) = (more > 0, page.items.last()) {
        let after = String::from_utf8_lossy(&last.key[prefix.len()..]).into_owned();
        let revision = paged_at.unwrap_or_else(|| i64::try_from(snapshot.revision).unwrap_or(i64::MAX));
        page.continue_token = Token::new(revision, &after).encode()?;
        page.remaining = selection.is_everything().then_some(more);
        resource.cache.keep_for_pages(&snapshot).await?;
    }
    Ok(page)
}

type State = (Arc<Snapshot>, Option<String>, Option<i64>);

/// The state to list, the key to begin at, and the revision that the next page's token carries if not the state's.
async fn state(resource: &Resource, selection: &Selection, options: &ListOptions) -> Result<State, ApiError> {
    if !options.continue_token.is_empty() {
        if options.resource_version.is_some_and(|version| version != 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(&options.continue_token)?;
        let start = format!("{}{}", selection.prefix(&*resource.strategy), token.start);
        return match u64::try_from(token.rv) {
            Err(_) => Ok((resource.cache.fresh().await?, Some(start), None)),
            Ok(revision) => {
                let snapshot = resource
                    .cache
                    .exactly(revision)
                    .await
                    .map_err(|error| gone(error, &token))?;
                Ok((snapshot, Some(start), Some(token.rv)))
            }
        };
    }
    let snapshot = match (options.resource_version, options.version_match) {
        (None, _) => resource.cache.fresh().await?,
        (Some(0), _) => resource.cache.any().await?,
        (Some(version), Some(VersionMatch::Exact)) => exactly(resource, version).await?,
        // Before there was a match parameter, a limit meant an exact version.
        (Some(version), None) if options.limit > 0 => exactly(resource, version).await?,
        (Some(version), _) => resource.cache.not_older_than(version).await?,
    };
    Ok((snapshot, None, None))
}

async fn exactly(resource: &Resource, revision: u64) -> Result<Arc<Snapshot>, ApiError> {
    resource
        .cache
        .exactly(revision)
        .await
        .map_err(|error| match error {
            StoreError::Compacted { .. } => {
                ApiError::expired("The resourceVersion for the provided list is too old.")
            }
            other => store_error(other),
        })
}

/// The answer to a token whose state is gone; it offers to go on with the newest state.
fn gone(error: StoreError, token: &Token) -> ApiError {
    if !error.is_compacted() {
        return store_error(error);
    }
    let inconsistent = Token {
        rv: -1,
        ..token.clone()
    };
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    let status = ApiError::new(Reason::Expired, message).into_status();
    let metadata = StatusMeta {
        continue_: inconsistent.encode().ok(),
        ..StatusMeta::default()
    };
    ApiError::from(Status { metadata, ..status })
}

impl Page {
    fn meta(&self) -> ListMeta {
        ListMeta {
            resource_version: self.revision.to_string(),
            continue_token: self.continue_token.clone(),
            remaining_item_count: self.remaining,
        }
    }

    /// The page as the client wants it.
    pub(crate) fn respond(
        &self,
        resource: &Resource,
        shape: Shape,
        include: IncludeObject,
    ) -> Result<Response<Body>, ApiError> {
        let strategy = &*resource.strategy;
        let objects = self.items.iter().map(|entry| &entry.json);
        match shape {
            Shape::Table(version) => {
                let table = table::table(strategy, version, include, objects, self.meta(), true)?;
                Ok(response::json(StatusCode::OK, table))
            }
            Shape::Metadata(version) => {
                let items = objects
                    .map(|json| table::metadata(version, json))
                    .collect::<Result<Vec<_>, _>>()?;
                let api_version = format!("meta.k8s.io/{version}");
                self.assemble("PartialObjectMetadataList", &api_version, items.iter())
            }
            Shape::Object | Shape::AggregatedDiscovery(_) => {
                let info = resource.info();
                self.assemble(&info.list_kind, &info.api_version(), objects)
            }
        }
    }

    fn assemble<'a>(
        &self,
        kind: &str,
        api_version: &str,
        items: impl Iterator<Item = &'a Bytes>,
    ) -> Result<Response<Body>, ApiError> {
        let metadata = serde_json::to_string(&self.meta()).map_err(ApiError::internal)?;
        let head =
            format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
        let mut pieces = Pieces::default();
        pieces.add(&Bytes::from(head));
        for (number, item) in items.enumerate() {
            if number > 0 {
                pieces.add(&Bytes::from_static(b","));
            }
            pieces.add(item);
        }
        pieces.add(&Bytes::from_static(b"]}\n"));
        Ok(response::pieces(pieces.done()))
    }
}

/// Copies small pieces together and shares large ones.
#[derive(Default)]
struct Pieces {
    done: VecDeque<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn add(&mut self, piece: &Bytes) {
        if piece.len() >= PIECE {
            self.flush();
            self.done.push_back(piece.clone());
            return;
        }
        self.open.extend_from_slice(piece);
        if self.open.len() >= PIECE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.open.is_empty() {
            self.done.push_back(self.open.split().freeze());
        }
    }

    fn done(mut self) -> VecDeque<Bytes> {
        self.flush();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_trip() {
        let token = Token::new(42, "default/web");
        assert_eq!(Token::decode(&token.encode().unwrap()).unwrap(), token);
        assert_eq!(token.start, "default/web\0");
    }

    #[test]
    fn a_broken_token_is_refused() {
        for text in [
            "",
            "!!",
            "e30",
            &URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#),
        ] {
            assert_eq!(Token::decode(text).unwrap_err().code(), 400, "{text}");
        }
    }
}
