//! An operator process: the engine, and what its watches have shown. Everything in it is lost when it is killed.

use crate::cluster::Cluster;
use crate::store::Objects;
use crate::wire::{Killed, Wire, read};
use fairway_engine::{Action, Answer, Decided, Engine, Pass, Probe, Request, verdict_of_round};
use fairway_plan::names;
use fairway_plan::observed::Settings;
use fairway_plan::protocol::ProbeVerdict;

/// One process.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The operator without its I/O.
    pub engine: Engine,
    /// What its watches have shown.
    shown: Objects,
}

/// Where a pass has got to.
#[derive(Debug)]
pub(crate) enum Driven {
    /// To its end.
    Done,
    /// It is stopped between planning and acting.
    Stopped(Box<Pass>, Box<Decided>),
    /// To the answer of a request.
    Asked(Box<Pass>, Answer),
}

/// Where a pass stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stops {
    /// At its end.
    Never,
    /// Between planning and acting.
    BeforeActing,
    /// After each request.
    AfterAsking,
}

impl Operator {
    /// A process that has just started: it lists everything, and leads.
    pub fn new(incarnation: u32, cluster: &Cluster) -> Self {
        let settings = Settings {
            agent_image: "fairway:1".to_owned(),
            agent_pull_secrets: Vec::new(),
            agent_pull_policy: "IfNotPresent".to_owned(),
            probe_token_sha256: names::sha256_hex(format!("token {incarnation}")),
        };
        let mut engine = Engine::new(settings, u16::MAX);
        let (shown, now) = (cluster.objects().clone(), cluster.clock());
        shown.list(&mut engine, now);
        engine.set_leads(true, now);
        Self { engine, shown }
    }

    /// Its watches show this now.
    pub(crate) fn watch(&mut self, view: &Objects, cluster: &Cluster) {
        let version = cluster.api.version();
        view.show(&self.shown, version, &mut self.engine, cluster.clock());
        self.shown = view.clone();
    }

    /// One round of every health request. Returns whether a count is still on its way to being news.
    pub(crate) fn probe(&mut self, cluster: &Cluster) -> bool {
        let probes: Vec<Probe> = self.engine.probes().map(|(probe, _)| probe.clone()).collect();
        for probe in &probes {
            self.engine
                .probed(probe, verdict(cluster, probe), cluster.clock());
        }
        self.engine.probes().any(|(probe, health)| {
            let target = &probe.target;
            health.passes < target.success_threshold
                && health.failures < target.failure_threshold
                && health.unreachable < target.failure_threshold
        })
    }

    /// Plans everything again and says what a planner still asks for.
    pub(crate) fn restless(mut self, cluster: &Cluster) -> Vec<String> {
        let mut found = Vec::new();
        let now = cluster.clock();
        self.engine.set_leads(true, now);
        while let Some(mut pass) = self.engine.start(now) {
            let mut answer = Answer::Nothing;
            loop {
                answer = match self.engine.next(&mut pass, answer, now) {
                    Action::Plan(planning) => Answer::Decided(Box::new(planning.decide(now.wall))),
                    Action::Probe(_) => Answer::Nothing,
                    Action::Ask(Request::Read(resource, key)) => read(cluster, resource, &key.name),
                    Action::Ask(request) => {
                        found.push(format!("{} wants {request:?}", pass.work()));
                        break;
                    }
                    Action::Done(_) => break,
                };
            }
        }
        found
    }
}

/// Drives a pass on from an answer.
///
/// # Errors
/// When the operator is killed meanwhile.
pub(crate) fn drive(
    engine: &mut Engine,
    mut pass: Box<Pass>,
    mut answer: Answer,
    stops: Stops,
    wire: &mut Wire<'_>,
) -> Result<Driven, Killed> {
    loop {
        let now = wire.now();
        answer = match engine.next(&mut pass, answer, now) {
            Action::Plan(planning) => {
                let decided = Box::new(planning.decide(now.wall));
                if stops == Stops::BeforeActing {
                    return Ok(Driven::Stopped(pass, decided));
                }
                Answer::Decided(decided)
            }
            // Every pod is asked once a second.
            Action::Probe(_) => Answer::Nothing,
            Action::Ask(request) => {
                let answer = wire.ask(&request)?;
                if stops == Stops::AfterAsking {
                    return Ok(Driven::Asked(pass, answer));
                }
                answer
            }
            Action::Done(_) => return Ok(Driven::Done),
        };
    }
}

fn verdict(cluster: &Cluster, probe: &Probe) -> ProbeVerdict {
    let target = &probe.target;
    let round = target.requests.iter().map(|_| {
        let has_no_pod = target.via.as_ref().is_some_and(|via| via.address.is_none());
        if cluster.rules.probes_are_blocked || has_no_pod {
            return ProbeVerdict::Unreachable("no connection could be made".to_owned());
        }
        match cluster.health(&target.pod_uid) {
            Some(true) => ProbeVerdict::Passed,
            Some(false) => ProbeVerdict::Failed("GET /health answered 500 instead of 200".to_owned()),
            None if cluster.has_pod(&target.pod_uid) => {
                ProbeVerdict::Refused("no connection could be made".to_owned())
            }
            None => ProbeVerdict::Unreachable("no connection could be made".to_owned()),
        }
    });
    verdict_of_round(round)
}
