//! Requests to a bucket for which opendal has no call, signed by the same access key.

use bytes::Bytes;
use http::{Method, Request};
use opendal::HttpTransporter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::{Context, OsEnv, ProvideCredential, Signer};
use reqsign_file_read_tokio::TokioFileRead;

/// What SigV4 leaves as it is in a path and in a query.
const PLAIN: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const IN_PATH: AsciiSet = PLAIN.remove(b'/');

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignedError {
    /// The request could not be signed or sent.
    #[error("no answer: {0}")]
    Request(#[from] reqsign_core::Error),
    /// The request could not be built.
    #[error("no request: {0}")]
    Invalid(#[from] http::Error),
    /// The server answered with another status.
    #[error("status {0}")]
    Status(u16),
}

/// A bucket, and the folder of a store in it.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    signer: Signer<Credential>,
    context: Context,
    /// URL of the bucket, without a slash at its end.
    bucket: String,
    /// Folder of the store in the bucket, with a slash at its end, or empty.
    folder: String,
}

impl Signed {
    pub(super) fn new(
        http: HttpTransporter,
        credentials: impl ProvideCredential<Credential = Credential>,
        region: &str,
        bucket: String,
        folder: &str,
    ) -> Self {
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_env(OsEnv)
            .with_http_send(http);
        Self {
            signer: Signer::new(context.clone(), credentials, RequestSigner::new("s3", region)),
            context,
            bucket,
            folder: match folder {
                "" => String::new(),
                folder => format!("{folder}/"),
            },
        }
    }

    /// The key in the bucket of what has this path in the store.
    pub(super) fn key(&self, path: &str) -> String {
        format!("{}{path}", self.folder)
    }

    /// Asks the server about an object, or with an empty key about the bucket, and returns the body of its answer.
    pub(super) async fn send(&self, method: Method, key: &str, query: &str) -> Result<Bytes, SignedError> {
        let url = match key {
            "" => format!("{}?{query}", self.bucket),
            key => format!("{}/{}?{query}", self.bucket, utf8_percent_encode(key, &IN_PATH)),
        };
        let (mut parts, ()) = Request::builder().method(method).uri(url).body(())?.into_parts();
        self.signer.sign(&mut parts, None).await?;
        let answer = self
            .context
            .http_send(Request::from_parts(parts, Bytes::new()))
            .await?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(answer.into_body()),
            false => Err(SignedError::Status(status.as_u16())),
        }
    }
}

/// A value in a query.
pub(super) fn query(text: &str) -> String {
    utf8_percent_encode(text, &PLAIN).to_string()
}
