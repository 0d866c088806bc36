//! Uploads in parts that were never completed, because the process that made them was killed. No list of objects shows
//! them, and their parts are paid for until somebody ends them:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>.

use http::Method;
use serde::Deserialize;

use super::signed::{Signed, SignedError, query};

/// Most pages of the list, of a thousand uploads each.
const MOST_PAGES: usize = 100;

/// Why unfinished uploads are still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadsError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] SignedError),
    /// The server's answer is not a list of uploads.
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] quick_xml::DeError),
    /// The list of uploads has too many pages.
    #[error("there are too many")]
    TooMany,
}

/// Ends uploads in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Uploads(pub(super) Signed);

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
    /// Ends the uploads of objects whose paths in the store start with `prefix`.
    pub(super) async fn end(&self, prefix: &str) -> Result<(), UploadsError> {
        let Self(bucket) = self;
        let prefix = bucket.key(prefix);
        let mut after = String::new();
        for _ in 0..MOST_PAGES {
            let asked = format!("uploads=&prefix={}{after}", query(&prefix));
            let listed = bucket.send(Method::GET, "", &asked).await?;
            let listed: Listed = quick_xml::de::from_reader(listed.as_ref())?;
            // A server may ignore the prefix, and what it lists beside may be anybody's.
            let own = listed
                .upload
                .iter()
                .filter(|upload| upload.key.starts_with(&prefix));
            for Upload { key, upload_id } in own {
                let upload = format!("uploadId={}", query(upload_id));
                match bucket.send(Method::DELETE, key, &upload).await {
                    // Somebody else has ended it.
                    Err(SignedError::Status(404)) | Ok(_) => {}
                    Err(error) => return Err(error.into()),
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
}
