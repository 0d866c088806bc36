//! Two operators at work at the same time, as when a Lease is not respected.

use anyhow::Result;
use fairway_e2e::apps::crm;
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::alone;
use fairway_e2e::operator;

use crate::kills::upgraded_well;

#[tokio::test]
async fn two_operators_at_once_end_a_release_as_one_does() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        operator::start_second(&context).await?;
        let outcome = upgraded_well(&context, &mut app).await;
        operator::stop_second(&context).await?;
        outcome?;
        load::assert_none_failed(&clients.stop().await?)?;
        Ok(())
    })
    .await
}
