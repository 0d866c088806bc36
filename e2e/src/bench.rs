//! The benchmark: Fairway and Argo Rollouts in turn on the same node, measured from outside by the same
//! means: a watch for times, the audit log for requests, the kernel for memory.

mod audit;
mod contestant;
mod fairway;
mod idle;
mod rollouts;
mod setup;
mod switch;
mod table;

use anyhow::Result;

use self::contestant::Contestant;
use self::setup::Bench;
pub use self::setup::Plan;
pub use self::table::{Figures, Table};
use crate::target::Target;
use crate::{install, tools};

/// Measures both and returns the figures.
///
/// # Errors
/// When one of them does not do what is asked within its time.
pub async fn run(target: &Target, plan: Plan) -> Result<[Figures; 2]> {
    tools::build_each(&target.paths, tools::BENCHED)?;
    let client = target.client().await?;
    let images = [
        target.image_by_digest("crm", "v1")?,
        target.image_by_digest("crm", "v2")?,
    ];
    let bench = Bench {
        target: target.clone(),
        client,
        plan,
        images,
    };
    install::fairway(target, serde_json::json!({}))?;
    let ours = measure(&bench, &fairway::Fairway::find()?).await?;
    install::remove_operator(target)?;
    let theirs = measure_rollouts(&bench).await;
    install::fairway(target, serde_json::json!({}))?;
    Ok([ours, theirs?])
}

async fn measure_rollouts(bench: &Bench) -> Result<Figures> {
    let rollouts = rollouts::Rollouts::start(bench).await?;
    let figures = measure(bench, &rollouts).await;
    rollouts.stop()?;
    figures
}

async fn measure<C: Contestant>(bench: &Bench, contestant: &C) -> Result<Figures> {
    let (switches, cost) = switch::measure(bench, contestant).await?;
    let idle = idle::measure(bench, contestant).await?;
    Ok(Figures {
        name: C::NAME,
        switches,
        cost,
        idle,
    })
}
