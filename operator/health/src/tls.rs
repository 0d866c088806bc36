//! TLS to peers whose certificates prove nothing: pods, as with a kubelet probe, and databases whose
//! connection string asks for encryption only.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime},
};
use x509_cert::{
    Certificate,
    der::{self, Decode as _, Encode as _},
    spki::SubjectPublicKeyInfoOwned,
};

mod p521;

/// The one provider of cryptography in this program: ring's, which also verifies signatures of P-521.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        signature_verification_algorithms: p521::with_ring(),
        ..ring::default_provider()
    })
}

/// A client that encrypts and verifies nothing.
///
/// # Errors
/// When the provider knows none of rustls' protocol versions, which [`provider`] does.
pub fn unverified_client() -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth())
}

/// Accepts every certificate, but still demands that the peer holds its key.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_key(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_key(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Demands that the peer holds the key of its certificate. Unlike rustls' own check it takes a certificate of version 1,
/// which is what the recipe in PostgreSQL's documentation makes with OpenSSL before 3.2.
///
/// # Errors
/// When the certificate holds no key that the provider knows, or the signature is not of that key.
pub fn holds_key(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let algorithms = provider
        .signature_verification_algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signature.scheme)
        .flat_map(|(_, algorithms)| *algorithms);
    let signed = is_signed_by(key, algorithms.copied(), message, signature.signature());
    match signed.map_err(|_| CertificateError::BadEncoding)? {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(CertificateError::BadSignature.into()),
    }
}

/// Whether a message was signed with that key, by one of these algorithms.
///
/// # Errors
/// When the key does not say its algorithm in DER.
pub fn is_signed_by(
    key: &SubjectPublicKeyInfoOwned,
    algorithms: impl IntoIterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, der::Error> {
    let kind = key.algorithm.to_der()?;
    let public = key.subject_public_key.raw_bytes();
    // What an algorithm knows of itself is the content of the sequence that a certificate holds.
    let mut fitting = algorithms
        .into_iter()
        .filter(|algorithm| kind.ends_with(&algorithm.public_key_alg_id()));
    Ok(fitting.any(|algorithm| algorithm.verify_signature(public, message, signature).is_ok()))
}
