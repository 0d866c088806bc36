//! Backup stores that take nothing: nothing is migrated without a backup, and an edit of the store is enough.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::Release;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::store::{Store, VolumeStore};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::with_temp_ns;
use fairway_e2e::seen;
use fairway_e2e::volumes::{Behaviour, claim};

fn volume(claim_name: &str) -> Store {
    Store::Volume(VolumeStore {
        claim_name: claim_name.to_owned(),
    })
}

async fn holds_the_release_until_it_is_replaced(behaviour: Behaviour, expected: &'static str) -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        let database = fairway_e2e::reach::database(&context, crm::DATABASE).await?;
        // What cannot be compressed away.
        let rows = "insert into leads (name) select string_agg(md5(random()::text), '') from generate_series(1, 20000) n group by n % 200";
        database.batch_execute(rows).await?;
        claim(&context, "bad", "1Gi", behaviour).await?;
        app.spec.backup.as_mut().context("no backup")?.store = volume("bad");
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        let expects = |release: &Release| seen::message(release).contains(expected);
        let waiting = seen::release(&context, "crm-2", expected, expects, crm::PATIENCE).await?;
        ensure!(seen::milestone(&waiting, MilestoneKind::Migrating).is_none(), "it migrates without a backup");

        app.spec.backup.as_mut().context("no backup")?.store = volume("backups");
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn full_store_holds_the_release_until_the_app_names_another() -> Result<()> {
    holds_the_release_until_it_is_replaced(Behaviour::Limited { bytes: 64 << 10 }, "(spec.backup) is full (")
        .await
}

#[tokio::test]
async fn read_only_store_holds_the_release_until_replaced() -> Result<()> {
    holds_the_release_until_it_is_replaced(Behaviour::ReadOnly, "(spec.backup) cannot be written to (").await
}
