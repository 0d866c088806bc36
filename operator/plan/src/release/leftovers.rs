//! Agent pods and Jobs that a release leaves behind.

use super::view::View;
use crate::{ObjectRef, Step, labels, object::Kind};
use kube::ResourceExt;

/// Agent pods and Jobs of this release that have done their work.
pub(super) fn leftovers(view: &View) -> Vec<Step> {
    let mine = |labels_of: &std::collections::BTreeMap<String, String>| {
        labels_of
            .get(labels::RELEASE)
            .is_some_and(|release| release == view.name())
            && labels_of
                .get(labels::WORK)
                .is_some_and(|work| ["pin", "preflight", "probe"].contains(&work.as_str()))
    };
    let jobs = view
        .observed
        .jobs
        .iter()
        .filter(|job| mine(job.labels()) && job.metadata.deletion_timestamp.is_none());
    let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
    let pods = view.observed.pods.iter().filter(|pod| {
        // A Job's pods go with the Job.
        mine(pod.labels())
            && pod.metadata.deletion_timestamp.is_none()
            && !pod.labels().contains_key("job-name")
    });
    let pods = pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata));
    jobs.chain(pods).map(Step::Delete).collect()
}
