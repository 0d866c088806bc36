//! The four controllers and what they share: a queue, workers, and one pass of observe, plan, execute, report.

pub(crate) mod app;
pub(crate) mod backup;
pub(crate) mod migration;
pub(crate) mod release;

use crate::backoff::Backoff;
use crate::execute::memory::Memory;
use crate::execute::{Carried, Executor, StepError};
use crate::key::{Key, Reconciled};
use crate::metrics::{Metrics, PassResult, PassUnderWay};
use crate::observe::foreign::{Foreign, ForeignError};
use crate::probe::prober::Prober;
use crate::queue::{Due, Queue};
use crate::report::{Committed, ReportError, Reported, Reporter};
use crate::world::{View, World};
use fairway_plan::observed::Settings;
use fairway_plan::{Decision, Step, Wake};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What every controller works with.
pub(crate) struct Context {
    /// The caches.
    pub(crate) world: Arc<World>,
    /// Objects that no watch shows.
    pub(crate) foreign: Foreign,
    /// What the apiserver has refused.
    pub(crate) memory: Arc<Memory>,
    /// Who asks pods.
    pub(crate) prober: Arc<Prober>,
    /// Who writes.
    pub(crate) executor: Executor,
    /// Who tells.
    pub(crate) reporter: Reporter,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// What is fixed for this process.
    pub(crate) settings: Settings,
}

/// What differs between the kinds.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The object.
    type Object: Reported;
    /// What its planner sees.
    type Observed: Send + Sync;

    /// Which kind it is.
    const KIND: Reconciled;

    /// The App of an object, as far as it is cached.
    fn app(context: &Context, key: &Key) -> Option<Key>;

    /// Observes an object of that App.
    fn observe(
        context: &Context,
        app: &Key,
        key: &Key,
    ) -> impl Future<Output = Result<View<Self::Observed>, ForeignError>> + Send;

    /// The object in an observation.
    fn object(observed: &Self::Observed) -> &Arc<Self::Object>;

    /// Decides.
    fn plan(
        observed: &Self::Observed,
        settings: &Settings,
        now: Timestamp,
    ) -> Decision<<Self::Object as Reported>::Status>;

    /// Takes note of an observation beside the plan.
    fn noticed(_context: &Context, _key: &Key, _observed: &Self::Observed) {}

    /// Takes note that the object is gone, and says what it has left behind that nobody else removes.
    fn gone(_context: &Context, _key: &Key) -> Vec<Step> {
        Vec::new()
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Observe(#[from] ForeignError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// When the next pass is due without any change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    OnChange,
    At(Instant),
    Now,
}

/// How often one pass plans again because an answer was news. Each time it has learned something that stays
/// learned, so this is only ever reached by an App with more objects than that.
const LESSONS: usize = 64;

/// One pass.
async fn pass<C: Controller>(context: &Context, due: &Due) -> Result<Next, PassError> {
    let key = &due.key;
    let Some(app) = C::app(context, key) else {
        context.executor.carry_out(key, &C::gone(context, key)).await?;
        return Ok(Next::OnChange);
    };
    for _ in 0..LESSONS {
        // observe: a client is required only for what no watch shows
        let observed = match C::observe(context, &app, key).await? {
            View::Of(observed) => observed,
            View::Stale(until) => return Ok(Next::At(until)),
            View::Held => return Ok(Next::OnChange),
            View::Gone => {
                context.executor.carry_out(&app, &C::gone(context, key)).await?;
                return Ok(Next::OnChange);
            }
        };
        // plan: no client
        let now = Timestamp::now();
        let decision = C::plan(&observed, &context.settings, now);
        C::noticed(context, key, &observed);
        // execute: client required
        match context.executor.carry_out(&app, &decision.steps).await {
            Ok(Carried::Out { switched: true }) => context.metrics.switched(due.since.elapsed()),
            Ok(Carried::Out { switched: false }) => {}
            Ok(Carried::Learned) => continue,
            Ok(Carried::Outdated) => return Ok(soon()),
            Ok(Carried::Held(until)) => return Ok(Next::At(until)),
            Err(error) => {
                if matches!(error, StepError::Refused { told: false, .. }) {
                    context
                        .reporter
                        .failed(&**C::object(&observed), error.reason(), error.to_string());
                }
                return Err(error.into());
            }
        }
        // report: client required
        let committed = context
            .reporter
            .commit(&app, C::object(&observed), decision.status)
            .await?;
        tracing::debug!(controller = C::KIND.controller(), object = %key, ?committed, wake = ?decision.wake);
        if committed == Committed::Outdated {
            return Ok(soon());
        }
        let forgotten = context.memory.told(&app, Instant::now()).forgotten;
        return Ok(sooner(at(decision.wake, now), forgotten));
    }
    Ok(Next::Now)
}

/// After a conflict. The newer object's event is on its way, or has already asked for another pass.
fn soon() -> Next {
    Next::At(Instant::now() + Duration::from_secs(1))
}

/// Least time to a wake that is due already. The pass took until then, or the planner is wrong, and that must not
/// keep a processor busy.
const DUE: Duration = Duration::from_millis(10);

/// The moment of a wake on this process's monotonic clock.
fn at(wake: Wake, now: Timestamp) -> Next {
    match wake {
        Wake::OnChange => Next::OnChange,
        Wake::At(moment) => {
            // Timers count whole milliseconds: one more, or the planner would be asked just before its time.
            let wait =
                Duration::try_from(moment.duration_since(now)).map(|wait| wait + Duration::from_millis(1));
            Next::At(Instant::now() + wait.unwrap_or_default().max(DUE))
        }
    }
}

fn sooner(next: Next, other: Option<Instant>) -> Next {
    match (next, other) {
        (Next::At(next), Some(other)) => Next::At(next.min(other)),
        (Next::OnChange, Some(other)) => Next::At(other),
        (next, _) => next,
    }
}

/// Runs a controller: up to `concurrency` passes at once, one at a time per object, while this process leads.
/// Returns after `stop`, when the passes under way have ended.
///
/// # Errors
/// When a pass panics.
pub(crate) async fn run<C: Controller>(
    context: Arc<Context>,
    queue: Arc<Queue>,
    concurrency: u16,
    mut leads: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tokio::task::JoinError> {
    context.metrics.set_concurrency(C::KIND, concurrency);
    let mut backoff = Backoff::default();
    let mut passes = JoinSet::new();
    let synced = wait_for_caches(context.world.missing());
    tokio::pin!(synced);
    let mut caches = false;
    // What waited for the caches, or for another process, did not wait for this one.
    let mut works_since = None;
    loop {
        context.metrics.set_load(C::KIND, passes.len(), queue.depth());
        let works = caches && *leads.borrow_and_update();
        works_since = works.then(|| works_since.unwrap_or_else(Instant::now));
        let may_start = works && passes.len() < usize::from(concurrency);
        tokio::select! {
            biased;
            // A closed channel means that `main` is gone, and so is the reason to go on.
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = passes.join_next() => settle::<C>(&context, &queue, &mut backoff, ended?),
            () = &mut synced, if !caches => caches = true,
            _ = leads.changed() => {}
            due = queue.next(), if may_start => {
                let since = works_since.map_or(due.since, |works| works.max(due.since));
                let under_way = context.metrics.begins(C::KIND, since.elapsed());
                passes.spawn(measured::<C>(context.clone(), due, under_way));
            }
        }
    }
    while let Some(ended) = passes.join_next().await {
        settle::<C>(&context, &queue, &mut backoff, ended?);
    }
    Ok(())
}

/// A pass that has ended.
struct Ended {
    key: Key,
    measured: PassUnderWay,
    result: Result<Next, PassError>,
}

async fn measured<C: Controller>(context: Arc<Context>, due: Due, measured: PassUnderWay) -> Ended {
    let result = pass::<C>(&context, &due).await;
    Ended {
        key: due.key,
        measured,
        result,
    }
}

fn settle<C: Controller>(context: &Context, queue: &Queue, backoff: &mut Backoff, ended: Ended) {
    let Ended {
        key,
        measured,
        result,
    } = ended;
    let (next, result) = match result {
        Ok(next) => {
            backoff.reset(&key);
            match next {
                Next::OnChange => (None, PassResult::success),
                Next::At(at) => (Some(at), PassResult::requeue_after),
                Next::Now => (Some(Instant::now()), PassResult::requeue),
            }
        }
        Err(error) => {
            let delay = backoff.failed(&key);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(controller = C::KIND.controller(), object = %key, error = %error, cause, ?delay, "pass failed");
            (Some(Instant::now() + delay), PassResult::error)
        }
    };
    context.metrics.passed(&measured, result);
    queue.done(&key, next);
}

/// Ends when every cache is complete: a plan on half of them would be a plan on a world that never was.
async fn wait_for_caches(mut missing: watch::Receiver<BTreeMap<crate::key::Watched, String>>) {
    // The sender lives in the World for as long as the process.
    let _ = missing.wait_for(BTreeMap::is_empty).await;
}

#[cfg(test)]
mod tests;
