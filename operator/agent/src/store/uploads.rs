//! Uploads in parts that were never completed, because the process that made them was killed. No list of objects shows
//! them, and their parts are paid for until somebody ends them:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>.

use bytes::Bytes;
use http::{Method, Request};
use opendal::HttpTransporter;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::{Context, OsEnv, ProvideCredential, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use serde::Deserialize;

/// What SigV4 leaves as it is in a path and in a query.
const PLAIN: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const IN_PATH: AsciiSet = PLAIN.remove(b'/');

/// Most pages of the list, of a thousand uploads each.
const MOST_PAGES: usize = 100;

/// Why unfinished uploads are still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadsError {
    /// The request could not be signed or sent.
    #[error("no answer: {0}")]
    Request(#[from] reqsign_core::Error),
    /// The request could not be built.
    #[error("no request: {0}")]
    Invalid(#[from] http::Error),
    /// The server answered with another status.
    #[error("status {0}")]
    Status(u16),
    /// The server's answer is not a list of uploads.
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] quick_xml::DeError),
    /// The list of uploads has too many pages.
    #[error("there are too many")]
    TooMany,
}

/// Ends uploads in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Uploads {
    signer: Signer<Credential>,
    context: Context,
    /// URL of the bucket, without a slash at its end.
    bucket: String,
    /// Folder of the store in the bucket, with a slash at its end, or empty.
    folder: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    upload: Vec<Upload>,
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

impl Uploads {
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

    /// Ends the uploads of objects whose paths in the store start with `prefix`.
    pub(super) async fn end(&self, prefix: &str) -> Result<(), UploadsError> {
        let prefix = format!("{}{prefix}", self.folder);
        let mut after = String::new();
        for _ in 0..MOST_PAGES {
            let listed = self
                .send(
                    Method::GET,
                    &format!("{}?uploads=&prefix={}{after}", self.bucket, query(&prefix)),
                )
                .await?;
            let listed: Listed = quick_xml::de::from_reader(listed.as_ref())?;
            // A server may ignore the prefix, and what it lists beside may be anybody's.
            let own = listed
                .upload
                .iter()
                .filter(|upload| upload.key.starts_with(&prefix));
            for Upload { key, upload_id } in own {
                let path = utf8_percent_encode(key, &IN_PATH);
                let url = format!("{}/{path}?uploadId={}", self.bucket, query(upload_id));
                match self.send(Method::DELETE, &url).await {
                    // Somebody else has ended it.
                    Err(UploadsError::Status(404)) | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            let next = format!(
                "&key-marker={}&upload-id-marker={}",
                query(&listed.next_key_marker),
                query(&listed.next_upload_id_marker)
            );
            if !listed.is_truncated || listed.upload.is_empty() || next == after {
                return Ok(());
            }
            after = next;
        }
        Err(UploadsError::TooMany)
    }

    async fn send(&self, method: Method, url: &str) -> Result<Bytes, UploadsError> {
        let (mut parts, ()) = Request::builder().method(method).uri(url).body(())?.into_parts();
        self.signer.sign(&mut parts, None).await?;
        let answer = self
            .context
            .http_send(Request::from_parts(parts, Bytes::new()))
            .await?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(answer.into_body()),
            false => Err(UploadsError::Status(status.as_u16())),
        }
    }
}

fn query(text: &str) -> String {
    utf8_percent_encode(text, &PLAIN).to_string()
}
