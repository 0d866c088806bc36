//! A team removes an App, or a whole namespace, whatever is going on.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::backup::BackupOutcome;
use fairway_crds::duration::Duration;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour, claim};
use fairway_e2e::wait::{names, wait_for_all, wait_gone};
use fairway_e2e::{hex, reach, seen};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

/// `kubectl delete app NAME`, and waits until nothing that belongs to it is left but its backups.
async fn delete_app(context: &Context, name: &str) -> Result<()> {
    context
        .api::<App>()
        .delete(name, &DeleteParams::default())
        .await?;
    wait_gone(context.api::<App>(), name, crm::PATIENCE).await?;
    all_gone::<Release>(context, name).await?;
    all_gone::<Migration>(context, name).await?;
    all_gone::<ControllerRevision>(context, name).await?;
    all_gone::<Deployment>(context, name).await?;
    all_gone::<Service>(context, name).await?;
    all_gone::<Job>(context, name).await?;
    all_gone::<Pod>(context, name).await
}

/// Waits until no object of this kind belongs to the App. A Job that makes a backup goes with its Backup.
async fn all_gone<K>(context: &Context, app: &str) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().labels(&format!("{}={app},{}!=backup", seen::APP, seen::WORK));
    let what = format!("every {} of {app} to be gone", K::kind(&()));
    wait_for_all(context.api::<K>(), config, &what, <[K]>::is_empty, crm::PATIENCE).await?;
    Ok(())
}

async fn backups(context: &Context) -> Result<Vec<String>> {
    Ok(names(
        &context
            .api::<Backup>()
            .list(&kube::api::ListParams::default())
            .await?
            .items,
    ))
}

#[tokio::test]
async fn app_deleted_at_any_rung_leaves_only_its_backups() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let app = crm::app(&context, "v1")?;
        let mut kept = 0;
        for rung in [
            "PullingImages",
            "CheckingDatabase",
            "BackingUp",
            "Migrating",
            "StartingPods",
            "Baking",
        ] {
            apps::apply(&context, &app).await?;
            seen::waits(&context, "crm-1", rung, crm::PATIENCE)
                .await
                .with_context(|| format!("stop at {rung}"))?;
            delete_app(&context, "crm")
                .await
                .with_context(|| format!("delete at {rung}"))?;
            let left = backups(&context).await?.len();
            ensure!(left >= kept, "deleting the App at {rung} took a backup with it");
            kept = left;
        }
        ensure!(kept > 0, "no backup was made");
        let runs = reach::count(&context, crm::DATABASE, "select count(*) from migration_runs").await?;
        ensure!(
            runs == 1,
            "the same migration of the same database was run {runs} times"
        );
        Ok(())
    })
    .await
}

#[rstest]
#[case::a_command(|_: &mut App| {})]
#[case::on_start(crm::migrate_on_start)]
#[tokio::test]
async fn a_migration_that_runs_finishes_although_its_app_is_deleted(
    #[case] form: fn(&mut App),
) -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:5000");
        form(&mut app);
        apps::apply(&context, &app).await?;
        let begun = "select count(*) from migration_runs";
        reach::until(&context, crm::DATABASE, begun, 1, crm::PATIENCE).await?;
        delete_app(&context, "crm").await?;
        let committed = "select count(*) from fairway.migration_run where state = 'committed'";
        ensure!(
            reach::count(&context, crm::DATABASE, committed).await? == 1,
            "the migration was not finished"
        );
        let tables = "select count(*) from pg_tables where tablename = 'worker_session'";
        ensure!(
            reach::count(&context, crm::DATABASE, tables).await? == 1,
            "its last statement was not run"
        );
        ensure!(
            reach::count(&context, crm::DATABASE, begun).await? == 1,
            "the migration was run again"
        );
        Ok(())
    })
    .await
}

/// The selectors that each Service of the namespace has had, in their order, without repetitions.
type Selectors = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// Writes down every version of every Service from now on.
struct Watch {
    seen: Arc<Mutex<Selectors>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Returns when it sees what is there already.
    async fn start(context: &Context) -> Result<Self> {
        let seen = Arc::<Mutex<Selectors>>::default();
        let mut events = watcher::watcher(context.api::<Service>(), watcher::Config::default()).boxed();
        let begun = tokio::time::timeout(crate::SOON, async {
            while let Some(event) = events.try_next().await? {
                match event {
                    watcher::Event::InitApply(service) => note(&seen, service),
                    watcher::Event::InitDone => return Ok(()),
                    _ => {}
                }
            }
            bail!("the watch of Services ended")
        });
        begun.await.context("begin to watch Services")??;
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(service) | watcher::Event::InitApply(service)) => {
                        note(&noted, service)
                    }
                    Ok(_) => {}
                    // What happened meanwhile was not seen, so nothing is proven.
                    Err(error) => panic!("the watch of Services was interrupted: {error}"),
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// Starts again with a Service of this name.
    fn forget(&self, service: &str) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(service);
    }

    /// Fails if a Service that had a selector had an empty one later, or if these are not the releases that it
    /// has selected one after the other.
    fn never_without(&self, service: &str, releases: &[&str]) -> Result<()> {
        ensure!(!self.task.is_finished(), "the watch of Services has ended");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let selectors = seen
            .get(service)
            .with_context(|| format!("no Service {service} was seen"))?;
        let selecting: Vec<_> = selectors
            .iter()
            .skip_while(|selector| selector.is_empty())
            .collect();
        let empty = selecting.iter().any(|selector| selector.is_empty());
        ensure!(!empty, "Service {service} was without a selector: {selectors:?}");
        let selected: Vec<_> = selecting
            .iter()
            .filter_map(|selector| selector.get(seen::RELEASE))
            .collect();
        ensure!(
            selected == releases,
            "Service {service} has selected {selected:?}"
        );
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(seen: &Mutex<Selectors>, service: Service) {
    let name = service.name_any();
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let selectors = seen.entry(name).or_default();
    if selectors.last() != Some(&selector) {
        selectors.push(selector);
    }
}

/// An App of one pod at v1, which is live, and its edit to v2.
async fn upgrade(context: &Context, name: &str, edit: impl FnOnce(&mut App)) -> Result<()> {
    let mut app = small::app(context, name, "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(
        context,
        &format!("{name}-1"),
        ReleaseOutcome::Succeeded,
        crm::PATIENCE,
    )
    .await?;
    small::set_version(context, &mut app, "v2")?;
    apps::set_bake(&mut app, 60);
    edit(&mut app);
    apps::apply(context, &app).await?;
    Ok(())
}

/// The new pod is ready, and its health page is bad.
async fn while_it_is_not_healthy(context: &Context, watch: &Watch) -> Result<()> {
    upgrade(context, "ill", |app| {
        apps::set_env(app, "web", "CRM_FAULT_HEALTH", "503");
    })
    .await?;
    seen::waits(context, "ill-2", "Unhealthy", crm::PATIENCE).await?;
    ensure!(
        !crm::pods(context, "web", "ill-2").await?.is_empty(),
        "no pod is ready"
    );
    delete_app(context, "ill").await?;
    watch.never_without("ill", &["ill-1"])
}

/// The Service selects the new version, and nothing else has happened.
async fn while_traffic_moves(context: &Context, watch: &Watch) -> Result<()> {
    upgrade(context, "moving", |_| {}).await?;
    seen::selects(context, "moving", "moving-2", crm::PATIENCE).await?;
    delete_app(context, "moving").await?;
    watch.never_without("moving", &["moving-1", "moving-2"])
}

async fn while_it_is_watched(context: &Context, watch: &Watch) -> Result<()> {
    upgrade(context, "baking", |_| {}).await?;
    seen::waits(context, "baking-2", "Baking", crm::PATIENCE).await?;
    delete_app(context, "baking").await?;
    watch.never_without("baking", &["baking-1", "baking-2"])
}

/// The old pods drain.
async fn while_the_old_side_retires(context: &Context, watch: &Watch) -> Result<()> {
    upgrade(context, "retiring", |app| {
        apps::set_bake(app, 0);
        app.spec.traffic.drain = Duration::from_seconds(10);
    })
    .await?;
    seen::waits(context, "retiring-2", "RetiringPrevious", crm::PATIENCE).await?;
    delete_app(context, "retiring").await?;
    watch.never_without("retiring", &["retiring-1", "retiring-2"])
}

/// crm at v1, edited to `version`, in a database that an earlier App of the same name may have left.
async fn upgrade_crm(context: &Context, version: &str) -> Result<App> {
    let mut app = crm::app(context, "v1")?;
    // Whichever side's worker is to stop, it takes its time.
    apps::set_env(&mut app, "worker", "CRM_FAULT_WORKER_SLOW_STOP_MS", "5000");
    crm::first(context, &mut app).await?;
    crm::set_version(context, &mut app, version);
    apps::apply(context, &app).await?;
    Ok(app)
}

/// The old worker is asked to stop and works on.
async fn while_the_old_worker_stops(context: &Context, watch: &Watch) -> Result<()> {
    upgrade_crm(context, "v2").await?;
    seen::waits(context, "crm-2", "StoppingPrevious", crm::PATIENCE).await?;
    delete_app(context, "crm").await?;
    watch.never_without("crm", &["crm-1"])
}

/// The new version has failed its health, and its worker is to hand back.
async fn while_it_goes_back(context: &Context, watch: &Watch) -> Result<()> {
    upgrade_crm(context, "v3").await?;
    seen::waits(context, "crm-2", "Baking", crm::PATIENCE).await?;
    for pod in crm::pods(context, "web", "crm-2").await? {
        crm::switch_fault(context, &pod, &json!({"health": "503"})).await?;
    }
    let back = seen::reaches(context, "crm-2", MilestoneKind::TrafficReturned, crm::PATIENCE).await?;
    ensure!(seen::outcome(&back).is_none(), "it has gone back already");
    delete_app(context, "crm").await?;
    watch.never_without("crm", &["crm-1", "crm-2", "crm-1"])
}

/// The store holds what the Backups say: a manifest, and the dump to which it belongs.
fn are_whole(context: &Context, backups: &[Backup]) -> Result<()> {
    let store = volumes::path(context, "backups")?;
    for backup in backups {
        let name = backup.name_any();
        let status = backup.status.clone().unwrap_or_default();
        ensure!(
            status.outcome == Some(BackupOutcome::Succeeded),
            "{name}: {status:?}"
        );
        let folder = store.join(status.set.with_context(|| format!("{name} is nowhere"))?.path);
        let read = |file: &str| fs::read(folder.join(file)).with_context(|| format!("read {file} of {name}"));
        let manifest: Value = serde_json::from_slice(&read("manifest.json")?)?;
        let dump = manifest["database"]["name"]
            .as_str()
            .context("the manifest names no dump")?;
        let hash = hex::encode(&Sha256::digest(read(dump)?));
        ensure!(
            status.sha256.as_ref() == Some(&hash),
            "{name}: the dump is another one"
        );
    }
    Ok(())
}

#[tokio::test]
async fn app_deleted_during_an_upgrade_leaves_only_its_backups() -> Result<()> {
    with_temp_ns(|context| async move {
        let watch = Watch::start(&context).await?;
        let of_crm = async {
            claim(&context, "backups", "1Gi", Behaviour::Good).await?;
            crm::database(&context).await?;
            while_the_old_worker_stops(&context, &watch)
                .await
                .context("StoppingPrevious")?;
            watch.forget("crm");
            while_it_goes_back(&context, &watch).await.context("RollingBack")
        };
        let (ill, moving, baking, retiring, crm) = tokio::join!(
            while_it_is_not_healthy(&context, &watch),
            while_traffic_moves(&context, &watch),
            while_it_is_watched(&context, &watch),
            while_the_old_side_retires(&context, &watch),
            of_crm,
        );
        ill.context("Unhealthy")?;
        moving.context("SwitchingTraffic")?;
        baking.context("Baking")?;
        retiring.context("RetiringPrevious")?;
        crm?;
        let left = context.api::<Backup>().list(&ListParams::default()).await?.items;
        ensure!(
            left.len() == 4,
            "one backup for each release with a database: {:?}",
            names(&left)
        );
        are_whole(&context, &left)
    })
    .await
}

/// Removing the namespace is the end of every test; here it happens in the middle of a release.
async fn namespace_deleted_at(rung: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:2000");
        apps::apply(&context, &app).await?;
        seen::waits(&context, "crm-1", rung, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_deleted_during_a_migration_does_not_hang() -> Result<()> {
    namespace_deleted_at("Migrating").await
}

#[tokio::test]
async fn a_namespace_deleted_during_the_bake_does_not_hang() -> Result<()> {
    namespace_deleted_at("Baking").await
}
