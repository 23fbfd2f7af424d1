//! Compression of large answers for clients that take it, as kube-apiserver does: at the fastest level, and piece by piece, so
//! that a long list is never held as a whole a second time.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};

use super::body::Body;

/// Smaller answers are sent as they are.
const MIN_BYTES: u64 = 128 * 1024;

/// How much compressed content makes a piece.
const PIECE: usize = 32 * 1024;

/// Compresses an answer if it is worth it and the client takes it.
pub(crate) fn compress(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let is_large = response.body().length().is_some_and(|length| length > MIN_BYTES);
    if !is_large || response.headers().contains_key(CONTENT_ENCODING) || !is_taken(request) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts
        .headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts
        .headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body.compressed())
}

/// Whether the client names gzip. As upstream, weights are not read.
fn is_taken(request: &HeaderMap) -> bool {
    let values = request
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|encoding| encoding.trim() == "gzip")
}

/// Pieces on their way through the encoder.
pub(crate) struct Gzip {
    pieces: VecDeque<Bytes>,
    /// `None` when all has been taken out.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    pub(crate) fn new(pieces: VecDeque<Bytes>) -> Self {
        Self {
            pieces,
            encoder: Some(GzEncoder::new(Vec::with_capacity(PIECE), Compression::fast())),
        }
    }

    /// The next compressed piece.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        while let Some(piece) = self.pieces.pop_front() {
            if let Err(error) = encoder.write_all(&piece) {
                unreachable!("memory takes everything: {error}");
            }
            if encoder.get_ref().len() >= PIECE {
                let full = std::mem::replace(encoder.get_mut(), Vec::with_capacity(PIECE));
                return Some(full.into());
            }
        }
        let rest = self.encoder.take()?.finish();
        Some(rest.unwrap_or_default().into())
    }

    /// Whether there is nothing more.
    pub(crate) fn is_done(&self) -> bool {
        self.encoder.is_none()
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::BodyExt;

    use super::*;

    fn request(encodings: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(encodings))])
    }

    fn answer(pieces: &[Bytes]) -> Response<Body> {
        Response::new(Body::pieces(pieces.iter().cloned().collect()))
    }

    #[tokio::test]
    async fn a_large_answer_comes_back_as_it_was() {
        let pieces: Vec<Bytes> = (0..3000)
            .map(|index| Bytes::from(format!("{index} {}", fastrand::u128(..)).repeat(3)))
            .collect();
        let response = compress(&request("br, gzip"), answer(&pieces));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let compressed = response.into_body().collect().await.unwrap().to_bytes();
        let whole = pieces.concat();
        assert!(compressed.len() < whole.len());
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&compressed[..])
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == whole);
    }

    #[test]
    fn small_answers_and_clients_that_do_not_ask_get_it_plain() {
        let large = [Bytes::from(vec![b'x'; 200_000])];
        let small = [Bytes::from(vec![b'x'; 1000])];
        for (encodings, pieces) in [("identity", &large), ("gzipped", &large), ("gzip", &small)] {
            let response = compress(&request(encodings), answer(pieces));
            assert!(!response.headers().contains_key(CONTENT_ENCODING), "{encodings}");
        }
        assert!(compress(&HeaderMap::new(), answer(&large)).headers().is_empty());
    }
}
