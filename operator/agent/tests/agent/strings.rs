//! The rows of the table of connection strings that are libpq's, read by the installed psql.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use crate::postgres::{is_root, programs};

/// The question for TLS.
const SSL_REQUEST: u32 = 80_877_103;
/// The question for encryption by Kerberos.
const GSS_REQUEST: u32 = 80_877_104;

#[derive(Deserialize)]
struct Row {
    text: String,
    by: String,
    reads: Option<Values>,
}

#[derive(Deserialize)]
struct Values {
    at: String,
    user: String,
    password: Option<String>,
    database: String,
    tls: String,
    authorities: Option<String>,
    options: Option<String>,
    binding: Option<String>,
}

/// What a server is sent by one client.
#[derive(Debug, Default)]
struct Sent {
    asked_for_tls: bool,
    settings: Vec<(String, String)>,
    password: Option<String>,
}

impl Sent {
    fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[tokio::test]
async fn psql_reads_the_strings_of_libpq_as_the_table_says() {
    let rows: Vec<Row> = serde_saphyr::from_str(include_str!("../connection-strings.yaml")).expect("a table");
    let mut compared = 0;
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| row.by.starts_with("libpq")) {
        if let Some(values) = &row.reads {
            compared += 1;
            let address = format!("127.77.{}.{}", std::process::id() % 250, compared);
            wrong.extend(
                differences(&row.text, values, &address)
                    .await
                    .into_iter()
                    .map(|text| format!("{}: {text}", row.text)),
            );
        }
    }
    assert!(compared > 30, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What psql does with a string, other than the table says. It is led to `address` for each of the hosts.
async fn differences(text: &str, values: &Values, address: &str) -> Vec<String> {
    let hosts: Vec<_> = values
        .at
        .split(", ")
        .filter_map(|host| host.rsplit_once(':'))
        .collect();
    let ports: BTreeSet<u16> = hosts
        .iter()
        .map(|(_, port)| port.parse().expect("a port"))
        .collect();
    let (sender, mut sent) = unbounded_channel();
    let verifies = values.tls.starts_with("verify");
    for port in ports {
        let listener = TcpListener::bind((address, port))
            .await
            .expect("a port of loopback");
        tokio::spawn(serve(listener, verifies, sender.clone()));
    }
    drop(sender);
    let output = Command::new(programs().join("psql"))
        .args(["-X", "-w", "-c", "", "-d", text])
        .env_clear()
        .env("PGHOSTADDR", vec![address; hosts.len()].join(","))
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .expect("an end")
        .expect("psql");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // The first one is noted after psql has ended, perhaps; it is the one that counts.
    let first = tokio::time::timeout(Duration::from_secs(30), sent.recv());
    let mut all: Vec<_> = first.await.expect("a client").into_iter().collect();
    while let Ok(one) = sent.try_recv() {
        all.push(one);
    }

    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{what}; psql: {errors}; sent: {all:?}"));
        }
    };
    // With an address psql names that instead of the host.
    for (_, port) in &hosts {
        let named = format!("connection to server at \"{address}\", port {port} failed");
        expect(errors.contains(&named), "the port");
    }
    let names: Vec<_> = hosts
        .iter()
        .map(|(name, _)| name.trim_matches(['[', ']']))
        .collect();
    expect(hosts_of_libpq(text).await.split(',').eq(names), "the hosts");
    let asked = all.iter().any(|one| one.asked_for_tls);
    expect(asked == (values.tls != "disable"), "whether it asks for TLS");
    match values.tls.as_str() {
        "require" => expect(errors.contains("SSL was required"), "that it insists on TLS"),
        "verify-ca" | "verify-full" => {
            let file = values.authorities.as_deref().unwrap_or_default();
            let absent = format!("root certificate file \"{file}\" does not exist");
            expect(errors.contains(&absent), "that it verifies");
        }
        _ => {
            let one = all.iter().find(|one| !one.settings.is_empty());
            let of = |name| one.and_then(|one| one.setting(name));
            expect(of("user") == Some(values.user.as_str()), "the user");
            expect(of("database") == Some(values.database.as_str()), "the database");
            expect(of("options") == values.options.as_deref(), "the options");
            let password = all.iter().find_map(|one| one.password.as_deref());
            // A server that asks for the password itself is sent none by a client which requires a proof.
            match values.binding.as_deref() {
                Some("require") => expect(errors.contains("channel binding required"), "the binding"),
                _ => expect(password == values.password.as_deref(), "the password"),
            }
        }
    }
    wrong
}

/// The hosts that pg_isready names, in a network in which it reaches none of them, nor a server of names.
async fn hosts_of_libpq(text: &str) -> String {
    let output = Command::new("/usr/bin/unshare")
        .args((!is_root()).then_some("--map-root-user"))
        .arg("--net")
        .arg(programs().join("pg_isready"))
        .args(["-d", text])
        .env_clear()
        .output()
        .await
        .expect("pg_isready");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let (place, _) = answer.split_once(" - ").expect("a place and an answer");
    let (hosts, _) = place.rsplit_once(':').expect("hosts and ports");
    hosts.to_owned()
}

/// Notes what clients send until they have sent their password, and then answers that it cannot serve them now, after
/// which libpq goes to the next host. It agrees to TLS, without having
/// it, only where the client must fail before it begins.
async fn serve(listener: TcpListener, agrees_to_tls: bool, sender: UnboundedSender<Sent>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut sent = Sent::default();
        // A client that goes away has sent what it has sent.
        let _ = note(stream, agrees_to_tls, &mut sent).await;
        if sender.send(sent).is_err() {
            return;
        }
    }
}

async fn note(mut stream: TcpStream, agrees_to_tls: bool, sent: &mut Sent) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        match stream.read_u32().await? {
            SSL_REQUEST => {
                sent.asked_for_tls = true;
                stream.write_all(if agrees_to_tls { b"S" } else { b"N" }).await?;
            }
            GSS_REQUEST => stream.write_all(b"N").await?,
            _ => {
                let mut body = vec![0; length as usize - 8];
                stream.read_exact(&mut body).await?;
                let words: Vec<_> = body
                    .split(|byte| *byte == 0)
                    .map(String::from_utf8_lossy)
                    .collect();
                let pairs = words.chunks_exact(2).filter(|pair| !pair[0].is_empty());
                sent.settings = pairs
                    .map(|pair| (pair[0].to_string(), pair[1].to_string()))
                    .collect();
                break;
            }
        }
    }
    // It asks for the password as it is.
    stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
    if stream.read_u8().await? == b'p' {
        let mut password = vec![0; stream.read_u32().await? as usize - 4];
        stream.read_exact(&mut password).await?;
        password.pop();
        sent.password = Some(String::from_utf8_lossy(&password).into_owned());
    }
    let refusal = b"SFATAL\0C57P03\0Mthe end of the test\0\0";
    stream.write_u8(b'E').await?;
    stream.write_u32(refusal.len() as u32 + 4).await?;
    stream.write_all(refusal).await?;
    stream.flush().await
}
