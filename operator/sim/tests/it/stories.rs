//! Each story goes as it was reviewed. `UPDATE_STORIES=1 cargo test -p fairway-sim` rewrites the files.

use crate::play::{difference, folder, for_each_story, reference};

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
