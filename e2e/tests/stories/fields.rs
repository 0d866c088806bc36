//! Fields of the API that no other story uses: each does what `kubectl explain` says of it.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::app::Scratch;
use fairway_crds::backup::{BackupOutcome, BackupStatus, Level};
use fairway_crds::database::MigrationCheck;
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome, annotation};
use fairway_crds::store::{Store, VolumeStore};
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour, claim};
use fairway_e2e::{hex, reach, seen, wait};
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::SOON;

/// Waits until an App says this of itself.
async fn app_says(context: &Context, name: &str, reason: &str) -> Result<App> {
    let says = |app: &App| seen::app_condition(app, "Ready").is_some_and(|ready| ready.reason == reason);
    seen::app(context, name, &format!("to say {reason}"), says, SOON).await
}

/// The version that the one pod of a release of `shop` answers with.
async fn version(context: &Context, release: &str) -> Result<String> {
    let pods = crm::pods(context, "web", release).await?;
    let pod = pods
        .first()
        .with_context(|| format!("no pod of {release} is ready"))?;
    let request = Request::get("/").header("host", "shop").body(String::new())?;
    let answer = reach::http(context, pod, crm::PORT, request).await?;
    let version = answer.headers().get("x-crm-version");
    Ok(version
        .context("the answer names no version")?
        .to_str()?
        .to_owned())
}

/// `shop` serves v1, and neither a Deployment nor a pod is there for `shop-2`.
async fn nothing_has_begun(context: &Context) -> Result<()> {
    let deployments = seen::names_of::<Deployment>(context, "shop").await?;
    ensure!(deployments == ["shop-web-1"], "{deployments:?}");
    let of_it = ListParams::default().labels(&format!("{}=shop-2", seen::RELEASE));
    let pods = context.api::<Pod>().list(&of_it).await?;
    ensure!(
        pods.items.is_empty(),
        "there are pods of shop-2: {:?}",
        wait::names(&pods.items)
    );
    ensure!(version(context, "shop-1").await? == "v1");
    Ok(())
}

/// Applies a Release as CI does.
async fn release_by_hand(context: &Context, revision: i64, image: &str) -> Result<()> {
    let release = json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": format!("shop-{revision}")},
        "spec": {"app": "shop", "revision": revision, "images": {"web": image}},
    });
    manifest::apply_object(context, release).await?;
    Ok(())
}

/// `shop` at v1, suspended.
async fn suspended(context: &Context) -> Result<App> {
    let mut app = small::app(context, "shop", "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    app.spec.suspend = true;
    apps::apply(context, &app).await?;
    seen::observed(context, "shop", SOON).await?;
    Ok(app)
}

#[tokio::test]
async fn edit_of_a_suspended_app_is_released_when_it_resumes() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = suspended(&context).await?;
        small::set_version(&context, &mut app, "v2")?;
        apps::apply(&context, &app).await?;
        app_says(&context, "shop", "Suspended").await?;
        let releases = seen::releases(&context, "shop").await?;
        ensure!(
            releases.len() == 1,
            "a release was made: {:?}",
            wait::names(&releases)
        );
        nothing_has_begun(&context).await?;

        app.spec.suspend = false;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(version(&context, "shop-2").await? == "v2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_of_a_suspended_app_holds_before_it_begins() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = suspended(&context).await?;
        release_by_hand(&context, 2, &context.target.image_by_digest("crm", "v2")?).await?;
        let held = seen::waits(&context, "shop-2", "Suspended", SOON).await?;
        ensure!(
            seen::message(&held).contains("spec.suspend"),
            "{}",
            seen::message(&held)
        );
        let status = held.status.unwrap_or_default();
        ensure!(
            status.milestones.is_empty() && status.digests.is_empty(),
            "{status:?}"
        );
        nothing_has_begun(&context).await?;

        app.spec.suspend = false;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(version(&context, "shop-2").await? == "v2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_suspended_during_backup_holds_before_migration() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 0);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::waits(&context, "crm-2", "BackingUp", crm::PATIENCE).await?;
        app.spec.suspend = true;
        apps::apply(&context, &app).await?;
        let held = seen::waits(&context, "crm-2", "Suspended", SOON).await?;
        let message = seen::message(&held);
        ensure!(message.contains("is suspended"), "{message}");
        ensure!(
            seen::holds(seen::release_condition(&held, "Stalled")),
            "no condition says that a user must act"
        );
        // A backup that runs is finished, and is the one that the release relies on when it goes on.
        let name = seen::names_of::<Backup>(&context, "crm")
            .await?
            .into_iter()
            .find(|name| name.starts_with("crm-2-"))
            .context("no Backup of crm-2")?;
        let made = |backup: &Backup| {
            let status = backup.status.as_ref();
            status.is_some_and(|status| status.outcome == Some(BackupOutcome::Succeeded))
        };
        wait::wait_for(context.api::<Backup>(), &name, "to be made", made, crm::PATIENCE).await?;
        let held = context.api::<Release>().get("crm-2").await?;
        ensure!(seen::reason(&held) == "Suspended", "{}", seen::message(&held));
        ensure!(
            seen::milestone(&held, MilestoneKind::Migrating).is_none(),
            "{:?}",
            held.status
        );

        app.spec.suspend = false;
        apps::apply(&context, &app).await?;
        let ended = seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let evidence = ended.status.unwrap_or_default().evidence;
        ensure!(
            evidence.backup.as_ref().is_some_and(|backup| backup.name == name),
            "{evidence:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_app_without_an_image_waits_for_releases_that_name_it() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        let container = &mut apps::component(&mut app, "web").template["spec"]["containers"][0];
        container.as_object_mut().context("no container")?.remove("image");
        apps::apply(&context, &app).await?;
        let waiting = app_says(&context, "shop", "AwaitingRelease").await?;
        let message = seen::app_condition(&waiting, "Ready").map(|ready| ready.message.clone());
        ensure!(
            message
                .as_ref()
                .is_some_and(|message| message.contains("web/web")),
            "{message:?}"
        );
        ensure!(seen::releases(&context, "shop").await?.is_empty());

        for (revision, tag) in [(1, "v1"), (2, "v2")] {
            let image = context.target.image_by_digest("crm", tag)?;
            let name = format!("shop-{revision}");
            release_by_hand(&context, revision, &image).await?;
            let release = seen::ended(&context, &name, ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
            ensure!(
                release.spec.trigger == "ByHand" && release.owner_references().len() == 1,
                "{release:?}"
            );
            let live = |app: &App| seen::live(app) == Some(name.as_str());
            let app = seen::app(&context, "shop", "to be live", live, SOON).await?;
            let live = app
                .status
                .and_then(|status| status.live)
                .context("nothing is live")?;
            ensure!(live.images.get("web/web") == Some(&image), "{live:?}");
            ensure!(version(&context, &name).await? == tag);
        }
        Ok(())
    })
    .await
}

/// The folder of a Backup that is proven to that level holds, file by file, what its status says. Returns its manifest.
fn stored(context: &Context, status: &BackupStatus, level: Level) -> Result<Value> {
    ensure!(status.outcome == Some(BackupOutcome::Succeeded), "{status:?}");
    ensure!(status.level.as_deref() == Some(level.as_str()), "{status:?}");
    let set = status.set.as_ref().context("the backup is nowhere")?;
    let Store::Volume(VolumeStore { claim_name }) = &set.store else {
        bail!("it is in another store: {}", set.store);
    };
    let folder = volumes::path(context, claim_name)?.join(&set.path);
    let text =
        fs::read(folder.join("manifest.json")).with_context(|| format!("read {}", folder.display()))?;
    let manifest: Value = serde_json::from_slice(&text)?;
    let mut sum = 0;
    for part in ["database", "globals"] {
        let file = &manifest[part];
        let name = file["name"]
            .as_str()
            .with_context(|| format!("no {part}: {manifest}"))?;
        let content = fs::read(folder.join(name)).with_context(|| format!("read {name}"))?;
        ensure!(file["bytes"] == json!(content.len()), "{part}: {manifest}");
        ensure!(
            file["sha256"] == json!(hex::encode(&Sha256::digest(&content))),
            "{part}: {manifest}"
        );
        sum += i64::try_from(content.len())?;
    }
    ensure!(
        status.bytes == Some(sum),
        "{sum} bytes are there, and {:?} in status",
        status.bytes
    );
    for (reported, kept) in [
        (&status.sha256, &manifest["database"]["sha256"]),
        (&status.level, &manifest["level"]),
        (&status.taken_at, &manifest["takenAt"]),
        (&status.server_version, &manifest["serverVersion"]),
        (&status.fingerprint, &manifest["fingerprint"]),
    ] {
        ensure!(
            reported.is_some() && reported.as_deref() == kept.as_str(),
            "{status:?} is not {manifest}"
        );
    }
    Ok(manifest)
}

#[tokio::test]
async fn a_backup_applied_by_hand_is_made_and_lies_where_it_says() -> Result<()> {
    with_temp_ns(|context| async move {
        crm::install(&context).await?;
        crm::add_leads(&context, &["Ada"]).await?;
        let backup = json!({
            "apiVersion": "fairway.dev/v1alpha1",
            "kind": "Backup",
            "metadata": {"name": "by-hand"},
            "spec": {"app": "crm", "reason": "before we clean up by hand"},
        });
        manifest::apply_object(&context, backup).await?;
        let ended = |backup: &Backup| {
            backup
                .status
                .as_ref()
                .is_some_and(|status| status.outcome.is_some())
        };
        let backup =
            wait::wait_for(context.api::<Backup>(), "by-hand", "to end", ended, crm::PATIENCE).await?;
        let status = backup.status.unwrap_or_default();
        let succeeded = seen::condition(&status.conditions, "Succeeded");
        ensure!(seen::holds(succeeded), "{status:?}");
        let manifest = stored(&context, &status, Level::Decoded)?;
        ensure!(manifest["databaseFormat"] == "custom", "{manifest}");
        ensure!(
            seen::releases(&context, "crm").await?.len() == 1,
            "it has caused a release"
        );
        Ok(())
    })
    .await
}

/// Applies a Migration of crm to v2 under this name, and waits until it has succeeded.
async fn migrated_by_hand(context: &Context, name: &str) -> Result<MigrationStatus> {
    let migration = json!({
        "apiVersion": "fairway.dev/v1alpha1",
        "kind": "Migration",
        "metadata": {"name": name},
        "spec": {
            "app": "crm",
            "image": context.target.image_by_digest("crm", "v2")?,
            "component": "web",
            "command": ["/crm", "migrate"],
            "timeout": "1m",
        },
    });
    manifest::apply_object(context, migration).await?;
    let ended = |migration: &Migration| {
        let status = migration.status.as_ref();
        status.is_some_and(|status| status.outcome.is_some())
    };
    let migration = wait::wait_for(context.api::<Migration>(), name, "to end", ended, crm::PATIENCE).await?;
    let status = migration.status.unwrap_or_default();
    let succeeded = seen::condition(&status.conditions, "Succeeded");
    ensure!(seen::holds(succeeded), "{status:?}");
    Ok(status)
}

#[tokio::test]
async fn a_migration_applied_by_hand_is_run_once_whatever_its_name() -> Result<()> {
    with_temp_ns(|context| async move {
        crm::install(&context).await?;
        let first = migrated_by_hand(&context, "by-hand").await?;
        ensure!(first.outcome == Some(MigrationOutcome::Applied), "{first:?}");
        let changed = first
            .fingerprints
            .as_ref()
            .is_some_and(|prints| prints.after.is_some() && prints.before != prints.after);
        ensure!(changed && first.exit_code == Some(0), "{first:?}");

        let again = migrated_by_hand(&context, "by-another-name").await?;
        let said = seen::condition(&again.conditions, "Succeeded").map(|said| said.message.as_str());
        ensure!(
            again.outcome == Some(MigrationOutcome::AlreadyApplied)
                && said.is_some_and(|said| said.contains("was not run again")),
            "{again:?}"
        );
        let runs = "select count(*) from migration_runs where version = 'v2'";
        ensure!(
            reach::count(&context, crm::DATABASE, runs).await? == 1,
            "the migration was run again"
        );
        let releases = seen::releases(&context, "crm").await?;
        ensure!(releases.len() == 1, "it has caused a release");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn connection_by_parts_and_directory_dump_serve_a_migration() -> Result<()> {
    with_temp_ns(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let database = reach::database(&context, crm::DATABASE).await?;
        let rows = "create table kept as select n, md5(n::text) as word from generate_series(1, 10000) n";
        database.batch_execute(rows).await?;
        // Another name and another port than those in the URL, and each credential in a Secret of its own.
        for object in [
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "by-parts"},
                "spec": {"selector": {"app": crm::DATABASE}, "ports": [{"port": 6543, "targetPort": 5432}]},
            }),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "by-parts"},
                "stringData": {"login": "postgres"},
            }),
        ] {
            manifest::apply_object(&context, object).await?;
        }
        let mut app = crm::app(&context, "v1")?;
        app.spec.database.as_mut().context("no database")?.connection = serde_json::from_value(json!({
            "host": "by-parts",
            "port": 6543,
            "name": "crm",
            "userFrom": {"secretKeyRef": {"name": "by-parts", "key": "login"}},
            "passwordFrom": {"secretKeyRef": {"name": crm::DATABASE, "key": "password"}},
        }))?;
        app.spec.backup.as_mut().context("no backup")?.scratch = Some(Scratch {
            size: "128Mi".to_owned(),
        });
        crm::first(&context, &mut app).await?;

        let release = context.api::<Release>().get("crm-1").await?;
        let evidence = release.status.unwrap_or_default().evidence;
        let migration = evidence.migration.context("no migration")?;
        ensure!(
            migration.outcome == MigrationOutcome::Applied && !migration.unchanged,
            "{migration:?}"
        );
        let runs = "select count(*) from migration_runs where version = 'v1'";
        ensure!(reach::count(&context, crm::DATABASE, runs).await? == 1);
        let backup = evidence.backup.context("no backup")?;
        let status = context
            .api::<Backup>()
            .get(&backup.name)
            .await?
            .status
            .unwrap_or_default();
        ensure!(status.bytes == Some(backup.bytes) && status.sha256.as_ref() == Some(&backup.sha256));
        let manifest = stored(&context, &status, Level::Restored)?;
        ensure!(manifest["databaseFormat"] == "directory", "{manifest}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn failed_check_stops_the_release_until_the_data_is_fixed() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::add_leads(&context, &["Ada"]).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        let check = |name: &str, sql: &str, expect: &str| MigrationCheck {
            name: name.to_owned(),
            sql: sql.to_owned(),
            expect: expect.to_owned(),
        };
        app.spec.migration.as_mut().context("no migration")?.checks = vec![
            check(
                "notes-are-there",
                "select count(*) from pg_tables where tablename = 'lead_note'",
                "1",
            ),
            check(
                "all-have-email",
                "select bool_and(email is not null) from leads",
                "t",
            ),
        ];
        apps::apply(&context, &app).await?;

        let failed = seen::failed(&context, "crm-2", "MigrationCheckFailed", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(
            message.contains("all-have-email") && !message.contains("notes-are-there"),
            "{message}"
        );
        let migration = context
            .api::<Migration>()
            .get("crm-2")
            .await?
            .status
            .unwrap_or_default();
        ensure!(
            migration.outcome == Some(MigrationOutcome::Applied)
                && migration
                    .failed_check
                    .as_deref()
                    .is_some_and(|check| check.contains("all-have-email")),
            "{migration:?}"
        );
        let milestones: Vec<_> = failed
            .status
            .iter()
            .flat_map(|status| &status.milestones)
            .collect();
        ensure!(
            seen::milestone(&failed, MilestoneKind::HandingOver).is_none()
                && seen::milestone(&failed, MilestoneKind::TrafficMoved).is_none(),
            "{milestones:?}"
        );
        let ahead = |app: &App| seen::holds(seen::app_condition(app, "SchemaAhead"));
        seen::app(&context, "crm", "SchemaAhead=True", ahead, SOON).await?;
        seen::selects(&context, "crm", "crm-1", SOON).await?;
        ensure!(crm::pods(&context, "web", "crm-1").await?.len() == 2);
        ensure!(crm::leads(&context).await? == ["Ada"]);

        let database = reach::database(&context, crm::DATABASE).await?;
        database
            .batch_execute("update leads set email = 'ada@example.com'")
            .await?;
        apps::say(&context, "crm-2", annotation::RETRY, "fixed").await?;
        let again = seen::ended(&context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let migration = again.status.unwrap_or_default().evidence.migration;
        ensure!(
            migration
                .as_ref()
                .is_some_and(|migration| migration.outcome == MigrationOutcome::AlreadyApplied),
            "{migration:?}"
        );
        let runs = "select count(*) from migration_runs where version = 'v2'";
        ensure!(
            reach::count(&context, crm::DATABASE, runs).await? == 1,
            "the migration was run again"
        );
        Ok(())
    })
    .await
}

/// Answers `/health` only for the right host (else 421) and the right tenant (else 401), and any other page.
const VIRTUAL_HOST: &str = "\
    require('http').createServer((request, answer) => { \
        const {host, 'x-tenant': tenant} = request.headers; \
        const wrong = host !== 'shop.example.com' ? 421 : tenant !== 'acme' ? 401 : 200; \
        answer.statusCode = request.url === '/health' ? wrong : 200; \
        answer.end(); \
    }).listen(3000); \
    process.on('SIGTERM', () => process.exit(0));";

#[tokio::test]
async fn health_requests_have_the_host_and_headers_of_the_app() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        let web = apps::component(&mut app, "web");
        // The image that has Node.js.
        let container = &mut web.template["spec"]["containers"][0];
        container["image"] = json!(context.target.image_by_digest("unleash", "7.6.5")?);
        container["command"] = json!(["/usr/bin/node", "--eval", VIRTUAL_HOST]);
        container["args"] = json!([]);
        // With host and header, and for proof that both count, without either.
        let tenant = json!([{"name": "X-Tenant", "value": "acme"}]);
        web.health.as_mut().context("no health")?.http = serde_json::from_value(json!([
            {"path": "/health", "host": "shop.example.com", "headers": tenant},
            {"path": "/health", "headers": tenant, "status": 421},
            {"path": "/health", "host": "shop.example.com", "status": 401},
        ]))?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}
