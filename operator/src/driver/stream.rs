//! Requests to the API server whose answers are read as they come in.
//!
//! Not with kube's own calls: they hold an answer up to four times while they read it, a whole page at once, and log it
//! when it does not parse.

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue, WARNING};
use hyper::{Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest wait for the next bytes of an answer.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Largest error answer that is read.
const LARGEST_ERROR: usize = 64 * 1024;
/// Bytes that each reader may hold; who needs more waits for the one place where more may be held.
const SMALL: usize = 256 * 1024;

/// Who may hold more than [`SMALL`] bytes: one reader of the process. Objects as large as the API server takes them come
/// one after the other, however many watches show them.
static LARGE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(1));

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The API server said so.
    Answered(Box<Status>),
    /// The operator's credentials cannot be read.
    Credentials,
    /// The API server cannot be reached, or its answer broke off.
    Unreachable,
    /// The answer is not one of the API server.
    Malformed,
}

/// An answer that comes in.
#[derive(Debug)]
pub(super) struct Answer {
    headers: HeaderMap,
    body: Body,
}

/// Sends a request.
pub(super) async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<Answer, Failure> {
    let response = client
        .send(request.map(Body::from))
        .await
        .map_err(|error| match error {
            kube::Error::Auth(_) => Failure::Credentials,
            _ => Failure::Unreachable,
        })?;
    let (head, body) = response.into_parts();
    let mut answer = Answer {
        headers: head.headers,
        body,
    };
    if head.status.is_success() {
        return Ok(answer);
    }
    Err(Failure::Answered(Box::new(answer.error(head.status).await)))
}

impl Answer {
    /// What the API server warns of.
    pub(super) fn warnings(&self) -> Vec<String> {
        let headers = self.headers.get_all(WARNING).iter();
        fairway_engine::read_warnings(headers.map(HeaderValue::as_bytes))
    }

    /// The next bytes, waited for so long; `None` at the end.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = tokio::time::timeout(silence, self.body.frame()).await;
            let frame = match frame {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|_| Failure::Unreachable)?,
                Err(_) => return Err(Failure::Unreachable),
            };
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All of an answer of at most `largest` bytes.
    pub(super) async fn whole(mut self, largest: usize) -> Result<Vec<u8>, Failure> {
        let mut held = Vec::new();
        let mut place = Place::default();
        while let Some(bytes) = self.next(SILENCE).await? {
            if held.len() + bytes.len() > largest {
                return Err(Failure::Malformed);
            }
            place.hold(held.len() + bytes.len()).await;
            held.extend_from_slice(&bytes);
        }
        Ok(held)
    }

    async fn error(&mut self, code: StatusCode) -> Status {
        let mut held = Vec::new();
        while let Ok(Some(bytes)) = self.next(SILENCE).await {
            if held.len() + bytes.len() > LARGEST_ERROR {
                break;
            }
            held.extend_from_slice(&bytes);
        }
        let answered = serde_json::from_slice::<Status>(&held).ok();
        // Something between here and the API server answers in its own words, which nobody should see.
        answered
            .filter(|status| status.code != 0)
            .unwrap_or_else(|| Status {
                code: code.as_u16(),
                reason: code.canonical_reason().unwrap_or_default().to_owned(),
                ..Status::default()
            })
    }
}

/// The place of one reader: with the one for much, or without.
#[derive(Debug, Default)]
pub(super) struct Place(Option<SemaphorePermit<'static>>);

impl Place {
    /// Waits until so many bytes may be held.
    pub(super) async fn hold(&mut self, bytes: usize) {
        if bytes <= SMALL {
            self.0 = None;
        } else if self.0.is_none() {
            // It is never closed.
            self.0 = LARGE.acquire().await.ok();
        }
    }
}
