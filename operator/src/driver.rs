//! Runs the engine: feeds it watch events, executes its requests with kube, and reports each pass in logs, metrics and
//! Events.

mod transport;
mod watch;

pub(crate) use watch::watch_all;

use crate::events::Events;
use crate::metrics::{Metrics, PassLabel};
use crate::probe::prober::Prober;
use crate::shared::SharedEngine;
use fairway_engine::{Action, Answer, Ended, Engine, Pass, PassResult, Work};
use jiff::Timestamp;
use kube::Client;
use std::sync::Arc;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use transport::Transport;

/// What passes are driven with.
pub(crate) struct Driver {
    engine: Arc<SharedEngine>,
    transport: Transport,
    prober: Arc<Prober>,
    events: Events,
    metrics: Metrics,
}

impl Driver {
    /// Drives the passes of this engine.
    pub(crate) fn new(
        engine: Arc<SharedEngine>,
        client: Client,
        prober: Arc<Prober>,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        Self {
            engine,
            transport: Transport::new(client),
            prober,
            events,
            metrics,
        }
    }

    /// Starts each pass that is ready. Returns after `stop`, when the passes under way have ended.
    ///
    /// # Errors
    /// When a pass panics, in a debug build: release builds abort on panic (Cargo.toml).
    pub(crate) async fn run(
        self: Arc<Self>,
        mut stop: channel::Receiver<bool>,
    ) -> Result<(), tokio::task::JoinError> {
        let mut passes = JoinSet::new();
        loop {
            while let Some(pass) = self.engine.with(Engine::start) {
                passes.spawn(self.clone().pass(pass));
            }
            tokio::select! {
                biased;
                // A closed channel means that `main` is gone, and so is the reason to go on.
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = passes.join_next() => ended?,
                () = self.engine.is_ready() => {}
            }
        }
        while let Some(ended) = passes.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Drives one pass to its end.
    async fn pass(self: Arc<Self>, mut pass: Pass) {
        let under_way = self.metrics.begins(pass.work().kind, pass.waited());
        let mut answer = Answer::Nothing;
        let ended = loop {
            answer = match self
                .engine
                .with(|engine, now| engine.next(&mut pass, answer, now))
            {
                Action::Plan(planning) => Answer::Decided(Box::new(planning.decide(Timestamp::now()))),
                Action::Probe(probes) => {
                    for probe in probes {
                        tokio::spawn(self.prober.clone().ask(probe));
                    }
                    Answer::Nothing
                }
                Action::Ask(request) => {
                    tracing::debug!(object = %pass.work(), request = request.verb());
                    self.transport.ask(&request).await
                }
                Action::Done(ended) => break ended,
            };
        };
        self.metrics.passed(&under_way, label(&ended.result));
        self.report(pass.work(), ended);
    }

    fn report(&self, work: &Work, ended: Ended) {
        let Ended {
            result,
            switched,
            announcements,
            outcome,
        } = ended;
        if let PassResult::Failed(error, delay) = &result {
            tracing::warn!(object = %work, reason = %error.reason(), %error, ?delay, "pass failed");
        } else {
            tracing::debug!(object = %work, ?result, "pass ended");
        }
        if let Some(after) = switched {
            self.metrics.switched(after);
        }
        if let Some((kind, outcome)) = outcome {
            self.metrics.ended(kind, outcome);
        }
        for announcement in announcements {
            self.events.announce(announcement);
        }
    }
}

fn label(result: &PassResult) -> PassLabel {
    match result {
        PassResult::OnChange => PassLabel::success,
        PassResult::At(_) => PassLabel::requeue_after,
        PassResult::Again => PassLabel::requeue,
        PassResult::Failed(..) => PassLabel::error,
    }
}

#[cfg(test)]
mod tests;
