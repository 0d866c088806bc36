//! The version of tasks and reports, for an operator and an agent of different versions of Fairway.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of tasks and reports. It rises with what a reader of the version before would misunderstand. An agent does
/// tasks of its own version and of those before, answers each in the task's version, and refuses others; an operator reads
/// reports of its own version and of those before.
pub const PROTOCOL_VERSION: u32 = 3 + if cfg!(feature = "next-version") { 1 } else { 0 };

/// The version of a task or a report that names none.
pub const FIRST_PROTOCOL_VERSION: u32 = 1;

/// A report with the version of the protocol in which it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versioned<R> {
    /// The version.
    pub protocol: u32,
    /// The report.
    #[serde(flatten)]
    pub report: R,
}

/// A report of a version that this one does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewerReport {
    /// The report's version.
    pub protocol: u32,
}

/// Says so as a clause that follows a colon, and what to do in a sentence without its period.
impl fmt::Display for NewerReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "an agent of a newer Fairway left one in version {} of the protocol, and this Fairway reads versions up to \
             {PROTOCOL_VERSION}. Upgrade Fairway in this cluster",
            self.protocol
        )
    }
}

impl std::error::Error for NewerReport {}

#[derive(Deserialize)]
struct Head {
    #[serde(default = "first")]
    protocol: u32,
}

fn first() -> u32 {
    FIRST_PROTOCOL_VERSION
}

/// The report in a termination message; none where it holds no such report.
///
/// # Errors
/// When its version is newer than [`PROTOCOL_VERSION`]: what looks familiar may then mean something else.
pub fn read_report<T: DeserializeOwned>(message: &str) -> Result<Option<T>, NewerReport> {
    match serde_json::from_str(message) {
        Ok(Head { protocol }) if protocol > PROTOCOL_VERSION => Err(NewerReport { protocol }),
        _ => Ok(serde_json::from_str(message).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begun, PreflightReport};

    const REPORT: PreflightReport = PreflightReport {
        checks: Vec::new(),
        failure: None,
        server_version: None,
        database_bytes: None,
    };

    #[test]
    fn w20e_a_report_is_read_up_to_this_version() {
        let written = |protocol| {
            let report = Versioned {
                protocol,
                report: REPORT,
            };
            serde_json::to_string(&report).expect("JSON")
        };
        for known in [FIRST_PROTOCOL_VERSION, PROTOCOL_VERSION] {
            assert_eq!(read_report(&written(known)), Ok(Some(REPORT)));
        }
        let unversioned = serde_json::to_string(&REPORT).expect("JSON");
        assert_eq!(read_report(&unversioned), Ok(Some(REPORT)));
        let protocol = PROTOCOL_VERSION + 1;
        let newer = Err(NewerReport { protocol });
        assert_eq!(read_report::<PreflightReport>(&written(protocol)), newer);
        // One of which nothing else is known.
        let unknown = format!(r#"{{"protocol":{protocol},"done":[]}}"#);
        assert_eq!(read_report::<PreflightReport>(&unknown), newer);
    }

    #[test]
    fn what_is_no_report_is_none() {
        for message in ["", "panicked at main.rs", "[]", r#"{"protocol":"2"}"#] {
            assert_eq!(read_report::<PreflightReport>(message), Ok(None), "{message}");
        }
        let begun = read_report::<Begun>(r#"{"begun":"a"}"#);
        assert!(matches!(begun, Ok(Some(Begun { begun })) if begun == "a"));
    }
}
