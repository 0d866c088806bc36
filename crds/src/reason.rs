//! Reasons of conditions, Events, milestones and attempts.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumMessage, EnumString, IntoStaticStr};

/// The `reason` of a condition, Event, milestone or attempt: CamelCase and stable.
///
/// Each reason has a page of the same name in `docs/runbooks`; the doc comment of a variant is the first paragraph of
/// its page. In a status a reason is a string, so that a version that does not know the reason can read it.
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
    /// A migration left the database schema partly changed, or its outcome is unknown. Every further migration of this
    /// database is blocked until the user resolves it.
    MigrationUnresolved,
    /// The migration failed and left the database schema changed: some of its changes are there.
    MigrationPartial,
    /// The outcome of the migration cannot be determined: it was interrupted after the schema had changed, sessions
    /// that may belong to it are still active, or its row is missing from the ledger.
    MigrationUnknown,
    /// Traffic cannot be switched: another field manager owns the selector of the Service, the API server refuses the
    /// change, or the Service as it is would send users elsewhere.
    ServiceRefused,
    /// The release must be rolled back, but the snapshot of the previous version (a ControllerRevision) no longer
    /// exists.
    PreviousMissing,
    /// The snapshot (a ControllerRevision) of a Release in progress was deleted. The Release, its Migration and its
    /// Backup cannot continue without it.
    SnapshotMissing,
    /// `spec.suspend` of the App is `true`. No release starts, and a release in progress holds before its next
    /// irreversible step.
    Suspended,
    /// A container of the App has no `image`, so the App cannot be released on its own. It waits for a Release, applied
    /// by the user or by CI, that names the images.
    AwaitingRelease,
    /// The Release of the App's current spec was deleted. It is not created again, and what it started keeps running until
    /// another Release serves.
    ReleaseDeleted,
    /// The desired Release requires action. The condition `Stalled` repeats what to do.
    ActionRequired,
    /// The environment does not fit: for example, the database is unreachable, a password is wrong, or the store is
    /// full. Fairway retries until the deadline in the message.
    WaitingForEnvironment,
    /// The Secret holds no valid database connection: it has no form that Fairway reads, a part is missing or invalid, or
    /// it has a key that Fairway does not know or cannot follow. The message names the key, never its value.
    ConnectionInvalid,
    /// The database could not be reached, or the connection was lost while a statement ran. The message names the host
    /// and the port where the App does, and neither where only a Secret does.
    DatabaseUnreachable,
    /// The database server does not accept the role or its password, requires a password that the connection does not
    /// contain, or has no entry in its `pg_hba.conf` for such a connection.
    PasswordRejected,
    /// The database server answers, but it has no database with the name in the connection.
    DatabaseMissing,
    /// The TLS handshake with the database failed, or the server's certificate is not trusted.
    TlsFailed,
    /// The database connection goes through a pooler in transaction mode, such as PgBouncer. The migration lock needs
    /// one session of its own, which such a pooler does not keep.
    TransactionPooler,
    /// The database role may not create or use the schema `fairway`, or what is in that schema belongs to somebody else
    /// and cannot be trusted. Fairway runs no migration without this ledger.
    LedgerNotPermitted,
    /// A newer version of Fairway has upgraded the ledger in the schema `fairway`. This version does not know its tables,
    /// and touches nothing.
    LedgerNewer,
    /// Another App already releases to this database. Fairway refuses a second one, because their migrations would
    /// conflict.
    DatabaseOwned,
    /// Another migration is running on this database, so this one cannot start.
    MigrationRunning,
    /// The migration's pod ended before the migration was executed: the ledger has no row for this run, so nothing was
    /// changed.
    MigrationNotStarted,
    /// `database.image` does not contain all of `pg_dump`, `pg_dumpall` and `pg_restore`.
    ToolMissing,
    /// The `pg_dump` in `database.image` has another major version than the database server.
    ToolVersionMismatch,
    /// The backup store or the scratch volume has no space left. The message says which.
    StoreFull,
    /// The backup store cannot be written to.
    StoreReadOnly,
    /// The bucket or share that stores backups does not exist.
    StoreMissing,
    /// The backup store refuses the credentials, or what they permit is not enough.
    StoreAccessDenied,
    /// The backup store does not answer, or answers with errors.
    StoreUnreachable,
    /// The backup store does not return what was written to it: the SHA-256 differs, a file is missing, or the manifest
    /// is unreadable.
    StoreCorrupt,
    /// A dump by the role of `database.connection` would fail: the role may not read everything, policies of row level
    /// security apply to it, a row is too large for `pg_dump`, or the server cannot lock that many tables. It was found
    /// before any dump.
    DumpNotPossible,
    /// `pg_dump` failed, or its output was empty. The message contains the last line of its error output.
    DumpFailed,
    /// The dump was written to the store, but `pg_restore` cannot read all of it back.
    DecodeFailed,
    /// The role of `database.connection` lacks rights that a restore in place needs, or something of the database is in the
    /// way. The message names all of it. Nothing was done.
    RestoreNotPermitted,
    /// The backup cannot be restored into a database beside the one in use, or what was restored is not what the backup says.
    /// The database in use was not changed.
    RestoreFailed,
    /// The backup is from before a migration that was applied to the database in use. The version that runs would meet an
    /// older schema than it needs, so the restore is refused.
    RestoreRevertsMigration,
    /// The restore would lose more row changes than the user agreed to, counted after the sessions of the database were ended.
    /// The database in use was not changed and is open again.
    RestoreLosesMore,
    /// A session in the database cannot be ended, so that the restored database cannot be put in place. The database in use
    /// was not changed and is open again.
    SessionsRemain,
    /// Another Restore of this App or database is under way or goes first. Restores run one after the other.
    WaitingForRestore,
    /// The Backup that is to be restored has not succeeded yet.
    WaitingForSource,
    /// The backup is being restored into a database beside the one in use, and proven there. The application goes on.
    Restoring,
    /// The backup was restored beside the database in use, and what the restore would lose was counted. It waits for the
    /// user's agreement.
    AwaitingAgreement,
    /// Nobody agreed to what the restore would lose within a day, so that the restored database was removed. The database in use
    /// was not changed.
    NotAgreed,
    /// The restored database is being put in the place of the one in use. Connections are refused for a moment, and all
    /// sessions are ended.
    ReplacingDatabase,
    /// The restored database was not put in place, and is being removed.
    DiscardingRestore,
    /// An image cannot be pulled. The message contains what the kubelet reports.
    ImagePullFailed,
    /// A Fairway pod is not starting. The message contains what Kubernetes reports, or a command that shows it.
    PodNotStarting,
    /// A Fairway pod ended without a report: it was evicted, deleted or out of memory, or its node was lost. Or its report is
    /// of a newer Fairway than the operator, which is then not read.
    PodLost,
    /// The operator cannot open a connection to a ready pod of the candidate. A NetworkPolicy blocks it, or nothing
    /// listens on the port of the health request.
    ProbeUnreachable,
    /// The Fairway agent in a pod could not do its work: it was stopped, or it could not read its input. Unreadable
    /// input means that the operator and the agent come from images of different versions.
    AgentFailed,
    /// A request to the API server failed: the API server is unreachable or overloaded, or the namespace is being
    /// deleted.
    WriteFailed,
    /// The API server refuses a write by Fairway, for example because of a quota, an admission policy, a missing verb
    /// in a role, or another object with the same name.
    WriteRefused,
    /// Fairway needs a name that another object still has. That object is being deleted.
    ObjectBeingDeleted,
    /// Fairway needs a name that another Job or pod has, which was not created for this work and is not being deleted.
    NameTaken,
    /// This version of Fairway cannot read a stored object. The message says which part does not fit, without its
    /// values.
    Unreadable,
    /// The Backup, Migration or Restore refers to something that does not exist: the App, its `spec.backup` or
    /// `spec.database`, the Release, or the Backup. Or a final backup of an App without `spec.backup` was asked for.
    AppMissing,
    /// A container has no image: neither the App's template nor `spec.images` of the Release names one.
    ImageMissing,
    /// `spec.images` of the Release names a container that no component of the App has.
    ContainerMissing,
    /// An image reference is not valid, for example because of capital letters in the repository, a space, a scheme
    /// such as `https://`, or an empty tag.
    InvalidImageName,
    /// The image was built for another processor architecture than that of the node on which it was pulled.
    ImageForOtherPlatform,
    /// The image is on the node, but the node knows no registry digest for it. It was loaded onto the node directly and
    /// never pulled from a registry.
    ImageWithoutDigest,
    /// A component with `strategy: BlueGreen` mounts a PersistentVolumeClaim that only one pod at a time may use
    /// (`ReadWriteOncePod`). Pods of the previous version and of the candidate could not mount it at the same time.
    ClaimNotShared,
    /// The API server rejects the Deployment of a component, or its pods. The message contains its answer.
    TemplateRefused,
    /// A ResourceQuota of the namespace has no room for the candidate's pods beside those that run, or for their Deployment.
    /// The message names the quota.
    QuotaExceeded,
    /// No pod can be created for this migration: its component does not exist or has no valid pod template, the App has
    /// no database, the component of an `onStart` migration has no health requests, or it has `strategy: Recreate` and the
    /// Migration was applied by hand.
    MigrationInvalid,
    /// The component that `migration.component` names has no container with an image, so the migration cannot run.
    MigrationImageMissing,
    /// The first word of `migration.command` is not a program in the image, is not executable, or lacks its interpreter.
    CommandNotFound,
    /// The migration failed, and the database schema is unchanged. Rows may have changed.
    MigrationFailed,
    /// The migration did not end, or its application did not become healthy, within `migration.timeout`. The database
    /// schema is unchanged.
    MigrationTimedOut,
    /// The migration's pod was terminated before the migration ended, and the database schema is unchanged. The message
    /// says how the pod ended where Kubernetes reports it.
    MigrationInterrupted,
    /// The user resolved the migration as not applied.
    MigrationNotApplied,
    /// The migration was applied and committed, but one of `migration.checks` returned an unexpected result, or an
    /// index is invalid.
    MigrationCheckFailed,
    /// `backup.schedule` of the App cannot be followed: a field of `cron` is not valid, no date matches it, its runs are less
    /// than five minutes apart, or `timeZone` is not a time zone. No scheduled backup is taken.
    ScheduleInvalid,
    /// No backup of the App has been verified in the time that its schedule allows: a run of the schedule must lead to a
    /// verified backup before the next run, and within 24 hours.
    BackupOverdue,
    /// The Backup for this release failed, or was not complete within 24 hours. The message repeats the reason of the
    /// Backup.
    BackupFailed,
    /// Not all pods of the candidate are ready. The message contains the first cause that Kubernetes reports.
    PodsNotReady,
    /// The candidate's pods are ready, but a health request does not pass. The message names the pod, the request and
    /// the response.
    Unhealthy,
    /// The candidate became unhealthy after traffic had moved to it: a ready pod failed its health requests
    /// `health.failureThreshold` times in a row, or a component that serves had no ready pod left, and the previous version
    /// was not unhealthy alike. The message names the pod, the request and the response.
    HealthLost,
    /// A rung that depends on the environment was not met within its deadline of one hour, and no attempt reported a
    /// more specific reason.
    DeadlineExceeded,
    /// The release was rolled back: the previous version serves again.
    RolledBack,
    /// The desired Release failed. The condition `Ready` says whether the live version is healthy.
    ReleaseFailed,
    /// A component of the live version should have ready pods and has none.
    NotReady,
    /// The database has the schema of a newer version than the one that runs on it. A release migrated it and was then
    /// rolled back, or an older image was released on purpose.
    MigrationKept,
    /// The API server would accept the pods of this release, but warned of them in a dry run: PodSecurity in mode `warn`, a
    /// deprecated or unknown field, a policy with the action `Warn`. No release fails because of a warning.
    ApiServerWarned,
    /// The user aborted the release or the restore with the annotation `fairway.dev/abort`.
    Aborted,
    /// The user requested a rollback with the annotation `fairway.dev/rollback`.
    RollbackRequested,
    /// A newer Release of the App took the place of this one before this one had changed anything.
    Superseded,
    /// The Release was applied by hand with a revision that leaves a gap after the App's. The App accepts only the next one.
    RevisionNotNext,
    /// Another Backup of this App or database is under way or goes first, or a Backup by hand has just ended. Backups run one
    /// after the other, those by hand five minutes apart, and none beside a migration.
    WaitingForBackup,
    /// A migration of this App is about to run, or is running. A backup beside it would hold locks for which the migration
    /// waits, so it begins afterwards.
    WaitingForMigration,
    /// The App does not exist yet, or has not accepted the Release yet: there is no snapshot (a ControllerRevision of the
    /// same name) for it.
    WaitingForApp,
    /// An older Release of this App is still in progress. It must finish or be rolled back first.
    WaitingForRelease,
    /// Fairway asks the API server, in dry runs, whether it would accept the pods of this release and the switch of its Services.
    /// This is done before a migration runs, and before the previous pods of a component are stopped.
    CheckingTemplates,
    /// A pod pulls the images that are named by tag, and all of them if there is a migration. That gives their digests, and
    /// proves that registry, pull secret and platform fit.
    PullingImages,
    /// A Job checks the database and the backup store before the release changes anything.
    CheckingDatabase,
    /// The database is being backed up for this release. The dump is hashed while it is written, then read back from
    /// the store, hashed again and decoded to the end by `pg_restore`.
    BackingUp,
    /// The database migration of this release is about to run, or is running. One that has begun is not interrupted, not
    /// even by an abort.
    Migrating,
    /// The migration's pod ended without a usable report. A Job reads the ledger in the database to find out how the
    /// migration ended.
    CheckingLedger,
    /// The pods of the candidate are starting, or their health is being checked. Every health request must pass
    /// `health.successThreshold` times in a row on every ready pod.
    StartingPods,
    /// A pod that sends health requests with headers from a Secret is starting in the App's namespace. It is needed
    /// because the operator cannot read Secrets.
    StartingProbePod,
    /// A component has `strategy: Recreate`, so its previous pods must be gone before its new pods start. The message
    /// names a pod that still exists.
    StoppingPrevious,
    /// The Service selects the candidate, but its EndpointSlices do not yet contain only the candidate's pods.
    SwitchingTraffic,
    /// Traffic has moved to the candidate, which is watched until `policy.bake.for` has passed. Fairway sends the
    /// health requests to every ready pod during this time.
    Baking,
    /// The bake is over. The pods of the previous version drain and end.
    RetiringPrevious,
    /// The release has met its last rung and is about to end.
    Finishing,
    /// The release is being rolled back to the previous version. The candidate becoming healthy again does not stop the
    /// rollback.
    RollingBack,
    /// The previous version is being started at the App's current replica count. It must be ready before it receives
    /// traffic or work.
    RestoringPrevious,
    /// The previous version serves. The pods of the failed candidate drain and end.
    WithdrawingCandidate,
    /// A Release of the current spec is in progress, or is being rolled back.
    Releasing,
    /// Another field manager (`kubectl edit`, `kubectl set image`, a controller) changed the spec of a Deployment of Fairway's.
    /// The change was reverted, because the Deployment runs what its Release releases and nothing else.
    ChangeReverted,
    /// Retention removes this Backup, which `backup.keep` of the App does not keep any more: its set in the store first, then the
    /// Backup. It counts as proof for nothing.
    RemovingBackup,
    /// Retention has removed a Backup and its set in the store.
    BackupRemoved,
    /// Retention does not keep this Backup, but its set stays: the store refuses to remove it, or what lies in its place was not
    /// written by this Backup. The store is asked again when the date that it says has passed, and once a day otherwise.
    BackupRetained,
    /// The final backup that the annotation `fairway.dev/final-backup` of the App asks for is verified. The App may be deleted.
    FinalBackupTaken,
    /// The version that the App's spec asks for serves.
    Live,
    /// The Release, Migration, Backup or Restore has completed successfully.
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
