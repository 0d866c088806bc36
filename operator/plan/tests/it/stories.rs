//! Each story's transcript is as it was reviewed. `UPDATE_STORIES=1 cargo test -p fairway-plan` writes it anew.

use crate::play::{folder, play, stories};
use fairway_plan::sim::Turns;
use fairway_plan::sim::wire::Fault;

#[test]
fn stories_go_as_they_are_written() {
    let mut failures = Vec::new();
    for (name, story) in stories() {
        match play(&name, &story, Fault::None, Turns::Alone) {
            Err(error) => failures.push(error),
            Ok(played) if played.text == story => {}
            Ok(played) if std::env::var_os("UPDATE_STORIES").is_some() => {
                std::fs::write(folder().join(format!("{name}.txt")), played.text).unwrap();
            }
            Ok(played) => failures.push(format!(
                "{name} goes otherwise than written; UPDATE_STORIES=1 writes it anew:\n{}",
                difference(&story, &played.text)
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The lines that are only in one of the two.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
