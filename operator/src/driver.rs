//! Runs the engine: feeds it watch events, executes its requests with kube, and reports each pass in logs, metrics and
//! Events.

mod stream;
mod transport;
mod watch;

#[cfg(test)]
pub(crate) use watch::tests::read_what_cannot_be_read;
pub(crate) use watch::watch_all;

use crate::events::Events;
use crate::metrics::{Metrics, PassLabel};
use crate::probe::prober::Prober;
use crate::shared::SharedEngine;
use fairway_engine::kinds::OwnKind;
use fairway_engine::{
    Action, Answer, Ended, Engine, NamespacedName, ObjectKey, Pass, PassResult, Probe, ReleaseStep,
};
use jiff::Timestamp;
use kube::Client;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use transport::Transport;

/// What passes are driven with.
pub(crate) struct Driver {
    engine: Arc<SharedEngine>,
    transport: Transport,
    prober: Arc<Prober>,
    /// Where probes run: not beside the passes, so that no pod's answer is in the way of anything else.
    probe_runtime: Handle,
    /// Tasks of the probes that the engine has asked for. A task ends when the engine needs its probe no more.
    probes: Mutex<JoinSet<()>>,
    events: Events,
    metrics: Metrics,
}

impl Driver {
    /// Drives the passes of this engine.
    pub(crate) fn new(
        engine: Arc<SharedEngine>,
        client: Client,
        prober: Arc<Prober>,
        probe_runtime: Handle,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        Self {
            engine,
            transport: Transport::new(client),
            prober,
            probe_runtime,
            probes: Mutex::default(),
            events,
            metrics,
        }
    }

    /// Starts each pass that is ready. Returns after `stop`, when the passes under way have ended and the probes are
    /// stopped.
    ///
    /// # Errors
    /// When a pass panics, which only debug builds outlive: release builds abort on panic (Cargo.toml). The other passes
    /// under way are finished first, so that none is cut off between two writes.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut stop: channel::Receiver<bool>,
    ) -> Result<(), tokio::task::JoinError> {
        let mut passes = JoinSet::new();
        let mut result = Ok(());
        loop {
            while let Some(pass) = self.engine.with(Engine::start) {
                passes.spawn(self.clone().pass(pass));
            }
            tokio::select! {
                biased;
                // A closed channel means that `main` is gone, and so is the reason to go on.
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = passes.join_next() => {
                    result = ended;
                    if result.is_err() {
                        break;
                    }
                }
                () = self.engine.wait_ready() => {}
            }
        }
        while let Some(ended) = passes.join_next().await {
            result = result.and(ended);
        }
        let mut probes = std::mem::take(&mut *self.probes());
        probes.shutdown().await;
        result
    }

    /// Drives one pass to its end.
    async fn pass(self: Arc<Self>, mut pass: Pass) {
        let under_way = self.metrics.pass_started(pass.object().kind, pass.waited());
        let mut answer = Answer::Nothing;
        let ended = loop {
            answer = match self
                .engine
                .with(|engine, now| engine.next(&mut pass, answer, now))
            {
                Action::Plan(planning) => Answer::Decided(Box::new(planning.decide(Timestamp::now()))),
                Action::Probe(probes) => {
                    self.probe(probes);
                    Answer::Nothing
                }
                Action::Ask(request) => {
                    tracing::debug!(object = %pass.object(), request = request.verb());
                    self.transport.ask(&request).await
                }
                Action::Done(ended) => break ended,
            };
        };
        self.metrics.pass_ended(&under_way, label(&ended.result));
        self.report(pass.object(), ended);
    }

    /// Starts probes, beside the pass.
    fn probe(&self, probes: Vec<Probe>) {
        let mut tasks = self.probes();
        while tasks.try_join_next().is_some() {}
        for probe in probes {
            tasks.spawn_on(self.prober.clone().ask(probe), &self.probe_runtime);
        }
    }

    fn probes(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, object: &ObjectKey, ended: Ended) {
        let Ended {
            result,
            switched,
            announcements,
            outcome,
            step,
        } = ended;
        if let PassResult::Failed(error, delay) = &result {
            tracing::warn!(%object, reason = %error.reason(), %error, ?delay, "pass failed");
        } else {
            tracing::debug!(%object, ?result, "pass ended");
        }
        if let Some(ReleaseStep { app, step, reason }) = step {
            let NamespacedName { namespace, name } = &object.key;
            tracing::info!(%namespace, app, release = %name, step, reason, "release step");
        }
        if let Some(after) = switched {
            self.metrics.switched(after);
        }
        if let Some((OwnKind::Release, outcome)) = outcome {
            self.metrics.release_ended(outcome);
        }
        for announcement in announcements {
            self.events.announce(announcement);
        }
    }
}

fn label(result: &PassResult) -> PassLabel {
    match result {
        PassResult::OnChange => PassLabel::Success,
        PassResult::At(_) => PassLabel::RequeueAfter,
        PassResult::Again => PassLabel::Requeue,
        PassResult::Failed(..) => PassLabel::Error,
    }
}

#[cfg(test)]
mod tests;
