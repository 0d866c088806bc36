//! Certificates and kubeconfigs, created for each start of the cluster.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use super::network::{Families, in_url};
use crate::paths::Paths;

/// The node's name.
pub const NODE_NAME: &str = "node-1";

/// A client of the API server: its user and groups are what its certificate says.
struct Identity {
    name: &'static str,
    user: &'static str,
    group: Option<&'static str>,
}

const IDENTITIES: &[Identity] = &[
    Identity {
        name: "admin",
        user: "admin",
        group: Some("system:masters"),
    },
    Identity {
        name: "kube-apiserver-to-kubelet",
        user: "kube-apiserver",
        group: Some("system:masters"),
    },
    Identity {
        name: "kube-controller-manager",
        user: "system:kube-controller-manager",
        group: None,
    },
    Identity {
        name: "kube-scheduler",
        user: "system:kube-scheduler",
        group: None,
    },
    Identity {
        name: "kube-proxy",
        user: "system:kube-proxy",
        group: None,
    },
    Identity {
        name: "kubelet",
        user: "system:node:node-1",
        group: Some("system:nodes"),
    },
    Identity {
        name: "coredns",
        user: "fairway:coredns",
        group: None,
    },
];

/// The folder with certificates, keys and kubeconfigs.
pub(super) fn folder(paths: &Paths) -> PathBuf {
    paths.cluster().join("pki")
}

/// One file of that folder as a string, for a command line.
pub(super) fn file(paths: &Paths, name: &str) -> String {
    folder(paths).join(name).display().to_string()
}

/// The kubeconfig of a control plane process.
pub(super) fn kubeconfig(paths: &Paths, identity: &str) -> String {
    file(paths, &format!("{identity}.kubeconfig"))
}

/// Writes everything.
pub(super) fn create(paths: &Paths, families: Families) -> Result<()> {
    let folder = folder(paths);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;

    let authority = authority()?;
    write(&folder.join("ca.crt"), &authority.pem())?;

    let service_accounts = KeyPair::generate().context("make the key that signs service account tokens")?;
    write(
        &folder.join("service-accounts.key"),
        &service_accounts.serialize_pem(),
    )?;
    write(
        &folder.join("service-accounts.pub"),
        &service_accounts.public_key_pem(),
    )?;

    let link = paths.link();
    let nodes: Vec<IpAddr> = parsed(families.all().iter().map(|family| family.node))?;
    let services = parsed(families.all().iter().map(|family| family.api_service))?;
    let own = ["127.0.0.1".parse()?, IpAddr::V4(link.cluster)];
    let addresses: Vec<IpAddr> = services.into_iter().chain(nodes.clone()).chain(own).collect();
    serving(
        &folder,
        "kube-apiserver",
        &authority,
        &[
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
        &addresses,
    )?;
    serving(&folder, "kubelet-serving", &authority, &[NODE_NAME], &nodes)?;

    let server = format!("https://{}:6443", in_url(families.first().node));
    for identity in IDENTITIES {
        client(&folder, identity, &authority)?;
        let text = kubeconfig_text(paths, &server, identity.name);
        write(&folder.join(format!("{}.kubeconfig", identity.name)), &text)?;
    }
    let text = kubeconfig_text(paths, &format!("https://{}:6443", link.cluster), "admin");
    write(&paths.kubeconfig(), &text)
}

fn parsed<'a>(addresses: impl Iterator<Item = &'a str>) -> Result<Vec<IpAddr>> {
    addresses
        .map(|address| {
            address
                .parse()
                .with_context(|| format!("{address} is no address"))
        })
        .collect()
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("fairway-e2e", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate().context("make the authority's key")?;
    CertifiedIssuer::self_signed(params, key).context("sign the authority's certificate")
}

fn serving(
    folder: &Path,
    name: &str,
    authority: &CertifiedIssuer<'_, KeyPair>,
    names: &[&str],
    addresses: &[IpAddr],
) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        params
            .subject_alt_names
            .push(SanType::DnsName((*name).try_into()?));
    }
    params
        .subject_alt_names
        .extend(addresses.iter().copied().map(SanType::IpAddress));
    issue(folder, name, params, authority)
}

fn client(folder: &Path, identity: &Identity, authority: &CertifiedIssuer<'_, KeyPair>) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(identity.user, identity.group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(folder, identity.name, params, authority)
}

fn issue(
    folder: &Path,
    name: &str,
    params: CertificateParams,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<()> {
    let key = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
    let certificate = params
        .signed_by(&key, authority)
        .with_context(|| format!("sign the certificate of {name}"))?;
    write(&folder.join(format!("{name}.crt")), &certificate.pem())?;
    write(&folder.join(format!("{name}.key")), &key.serialize_pem())
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject
}

/// JSON is YAML, so kubectl reads it as well as any other kubeconfig.
fn kubeconfig_text(paths: &Paths, server: &str, identity: &str) -> String {
    let context = paths.name();
    let value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {
            "server": server,
            "certificate-authority": file(paths, "ca.crt"),
        }}],
        "users": [{"name": identity, "user": {
            "client-certificate": file(paths, &format!("{identity}.crt")),
            "client-key": file(paths, &format!("{identity}.key")),
        }}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": identity}}],
    });
    format!("{value:#}\n")
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}
