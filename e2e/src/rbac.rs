//! Permissions: what rules of roles grant, and what the API server allows.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::{
    Client,
    api::{Api, PostParams},
};

/// Every resource, as `group/resource` or `group/resource/subresource`, with each verb on it that rules grant.
pub fn granted(rules: impl IntoIterator<Item = PolicyRule>) -> BTreeSet<(String, String)> {
    let mut granted = BTreeSet::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = rule.verbs.iter().cloned();
                granted.extend(verbs.map(|verb| (format!("{group}/{resource}"), verb)));
            }
        }
    }
    granted
}

/// One verb on a resource.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The verb.
    pub verb: &'a str,
    /// API group of the resource; empty for the core group.
    pub group: &'a str,
    /// The resource in the plural, and the subresource behind a slash.
    pub resource: &'a str,
    /// The namespace; empty for all of them.
    pub namespace: &'a str,
}

/// Whether the API server allows this to a user of these groups.
///
/// # Errors
/// When the API server does not answer, or does not say.
pub async fn is_allowed(client: &Client, user: &str, groups: &[&str], access: Access<'_>) -> Result<bool> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (resource, subresource) = access.resource.split_once('/').unwrap_or((access.resource, ""));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
            resource_attributes: Some(ResourceAttributes {
                verb: given(access.verb),
                group: given(access.group),
                resource: given(resource),
                subresource: given(subresource),
                namespace: given(access.namespace),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    let status = answer
        .status
        .context("the API server does not say what it allows")?;
    Ok(status.allowed)
}
