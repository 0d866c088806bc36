//! The kubectl commands that messages give, as they can be pasted: always with the namespace, and with a token that
//! is new each time.

use crate::labels;
use crate::object::Kind;
use crate::protocol::Resolution;
use crate::readings::SERVICE_NAME;
use crate::resolution;
use fairway_crds::app::annotation::FINAL_BACKUP;
use fairway_crds::release::annotation;

/// A value that no earlier annotation had: the shell puts the time in.
const TOKEN: &str = "$(date +%s)";

/// An object of Fairway's that a command is about, as kubectl names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// An App by name.
    App(&'a str),
    /// A Release by name.
    Release(&'a str),
    /// A Migration by name.
    Migration(&'a str),
    /// A Backup by name.
    Backup(&'a str),
    /// A Restore by name.
    Restore(&'a str),
}

impl std::fmt::Display for Resource<'_> {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App(name) => write!(text, "app {name}"),
            Self::Release(name) => write!(text, "release {name}"),
            Self::Migration(name) => write!(text, "migration {name}"),
            Self::Backup(name) => write!(text, "backup {name}"),
            // Other operators have a kind of that name, too.
            Self::Restore(name) => write!(text, "frst {name}"),
        }
    }
}

/// The command that shows an object with its conditions and Events.
pub fn describe(namespace: &str, object: Resource) -> String {
    format!("kubectl -n {namespace} describe {object}")
}

/// The command that deletes an object.
pub fn delete(namespace: &str, object: Resource) -> String {
    format!("kubectl -n {namespace} delete {object}")
}

/// The command that deletes a Job or pod.
pub fn delete_object(namespace: &str, kind: Kind, name: &str) -> String {
    format!(
        "kubectl -n {namespace} delete {} {name}",
        kind.as_str().to_ascii_lowercase()
    )
}

/// The command that deletes the pods of a component of a release, and the ReplicaSets that would create them again.
pub fn delete_pods_of(namespace: &str, app: &str, component: &str, release: &str) -> String {
    let (of_app, of_component, of_release) = (labels::APP, labels::COMPONENT, labels::RELEASE);
    format!(
        "kubectl -n {namespace} delete replicasets,pods -l {of_app}={app},{of_component}={component},{of_release}={release}"
    )
}

/// The command that lists the EndpointSlices of a Service.
pub fn endpoint_slices(namespace: &str, service: &str) -> String {
    format!("kubectl -n {namespace} get endpointslices -l {SERVICE_NAME}={service}")
}

/// The command that deletes an EndpointSlice.
pub fn delete_endpoint_slice(namespace: &str, name: &str) -> String {
    format!("kubectl -n {namespace} delete endpointslice {name}")
}

/// The command that lists the Events of the object of that name: a few lines, as against a description.
pub fn events(namespace: &str, object: &str) -> String {
    format!("kubectl -n {namespace} get events --field-selector involvedObject.name={object}")
}

/// The command that shows a Job or pod.
pub fn describe_object(namespace: &str, kind: Kind, name: &str) -> String {
    format!(
        "kubectl -n {namespace} describe {} {name}",
        kind.as_str().to_ascii_lowercase()
    )
}

/// The command that retries a failed Release as a new one.
pub fn retry(namespace: &str, release: &str) -> String {
    annotate(namespace, Resource::Release(release), annotation::RETRY, TOKEN)
}

/// The command that aborts a Release.
pub fn abort(namespace: &str, release: &str) -> String {
    annotate(namespace, Resource::Release(release), annotation::ABORT, TOKEN)
}

/// The command that rolls a Release back.
pub fn rollback(namespace: &str, release: &str) -> String {
    annotate(namespace, Resource::Release(release), annotation::ROLLBACK, TOKEN)
}

/// The command that says how a migration ended, given to its Release, or to a Migration that was applied by hand.
pub fn resolve(namespace: &str, object: Resource, resolution: Resolution) -> String {
    let value = resolution::value(resolution, TOKEN);
    annotate(namespace, object, annotation::RESOLVE, &value)
}

/// The command that asks for a final backup of an App.
pub fn final_backup(namespace: &str, app: &str) -> String {
    annotate(namespace, Resource::App(app), FINAL_BACKUP, TOKEN)
}

/// The command by which a user agrees to lose at most so many row changes, or `any`.
pub fn restore(namespace: &str, restore: &str, bound: &str) -> String {
    let value = format!("{bound}:{TOKEN}");
    annotate(namespace, Resource::Restore(restore), annotation::RESTORE, &value)
}

/// The command that aborts a Restore.
pub fn abort_restore(namespace: &str, restore: &str) -> String {
    annotate(namespace, Resource::Restore(restore), annotation::ABORT, TOKEN)
}

/// The command that removes a pod from the API although its node does not answer.
pub fn delete_pod_by_force(namespace: &str, pod: &str) -> String {
    format!("kubectl -n {namespace} delete pod {pod} --force")
}

fn annotate(namespace: &str, object: Resource, key: &str, value: &str) -> String {
    format!("kubectl -n {namespace} annotate {object} {key}=\"{value}\" --overwrite")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::retry(
        retry("shop", "crm-42"),
        r#"kubectl -n shop annotate release crm-42 fairway.dev/retry="$(date +%s)" --overwrite"#
    )]
    #[case::resolve(
        resolve("shop", Resource::Migration("crm-42"), Resolution::NotApplied),
        r#"kubectl -n shop annotate migration crm-42 fairway.dev/resolve="not-applied:$(date +%s)" --overwrite"#
    )]
    #[case::restore(
        restore("shop", "noon", "11"),
        r#"kubectl -n shop annotate frst noon fairway.dev/restore="11:$(date +%s)" --overwrite"#
    )]
    #[case::describe(
        describe("shop", Resource::Backup("nightly")),
        "kubectl -n shop describe backup nightly"
    )]
    #[case::describe_object(
        describe_object("shop", Kind::Job, "crm-42-run-1"),
        "kubectl -n shop describe job crm-42-run-1"
    )]
    #[case::delete_object(
        delete_object("shop", Kind::Pod, "crm-42-probe-1"),
        "kubectl -n shop delete pod crm-42-probe-1"
    )]
    #[case::events(
        events("shop", "nightly-backup-1"),
        "kubectl -n shop get events --field-selector involvedObject.name=nightly-backup-1"
    )]
    fn commands_can_be_pasted_as_they_are(#[case] command: String, #[case] expected: &str) {
        assert_eq!(command, expected);
    }
}
