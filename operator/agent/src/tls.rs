//! TLS to the database, by the rules of libpq's `sslmode`.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tempfile::NamedTempFile;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connection::{Connection, TlsMode};
use fairway_health::tls::{AnyCertificate, provider};

/// Why TLS could not be set up. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate file {0} cannot be read as PEM")]
    File(String),
    #[error("no certificate authority to verify the server with; give sslrootcert")]
    NoAuthority,
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The connector for a connection's `sslmode`.
pub(crate) fn connector(connection: &Connection) -> Result<MakeRustlsConnect, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match connection.tls {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Arc::new(AnyCertificate(provider())),
        TlsMode::VerifyCa => Arc::new(AnyName(trusted(connection)?)),
        TlsMode::VerifyFull => trusted(connection)?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &connection.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable(key))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(setup)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

fn unreadable(path: &Path) -> TlsError {
    TlsError::File(path.display().to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read()
        .map_err(|_| unreadable(path))
        .and_then(|found| match found.is_empty() {
            true => Err(unreadable(path)),
            false => Ok(found),
        })
}

/// The image's authorities, or, in an image without any, Mozilla's.
fn common_authorities() -> Vec<CertificateDer<'static>> {
    let native = rustls_native_certs::load_native_certs().certs;
    match RootCertStore::empty().add_parsable_certificates(native.iter().cloned()) {
        (0, _) => webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec(),
        _ => native,
    }
}

/// The authorities that a connection trusts without naming a file, as a file for libpq: by itself that trusts
/// only `~/.postgresql/root.crt`. None where the connection names a file, or verifies nothing.
pub(crate) fn authorities_file(connection: &Connection) -> io::Result<Option<NamedTempFile>> {
    let verifies = matches!(connection.tls, TlsMode::VerifyCa | TlsMode::VerifyFull);
    if !verifies || connection.root_certificates.is_some() {
        return Ok(None);
    }
    let mut file = NamedTempFile::with_prefix("fairway-authorities-")?;
    for authority in common_authorities() {
        writeln!(file, "-----BEGIN CERTIFICATE-----")?;
        let encoded = BASE64_STANDARD.encode(&authority);
        for line in encoded.as_bytes().chunks(64) {
            file.write_all(line)?;
            writeln!(file)?;
        }
        writeln!(file, "-----END CERTIFICATE-----")?;
    }
    file.flush()?;
    Ok(Some(file))
}

/// A verifier that trusts the given file, or else [`common_authorities`].
fn trusted(connection: &Connection) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match &connection.root_certificates {
        Some(path) => certificates(path)?,
        None => common_authorities(),
    });
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(setup)
}

/// `verify-ca`: the chain must hold, the name need not.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The verifier checks the chain before the name, so a wrong name means that the chain held.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
