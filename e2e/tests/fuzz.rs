//! The fuzz targets, each from its seeds and from what earlier runs on this machine have found.

use anyhow::Result;
use fairway_e2e::fuzz::{TIME, run_target};

macro_rules! targets {
    ($($name:ident,)*) => {
        $(
            #[test]
            #[ignore = "make test-long PART=fuzz"]
            fn $name() -> Result<()> {
                run_target(stringify!($name), TIME)
            }
        )*
    };
}

targets! {
    annotation,
    answer,
    certificate,
    connection,
    manifest,
    members,
    object,
    output,
    planning,
    report,
    stream,
}
