//! What must hold of all that pods answer, whatever bytes it is: the fuzz targets in `operator/fuzz` call these functions
//! with what libFuzzer finds, the unit tests below with the seeds that it begins with.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_cert::{Certificate, der::Decode as _};

use crate::{
    members::{Members, Unusable},
    tls,
};

/// An answer means what it means to serde_json, in whatever pieces it comes. The first line is a JSON pointer, the second
/// the text that is expected there, and the rest is the answer.
pub fn members(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).map(ToOwned::to_owned);
    let (Ok(pointer), Ok(expected)) = (text(), text()) else {
        return;
    };
    let answer = parts.next().unwrap_or_default();
    let whole = compare(&pointer, &expected, answer, answer.len());
    for size in [1, 3] {
        assert_eq!(
            compare(&pointer, &expected, answer, size),
            whole,
            "in pieces of {size}"
        );
    }
    let is_pointer = pointer.is_empty() || pointer.starts_with('/');
    let reads = serde_json::from_slice::<Value>(answer);
    match (&whole, &reads) {
        (Ok(difference), Ok(read)) => {
            // Numbers are compared by value, whatever their text.
            let found = read.pointer(&pointer);
            let text = found.and_then(Value::as_str);
            if is_pointer && (found.is_none() || text.is_some()) {
                assert_eq!(difference.is_none(), text == Some(&expected), "{difference:?}");
            }
            assert!(
                difference
                    .as_ref()
                    .is_none_or(|text| text.len() <= 4 * 256 + pointer.len())
            );
        }
        // serde_json reads 128 levels, and keeps numbers within bounds.
        (Ok(_), Err(error)) => assert!(!error.is_eof(), "{error}"),
        (Err(Unusable::NotJson), Ok(_)) => panic!("it is JSON"),
        (Err(_), _) => {}
    }
}

fn compare(pointer: &str, expected: &str, answer: &[u8], size: usize) -> Result<Option<String>, Unusable> {
    let expected = BTreeMap::from([(pointer.to_owned(), expected.to_owned())]);
    let mut members = Members::new(&expected);
    for piece in answer.chunks(size.max(1)) {
        members.read(piece)?;
    }
    members.end()
}

/// The key of a certificate signed nothing that was not signed: the first byte is the length of the signature.
pub fn certificate(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let (signature, certificate) = rest.split_at(rest.len().min(usize::from(*length)));
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return;
    };
    let algorithms = tls::provider().signature_verification_algorithms.all;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let _ = tls::is_signed_by(key, algorithms.iter().copied(), b"message", signature);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzz_targets_check_holds_for_their_seeds() {
        for seed in include_str!("../../fuzz/seeds/members.txt").lines() {
            members(seed.replace("\\n", "\n").as_bytes());
        }
        let key = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        certificate(&[&[4, 1, 2, 3, 4], key.cert.der().as_ref()].concat());
    }
}
