//! The store that is a bucket of Amazon S3, or of a server that speaks its protocol.

use fairway_protocol::{
    Addressing, Failure, S3Credentials, S3Store, STORE_ACCESS_KEY_ID_VARIABLE,
    STORE_SECRET_ACCESS_KEY_VARIABLE, STORE_SESSION_TOKEN_VARIABLE, Store,
};
use opendal::{ErrorKind, services::S3};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::ProvideCredentialChain;

use super::{
    http::Http,
    objects::{Objects, Publishing, Service},
    signed::Signed,
    uploads::Uploads,
    versions::Versions,
};
use crate::environment::Environment;

/// The region that most other servers accept.
const ANY_REGION: &str = "us-east-1";

/// Parts of 8 MiB, so that an upload holds 32 MiB in memory; 10,000 of them are the most that a server takes, so that an
/// object ends before: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const SERVICE: Service = Service {
    part: 8 * 1024 * 1024,
    concurrent: 2,
    largest: 64 * 1024 * 1024 * 1024,
    publishing: Publishing::Conditional,
    missing: ErrorKind::ConfigInvalid,
};

/// Opens a bucket.
///
/// # Errors
/// When what the options name cannot be used.
pub(super) fn open(s3: &S3Store, options: &Store, environment: &Environment) -> Result<Objects, Failure> {
    let S3Store {
        bucket,
        prefix,
        endpoint,
        region,
        addressing,
        credentials_from,
        ca_from: _,
    } = s3;
    let region = region.as_deref().unwrap_or(ANY_REGION);
    let folder = prefix.as_deref().unwrap_or_default();
    let endpoint = endpoint
        .clone()
        .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let mut builder = S3::default()
        .bucket(bucket)
        .root(folder)
        .region(region)
        .endpoint(&endpoint)
        .credential_provider_chain(credentials(credentials_from.as_ref(), environment));
    let url = match addressing {
        Addressing::Path => format!("{endpoint}/{bucket}"),
        Addressing::VirtualHosted => {
            builder = builder.enable_virtual_host_style();
            endpoint.replacen("://", &format!("://{bucket}."), 1)
        }
    };
    let http = Http::new(environment)?;
    let bucket = Signed::new(
        http.beside(),
        credentials(credentials_from.as_ref(), environment),
        region,
        url,
        folder,
    );
    let objects = Objects::build(builder, &http, options.to_string(), SERVICE)?;
    Ok(objects.of_bucket(Uploads(bucket.clone()), Versions(bucket)))
}

/// The access key that the App names; without one, the identity of the pod's service account.
fn credentials(
    named: Option<&S3Credentials>,
    environment: &Environment,
) -> ProvideCredentialChain<Credential> {
    let variable = |name| environment.get(name).map(|value| value.trim().to_owned());
    if named.is_none() {
        // What a service account is given (IRSA, EKS Pod Identity). Not what the image holds, and not the node's own role.
        let of_service_account = DefaultCredentialProvider::builder()
            .no_env()
            .no_profile()
            .no_sso()
            .no_process()
            .no_imds();
        return ProvideCredentialChain::new().push(of_service_account.build());
    }
    let key = StaticCredentialProvider::new(
        &variable(STORE_ACCESS_KEY_ID_VARIABLE).unwrap_or_default(),
        &variable(STORE_SECRET_ACCESS_KEY_VARIABLE).unwrap_or_default(),
    );
    ProvideCredentialChain::new().push(match variable(STORE_SESSION_TOKEN_VARIABLE) {
        Some(token) => key.with_session_token(&token),
        None => key,
    })
}
