//! Formats of strings, with the message for a value that does not match.
//!
//! Formats are CEL rules instead of OpenAPI patterns: for a pattern that does not match, the API server shows the
//! regular expression; for a rule, it shows the message of the rule.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Part of a rule: a DNS label that begins with a letter.
const LABEL: &str = "r'^[a-z]([-a-z0-9]*[a-z0-9])?$'";
/// Part of a rule: a DNS label.
const LOOSE_LABEL: &str = "r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'";
/// Part of a rule: the format of the names of most Kubernetes objects.
const SUBDOMAIN: &str = "r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'";

/// A string of at most `longest` characters for which the CEL rule holds.
fn checked(longest: u32, rule: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": longest,
        "x-kubernetes-validations": [{"rule": rule, "message": message}],
    })
}

/// Name of an App: leaves room for revision, component and pod suffix in 63 characters.
pub(crate) fn app_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of an App; use a-z, 0-9 and -, starting with a letter";
    checked(30, &format!("self.matches({LABEL})"), message)
}

/// Name of a component.
pub(crate) fn component_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of a component; use a-z, 0-9 and -, starting with a letter, such as web";
    checked(16, &format!("self.matches({LABEL})"), message)
}

/// Name of a Service.
pub(crate) fn service_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of a Service; use a-z, 0-9 and -, starting with a letter";
    checked(63, &format!("self.matches({LABEL})"), message)
}

/// Name of a Secret, a claim or any other object that may have dots in its name.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of an object, without a namespace; use a-z, 0-9, - and dots";
    checked(253, &format!("self.matches({SUBDOMAIN})"), message)
}

/// Key in a Secret.
pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    let message = "must be a key of a Secret; use letters, digits, -, _ and dots";
    checked(253, "self.matches(r'^[-._a-zA-Z0-9]+$')", message)
}

/// Name of a container.
pub(crate) fn container_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of a container; use a-z, 0-9 and -, such as web";
    checked(63, &format!("self.matches({LOOSE_LABEL})"), message)
}

/// Name of a check.
pub(crate) fn check_name(_: &mut SchemaGenerator) -> Schema {
    let message = "must be the name of a check; use a-z, 0-9 and -, such as no-orphan-leads";
    checked(63, &format!("self.matches({LOOSE_LABEL})"), message)
}

/// An image reference, with or without tag and digest.
pub(crate) fn image(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^[^\s@]+(@sha256:[0-9a-f]{64})?$')",
        "must be an image reference; use repository:tag or repository@sha256: with all 64 hex digits, without spaces",
    )
}

/// An image reference with a digest.
pub(crate) fn image_with_digest(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^[^\s@]+@sha256:[0-9a-f]{64}$')",
        "must be an image reference with a digest, so that the image that ran is known; use repository@sha256: with all 64 hex digits",
    )
}

/// Image references by container.
pub(crate) fn images(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 640,
        "additionalProperties": image(generator),
    })
}

/// A size greater than zero.
pub(crate) fn size(_: &mut SchemaGenerator) -> Schema {
    checked(
        32,
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "must be a size greater than zero; use a number with Mi, Gi or Ti, such as 20Gi",
    )
}

/// An amount of a resource, zero or more.
pub(crate) fn amount(_: &mut SchemaGenerator) -> Schema {
    checked(
        32,
        "isQuantity(self) && !quantity(self).isLessThan(quantity('0'))",
        "must be an amount of a resource; use a number with a unit, such as 100m of cpu or 128Mi of memory",
    )
}

/// Path and query of a health request.
pub(crate) fn http_path(_: &mut SchemaGenerator) -> Schema {
    checked(
        1024,
        r"self.matches(r'^/[\x21-\x7e]*$')",
        "must be a path that starts with /, such as /api/health, without spaces; set scheme, host and port in their own fields",
    )
}

/// Host header of a health request.
pub(crate) fn http_host(_: &mut SchemaGenerator) -> Schema {
    checked(
        253,
        "self.matches(r'^[-._a-zA-Z0-9]+(:[0-9]+)?$')",
        "must be a host; use a name such as crm.example.com, without scheme and path",
    )
}

/// Values of members of a JSON answer, by JSON pointer.
pub(crate) fn members(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "x-kubernetes-validations": [{
            "rule": "self.all(pointer, size(pointer) <= 256 && (pointer == '' || pointer.startsWith('/')))",
            "message": "must be a map from JSON pointers of at most 256 characters to values; write /database for the member database",
        }],
    })
}

/// Name of a header.
pub(crate) fn header_name(_: &mut SchemaGenerator) -> Schema {
    checked(
        128,
        "self.matches(r'^[-!#$%&*+.^_`|~A-Za-z0-9]+$') && self.lowerAscii() != 'host'",
        "must be the name of a header other than Host; use a name such as Authorization, and set the Host header in the field host",
    )
}

/// Value of a header.
pub(crate) fn header_value(_: &mut SchemaGenerator) -> Schema {
    checked(
        4096,
        r"!self.contains('\n') && !self.contains('\r')",
        "must be a single line; remove the line break",
    )
}

/// Value of a setting of a PostgreSQL server.
pub(crate) fn setting(_: &mut SchemaGenerator) -> Schema {
    checked(
        1024,
        r"!self.contains('\n') && !self.contains('\r')",
        "must be a single line; remove the line break",
    )
}

/// Host of a database server: a name, or an IPv4 or IPv6 address.
pub(crate) fn database_host(_: &mut SchemaGenerator) -> Schema {
    checked(
        253,
        "self.matches(r'^[-._:a-zA-Z0-9]+$')",
        "must be a host name such as crm-db, or an IP address; set port and database name in their own fields",
    )
}

/// Name of a bucket, by the rules of Amazon S3, which are the strictest:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
pub(crate) fn bucket(_: &mut SchemaGenerator) -> Schema {
    checked(
        63,
        "self.matches(r'^[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]$')",
        "must be the name of a bucket; use 3 to 63 of a-z, 0-9, - and dots, and set the folder in prefix",
    )
}

/// Folder of a store.
pub(crate) fn store_prefix(_: &mut SchemaGenerator) -> Schema {
    checked(
        256,
        "self.matches(r'^[-_.a-zA-Z0-9]+(/[-_.a-zA-Z0-9]+)*$') && !self.split('/').exists(part, part == '.' || part == '..')",
        "must be a folder such as fairway/production; use letters, digits, -, _ and dots, without / at either end",
    )
}

/// URL of a server, without a path.
pub(crate) fn server_url(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^https?://[-.a-zA-Z0-9]+(:[0-9]+)?$') || self.matches(r'^https?://\[[0-9a-fA-F:]+\](:[0-9]+)?$')",
        "must be the URL of a server; use one such as https://minio.example.com:9000, without path, user and password",
    )
}

/// URL of a WebDAV server, with the path of the share.
pub(crate) fn webdav_url(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^https?://([-.a-zA-Z0-9]+|\[[0-9a-fA-F:]+\])(:[0-9]+)?(/[-_.~%a-zA-Z0-9@]+)*/?$')",
        "must be the URL of a WebDAV server; use one such as https://cloud.example.com/remote.php/dav/files/backup, without user, password and query",
    )
}

/// Name of a region.
pub(crate) fn region(_: &mut SchemaGenerator) -> Schema {
    checked(
        64,
        "self.matches(r'^[-a-zA-Z0-9]+$')",
        "must be the name of a region; use letters, digits and -, such as eu-central-1",
    )
}

/// Five fields of cron. Whether each value is one that its field can have, and whether the date exists, the operator says.
pub(crate) fn cron(_: &mut SchemaGenerator) -> Schema {
    checked(
        128,
        "self.matches(r'^ *[-*,/0-9]+( +[-*,/0-9]+){2}( +([-*,/0-9]|[a-zA-Z]{3})+){2} *$')",
        "must be five fields of cron; write minute, hour, day of month, month and day of week, such as 15 2 * * *, without seconds and without names such as @daily",
    )
}

/// Name of a time zone in the IANA database.
pub(crate) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    checked(
        64,
        "self.matches(r'^[A-Za-z][-+_A-Za-z0-9]*(/[-+_A-Za-z0-9]+)*$')",
        "must be the name of a time zone in the IANA database; use one such as Europe/Warsaw, or UTC",
    )
}

/// A moment. The second part of the rule also refuses a day that a month does not have, and the last part what the operator could
/// not read: its last moment is some hours before the year 10000. Without the format `date-time`, with which a rule sees no text.
pub(crate) fn moment(_: &mut SchemaGenerator) -> Schema {
    checked(
        40,
        "self.matches(r'^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[-+][0-9]{2}:[0-9]{2})$') && timestamp(self) > timestamp('1970-01-01T00:00:00Z') && timestamp(self) < timestamp('9999-01-01T00:00:00Z')",
        "must be a moment with its zone, before the year 9999; use one such as 2027-01-31T00:00:00Z",
    )
}
