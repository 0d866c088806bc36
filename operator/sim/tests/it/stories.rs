//! Each story goes as it was reviewed. `UPDATE_STORIES=1 cargo test -p fairway-sim` rewrites the files.

use crate::play::{difference, folder, for_each_story, reference, story};
use fairway_plan::release::IS_RETIRED;

#[test]
fn stories_go_as_they_are_written() {
    let rewrites = std::env::var_os("UPDATE_STORIES").is_some();
    for_each_story(|story| {
        let played = reference(story)?;
        if played.text == story.text {
            return Ok(());
        }
        if rewrites {
            return std::fs::write(folder().join(format!("{}.txt", story.name)), played.text)
                .map_err(|error| error.to_string());
        }
        let difference = difference(&story.text, &played.text);
        Err(format!(
            "{} goes otherwise than written; UPDATE_STORIES=1 rewrites it:\n{difference}",
            story.name
        ))
    });
}

/// By these words the checker finds what is called retired.
#[test]
fn a_release_that_succeeds_says_that_the_previous_one_is_retired() {
    let said = format!("crm-2 serves. crm-1{IS_RETIRED}.");
    assert!(story("upgrade").text.contains(&said));
}
