//! A team upgrades Unleash, which migrates its own database, in both ways that Fairway offers.
//!
//! One upgrade at a time, and in a file of their own, so that no other test runs beside them: four servers of Node.js
//! and their clients fill two cores, and a request that waits for a processor is a request that fails.

use anyhow::{Result, ensure};
use fairway_crds::database::OnStart;
use fairway_e2e::apps::{set_env, unleash};
use fairway_e2e::ns::alone;
use fairway_e2e::story::{Story, Upgrade};
use fairway_e2e::volumes::{Behaviour, claim};

#[tokio::test]
async fn an_image_that_migrates_itself_is_upgraded_and_taken_back_with_its_data_and_without_a_failed_request()
-> Result<()> {
    alone(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        let story = Story::new(&context);
        let app = unleash::app(&context, "7.6.5").await?;
        ensure!(
            app.spec
                .migration
                .as_ref()
                .is_some_and(|migration| migration.on_start == Some(OnStart {}))
        );
        let mut upgrade = Upgrade::prepare(&story, app).await?;
        upgrade.upgrade(&story).await?;
        upgrade.take_back(&story).await?;
        story.no_request_failed("Unleash", &upgrade.load).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_same_upgrade_with_a_command_of_its_own_migrates_as_well() -> Result<()> {
    alone(|context| async move {
        claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        let story = Story::new(&context);
        let mut app = unleash::app(&context, "7.6.5").await?;
        // The servers must not migrate: only then does their health prove that the command did.
        set_env(&mut app, "server", "DATABASE_DISABLE_MIGRATION", "true");
        if let Some(migration) = &mut app.spec.migration {
            migration.on_start = None;
            migration.command = Some(vec!["/usr/bin/node".to_owned(), "/app/migrate.cjs".to_owned()]);
        }
        let mut upgrade = Upgrade::prepare(&story, app).await?;
        upgrade.upgrade(&story).await?;
        story.no_request_failed("Unleash", &upgrade.load).await?;
        Ok(())
    })
    .await
}
