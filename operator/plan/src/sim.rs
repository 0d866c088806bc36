//! An in-memory world in which tests play whole releases: an apiserver, the controllers of Kubernetes, a
//! database with its ledger, agents, and operator processes with everything that can happen to them.
//!
//! It is deterministic: the same script and the same fault give the same story. The clock is virtual; a day of
//! bake takes no time. After every write the invariants are checked ([`crate::invariants`]).

mod agents;
pub mod cluster;
pub mod database;
pub mod images;
mod notices;
pub mod operator;
mod pods;
pub mod script;
pub mod store;
pub mod transcript;
pub mod wire;

use crate::Step;
use crate::invariants::{Checker, Sight};
use cluster::Cluster;
use jiff::{SignedDuration, Timestamp};
use operator::{Decided, Operator, Work};
use store::{ApiError, Objects};
use transcript::Transcript;
use wire::{Fault, Traffic, Wire};

/// Namespace of everything.
pub const NAMESPACE: &str = "shop";
/// A story that takes more steps than this does not end.
const LIMIT: usize = 20_000;
/// What one pass takes.
const PASS: SignedDuration = SignedDuration::from_millis(5);

/// Why a story could not be told to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Things move on and on.
    Endless,
    /// Nothing moves any more, and what was waited for has not come.
    Still,
}

/// How operators take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// There is one.
    #[default]
    Alone,
    /// There are two, and both work, pass by pass.
    Alternate,
    /// There are two. The first is stopped between planning and acting in its pass of that number, the second
    /// takes over until nothing moves, and only then the first goes on where it was.
    Frozen(usize),
}

/// A world under way.
#[derive(Clone, Debug)]
pub struct Sim {
    /// The cluster.
    pub cluster: Cluster,
    /// What operators send.
    pub traffic: Traffic,
    /// The story.
    pub transcript: Transcript,
    /// Who watches the invariants.
    pub checker: Checker,
    /// Operator processes that live; none while the operator is away.
    pub operators: Vec<Operator>,
    /// How operators take turns.
    pub turns: Turns,
    /// Numbers of the passes in which the first operator wrote anything.
    pub decisive: Vec<usize>,
    frozen: Option<(Work, Decided)>,
    turn: usize,
    passes: usize,
    started: u32,
    seen: u64,
    noticed: Objects,
    is_away: bool,
    steps: usize,
    /// No leap goes further.
    horizon: Option<Timestamp>,
}

impl Sim {
    /// An empty cluster with an operator, and what will go wrong.
    pub fn new(fault: Fault, turns: Turns) -> Self {
        // Not on a whole second: what is written must not depend on more than what is kept of it.
        let begin = Timestamp::new(1_767_268_800, 123_456_789).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut cluster = Cluster::new(begin);
        let mut checker = Checker::default();
        if matches!(fault, Fault::Lagging { .. }) {
            cluster.api.remember();
            checker.sight = Sight::Past;
        }
        let mut sim = Self {
            cluster,
            traffic: Traffic::with(fault),
            transcript: Transcript::new(begin),
            checker,
            operators: Vec::new(),
            turns,
            decisive: Vec::new(),
            frozen: None,
            turn: 0,
            passes: 0,
            started: 0,
            seen: 0,
            noticed: Objects::default(),
            is_away: false,
            steps: 0,
            horizon: None,
        };
        sim.start_operators();
        sim
    }

    fn start_operators(&mut self) {
        let desired = if self.turns == Turns::Alone { 1 } else { 2 };
        while self.operators.len() < desired {
            self.started += 1;
            self.operators
                .push(Operator::new(self.started, self.cluster.objects()));
        }
    }

    /// The operator goes away, or comes back as a new process.
    pub fn set_away(&mut self, is_away: bool) {
        self.is_away = is_away;
        if is_away {
            self.operators.clear();
        } else {
            self.start_operators();
        }
    }

    /// Goes on until `is_met`.
    ///
    /// # Errors
    /// When that never comes.
    pub fn until(&mut self, is_met: impl Fn(&Cluster) -> bool) -> Result<(), Stuck> {
        while !is_met(&self.cluster) {
            if !self.step()? {
                return Err(Stuck::Still);
            }
        }
        Ok(())
    }

    /// Goes on until nothing moves any more.
    ///
    /// # Errors
    /// When that never comes.
    pub fn settle(&mut self) -> Result<(), Stuck> {
        while self.step()? {}
        if self.frozen.is_some() {
            self.thaw();
            while self.step()? {}
        }
        Ok(())
    }

    /// Lets that much time pass.
    ///
    /// # Errors
    /// When more happens in it than can be.
    pub fn pass_time(&mut self, span: SignedDuration) -> Result<(), Stuck> {
        let end = self.cluster.now + span;
        self.horizon = Some(end);
        while self.cluster.now < end {
            if !self.step()? {
                self.cluster.now = end;
            }
        }
        self.horizon = None;
        Ok(())
    }

    /// One pass of an operator or, when none has anything to do, one second of everything else. Returns whether
    /// anything is still to come.
    ///
    /// # Errors
    /// When there were too many.
    pub fn step(&mut self) -> Result<bool, Stuck> {
        self.steps += 1;
        if self.steps > LIMIT {
            return Err(Stuck::Endless);
        }
        self.notice();
        if self.pass() {
            return Ok(true);
        }
        if !self.traffic.has_caught_up && matches!(self.traffic.fault, Fault::Lagging { .. }) {
            self.traffic.has_caught_up = true;
            self.mark_all();
            return Ok(true);
        }
        Ok(self.second())
    }

    /// Tells the operators of what has changed since they were last told.
    fn notice(&mut self) {
        let version = self.cluster.api.version();
        if version != self.seen {
            self.seen = version;
            let now = self.cluster.objects().clone();
            let touched = notices::touched(&self.noticed, &now);
            self.noticed = now;
            for operator in &mut self.operators {
                operator.due.extend(touched.iter().cloned());
            }
        }
    }

    fn mark_all(&mut self) {
        let all = Work::all(self.cluster.objects());
        for operator in &mut self.operators {
            operator.due.extend(all.iter().cloned());
        }
    }

    /// One pass of the operator whose turn it is. Returns whether there was one.
    fn pass(&mut self) -> bool {
        let count = self.operators.len();
        let is_frozen = self.frozen.is_some();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            if is_frozen && index == 0 {
                continue;
            }
            let Some(work) = self.operators[index].due.pop_first() else {
                continue;
            };
            self.turn = index + 1;
            self.passes += 1;
            self.cluster.now += PASS;
            self.run(index, work);
            return true;
        }
        false
    }

    fn run(&mut self, index: usize, work: Work) {
        let mut operator = self.operators.remove(index);
        self.witness(&operator);
        let is_stopped = self.turns == Turns::Frozen(self.passes) && index == 0;
        let mut wire = Wire {
            cluster: &mut self.cluster,
            traffic: &mut self.traffic,
            transcript: &mut self.transcript,
            checker: &mut self.checker,
        };
        if is_stopped {
            let view = wire.view();
            let now = wire.now();
            if let Some(decided) = operator.decide(&work, &view, now) {
                self.frozen = Some((work, decided));
            }
            self.operators.insert(index, operator);
            return;
        }
        let writes = wire.traffic.writes.len();
        let result = operator.pass(&work, &mut wire);
        if index == 0 && wire.traffic.writes.len() != writes {
            self.decisive.push(self.passes);
        }
        match result {
            Err(ApiError::Killed) => {
                self.started += 1;
                let fresh = Operator::new(self.started, self.cluster.objects());
                self.transcript
                    .tell(self.cluster.now, "the operator is killed and starts anew");
                self.operators.insert(index, fresh);
            }
            _ => self.operators.insert(index, operator),
        }
    }

    /// Lets the stopped operator do what it had decided long ago.
    fn thaw(&mut self) {
        let Some((work, decided)) = self.frozen.take() else {
            return;
        };
        let mut wire = Wire {
            cluster: &mut self.cluster,
            traffic: &mut self.traffic,
            transcript: &mut self.transcript,
            checker: &mut self.checker,
        };
        let sight = std::mem::replace(&mut wire.checker.sight, Sight::Past);
        let _ = self.operators[0].finish(&work, &decided, &mut wire);
        wire.checker.sight = sight;
        self.mark_all();
    }

    fn witness(&mut self, operator: &Operator) {
        for (uid, passes) in operator.passes() {
            self.checker.passed(uid, passes);
        }
    }

    /// Removes what is left of migrations whose Migration is gone, as the operator does beside its passes.
    fn clear_up(&mut self) {
        if self.operators.is_empty() {
            return;
        }
        let objects = self.cluster.objects();
        let jobs: Vec<_> = objects.jobs.values().cloned().collect();
        let pods: Vec<_> = objects.pods.values().cloned().collect();
        let exists = |_: &str, name: &str| objects.migrations.contains_key(name);
        for orphan in crate::migration::orphans(&jobs, &pods, exists) {
            let mut wire = Wire {
                cluster: &mut self.cluster,
                traffic: &mut self.traffic,
                transcript: &mut self.transcript,
                checker: &mut self.checker,
            };
            // What fails is tried again in a second.
            let _ = wire.step(&Step::Delete(orphan));
        }
    }

    /// One second, or a leap to the next moment at which anything happens.
    fn second(&mut self) -> bool {
        self.clear_up();
        self.cluster.now += SignedDuration::from_secs(1);
        let before = self.cluster.objects().clone();
        let mut is_busy = self.cluster.tick();
        if self.cluster.api.version() != self.seen {
            self.traffic.has_caught_up = false;
            self.checker.after_write(&before, &self.cluster);
        }
        let stopped = usize::from(self.frozen.is_some());
        for operator in self.operators.iter_mut().skip(stopped) {
            is_busy |= operator.probe(&self.cluster);
        }
        let now = self.cluster.now;
        let mut next = None;
        for operator in self.operators.iter_mut().skip(stopped) {
            let rings = operator.ring(now);
            let rings = rings.into_iter().chain(operator.forgets()).min();
            next = next.into_iter().chain(rings).min();
            is_busy |= !operator.due.is_empty();
        }
        match next {
            _ if is_busy => true,
            Some(next) => {
                let next = self.horizon.map_or(next, |horizon| next.min(horizon)).max(now);
                self.cluster.now = next;
                for operator in self.operators.iter_mut().skip(stopped) {
                    if operator.forgets().is_some_and(|at| at <= next) {
                        operator.due.extend(Work::all(&before));
                    }
                    operator.ring(next);
                }
                true
            }
            None => false,
        }
    }

    /// Number of passes so far.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Plans everything again and says what a planner still wants, although nothing moves: nothing, it should.
    pub fn restless(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let objects = self.cluster.objects().clone();
        let now = self.cluster.now;
        let Some(mut operator) = self.operators.first().cloned() else {
            return found;
        };
        for work in Work::all(&objects) {
            if let Some(decided) = operator.decide(&work, &objects, now)
                && (!decided.steps().is_empty() || decided.has_news())
            {
                found.push(format!(
                    "{work:?} wants {:?}, news: {}",
                    decided.steps(),
                    decided.has_news()
                ));
            }
        }
        found
    }
}
