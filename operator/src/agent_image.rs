//! By which digest the agent's image is known.
//!
//! What runs in pods of tenants should be what runs here, also when a tag has moved meanwhile. Where the image is named by
//! tag and this process runs from the same reference, the kubelet has reported the digest in the status of this pod.

use fairway_plan::build::agent;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::time::Duration;

/// How often the pod's status is read until the kubelet has reported this container, and the pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// What is known of the agent's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentImage {
    /// A reference with a digest.
    Pinned(String),
    /// A reference without one, which is used as it is.
    ByTag {
        /// The reference.
        image: String,
        /// Why no digest is known.
        why: String,
    },
}

impl AgentImage {
    /// The image for pods of tenants, given the pod of this process.
    ///
    /// Without a digest the tag is used: an image that was loaded onto nodes directly has none, and nothing else names it.
    pub(crate) async fn learn(client: &Client, image: String, namespace: &str, pod: &str) -> Self {
        if image.contains("@sha256:") {
            return Self::Pinned(image);
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match pods.get(pod).await.map(|pod| Digest::of(&pod, &image)) {
                Ok(Digest::Known(image)) => return Self::Pinned(image),
                Ok(Digest::NotYet) => why = "the kubelet has not reported this container yet".to_owned(),
                Ok(Digest::Never(reason)) => {
                    why = reason;
                    break;
                }
                Err(error) => {
                    why = format!("pod {pod} in namespace {namespace} cannot be read: {error}");
                    break;
                }
            }
        }
        Self::ByTag { image, why }
    }

    /// The reference.
    pub(crate) fn reference(&self) -> &str {
        match self {
            Self::Pinned(image) | Self::ByTag { image, .. } => image,
        }
    }
}

/// What the status of a pod says of an image's digest.
#[derive(Debug, PartialEq, Eq)]
enum Digest {
    Known(String),
    NotYet,
    Never(String),
}

impl Digest {
    fn of(pod: &Pod, image: &str) -> Self {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let Some(container) = containers
            .into_iter()
            .find(|container| container.image.as_deref() == Some(image))
        else {
            return Self::Never("this process runs from another image".to_owned());
        };
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let status = statuses
            .into_iter()
            .find(|status| status.name == container.name && !status.image_id.is_empty());
        match status {
            None => Self::NotYet,
            Some(status) => match agent::with_digest(image, &status.image_id) {
                Some(reference) => Self::Known(reference),
                None => Self::Never(format!("the node knows the image as {}", status.image_id)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{api_server, failure};
    use rstest::rstest;
    use serde_json::{Value, json};

    const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    const TAG: &str = "registry.example/fairway:0.1.0";

    fn pod(image: &str, image_id: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "fairway-0", "namespace": "fairway-system"},
            "spec": {"containers": [{"name": "mesh", "image": "mesh:1"}, {"name": "operator", "image": image}]},
            "status": {"containerStatuses": [
                {"name": "operator", "image": image, "imageID": image_id, "ready": true, "restartCount": 0},
            ]},
        })
    }

    async fn learn(image: &str, answer: (u16, Value)) -> AgentImage {
        let (client, mut server) = api_server();
        let learned = AgentImage::learn(&client, image.to_owned(), "fairway-system", "fairway-0");
        let (learned, asked) = tokio::join!(learned, server.answer(answer));
        assert_eq!(asked.what, "GET /api/v1/namespaces/fairway-system/pods/fairway-0");
        learned
    }

    #[tokio::test]
    async fn s18a_pods_of_tenants_run_the_digest_that_runs_here() {
        let image_id = format!("registry.example/fairway@{DIGEST}");
        let learned = learn(TAG, (200, pod(TAG, &image_id))).await;
        assert_eq!(learned, AgentImage::Pinned(image_id));
    }

    #[tokio::test]
    async fn s18a_a_digest_that_is_given_is_kept() {
        let (client, _server) = api_server();
        let given = format!("registry.example/fairway@{DIGEST}");
        let learned = AgentImage::learn(&client, given.clone(), "fairway-system", "fairway-0").await;
        assert_eq!(learned, AgentImage::Pinned(given));
    }

    #[rstest]
    #[case::loaded_onto_the_node((200, pod(TAG, DIGEST)), "the node knows the image as sha256:11")]
    #[case::of_another_repository(
        (200, pod(TAG, &format!("elsewhere.example/fairway@{DIGEST}"))),
        "the node knows the image as elsewhere.example/fairway@"
    )]
    #[case::another_image((200, pod("registry.example/fairway:9", DIGEST)), "this process runs from another image")]
    #[case::no_right(
        failure(403, "Forbidden"),
        "pod fairway-0 in namespace fairway-system cannot be read"
    )]
    #[tokio::test]
    async fn s18a_without_a_digest_the_tag_is_used_and_why_is_known(
        #[case] answer: (u16, Value),
        #[case] expected: &str,
    ) {
        match learn(TAG, answer).await {
            AgentImage::ByTag { image, why } => {
                assert_eq!(image, TAG);
                assert!(why.starts_with(expected), "{why}");
            }
            pinned => panic!("{pinned:?}"),
        }
    }

    #[test]
    fn s18a_a_container_that_is_not_reported_yet_is_asked_for_again() {
        let pod = serde_json::from_value(pod(TAG, "")).unwrap();
        assert_eq!(Digest::of(&pod, TAG), Digest::NotYet);
    }
}
