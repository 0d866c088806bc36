//! libpq's `require_auth`: by which methods a server may ask for the password,
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH>.

/// A method of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The server asks for nothing.
    None,
    /// The password as it is.
    Password,
    /// A hash of the password.
    Md5,
    /// A proof that both sides know the password.
    ScramSha256,
    /// Kerberos, tokens: what the agent does not speak.
    Other,
}

impl Method {
    fn parse(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "none" => Some(Self::None),
            "password" => Some(Self::Password),
            "md5" => Some(Self::Md5),
            // Npgsql writes it in one word.
            "scram-sha-256" | "scramsha256" => Some(Self::ScramSha256),
            "gss" | "sspi" | "oauth" => Some(Self::Other),
            _ => None,
        }
    }

    /// The method that a server's request for authentication means, by the number in it.
    pub(crate) fn of_request(code: u32) -> Self {
        match code {
            0 => Self::None,
            3 => Self::Password,
            5 => Self::Md5,
            10 => Self::ScramSha256,
            _ => Self::Other,
        }
    }

    /// The method's name in `require_auth`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::Other => "another method",
        }
    }
}

/// The methods that a connection accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Methods {
    accepted: Vec<Method>,
}

impl Methods {
    const ALL: [Method; 5] = [
        Method::None,
        Method::Password,
        Method::Md5,
        Method::ScramSha256,
        Method::Other,
    ];

    /// Reads a list of methods to accept, or of methods to refuse, each with `!` before it. The inner `None` is no
    /// restriction; the outer one a text that libpq refuses, or that leaves nothing the agent speaks.
    pub(super) fn parse(text: &str) -> Option<Option<Self>> {
        if text.is_empty() {
            return Some(None);
        }
        let names: Vec<_> = text.split(',').map(str::trim).collect();
        let refused = names.iter().filter(|name| name.starts_with('!')).count();
        if refused != 0 && refused != names.len() {
            return None;
        }
        let named: Option<Vec<_>> = names
            .iter()
            .map(|name| Method::parse(name.trim_start_matches('!')))
            .collect();
        let named = named?;
        let accepted: Vec<_> = Self::ALL
            .into_iter()
            .filter(|method| named.contains(method) == (refused == 0))
            .collect();
        let any = accepted.iter().any(|method| *method != Method::Other);
        any.then_some(Some(Self { accepted }))
    }

    /// Whether the connection accepts this method.
    pub(crate) fn accept(&self, method: Method) -> bool {
        self.accepted.contains(&method)
    }

    /// The list as libpq writes it.
    pub(crate) fn as_libpq(&self) -> String {
        let spoken = self.accepted.iter().filter(|method| **method != Method::Other);
        spoken.map(|method| method.name()).collect::<Vec<_>>().join(",")
    }
}
