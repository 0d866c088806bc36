//! TLS to the database, by the rules of libpq's `sslmode`.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::NamedTempFile;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connection::{Connection, TlsMode, TlsVersion, TlsVersions};
use fairway_health::tls::{AnyCertificate, provider};
use verifier::{Names, Trusted};

mod verifier;

/// Why TLS could not be set up. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "the file {0}, which the connection string names, does not exist in this pod; mount it there from a Secret or a \
         ConfigMap, in the component too"
    )]
    Missing(String),
    #[error("the file {file}, which the connection string names, cannot be read: {why}")]
    Unreadable {
        /// Path of the file.
        file: String,
        /// What the system answers.
        why: String,
    },
    #[error("the file {0}, which the connection string names, holds no certificate in PEM")]
    NoCertificate(String),
    #[error(
        "the file {0}, which the connection string names, holds no private key in PEM without a passphrase"
    )]
    NoKey(String),
    #[error("no certificate authority to verify the server with; give sslrootcert")]
    NoAuthority,
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The connector for a connection's `sslmode`.
pub(crate) fn connector(connection: &Connection) -> Result<MakeRustlsConnect, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match connection.tls {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Arc::new(AnyCertificate(provider())),
        TlsMode::VerifyCa => Arc::new(trusted(connection, Names::Any)?),
        TlsMode::VerifyFull => Arc::new(trusted(connection, Names::Host)?),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(connection.tls_versions))
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &connection.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = read(key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| TlsError::NoKey(key.display().to_string()))?;
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

/// The versions of TLS between the limits.
fn versions(limits: TlsVersions) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)];
    let within = |version: &TlsVersion| {
        limits.least.is_none_or(|least| *version >= least) && limits.most.is_none_or(|most| *version <= most)
    };
    all.into_iter()
        .filter(|(version, _)| within(version))
        .map(|(_, supported)| supported)
        .collect()
}

/// The content of a file that the connection names.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = path.display().to_string();
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => TlsError::Missing(file),
        _ => TlsError::Unreadable {
            file,
            why: error.to_string(),
        },
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::NoCertificate(path.display().to_string())),
    }
}

/// The image's authorities, or, in an image without any, Mozilla's.
pub(crate) fn common_authorities() -> Vec<CertificateDer<'static>> {
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
fn trusted(connection: &Connection, names: Names) -> Result<Trusted, TlsError> {
    let (authorities, of_file) = match &connection.root_certificates {
        Some(path) => {
            let authorities = certificates(path)?;
            (authorities.clone(), authorities)
        }
        None => (common_authorities(), Vec::new()),
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(setup)?;
    Ok(Trusted::new(webpki, of_file, names))
}
