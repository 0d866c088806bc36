//! What is read of an object of each kind: what caches keep of it, and nothing else.

use fairway_plan::labels::{LONGEST_ANNOTATION, READ_ANNOTATIONS};

/// What is read of a value; of a list, what is read of each item.
#[derive(Debug)]
pub enum Mask {
    /// All of it.
    All,
    /// These members of an object.
    Members(&'static [(&'static str, Mask)]),
    /// Members of an object whose names begin so.
    Prefix(&'static str),
    /// The annotations that planners read.
    Annotations,
    /// A text of at most so many bytes; a longer one is read as an empty one.
    Text(usize),
}

use Mask::{All, Annotations, Members, Prefix, Text};

impl Mask {
    /// What is read of a member; `None` when it is skipped.
    pub(super) fn member(&self, name: &str) -> Option<&'static Mask> {
        match self {
            All => Some(&All),
            Members(members) => members
                .iter()
                .find(|(member, _)| *member == name)
                .map(|(_, mask)| mask),
            Prefix(prefix) => name.starts_with(prefix).then_some(&All),
            Annotations => READ_ANNOTATIONS
                .contains(&name)
                .then_some(&Text(LONGEST_ANNOTATION)),
            Text(_) => None,
        }
    }

    /// What is read of a text.
    pub(super) fn text<'a>(&self, text: &'a str) -> &'a str {
        match self {
            Text(longest) if text.len() > *longest => "",
            _ => text,
        }
    }
}

const METADATA: Mask = Members(&[
    ("name", All),
    ("namespace", All),
    ("uid", All),
    ("resourceVersion", All),
    ("generation", All),
    ("creationTimestamp", All),
    ("deletionTimestamp", All),
    ("deletionGracePeriodSeconds", All),
    ("labels", All),
    ("annotations", Annotations),
    ("ownerReferences", All),
    // Who has written it says whether Fairway made it, and who has changed what Fairway made.
    (
        "managedFields",
        Members(&[("manager", All), ("fieldsV1", Members(&[("f:spec", OWNED_SPEC)]))]),
    ),
]);

/// Which parts of a Deployment's spec a field manager owns. Not read are `replicas`, which autoscalers set, and `paused`.
const OWNED_SPEC: Mask = Members(&[
    ("f:minReadySeconds", PRESENCE),
    ("f:progressDeadlineSeconds", PRESENCE),
    ("f:revisionHistoryLimit", PRESENCE),
    ("f:strategy", PRESENCE),
    (
        "f:template",
        Members(&[
            (
                "f:metadata",
                Members(&[("f:labels", PRESENCE), ("f:annotations", All)]),
            ),
            ("f:spec", PRESENCE),
        ]),
    ),
]);

/// That a value is there, and nothing of it.
const PRESENCE: Mask = Members(&[]);

const CONTAINER: Mask = Members(&[("name", All), ("image", All), ("restartPolicy", All)]);

const POD_SPEC: Mask = Members(&[
    ("containers", CONTAINER),
    ("initContainers", CONTAINER),
    ("nodeName", All),
    ("restartPolicy", All),
]);

const POD_TEMPLATE: Mask = Members(&[
    (
        "metadata",
        Members(&[("labels", All), ("annotations", Annotations)]),
    ),
    ("spec", POD_SPEC),
]);

/// An object of our own kinds. Its spec has bounds in its schema, but for pod templates.
pub(crate) const OWN: Mask = Members(&[
    ("apiVersion", All),
    ("kind", All),
    ("metadata", METADATA),
    ("spec", All),
    ("status", All),
]);

/// A ControllerRevision: the snapshot in it.
pub(crate) const SNAPSHOT: Mask = Members(&[("metadata", METADATA), ("data", All), ("revision", All)]);

/// A Deployment.
pub(crate) const DEPLOYMENT: Mask = Members(&[
    ("metadata", METADATA),
    (
        "spec",
        Members(&[
            ("replicas", All),
            ("selector", All),
            ("template", POD_TEMPLATE),
            ("paused", All),
            ("strategy", All),
        ]),
    ),
    ("status", All),
]);

/// A pod.
pub(crate) const POD: Mask = Members(&[("metadata", METADATA), ("spec", POD_SPEC), ("status", All)]);

/// A Job.
pub(crate) const JOB: Mask = Members(&[
    ("metadata", METADATA),
    (
        "spec",
        Members(&[
            ("parallelism", All),
            ("completions", All),
            ("backoffLimit", All),
            ("activeDeadlineSeconds", All),
            ("suspend", All),
            ("selector", All),
            ("template", POD_TEMPLATE),
        ]),
    ),
    ("status", All),
]);

/// A Service.
pub(crate) const SERVICE: Mask = Members(&[("metadata", METADATA), ("spec", All)]);

/// An EndpointSlice.
pub(crate) const ENDPOINT_SLICE: Mask = Members(&[
    ("metadata", METADATA),
    ("addressType", All),
    (
        "endpoints",
        Members(&[
            ("addresses", All),
            ("conditions", All),
            ("nodeName", All),
            ("targetRef", All),
        ]),
    ),
    ("ports", All),
]);

/// A ResourceQuota: what it limits, and what is in use.
pub(crate) const QUOTA: Mask = Members(&[
    ("metadata", METADATA),
    (
        "spec",
        Members(&[("hard", All), ("scopes", All), ("scopeSelector", All)]),
    ),
    ("status", Members(&[("used", All)])),
]);

/// What identifies an object that cannot be read otherwise.
pub(super) const IDENTITY: Mask = Members(&[(
    "metadata",
    Members(&[
        ("name", All),
        ("namespace", All),
        ("uid", All),
        ("resourceVersion", All),
        ("labels", Prefix("fairway.dev/")),
        (
            "ownerReferences",
            Members(&[("apiVersion", All), ("kind", All), ("name", All), ("uid", All)]),
        ),
    ]),
)]);

/// The least that identifies an object.
pub(super) const NAME: Mask = Members(&[(
    "metadata",
    Members(&[
        ("name", All),
        ("namespace", All),
        ("uid", All),
        ("resourceVersion", All),
    ]),
)]);

/// An answer to a write.
pub(super) const ANSWER: Mask = Members(&[("apiVersion", All), ("kind", All), ("metadata", METADATA)]);

/// An object that is read by name: a Service or a claim.
pub(super) const FOUND: Mask = Members(&[
    ("apiVersion", All),
    ("kind", All),
    ("metadata", METADATA),
    ("spec", All),
    ("status", All),
]);

/// A list of pods that no watch shows: where they run, and whether they have ended.
pub(super) const LIST: Mask = Members(&[(
    "items",
    Members(&[
        ("metadata", METADATA),
        ("spec", Members(&[("nodeName", All)])),
        ("status", Members(&[("phase", All)])),
    ]),
)]);
