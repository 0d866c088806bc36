//! Versions that a bucket keeps of objects that were deleted. No list of objects shows them:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>.

use http::Method;
use serde::Deserialize;

use super::signed::{Signed, SignedError, query};

/// Why it is not known whether there are versions.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionsError {
    /// The request failed: the server may have no versions, or the access key may not list them.
    #[error(transparent)]
    Request(#[from] SignedError),
    /// The server's answer is not a list of versions.
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] quick_xml::DeError),
}

/// Looks for versions in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Versions(pub(super) Signed);

#[derive(Debug, Deserialize)]
struct Listed {
    /// Versions and markers of deletions, by key: one kind may come between two of the other.
    #[serde(rename = "$value", default)]
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
enum Entry {
    Version(Version),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    key: String,
    is_latest: bool,
}

impl Versions {
    /// Whether the bucket keeps an earlier version of an object whose path in the store starts with `prefix`. One page of the
    /// list is enough: what was just deleted has no version without a marker before it.
    pub(super) async fn are_kept(&self, prefix: &str) -> Result<bool, VersionsError> {
        let Self(bucket) = self;
        let prefix = bucket.key(prefix);
        let asked = format!("versions=&prefix={}", query(&prefix));
        let answer = bucket.send(Method::GET, "", &asked).await?;
        Ok(has_earlier(&answer, &prefix)?)
    }
}

/// Whether a list has an earlier version of an object whose key starts with `prefix`.
fn has_earlier(list: &[u8], prefix: &str) -> Result<bool, quick_xml::DeError> {
    let listed: Listed = quick_xml::de::from_reader(list)?;
    // A server may ignore the prefix.
    Ok(listed.entries.iter().any(|entry| match entry {
        Entry::Version(version) => !version.is_latest && version.key.starts_with(prefix),
        Entry::Other => false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n\
             <Name>backups</Name><IsTruncated>false</IsTruncated>{entries}</ListVersionsResult>"
        )
    }

    fn version(key: &str, is_latest: bool) -> String {
        format!(
            "<Version><Key>{key}</Key><VersionId>1</VersionId><IsLatest>{is_latest}</IsLatest><Size>7</Size></Version>"
        )
    }

    const MARKER: &str =
        "<DeleteMarker><Key>a/b</Key><VersionId>2</VersionId><IsLatest>true</IsLatest></DeleteMarker>";

    #[test]
    fn only_an_earlier_version_of_what_was_deleted_counts() {
        let found = |entries: &str| has_earlier(list(entries).as_bytes(), "a/").unwrap();
        assert!(!found(""));
        assert!(
            !found(&version("a/foreign", true)),
            "it is there, and not deleted"
        );
        assert!(!found(&version("b/other", false)), "it is of another set");
        assert!(!found(MARKER));
        let between = [MARKER, &version("a/b", false), MARKER, &version("a/c", false)].concat();
        assert!(found(&between));
    }
}
