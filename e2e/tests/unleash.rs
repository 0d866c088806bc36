//! A team upgrades Unleash and rolls the upgrade back, with its data and without a failed request.
//!
//! One upgrade at a time, and in a file of their own, so that no other test runs beside them: four servers of Node.js
//! and their clients fill two cores, and a request that waits for a processor is a request that fails.

use anyhow::Result;
use fairway_crds::App;
use fairway_e2e::apps::{set_env, unleash};
use fairway_e2e::ns::{Context, alone};
use fairway_e2e::story::Story;
use fairway_e2e::story::unleash::Upgrade;
use fairway_e2e::volumes::{Behaviour, claim};

#[tokio::test]
async fn unleash_with_a_migration_command_is_upgraded_and_back() -> Result<()> {
    let by_command = |app: &mut App| {
        // The servers must not migrate: only then does their health prove that the command did.
        set_env(app, "server", "DATABASE_DISABLE_MIGRATION", "true");
        if let Some(migration) = &mut app.spec.migration {
            migration.on_start = None;
            migration.command = Some(vec!["/usr/bin/node".to_owned(), "/app/migrate.cjs".to_owned()]);
        }
    };
    alone(async |context| upgraded_and_rolled_back(&context, by_command).await).await
}

/// The demo shows the upgrade, and not the rollback.
#[tokio::test]
#[ignore = "make test-long PART=applications; the demo shows the upgrade"]
async fn unleash_that_migrates_itself_is_upgraded_and_back() -> Result<()> {
    alone(async |context| upgraded_and_rolled_back(&context, |_| {}).await).await
}

async fn upgraded_and_rolled_back(context: &Context, change: impl FnOnce(&mut App)) -> Result<()> {
    claim(context, "backups", "1Gi", Behaviour::Good).await?;
    let story = Story::new(context);
    let mut app = unleash::app(context, "7.6.5").await?;
    change(&mut app);
    let mut upgrade = Upgrade::prepare(&story, app).await?;
    upgrade.upgrade(&story).await?;
    upgrade.roll_back(&story).await?;
    story.no_request_failed("Unleash", &upgrade.load).await?;
    Ok(())
}
