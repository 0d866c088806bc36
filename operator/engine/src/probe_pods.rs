//! Which pods are the probe pods of this process, and the token of each.
//!
//! A probe pod is known by the UID that the API server gave it when this process created it: neither its name, nor its
//! labels, nor its owner prove that, since a tenant can write all of them. One whose creation had no answer is not known,
//! and neither is one of an earlier process; another is created in its place, with another name and token.

use crate::key::NamespacedName;
use fairway_plan::names;
use fairway_plan::observed::{OwnProbePod, ProbeIdentity};
use fairway_plan::probe_token::ProbeKey;
use k8s_openapi::api::core::v1::Pod;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The probe pods of this process, by Release.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbePods {
    of: BTreeMap<NamespacedName, OwnProbePod>,
    last: u64,
}

impl ProbePods {
    /// The probe pod of a Release, among the pods that are observed: the one that this process created, or the one that
    /// it may create.
    pub(crate) fn current(
        &mut self,
        key: &ProbeKey,
        release: &NamespacedName,
        pods: &[Arc<Pod>],
    ) -> OwnProbePod {
        if let Some(own) = self.of.get(release)
            && is_possible(own, pods)
        {
            return own.clone();
        }
        self.last += 1;
        let token = key.token(&release.namespace, &release.name, self.last);
        let own = OwnProbePod {
            identity: ProbeIdentity {
                name: names::probe_pod(&release.name, &token.sha256()),
                token,
            },
            uid: None,
        };
        self.of.insert(release.clone(), own.clone());
        own
    }

    /// Takes in that this process created a pod.
    pub(crate) fn created(&mut self, pod: &ObjectMeta) {
        if let Some(own) = self.named(pod) {
            own.uid.clone_from(&pod.uid);
        }
    }

    /// Takes in that the name of a pod to be created is taken. Returns whether that was a probe pod, which gets another
    /// name then.
    pub(crate) fn taken(&mut self, pod: &ObjectMeta) -> bool {
        let known = self.of.len();
        self.of.retain(|release, own| !is_of(release, own, pod));
        self.of.len() < known
    }

    /// Forgets the probe pod of a Release that is gone.
    pub(crate) fn forget(&mut self, release: &NamespacedName) {
        self.of.remove(release);
    }

    /// The Release whose probe pod a pod is.
    pub(crate) fn release_of(&self, pod: &ObjectMeta) -> Option<NamespacedName> {
        let mut of = self.of.iter();
        of.find(|(release, own)| is_of(release, own, pod))
            .map(|(release, _)| release.clone())
    }

    fn named(&mut self, pod: &ObjectMeta) -> Option<&mut OwnProbePod> {
        let mut of = self.of.iter_mut();
        of.find(|(release, own)| is_of(release, own, pod))
            .map(|(_, own)| own)
    }
}

fn is_of(release: &NamespacedName, own: &OwnProbePod, pod: &ObjectMeta) -> bool {
    pod.namespace.as_deref() == Some(&*release.namespace) && pod.name.as_deref() == Some(&*own.identity.name)
}

/// Whether a pod is still there after it was created, or its name still free before.
fn is_possible(own: &OwnProbePod, pods: &[Arc<Pod>]) -> bool {
    let mut pods = pods.iter().map(|pod| &pod.metadata);
    match &own.uid {
        Some(uid) => pods.any(|pod| pod.uid.as_ref() == Some(uid)),
        None => pods.all(|pod| pod.name.as_deref() != Some(&*own.identity.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("shop".to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        Arc::new(pod)
    }

    struct Known {
        pods: ProbePods,
        key: ProbeKey,
        release: NamespacedName,
    }

    impl Known {
        fn current(&mut self, pods: &[Arc<Pod>]) -> OwnProbePod {
            self.pods.current(&self.key, &self.release, pods)
        }
    }

    fn known() -> Known {
        Known {
            pods: ProbePods::default(),
            key: ProbeKey::new([7; 32]),
            release: NamespacedName::new("shop", "crm-2"),
        }
    }

    /// S1: the pod with the UID of the answer counts, as long as it is there.
    #[test]
    fn s1_a_probe_pod_is_known_by_its_uid() {
        let mut known = known();
        let own = known.current(&[]);
        assert_eq!(known.current(&[]), own, "nothing has changed");
        let created = pod(&own.identity.name, "u-1");
        known.pods.created(&created.metadata);
        let current = known.current(std::slice::from_ref(&created));
        assert_eq!(
            (current.uid.as_deref(), &current.identity),
            (Some("u-1"), &own.identity)
        );
        let replaced = known.current(&[pod(&own.identity.name, "u-2")]);
        assert_eq!(replaced.uid, None);
        assert_ne!(replaced.identity, own.identity, "another name and token");
    }

    /// S1: a pod of the name whose creation this process has no answer to is nobody it knows.
    #[test]
    fn s1_a_pod_that_was_there_first_does_not_count() {
        let mut known = known();
        let own = known.current(&[]);
        let squatted = known.current(&[pod(&own.identity.name, "u-1")]);
        assert_ne!(squatted.identity, own.identity);
        assert_eq!(squatted.uid, None);
        // Also when only the API server knows it.
        assert!(known.pods.taken(&pod(&squatted.identity.name, "u-3").metadata));
        assert_ne!(known.current(&[]).identity, squatted.identity);
        assert!(!known.pods.taken(&pod("crm-web-2-x", "u-4").metadata));
    }
}
