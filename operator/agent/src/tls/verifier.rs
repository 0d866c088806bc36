//! Verification of a server's certificate where webpki is stricter than OpenSSL, with which libpq verifies.
//!
//! webpki decides wherever it can. Three kinds of certificates that administrators make for PostgreSQL it refuses as a
//! server's: one of an authority, such as the one that `openssl req -x509` makes; one of version 1, which is what
//! PostgreSQL's own recipe makes with OpenSSL before 3.2; and one that names its host in its subject alone. Of the
//! first two only those are accepted that are, or that were issued by, a certificate of the given file.

use std::{net::IpAddr, sync::Arc};

use fairway_health::tls::{holds_key, is_signed_by, provider};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    Certificate, Version,
    der::{
        Decode as _, Encode as _,
        asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef},
        oid::{
            AssociatedOid as _, ObjectIdentifier,
            db::{rfc4519::CN, rfc5280},
        },
    },
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, name::GeneralName},
};

/// What of a certificate's names counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing: `verify-ca`.
    Any,
    /// The host of the connection must be among them: `verify-full`.
    Host,
}

/// Trusts the authorities of a connection.
#[derive(Debug)]
pub(super) struct Trusted {
    /// webpki, with the same authorities.
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    /// The certificates of the file that the connection names.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// What the certificate must name.
    pub(super) names: Names,
    /// What verifies signatures.
    pub(super) provider: Arc<CryptoProvider>,
}

impl Trusted {
    /// A verifier with the one provider of this program.
    pub(super) fn new(
        webpki: Arc<WebPkiServerVerifier>,
        roots: Vec<CertificateDer<'static>>,
        names: Names,
    ) -> Self {
        Self {
            webpki,
            roots,
            names,
            provider: provider(),
        }
    }

    /// Whether a certificate is one of the file's, or was issued by one of them, and is valid now.
    fn directly(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Option<()> {
        let certificate = Certificate::from_der(end_entity).ok()?;
        (is_current(&certificate, now) && serves(&certificate)).then_some(())?;
        let roots = self.roots.iter();
        let mut roots =
            roots.filter_map(|root| Certificate::from_der(root).ok().map(|parsed| (root, parsed)));
        let issued = |(der, root): (&CertificateDer<'_>, Certificate)| {
            let is_itself = der.as_ref() == end_entity.as_ref();
            root.tbs_certificate.subject == certificate.tbs_certificate.issuer
                && is_current(&root, now)
                && (is_itself || is_authority(&root))
                && self.signed(&certificate, &root)
        };
        roots.any(issued).then_some(())
    }

    fn signed(&self, certificate: &Certificate, by: &Certificate) -> bool {
        let key = &by.tbs_certificate.subject_public_key_info;
        let parts = (
            certificate.tbs_certificate.to_der(),
            certificate.signature_algorithm.to_der(),
        );
        let (Ok(signed), Ok(method)) = parts else {
            return false;
        };
        let algorithms = self.provider.signature_verification_algorithms.all.iter();
        let of_method = algorithms.filter(|algorithm| method.ends_with(&algorithm.signature_alg_id()));
        let signature = certificate.signature.raw_bytes();
        is_signed_by(key, of_method.copied(), &signed, signature).unwrap_or_default()
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict =
            self.webpki
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = verdict else { return verdict };
        let chain_holds = match &error {
            // webpki checks the chain before the name, so a wrong name means that the chain held.
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => true,
            Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::BadEncoding) => {
                self.directly(end_entity, now).is_some()
            }
            _ => false,
        };
        match (chain_holds, self.names) {
            (false, _) => Err(error),
            (true, Names::Any) => Ok(ServerCertVerified::assertion()),
            (true, Names::Host) => names_host(end_entity, server_name),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_key(message, certificate, signature, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        holds_key(message, certificate, signature, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn is_current(certificate: &Certificate, now: UnixTime) -> bool {
    let validity = &certificate.tbs_certificate.validity;
    let (from, until) = (validity.not_before, validity.not_after);
    (from.to_unix_duration().as_secs()..=until.to_unix_duration().as_secs()).contains(&now.as_secs())
}

/// The content of an extension; none where the certificate has none, or one that cannot be read.
fn extension<T: for<'a> x509_cert::der::Decode<'a>>(
    certificate: &Certificate,
    id: ObjectIdentifier,
) -> Option<T> {
    let extensions = certificate.tbs_certificate.extensions.as_deref()?;
    let found = extensions.iter().find(|extension| extension.extn_id == id)?;
    T::from_der(found.extn_value.as_bytes()).ok()
}

fn has(certificate: &Certificate, id: ObjectIdentifier) -> bool {
    let extensions = certificate
        .tbs_certificate
        .extensions
        .as_deref()
        .unwrap_or_default();
    extensions.iter().any(|extension| extension.extn_id == id)
}

/// Whether a certificate may be a server's: it is for that or for anything, and demands nothing that is not known here.
fn serves(certificate: &Certificate) -> bool {
    let known = [
        BasicConstraints::OID,
        KeyUsage::OID,
        ExtendedKeyUsage::OID,
        SubjectAltName::OID,
    ];
    let extensions = certificate
        .tbs_certificate
        .extensions
        .as_deref()
        .unwrap_or_default();
    let understood = extensions
        .iter()
        .all(|extension| !extension.critical || known.contains(&extension.extn_id));
    let for_servers = match extension::<ExtendedKeyUsage>(certificate, ExtendedKeyUsage::OID) {
        Some(usage) => usage
            .0
            .iter()
            .any(|purpose| [rfc5280::ID_KP_SERVER_AUTH, rfc5280::ANY_EXTENDED_KEY_USAGE].contains(purpose)),
        None => !has(certificate, ExtendedKeyUsage::OID),
    };
    understood && for_servers
}

/// Whether a certificate may issue others; those of version 1 cannot say, and count as roots of their own.
fn is_authority(certificate: &Certificate) -> bool {
    match extension::<BasicConstraints>(certificate, BasicConstraints::OID) {
        Some(constraints) => constraints.ca,
        None => certificate.tbs_certificate.version == Version::V1,
    }
}

/// Proves that a certificate names the host, as libpq looks: by the alternative names of the host's kind, or, where
/// there are none, by the common name of the subject.
fn names_host(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<ServerCertVerified, Error> {
    let certificate = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let alternatives = extension::<SubjectAltName>(&certificate, SubjectAltName::OID);
    if alternatives.is_none() && has(&certificate, SubjectAltName::OID) {
        return Err(CertificateError::BadEncoding.into());
    }
    let alternatives = alternatives.map_or_else(Vec::new, |names| names.0);
    let of_kind: Vec<String> = alternatives
        .iter()
        .filter_map(|name| of_kind(name, host))
        .collect();
    let names = match of_kind.is_empty() {
        true => common_name(&certificate).into_iter().collect(),
        false => of_kind,
    };
    let text = host.to_str();
    match names.iter().any(|name| fits(name, &text)) {
        true => Ok(ServerCertVerified::assertion()),
        false => Err(CertificateError::NotValidForNameContext {
            expected: host.to_owned(),
            presented: names,
        }
        .into()),
    }
}

/// An alternative name as text, if it is of the same kind as the host.
fn of_kind(name: &GeneralName, host: &ServerName<'_>) -> Option<String> {
    match (name, host) {
        (GeneralName::DnsName(name), ServerName::DnsName(_)) => Some(name.as_str().to_owned()),
        (GeneralName::IpAddress(bytes), ServerName::IpAddress(_)) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let mut attributes = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|name| name.0.iter());
    let value = &attributes.find(|attribute| attribute.oid == CN)?.value;
    let text = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned());
    text.or_else(|_| {
        value
            .decode_as::<PrintableStringRef<'_>>()
            .map(|text| text.as_str().to_owned())
    })
    .or_else(|_| {
        value
            .decode_as::<Ia5StringRef<'_>>()
            .map(|text| text.as_str().to_owned())
    })
    .ok()
}

/// Whether a name of a certificate is the host's; `*` stands for its first label.
fn fits(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}
