//! What serves and what runs at one moment of a story.

use crate::cluster::Cluster;
use crate::traffic::destination;
use crate::transcript::Transcript;
use fairway_plan::labels;
use fairway_plan::readings::is_ready;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Adds where each Service sends traffic, which pods run, and for which releases a migration was executed.
pub(super) fn show(cluster: &Cluster, transcript: &mut Transcript) {
    let objects = cluster.objects();
    let mut lines = Vec::new();
    for (name, service) in &objects.services {
        let to = destination(service);
        lines.push(format!(
            "Service {name} selects {}",
            to.as_deref().unwrap_or("nothing of Fairway's")
        ));
    }
    let mut pods: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
    for pod in objects.pods.values() {
        let of = |key: &str| pod.labels().get(key).map(String::as_str).unwrap_or_default();
        let does = of(labels::COMPONENT).to_owned() + of(labels::WORK);
        let does = pod
            .labels()
            .values()
            .find(|value| **value == does)
            .map_or("", String::as_str);
        let state = match (pod.metadata.deletion_timestamp.is_some(), is_ready(pod)) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        pods.entry((of(labels::RELEASE), does)).or_default()[state] += 1;
    }
    for ((release, does), [ready, unready, ending]) in pods {
        lines.push(format!(
            "pods of {release} {does}: {ready} ready, {unready} not ready, {ending} ending"
        ));
    }
    let executions = cluster
        .database
        .executions
        .iter()
        .map(|execution| execution.release.as_str());
    let executions: Vec<_> = executions.collect();
    if !executions.is_empty() {
        lines.push(format!("migrations were executed for {}", executions.join(", ")));
    }
    if lines.is_empty() {
        lines.push("nothing runs".to_owned());
    }
    for line in lines {
        transcript.add(cluster.now, format!("| {line}"));
    }
}
