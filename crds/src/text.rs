//! Strings with a shape: what each must look like, and the sentence that a person reads when it does not.
//!
//! Shapes are CEL rules instead of OpenAPI patterns, because the apiserver answers a pattern that does not
//! match with the regular expression, and a rule with our sentence.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Part of a rule: a DNS label that begins with a letter.
const LABEL: &str = "r'^[a-z]([-a-z0-9]*[a-z0-9])?$'";
/// Part of a rule: a DNS label.
const LOOSE_LABEL: &str = "r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'";
/// Part of a rule: what most Kubernetes objects are named by.
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
    let message = "this is not the name of an App; write it with a-z, 0-9 and -, starting with a letter";
    checked(30, &format!("self.matches({LABEL})"), message)
}

/// Name of a component.
pub(crate) fn component_name(_: &mut SchemaGenerator) -> Schema {
    let message = "this is not the name of a component; write it with a-z, 0-9 and -, starting with a letter, \
                   such as web";
    checked(16, &format!("self.matches({LABEL})"), message)
}

/// Name of a Service.
pub(crate) fn service_name(_: &mut SchemaGenerator) -> Schema {
    let message = "this is not the name of a Service; write it with a-z, 0-9 and -, starting with a letter";
    checked(63, &format!("self.matches({LABEL})"), message)
}

/// Name of a Secret, a claim or any other object that may have dots in its name.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    let message =
        "this is not the name of an object; write it with a-z, 0-9, - and dots, without a namespace";
    checked(253, &format!("self.matches({SUBDOMAIN})"), message)
}

/// Key in a Secret.
pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    let message = "this is not a key of a Secret; write it with letters, digits, -, _ and dots";
    checked(253, "self.matches(r'^[-._a-zA-Z0-9]+$')", message)
}

/// Name of a check.
pub(crate) fn check_name(_: &mut SchemaGenerator) -> Schema {
    let message = "this is not the name of a check; write it with a-z, 0-9 and -, such as no-orphan-leads";
    checked(63, &format!("self.matches({LOOSE_LABEL})"), message)
}

/// An image reference, with or without tag and digest.
pub(crate) fn image(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^[^\s@]+(@sha256:[0-9a-f]{64})?$')",
        "this is not an image; write repository:tag or repository@sha256: with all 64 hex digits, without spaces",
    )
}

/// An image reference with a digest.
pub(crate) fn image_with_digest(_: &mut SchemaGenerator) -> Schema {
    checked(
        512,
        r"self.matches(r'^[^\s@]+@sha256:[0-9a-f]{64}$')",
        "this image has no digest; write repository@sha256: with all 64 hex digits, so that what ran is known for good",
    )
}

/// Image references by container.
pub(crate) fn images(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": image(generator),
    })
}

/// A size greater than nothing.
pub(crate) fn size(_: &mut SchemaGenerator) -> Schema {
    checked(
        32,
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "this is not a size; write a number with Mi, Gi or Ti, such as 20Gi",
    )
}

/// Path and query of a health request.
pub(crate) fn http_path(_: &mut SchemaGenerator) -> Schema {
    checked(
        1024,
        r"self.matches(r'^/[\x21-\x7e]*$')",
        "this is not a path; start it with /, such as /api/health, without spaces, and give scheme, host and port in their own fields",
    )
}

/// Host header of a health request.
pub(crate) fn http_host(_: &mut SchemaGenerator) -> Schema {
    checked(
        253,
        "self.matches(r'^[-._a-zA-Z0-9]+(:[0-9]+)?$')",
        "this is not a host; write a name such as crm.example.com, without scheme and path",
    )
}

/// Name of a header.
pub(crate) fn header_name(_: &mut SchemaGenerator) -> Schema {
    checked(
        128,
        "self.matches(r'^[-!#$%&*+.^_`|~A-Za-z0-9]+$') && self.lowerAscii() != 'host'",
        "this is not a header for this list; write a name such as Authorization, and the Host header in the field host",
    )
}

/// Value of a header.
pub(crate) fn header_value(_: &mut SchemaGenerator) -> Schema {
    checked(
        4096,
        r"!self.contains('\n') && !self.contains('\r')",
        "the value of a header is one line; remove the line break",
    )
}

/// Where a database server is: a name, or an address of either family.
pub(crate) fn database_host(_: &mut SchemaGenerator) -> Schema {
    checked(
        253,
        "self.matches(r'^[-._:a-zA-Z0-9]+$')",
        "this is not a host; write a name such as crm-db, or an address, and give port and database in their own fields",
    )
}
