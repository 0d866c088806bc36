//! How stores are reached over HTTP.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fairway_health::tls::provider;
use fairway_protocol::{Failure, Reason};
use futures::StreamExt as _;
use opendal::{
    Buffer, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator,
    layers::{RetryLayer, TimeoutLayer},
};
use opendal_http_transport_reqwest::ReqwestTransport;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{environment::Environment, failure::environment as environment_failure, tls::common_authorities};

/// Longest wait for the answer to a request that transfers nothing large.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a part of an upload to be taken, and for any part of an answer: 8 MiB in that time is a slow line.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer that is no object, in bytes: a list of a thousand objects with the longest names that there are.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;
/// Times that a request is repeated: with pauses of 1, 2, 4, 8, 16 and twice 20 s, more than a minute of errors is bridged.
const REPEATS: usize = 7;
/// First pause before a request is repeated.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a request is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// The way to a store's server: this program's TLS, without proxies and redirects.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: ReqwestTransport,
    /// What the server answered to requests that failed.
    pub(super) answers: Answers,
    /// What the server said of objects that it keeps although they are deleted.
    pub(super) protection: Protection,
}

impl Http {
    /// # Errors
    /// When the certificates that the App names cannot be used.
    pub(super) fn new(environment: &Environment) -> Result<Self, Failure> {
        Ok(Self {
            client: ReqwestTransport::new(client(environment)?),
            answers: Answers::default(),
            protection: Protection::default(),
        })
    }

    /// The client, for requests that no operator makes. Their answers do not explain what an operator's requests meet.
    pub(super) fn beside(&self) -> HttpTransporter {
        self.transporter(Answers::default(), Protection::default())
    }

    fn transporter(&self, answers: Answers, protection: Protection) -> HttpTransporter {
        let inner = self.client.clone();
        HttpTransporter::new(Observed {
            inner,
            answers,
            protection,
        })
    }

    /// Makes an operator send its requests this way, each within a time.
    pub(super) fn attach(&self, operator: Operator) -> Operator {
        let transporter = self.transporter(self.answers.clone(), self.protection.clone());
        operator
            .with_context(OperationContext::new().with_http_transport(transporter))
            .layer(
                TimeoutLayer::new()
                    .with_timeout(TIMEOUT)
                    .with_io_timeout(TRANSFER_TIMEOUT),
            )
    }
}

/// Makes an operator repeat requests whose errors may pass.
pub(super) fn with_retries(operator: Operator) -> Operator {
    operator.layer(
        RetryLayer::new()
            .with_max_times(REPEATS)
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter(),
    )
}

fn client(environment: &Environment) -> Result<reqwest::Client, Failure> {
    let unusable = |what: String| {
        environment_failure(
            Reason::StoreUnreachable,
            format!(
                "The certificate authorities of the backup store cannot be used ({what}). Correct caFrom in spec.backup.store of the App."
            ),
        )
    };
    let authorities = match std::fs::read(environment.store_authorities()) {
        Ok(pem) => CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => common_authorities(),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mut roots = RootCertStore::empty();
    if let (0, _) = roots.add_parsable_certificates(authorities) {
        return Err(unusable("they hold no certificate in PEM".to_owned()));
    }
    let setup = |error: &dyn std::fmt::Display| {
        environment_failure(
            Reason::AgentFailed,
            format!("HTTP to the backup store cannot be set up: {error}."),
        )
    };
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        // Also for requests that no operator makes, which nothing else limits.
        .read_timeout(TRANSFER_TIMEOUT)
        .no_proxy()
        // The credentials are for this server alone.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| setup(&error.without_url()))
}

/// What the server answered to the requests of an operation that have failed, for messages. Several are under way at a time,
/// so that the end of one must not hide how another has failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<(Asked, Answer)>>>);

/// What a request asks for; the same when it is repeated.
type Asked = (http::Method, http::Uri);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A status that is none of success, and the server's own code for the error, where it is a known one.
    Status(u16, Option<Code>),
    /// Nothing, and why: no connection, or one that broke.
    NoResponse(String),
}

/// A server's own code for an error, and what it means. Statuses say less: a bucket over its quota answers 403, as one does
/// that denies access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    /// The code.
    pub(super) name: &'static str,
    /// What it means.
    pub(super) meaning: Meaning,
}

/// What a server's code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is no room, or no more than a quota permits.
    Full,
    /// The credentials were valid once.
    Expired,
    /// The server does not know the credentials.
    Unknown,
    /// The request's signature does not fit the secret key.
    WrongSecret,
    /// The clocks of client and server differ.
    Clock,
    /// There are too many requests.
    TooMany,
}

/// Codes of Amazon S3, <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, and of other servers that speak
/// its protocol: Ceph, versitygw and Scaleway (`QuotaExceeded`), MinIO (`XMinio…`).
const CODES: [(&str, Meaning); 16] = [
    ("QuotaExceeded", Meaning::Full),
    ("StorageQuotaExceeded", Meaning::Full),
    ("StorageFull", Meaning::Full),
    ("InsufficientStorage", Meaning::Full),
    ("InsufficientCapacity", Meaning::Full),
    ("XMinioStorageFull", Meaning::Full),
    ("XMinioAdminBucketQuotaExceeded", Meaning::Full),
    ("ExpiredToken", Meaning::Expired),
    ("TokenRefreshRequired", Meaning::Expired),
    ("InvalidAccessKeyId", Meaning::Unknown),
    ("InvalidToken", Meaning::Unknown),
    ("SignatureDoesNotMatch", Meaning::WrongSecret),
    ("RequestTimeTooSkewed", Meaning::Clock),
    ("RequestExpired", Meaning::Clock),
    ("SlowDown", Meaning::TooMany),
    ("TooManyRequests", Meaning::TooMany),
];

impl Code {
    /// The code in the body of an answer, if it is a known one. Nothing of the body is kept.
    fn of(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(rename = "Code")]
            code: String,
        }
        let body: Body = quick_xml::de::from_reader(body).ok()?;
        let (name, meaning) = CODES.into_iter().find(|(name, _)| *name == body.code)?;
        Some(Self { name, meaning })
    }
}

impl Answers {
    /// The latest error, of a request that has not succeeded since.
    pub(super) fn latest(&self) -> Option<Answer> {
        self.locked().last().map(|(_, answer)| answer.clone())
    }

    /// Forgets the errors of an operation, because the next one begins.
    pub(super) fn clear(&self) {
        self.locked().clear();
    }

    fn record(&self, asked: Asked, answer: Answer) {
        self.locked().push((asked, answer));
    }

    fn forget(&self, asked: &Asked) {
        self.locked().retain(|(earlier, _)| earlier != asked);
    }

    fn locked(&self) -> MutexGuard<'_, Vec<(Asked, Answer)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header with which a bucket with versions answers a deletion: it has put a marker before the object.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html>
const MARKER: &str = "x-amz-delete-marker";
/// The header that says until when Object Lock keeps an object.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
const RETAINED_UNTIL: &str = "x-amz-object-lock-retain-until-date";

/// What a server says of objects that it keeps although they are deleted, in headers that the library does not pass on.
#[derive(Clone, Debug, Default)]
pub(super) struct Protection(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    has_marked: bool,
    until: Option<String>,
}

impl Protection {
    /// Whether an object was deleted by a marker, so that its bytes are still there.
    pub(super) fn has_marked(&self) -> bool {
        self.locked().has_marked
    }

    /// Until when the object is kept of which the server has spoken since this was asked last.
    pub(super) fn take_until(&self) -> Option<String> {
        self.locked().until.take()
    }

    fn hear(&self, method: &http::Method, headers: &http::HeaderMap) {
        let header = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut said = self.locked();
        said.has_marked |= method == http::Method::DELETE && header(MARKER) == Some("true");
        if let Some(until) = header(RETAINED_UNTIL) {
            said.until = Some(until.to_owned());
        }
    }

    fn locked(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport that remembers which requests failed and which objects are kept, and takes no more than was asked for.
struct Observed {
    inner: ReqwestTransport,
    answers: Answers,
    protection: Protection,
}

/// What of a request decides how its answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// A whole object, as long as it is.
    Object,
    /// A part of an object.
    Range,
    /// Anything else.
    Other,
}

impl Extent {
    fn of(request: &http::Request<Buffer>) -> Self {
        let is_of_object = request.method() == http::Method::GET && request.uri().query().is_none();
        match request.headers().contains_key(http::header::RANGE) {
            _ if !is_of_object => Self::Other,
            true => Self::Range,
            false => Self::Object,
        }
    }

    /// The answer as far as it may be read.
    fn check(self, answer: http::Response<HttpBody>) -> opendal::Result<http::Response<HttpBody>> {
        match (self, answer.status()) {
            // A server that ignores the range would have its object's beginning taken for the part.
            (Self::Range, http::StatusCode::OK) => Err(opendal::Error::new(
                opendal::ErrorKind::Unexpected,
                "the server answers a range with the whole object",
            )),
            (Self::Object | Self::Range, _) => Ok(answer),
            _ => Ok(answer.map(at_most)),
        }
    }
}

/// A body that fails after [`LARGEST_ANSWER`], because the library reads it whole.
fn at_most(body: HttpBody) -> HttpBody {
    body.map_inner(|pieces| {
        let mut left = LARGEST_ANSWER;
        Box::new(pieces.map(move |piece| {
            let piece = piece?;
            left = left.checked_sub(piece.len()).ok_or_else(|| {
                opendal::Error::new(opendal::ErrorKind::Unexpected, "the server's answer is too long")
            })?;
            Ok(piece)
        }))
    })
}

impl HttpTransport for Observed {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        let asked = (request.method().clone(), request.uri().clone());
        // A request that is cancelled by its timeout leaves no answer: the one to an earlier attempt must not explain it.
        self.answers.forget(&asked);
        let extent = Extent::of(&request);
        match self.inner.fetch(request).await {
            Ok(answer) if answer.status().is_success() => {
                self.protection.hear(&asked.0, answer.headers());
                extent.check(answer)
            }
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let body = at_most(body).to_buffer().await;
                let code = body.as_ref().ok().and_then(|body| Code::of(&body.to_bytes()));
                self.answers
                    .record(asked, Answer::Status(parts.status.as_u16(), code));
                let body = body?;
                let length = body.len() as u64;
                let body = HttpBody::new(futures::stream::iter([Ok(body)]), Some(length));
                Ok(http::Response::from_parts(parts, body))
            }
            Err(error) => {
                self.answers.record(asked, Answer::NoResponse(innermost(&error)));
                Err(error)
            }
        }
    }
}

/// The innermost cause of an error: the outer ones repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{Router, http::StatusCode, routing::get};

    use super::*;

    /// A server that has no room for `/part` at first.
    async fn server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let statuses = Arc::new(Mutex::new(vec![StatusCode::OK, StatusCode::INSUFFICIENT_STORAGE]));
        let part = move || async move { statuses.lock().unwrap().pop().unwrap() };
        let router = Router::new()
            .route("/part", get(part))
            .route("/other-part", get(|| async { StatusCode::OK }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[test]
    fn errors_of_more_than_a_minute_are_bridged() {
        let pauses = std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)));
        let least: Duration = pauses.take(REPEATS).sum();
        assert!(least > Duration::from_secs(60), "{least:?}");
    }

    #[test]
    fn a_code_is_known_or_not_kept() {
        let code = |body: &str| Code::of(body.as_bytes()).map(|code| code.name);
        let error = "<?xml version=\"1.0\"?>\n<Error><Code>QuotaExceeded</Code><Message>m</Message></Error>";
        assert_eq!(code(error), Some("QuotaExceeded"));
        let of_namespace =
            "<Error xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Code>ExpiredToken</Code></Error>";
        assert_eq!(code(of_namespace), Some("ExpiredToken"));
        for other in [
            "",
            "<html>",
            "<Error><Code>s3cret</Code></Error>",
            "<Error/>",
            "{}",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_request_does_not_hide_how_another_failed() {
        let server = server().await;
        let http = Http::new(&Environment::of_process(BTreeMap::new())).unwrap();
        let transport = Observed {
            inner: http.client.clone(),
            answers: http.answers.clone(),
            protection: http.protection.clone(),
        };
        let fetch = async |path: &str| {
            let request = http::Request::get(format!("{server}/{path}"));
            let answer = transport.fetch(request.body(Buffer::new()).unwrap()).await;
            (answer.unwrap().status().as_u16(), http.answers.latest())
        };
        let full = Some(Answer::Status(507, None));
        assert_eq!(fetch("part").await, (507, full.clone()));
        assert_eq!(fetch("other-part").await, (200, full));
        assert_eq!(fetch("part").await, (200, None), "it was repeated with success");
    }
}
