//! Signatures by keys on the curve P-521, which OpenSSL makes and ring does not verify.

use std::sync::LazyLock;

use p521::ecdsa::{DerSignature, VerifyingKey, signature::hazmat::PrehashVerifier};
use rustls::{
    SignatureScheme,
    crypto::{WebPkiSupportedAlgorithms, ring},
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Signatures of P-521 over one digest.
#[derive(Debug)]
struct Ecdsa {
    digest: fn(&[u8]) -> Vec<u8>,
    signature: AlgorithmIdentifier,
}

/// One algorithm for each digest that certificates use; the last one is that of TLS 1.3.
static ALGORITHMS: [Ecdsa; 3] = [
    Ecdsa {
        digest: |message| Sha256::digest(message).to_vec(),
        signature: alg_id::ECDSA_SHA256,
    },
    Ecdsa {
        digest: |message| Sha384::digest(message).to_vec(),
        signature: alg_id::ECDSA_SHA384,
    },
    Ecdsa {
        digest: |message| Sha512::digest(message).to_vec(),
        signature: alg_id::ECDSA_SHA512,
    },
];

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = DerSignature::try_from(signature).map_err(|_| InvalidSignature)?;
        key.verify_prehash(&(self.digest)(message), &signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

fn of_ring() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// What ring verifies, and P-521.
pub(super) fn with_ring() -> WebPkiSupportedAlgorithms {
    static ALL: LazyLock<Vec<Algorithm>> = LazyLock::new(|| {
        let ours = ALGORITHMS.iter().map(|algorithm| algorithm as Algorithm);
        of_ring().all.iter().copied().chain(ours).collect()
    });
    static TLS_1_3: LazyLock<[Algorithm; 1]> = LazyLock::new(|| [&ALGORITHMS[2]]);
    static MAPPING: LazyLock<Vec<(SignatureScheme, &'static [Algorithm])>> = LazyLock::new(|| {
        let ours: &'static [Algorithm] = TLS_1_3.as_slice();
        let ours = (SignatureScheme::ECDSA_NISTP521_SHA512, ours);
        of_ring().mapping.iter().copied().chain([ours]).collect()
    });
    WebPkiSupportedAlgorithms {
        all: ALL.as_slice(),
        mapping: MAPPING.as_slice(),
    }
}
