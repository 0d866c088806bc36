//! Playing a story, and what must hold at its end.

use fairway_plan::sim::script::Story;
use fairway_plan::sim::transcript::end_state;
use fairway_plan::sim::wire::Fault;
use fairway_plan::sim::{Sim, Turns};
use std::path::{Path, PathBuf};

/// The folder of the stories.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories")
}

/// Every story with its name, in order.
pub fn stories() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut stories: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    stories.sort();
    stories
}

/// What came of a story.
pub struct Played {
    /// The story with what came of each command.
    pub text: String,
    /// The world at its end.
    pub sim: Sim,
}

impl Played {
    /// Names and outcomes at the end, for comparison with another run.
    pub fn end(&self) -> String {
        let executions: Vec<_> = self
            .sim
            .cluster
            .database
            .executions
            .iter()
            .map(|execution| format!("executed for {}", execution.release))
            .collect();
        format!("{}\n{}", end_state(self.sim.cluster.objects()), executions.join("\n"))
    }
}

/// Plays a story and asserts what must hold whatever goes wrong: it ends, no invariant broke, and planning again
/// changes nothing.
pub fn play(name: &str, story: &str, fault: Fault, turns: Turns) -> Result<Played, String> {
    let what = format!("{name} with {fault:?}, {turns:?}");
    let mut sim = Sim::new(fault, turns);
    let told = Story::parse(story).tell(&mut sim);
    let text = match told {
        Ok(text) => text,
        Err(error) => return Err(format!("{what}: {error}\n{}", end_state(sim.cluster.objects()))),
    };
    if !sim.checker.broken.is_empty() {
        return Err(format!("{what}: {}\n{text}", sim.checker.broken.join("\n")));
    }
    let restless = sim.restless();
    if !restless.is_empty() {
        return Err(format!("{what}: restless at the end: {}\n{text}", restless.join("\n")));
    }
    Ok(Played { text, sim })
}
