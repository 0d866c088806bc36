//! Reasons: why a condition, an Event or an attempt says what it says.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumMessage, EnumString, IntoStaticStr};

/// Why something is as it is: CamelCase and stable, the `reason` of conditions, Events, milestones and attempts.
///
/// Each has a page of the same name in `docs/runbooks`; the doc comment of a variant is the first paragraph of its
/// page. A reason that is stored in a status is a string, so that a version that does not know it can read it.
#[derive(
    Clone,
    Copy,
    Debug,
    Display,
    EnumIter,
    EnumMessage,
    EnumString,
    Eq,
    Hash,
    IntoStaticStr,
    Ord,
    PartialEq,
    PartialOrd,
    Deserialize,
    Serialize,
)]
pub enum Reason {
    /// A migration failed and left the schema changed (`Partial`), or it was cut off and nobody can tell what it did
    /// (`Unknown`). Running it again could apply half of it twice. Fairway never guesses and never retries here.
    MigrationUnresolved,
    /// The migration failed, and the schema is not what it was before: some of it is there.
    MigrationPartial,
    /// What the migration did cannot be decided: it was cut off after the schema had changed, sessions that may be its
    /// own were still at work 60 s later (the message names their process ids), or its row is gone from the ledger (the
    /// database was restored to an earlier time).
    MigrationUnknown,
    /// The Service cannot be switched: another manager owns its selector (Git, Helm or `kubectl apply` sets one), or
    /// the apiserver refuses the Service.
    ServiceRefused,
    /// The release should go back, but the version before it is gone: its snapshot (a ControllerRevision) was deleted.
    PreviousMissing,
    /// `spec.suspend` of the App is `true`. No release starts, and a running one holds before its next step that cannot
    /// be taken back: its beginning, its migration, its handover, its switch of traffic.
    Suspended,
    /// A container of the App has no `image`, so the App alone cannot be released: images come with a Release that is
    /// applied by hand or by CI.
    AwaitingRelease,
    /// The desired Release waits for a person. The message quotes what it waits for.
    ActionRequired,
    /// Something around the release does not fit: the database cannot be reached, a password is wrong, the store is
    /// full. That is not the version's fault, so the release waits and tries again. The exact reason is kept beside the
    /// condition.
    WaitingForEnvironment,
    /// The Secret holds no usable connection: neither a `postgres://` URL nor `key=value` pairs, or a part is missing
    /// or not valid. The message names the part, never its value.
    ConnectionInvalid,
    /// No connection to the database, or it went away while a statement ran. The message names the host and port.
    DatabaseUnreachable,
    /// The server does not accept the role or its password, or asks for one where the connection holds none.
    PasswordRejected,
    /// The server answers, but has no database of that name.
    DatabaseMissing,
    /// TLS with the database could not be agreed on, or its certificate is not trusted.
    TlsFailed,
    /// The connection goes through a pooler in transaction mode (PgBouncer, a managed "pooled" endpoint). The
    /// migration's lock lives in one database session, and such a pooler gives sessions away between statements.
    TransactionPooler,
    /// The role may not create schema `fairway` in this database, or may not use the tables that are there. Without its
    /// ledger Fairway runs no migration.
    LedgerNotPermitted,
    /// Another App releases to this database. Two Apps on one database would migrate against each other.
    DatabaseOwned,
    /// Another migration is at work on this database: another pod holds its lock (the message names the database
    /// process, its address, and since when), or a Job of a deleted App of the same name has not ended yet.
    MigrationRunning,
    /// The ledger has no row of this run: its pod was gone before anything was executed. So it is certain that nothing
    /// was.
    MigrationNotStarted,
    /// `database.image` has not all of `pg_dump`, `pg_dumpall` and `pg_restore`, neither in its `PATH` nor where
    /// PostgreSQL's packages put them.
    ToolMissing,
    /// `database.image` has `pg_dump` of another major version than the server.
    ToolVersionMismatch,
    /// The backup store, or the scratch volume, has no room left. The message says which.
    StoreFull,
    /// The backup store cannot be written: mounted read-only, not writable for the pod's group, not there, or failing.
    StoreReadOnly,
    /// The store does not give back what was written to it: another SHA-256, a missing file, or an unreadable manifest.
    StoreCorrupt,
    /// `pg_dump` ended with an error, or wrote nothing. The message holds its last error line.
    DumpFailed,
    /// The dump was written, but `pg_restore` cannot read all of it back.
    DecodeFailed,
    /// The kubelet cannot pull an image: wrong name or tag, missing or wrong pull secret, registry away, or no image
    /// for this platform. Or the small pod that pulls cannot be scheduled (it has the node selector, tolerations and
    /// node affinity of the first component whose image is given by tag) or started: the message says which.
    ImagePullFailed,
    /// A pod of Fairway's cannot start. The message holds what Kubernetes says: no node fits, a Secret or its key is
    /// missing, an image cannot be pulled, a volume cannot be mounted. Or the pod or its Job could not even be made (a
    /// quota, an admission policy): then the events of the Migration or Backup say why.
    PodNotStarting,
    /// A pod of Fairway's (pinning, checking, backing up) ended without an answer: evicted, deleted, out of memory, or
    /// its node went away.
    PodLost,
    /// The operator cannot open a connection to a ready pod of the new version. The kubelet can, or the pod would not
    /// be ready. So it is the network between, most often a NetworkPolicy, or `targetPort` (or a request's `port`)
    /// names a port where nothing listens.
    ProbeUnreachable,
    /// Fairway's own helper in the pod could not do its work: it was stopped, or given something that it cannot read.
    /// The latter means that the operator and the agent's image are of different versions.
    AgentFailed,
    /// A write could not be made now: the apiserver cannot be reached, is overloaded, or the namespace is being
    /// deleted.
    WriteFailed,
    /// The apiserver refuses a write of Fairway's, and the release cannot tell it better: a quota, an admission policy,
    /// a role that lacks a verb, a name that is taken by an object that is not Fairway's.
    WriteRefused,
    /// The name that Fairway needs is taken by an object that is being deleted and is not gone yet, for example because
    /// an App was deleted and applied again at once.
    ObjectBeingDeleted,
    /// An object is stored that this version of Fairway cannot read: it was written before a change of the CRDs, or by
    /// a newer version. The message says where it does not fit, without values.
    Unreadable,
    /// What it is to be made from is not there: the App does not exist, has no `spec.backup` or no `spec.database`, or
    /// the Release that it names, or its snapshot, is gone.
    AppMissing,
    /// A container has no image: neither the App's template nor the Release's `spec.images` names one.
    ImageMissing,
    /// An image reference does not parse: capitals in the repository, a space, a scheme (`https://`), an empty tag.
    InvalidImageName,
    /// The image was pulled or is on the node, but the node knows no registry digest of it: it was loaded there by hand
    /// (`ctr images import`, `kind load`) and never pulled from a registry.
    ImageWithoutDigest,
    /// A component with `strategy: BlueGreen` (the default) mounts a PersistentVolumeClaim whose access modes have
    /// neither `ReadWriteMany` nor `ReadOnlyMany`. Its new pods start while the old ones run, and on another node they
    /// would wait for the volume for as long as the old ones hold it. The message names component, volume and claim.
    ClaimNotShared,
    /// The apiserver would not take, or did not take, the Deployment that a component's template becomes. The message
    /// holds its words. An answer that the template is invalid ends the release. One that it is *forbidden* (403: a
    /// quota, the operator's role, an admission webhook) may change without an edit: the release waits, and asks again
    /// after 5 s, then ever less often, at least every 5 minutes. Reasons: a misspelt field, a volume that is mounted
    /// and not declared, an admission policy, a missing quota field.
    TemplateRefused,
    /// No pod can be made for this migration: its component does not exist or is no pod template, the App has no
    /// database, or an `onStart` migration's component has no health.
    MigrationInvalid,
    /// The component that `migration.component` names has no container with an image, so there is nothing to migrate
    /// with.
    MigrationImageMissing,
    /// The first word of `migration.command` is no program in the image, or it is not executable.
    CommandNotFound,
    /// The migration ended with an error, or its application never became healthy, and the schema is what it was
    /// before. Its rows may have changed: a fingerprint covers the schema and the framework's history tables, not all
    /// data.
    MigrationFailed,
    /// The migration did not end, or its application did not become healthy, within `migration.timeout` (30 minutes
    /// unless set), and the schema is what it was before.
    MigrationTimedOut,
    /// The migration's pod was cut off before it ended (evicted, deleted, out of memory, node lost), and the schema is
    /// what it was before. The message tells how the pod ended, where Kubernetes has said so.
    MigrationInterrupted,
    /// A person looked at the database and resolved the migration as not applied.
    MigrationNotApplied,
    /// The migration was applied and committed, but what must hold afterwards does not: one of `migration.checks`
    /// returned something else, or an index is invalid (a `create index concurrently` that failed).
    MigrationCheckFailed,
    /// The Backup of this release could not be made within 24 hours, or not at all. The message quotes why; the Backup
    /// has that reason and its page.
    BackupFailed,
    /// Not all of the new pods become ready. The message holds the first thing that Kubernetes names: a crash loop, a
    /// failing readiness probe, no room on the nodes, a refused pod.
    PodsNotReady,
    /// The pods are ready, but a health request of the App does not pass: another status, a redirect (never followed),
    /// a body that is not JSON or has another value, more than 1 MiB, or no answer within 5 s. The message names the
    /// pod, the request and the answer.
    Unhealthy,
    /// After traffic had moved, the new version turned bad: a ready pod failed its health requests
    /// `health.failureThreshold` times in a row, or a serving component had no ready pod left. The message holds the
    /// pod, the request and the answer.
    HealthLost,
    /// A rung that waits for its environment (`Pinned`, `Preflighted`) was not met within its hour, and no try said a
    /// more telling reason.
    DeadlineExceeded,
    /// On an App: the Release that the spec asks for (column Desired) was taken back; its condition `Stalled` repeats
    /// why. On a Release: it went back, and no more telling reason is on record.
    RolledBack,
    /// The Release that the spec asks for did not succeed.
    Failed,
    /// The Release that the spec asks for (column Desired) has failed. `Ready=True` says that the version that serves
    /// (column Live) is healthy; `Ready=False` beside this reason, that there is none.
    ReleaseFailed,
    /// A component of what serves should have pods and has none that is ready. While a `strategy: Recreate` component
    /// is handed over this is expected, and short: the App says `Reconciling=True` then. Otherwise something happened
    /// to the pods: after its bake a version is not probed any more, only the readiness of its pods is looked at.
    NotReady,
    /// The database keeps the schema of a newer version than the one that runs on it: a release migrated and then went
    /// back, or an older image was released on purpose.
    MigrationKept,
    /// A person said `fairway.dev/abort`.
    Aborted,
    /// A person said `fairway.dev/rollback`.
    RollbackRequested,
    /// A newer Release of the App took its place before this one had changed anything: before its migration, handover
    /// or switch of traffic. Or it was applied by hand with a revision that the App had passed already: the App takes
    /// up only newer ones, and the message says which revision is free.
    Superseded,
    /// The Release exists, but the App that it names has not taken it up: there is no snapshot (a ControllerRevision of
    /// the same name) for it yet. Or the App was deleted, or edited so that it no longer says where a backup goes,
    /// while this Release was on its way: then a newer Release takes its place.
    WaitingForApp,
    /// Two releases of one App never run past their first rungs at the same time. An older one has already begun to
    /// migrate, to hand over or to move traffic, or has not ended within seconds although it has not begun.
    WaitingForRelease,
    /// The App has a migration, so the apiserver is first asked, by a dry run, whether it would take the new pods.
    CheckingTemplates,
    /// At least one image is named by a tag. A small pod pulls it, to learn its digest and to prove that pull secrets,
    /// registry and platform fit. Images named by digest skip this.
    PullingImages,
    /// A Job looks at the environment: that the database can be reached directly and not through a pooler, that schema
    /// `fairway` is or can be made, that no earlier migration is unsettled, that `database.image` has `pg_dump` of the
    /// server's major version, that the backup store can be written.
    CheckingDatabase,
    /// A Backup of this release is being made and read back: dumped under one snapshot, hashed while written, read back
    /// from the store, hashed again and decoded to the end by `pg_restore`.
    BackingUp,
    /// The migration is about to run or runs. From the milestone `Migrating` on, this release finishes or rolls back; a
    /// newer edit waits.
    Migrating,
    /// The migration's pod ended, or was ended, without an answer that counts. The ledger in the database knows how far
    /// the run came, so a small Job asks it. The message says why.
    CheckingLedger,
    /// The new pods are being started, and then asked for health, until every request has passed
    /// `health.successThreshold` times in a row on every ready pod.
    StartingPods,
    /// A health request has a header from a Secret. The operator cannot read Secrets, so a small pod in the App's
    /// namespace is given it by the kubelet and makes these requests.
    StartingProbePod,
    /// A component has `strategy: Recreate`: the old pods must be gone before the new ones start, so that two versions
    /// never run at once. The message names a pod that is still there. A pod counts until the apiserver has forgotten
    /// it.
    StoppingPrevious,
    /// The Service selects the new version; its EndpointSlices do not yet show only the new pods.
    SwitchingTraffic,
    /// Traffic has moved. The new version is asked for health on every ready pod until `policy.bake.for` is over (10
    /// minutes unless set).
    Baking,
    /// The bake is over. The old pods drain and end.
    RetiringPrevious,
    /// The last milestone was put on record.
    Finishing,
    /// The release goes back to the version before it. The message says why, and what is waited for. Recovered health
    /// does not turn this around.
    RollingBack,
    /// The old version is being started again, at today's replica count. It must be ready before it gets traffic or
    /// work.
    RestoringPrevious,
    /// The old version serves; the pods of the failed one drain and end.
    WithdrawingCandidate,
    /// A Release of the current spec is on its way, or is rolling back.
    Releasing,
    /// What the spec asks for serves.
    Live,
    /// A Release serves and the old side is retired. A Migration is committed in the ledger. A Backup is complete and
    /// read back.
    Succeeded,
}

impl Reason {
    /// The reason as the API writes it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The first paragraph of the reason's runbook page.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}
