//! The tokens by which probe pods know the operator.
//!
//! Each probe pod has a token of its own, and only its hash stands in the pod. A tenant reads the hash, and can have the
//! operator speak to a pod of his at the address of one that is gone; what he learns there opens nothing.

use crate::names::sha256_hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The key of one operator process, from which it derives the tokens of its probe pods. It stands nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeKey([u8; 32]);

/// What the operator shows to one probe pod.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeToken(String);

impl ProbeKey {
    /// A key of random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The token of a probe pod of that Release; `number` is another one for each pod of this process. Who does not know
    /// the key knows none of them, whatever others he has seen.
    pub fn token(&self, namespace: &str, release: &str, number: u64) -> ProbeToken {
        // Neither a namespace nor a name holds a slash.
        ProbeToken(self.code(&format!(
            "{namespace}/{release}/{}",
            self.code(&number.to_string())
        )))
    }

    fn code(&self, text: &str) -> String {
        #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        code.update(text.as_bytes());
        let code = code.finalize().into_bytes();
        code.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl ProbeToken {
    /// The token, which is for the probe pod alone.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the token, in hex.
    pub fn sha256(&self) -> String {
        sha256_hex(&self.0)
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProbeKey")
    }
}

impl fmt::Debug for ProbeToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProbeToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S1: a token is of one pod, one Release, one namespace and one process.
    #[test]
    fn s1_every_probe_pod_has_a_token_of_its_own() {
        let key = ProbeKey::new([7; 32]);
        let tokens = [
            key.token("shop", "crm-2", 1),
            key.token("shop", "crm-2", 2),
            key.token("shop", "crm-3", 1),
            key.token("other", "crm-2", 1),
            ProbeKey::new([8; 32]).token("shop", "crm-2", 1),
        ];
        for (index, token) in tokens.iter().enumerate() {
            assert_eq!(token.secret().len(), 64);
            assert!(!tokens[..index].contains(token), "{index}");
        }
        assert_eq!(key.token("shop", "crm-2", 1), tokens[0]);
    }

    /// S1, S7: neither shows itself.
    #[test]
    fn s1_neither_key_nor_token_is_printed() {
        let key = ProbeKey::new([7; 32]);
        let token = key.token("shop", "crm-2", 1);
        assert_eq!(format!("{key:?} {token:?}"), "ProbeKey ProbeToken");
        assert_eq!(token.sha256(), sha256_hex(token.secret()));
    }
}
