//! The benchmark: Fairway and Argo Rollouts in turn on the same node, measured from outside by the same
//! means: a watch for times, the audit log for requests, the kernel for memory.

mod audit;
mod fairway;
mod idle;
mod rollouts;
mod switch;
mod table;

use std::time::Duration;

use anyhow::Result;
use kube::Client;

use crate::target::Target;
use crate::{install, tools};

pub use table::{Figures, Table};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Releases whose switch is timed, after [`Plan::warm_up`].
    pub switches: usize,
    /// Releases before those.
    pub warm_up: usize,
    /// Idle objects.
    pub objects: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            switches: 30,
            warm_up: 3,
            objects: 1000,
        }
    }
}

/// How long one release may take before the benchmark fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is the same for both controllers.
struct Bench {
    target: Target,
    client: Client,
    plan: Plan,
    /// Two images by digest, between which releases go to and fro.
    images: [String; 2],
}

/// A controller under measurement: how its objects are written and when one of them is done.
trait Contestant {
    /// Its name in the table.
    const NAME: &'static str;
    /// What its requests carry as user agent, from the start.
    const USER_AGENT: &'static str;

    /// Makes or edits one object: a web component of two pods behind Service `web`, released by switching
    /// that Service.
    async fn release(&self, bench: &Bench, namespace: &str, image: &str) -> Result<()>;
    /// Waits until that release is wholly done.
    async fn released(&self, bench: &Bench, namespace: &str) -> Result<()>;
    /// The labels that distinguish a pod of the release under way from others, when nothing else is known of it.
    fn service(&self) -> &'static str;
    /// Makes one object that runs nothing and moves no traffic.
    async fn idle(&self, bench: &Bench, namespace: &str, name: &str) -> Result<()>;
    /// Waits until so many of them are ready.
    async fn all_ready(&self, bench: &Bench, namespace: &str, count: usize) -> Result<()>;
    /// Resident memory of its process, in bytes.
    fn resident(&self) -> Result<u64>;
}

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
