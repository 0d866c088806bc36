//! Steps 1 and 2: Unleash is live with its data, and is upgraded.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::backup::BackupOutcome;
use fairway_crds::condition::SUCCEEDED;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ProbeCounts, ReleaseOutcome, annotation};
use fairway_crds::{Backup, Migration, Release};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;

use super::Story;
use crate::apps::{self, crm, unleash};
use crate::load::{self, Running};
use crate::{reach, seen, wait};

/// The feature flags that users created before the upgrade.
const FLAGS: &[&str] = &["new-checkout", "dark-mode", "faster-search", "beta-invoices"];

/// Time for an App's status to follow its Release.
const SOON: Duration = Duration::from_secs(10);

/// Unleash at 7.6.5 with data and clients, about to be upgraded.
pub struct Upgrade {
    /// Its clients.
    pub load: Running,
    app: App,
    flags: BTreeSet<String>,
}

impl Upgrade {
    /// Step 1: a first release on an empty database, data made through the API, and clients.
    ///
    /// # Errors
    /// When any of it is not as it should be.
    pub async fn prepare(story: &Story, mut app: App) -> Result<Self> {
        let Story { context, timeline } = story;
        unleash::database(context).await?;
        timeline.act("kubectl apply -f unleash/app.yaml            (Unleash 7.6.5, an empty PostgreSQL)");
        crm::first(context, &mut app).await?;
        unleash::add_flags(context, FLAGS).await?;
        let flags = unleash::flags(context).await?;
        ensure!(
            flags.len() == FLAGS.len(),
            "the flags are not all there: {flags:?}"
        );
        let client = unleash::client(context).await?;
        let load = load::start(context, &client).await?;
        timeline.act(&format!(
            "{} feature flags made through the API; clients ask for them {} times a second from now on",
            flags.len(),
            client.rate
        ));
        Ok(Self { load, app, flags })
    }

    /// Step 2: one image is edited to 8.2.0.
    ///
    /// # Errors
    /// When any of it is not as it should be.
    pub async fn upgrade(&mut self, story: &Story) -> Result<Release> {
        let Story { context, timeline } = story;
        let _watching = timeline.watch(context);
        unleash::set_version(context, &mut self.app, "8.2.0");
        timeline.act("kubectl edit app unleash                     (one line: the image is unleash:8.2.0)");
        apps::apply(context, &self.app).await?;
        let release = seen::ended(context, "unleash-2", ReleaseOutcome::Succeeded, unleash::PATIENCE).await?;
        self.came_in_order(story, &release).await?;
        self.kept_its_data(story, "unleash-2", "8.2").await?;
        timeline.requests("Unleash", &self.load).await?;
        Ok(release)
    }

    /// After the end of the story: a user requests a rollback, and 7.6.5 runs on the schema of 8.2.0.
    ///
    /// # Errors
    /// When any of it is not as it should be.
    pub async fn roll_back(&self, story: &Story) -> Result<Release> {
        let Story { context, timeline } = story;
        let _watching = timeline.watch(context);
        timeline.act("kubectl annotate release unleash-2 fairway.dev/rollback=\"$(date +%s)\" --overwrite");
        apps::say(context, "unleash-2", annotation::ROLLBACK, "now").await?;
        let back = |release: &Release| seen::outcome(release) == Some(ReleaseOutcome::RolledBack);
        let release =
            seen::release(context, "unleash-2", "to be rolled back", back, unleash::PATIENCE).await?;
        ensure!(
            seen::reason(&release) == "RollbackRequested",
            "{}",
            seen::message(&release)
        );
        ensure!(
            seen::holds(seen::release_condition(&release, "SchemaAhead")),
            "the release has no condition SchemaAhead"
        );
        seen::selects(context, "unleash", "unleash-1", SOON).await?;
        let ahead = |app: &App| seen::holds(seen::app_condition(app, "SchemaAhead"));
        seen::app(context, "unleash", "SchemaAhead=True", ahead, SOON).await?;
        timeline.proven("the Release and the App say that the schema is ahead of what serves");
        self.kept_its_data(story, "unleash-1", "7.6.5").await?;
        timeline.requests("Unleash", &self.load).await?;
        Ok(release)
    }

    async fn came_in_order(&self, story: &Story, release: &Release) -> Result<()> {
        let Story { context, timeline } = story;
        let status = release.status.clone().unwrap_or_default();
        let backup = status.evidence.backup.context("the release has no backup")?;
        let object = context.api::<Backup>().get(&backup.name).await?;
        let found = object.status.unwrap_or_default();
        ensure!(found.outcome == Some(BackupOutcome::Succeeded), "{found:?}");
        ensure!(
            backup.level == "Decoded" && backup.bytes > 0 && backup.sha256.len() == 64,
            "{backup:?}"
        );
        let migration = context
            .api::<Migration>()
            .get("unleash-2")
            .await?
            .status
            .unwrap_or_default();
        ensure!(
            migration.outcome == Some(MigrationOutcome::Applied),
            "{migration:?}"
        );
        let runs = "select count(*) from fairway.migration_run where release = 'unleash-2'";
        let runs = reach::count(context, unleash::DATABASE, runs).await?;
        ensure!(runs == 1, "the ledger has {runs} runs of unleash-2");
        let order: Vec<_> = status.milestones.iter().map(|milestone| milestone.kind).collect();
        let desired = [
            MilestoneKind::Migrating,
            MilestoneKind::Migrated,
            MilestoneKind::TrafficMoved,
            MilestoneKind::Baked,
        ];
        ensure!(order == desired, "milestones: {order:?}");
        let proven = seen::condition(&found.conditions, SUCCEEDED)
            .map(|condition| condition.last_transition_time.0)
            .context("the Backup has no condition Succeeded")?;
        let migrating = seen::milestone(release, MilestoneKind::Migrating).map(|milestone| milestone.at);
        ensure!(
            migrating.is_some_and(|migrating| proven <= migrating),
            "the backup was proven at {proven}, and the migration began at {migrating:?}"
        );
        self.was_healthy(status.evidence.probes)?;
        let old = watcher::Config::default().labels("fairway.dev/release=unleash-1,fairway.dev/component");
        let gone = |pods: &[Pod]| pods.is_empty();
        wait::wait_for_all(
            context.api::<Pod>(),
            old,
            "the pods of unleash-1 to be gone",
            gone,
            SOON,
        )
        .await?;
        timeline.proven(
            "backup taken and checked → migrated once → healthy → traffic moved → baked → old side retired",
        );
        Ok(())
    }

    /// Each round of health requests asked for the health page and for a data page.
    fn was_healthy(&self, probes: Option<ProbeCounts>) -> Result<()> {
        let components = self.app.spec.components.iter();
        let asked: Vec<_> = components
            .filter_map(|component| component.health.as_ref())
            .flat_map(|health| health.http.iter().map(|request| request.path.as_str()))
            .collect();
        ensure!(asked == ["/health", "/api/admin/projects"], "asked: {asked:?}");
        let probes = probes.context("no health request was counted")?;
        ensure!(probes.passed > 0, "{probes:?}");
        Ok(())
    }

    /// This release is live at this version, with the flags that users created.
    async fn kept_its_data(&self, story: &Story, release: &str, desired: &str) -> Result<()> {
        let Story { context, timeline } = story;
        let live = |app: &App| seen::live(app) == Some(release);
        seen::app(context, "unleash", &format!("{release} to be live"), live, SOON).await?;
        let version = unleash::version(context).await?;
        ensure!(
            version.starts_with(desired),
            "the version that answers is {version}"
        );
        let flags = unleash::flags(context).await?;
        ensure!(
            flags == self.flags,
            "the flags were {:?} and are {flags:?}",
            self.flags
        );
        timeline.proven(&format!(
            "version {version} answers, and all {} feature flags are there",
            flags.len()
        ));
        Ok(())
    }
}
