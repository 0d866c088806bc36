//! Servers of stores, one of each for this process.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use fairway_protocol::Store;
use serde_json::json;

use crate::{
    harness::Pod,
    postgres::{Database, PASSWORD, as_server_user, free_port, is_root, supervise},
};

/// A user of the servers, who is not their administrator.
pub(crate) const USER: &str = "fairway";

/// Starts versitygw with a user that owns two buckets, for a shell.
const GATEWAY: &str = r#"
set -e
mkdir -p "$DIR/data" "$DIR/iam" "$DIR/versions"
ROOT_ACCESS_KEY=root ROOT_SECRET_KEY=rootsecret "$PROGRAM" --port "127.0.0.1:$PORT" --quiet --iam-dir "$DIR/iam" \
  --cert "$TLS/server.crt" --key "$TLS/server.key" posix --versioning-dir "$DIR/versions" "$DIR/data" >"$DIR/log" 2>&1 </dev/null &
server=$!
admin() { "$PROGRAM" admin --access root --secret rootsecret --allow-insecure --endpoint-url "https://127.0.0.1:$PORT" "$@"; }
until admin list-users >"$DIR/admin.log" 2>&1; do kill -0 $server; done
admin create-user --access "$USER" --secret "$PASSWORD" --role user >>"$DIR/admin.log" 2>&1
admin create-bucket --bucket backups --owner "$USER" >>"$DIR/admin.log" 2>&1
admin create-bucket --bucket versioned --owner "$USER" >>"$DIR/admin.log" 2>&1
"#;

/// Starts Apache with a WebDAV share, for a shell.
const APACHE: &str = r#"
set -e
mkdir -p "$DIR/data"
echo "$USER:{SHA}+T1ebEsYCLiC3m000EdyohJ9JXE=" >"$DIR/users"
modules=$(for name in mpm_event authn_core authn_file authz_core authz_user auth_basic dav dav_fs ssl; do
  echo "LoadModule ${name}_module /usr/lib/apache2/modules/mod_$name.so"; done)
cat >"$DIR/conf" <<EOF
ServerRoot $DIR
ServerName 127.0.0.1
DefaultRuntimeDir $DIR
Listen 127.0.0.1:$PORT
PidFile $DIR/pid
ErrorLog $DIR/log
$modules
DavLockDB $DIR/locks
DocumentRoot $DIR/data
SSLEngine on
SSLCertificateFile $TLS/server.crt
SSLCertificateKeyFile $TLS/server.key
<Directory $DIR/data>
  Dav On
  AuthType Basic
  AuthName backups
  AuthUserFile $DIR/users
  Require valid-user
</Directory>
EOF
/usr/sbin/apache2 -f "$DIR/conf" -DFOREGROUND </dev/null >"$DIR/output" 2>&1 &
server=$!
until [ -s "$DIR/pid" ]; do kill -0 $server; done
"#;

/// How each of these scripts goes on once its server answers.
const UNTIL_INPUT_ENDS: &str = r#"
echo ready
read -r _ || true
kill -TERM $server
wait $server || true
rm -rf "$DIR"
"#;

/// A running server.
struct Server {
    port: u16,
    /// What it stores, as files.
    data: PathBuf,
}

static S3: LazyLock<Server> = LazyLock::new(|| Server::start(GATEWAY));
static WEBDAV: LazyLock<Server> = LazyLock::new(|| Server::start(APACHE));

impl Server {
    fn start(script: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("fairway-store-")
            .tempdir()
            .expect("a folder")
            .keep();
        if is_root() {
            std::os::unix::fs::chown(&folder, Some(user_id()), None).expect("an owner");
        }
        let port = free_port();
        let mut shell = as_server_user("sh");
        shell
            .args(["-c", &format!("{script}{UNTIL_INPUT_ENDS}")])
            .env("DIR", &folder)
            .env("PROGRAM", gateway())
            .env("TLS", tls())
            .env("PORT", port.to_string())
            .envs([("USER", USER), ("PASSWORD", PASSWORD)]);
        supervise(shell, &folder);
        Self {
            port,
            data: folder.join("data"),
        }
    }
}

/// The user as whom the servers run where this process is root.
fn user_id() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(tls().join("data")).expect("a folder"))
}

/// versitygw, which `make cluster-binaries` builds, or the program that `VERSITYGW` names.
fn gateway() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.e2e/bin/versitygw");
    std::env::var_os("VERSITYGW").map_or_else(|| built.into(), PathBuf::from)
}

/// Folder with the certificate for 127.0.0.1 and its authority.
fn tls() -> PathBuf {
    Database::server_of_all().folder.clone()
}

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Webdav,
}

/// A store of one test.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) store: Store,
    /// What it stores, as files.
    pub(crate) files: PathBuf,
}

/// A folder of its own for a test.
fn next_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Place {
    /// A folder of its own in a bucket that keeps versions of what is deleted.
    pub(crate) fn with_versions() -> Self {
        let (bucket, prefix) = (S3.data.join("versioned"), next_prefix());
        // As versitygw's PutBucketVersioning does it.
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&bucket, "user.versioning", &[1], flags).expect("an attribute");
        Self {
            kind: Kind::S3,
            store: Self::s3("versioned", &prefix, S3.port),
            files: bucket.join(prefix),
        }
    }

    /// A folder of its own on the server of this process.
    pub(crate) fn new(kind: Kind) -> Self {
        let prefix = next_prefix();
        let (store, files) = match kind {
            Kind::S3 => (
                Self::s3("backups", &prefix, S3.port),
                S3.data.join("backups").join(&prefix),
            ),
            Kind::Webdav => (Self::webdav(&prefix, WEBDAV.port), WEBDAV.data.join(&prefix)),
        };
        Self { kind, store, files }
    }

    /// A bucket behind this port.
    pub(crate) fn s3(bucket: &str, prefix: &str, port: u16) -> Store {
        let key = |key: &str| json!({"secretKeyRef": {"name": "bucket", "key": key}});
        serde_json::from_value(json!({"s3": {
            "bucket": bucket,
            "prefix": prefix,
            "endpoint": format!("https://127.0.0.1:{port}"),
            "credentialsFrom": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
            "caFrom": {"configMapKeyRef": {"name": "ca", "key": "ca.pem"}},
        }}))
        .expect("a store")
    }

    fn webdav(prefix: &str, port: u16) -> Store {
        let key = |key: &str| json!({"secretKeyRef": {"name": "share", "key": key}});
        serde_json::from_value(json!({"webdav": {
            "prefix": prefix,
            "endpoint": format!("https://127.0.0.1:{port}"),
            "userFrom": key("user"),
            "passwordFrom": key("password"),
            "caFrom": {"configMapKeyRef": {"name": "ca", "key": "ca.pem"}},
        }}))
        .expect("a store")
    }

    /// A pod that may use it.
    pub(crate) fn pod(&self, database: &Database, uid: &str) -> Pod {
        let pod = Pod::new(database, uid);
        let authorities = pod.path("store-ca");
        fs::create_dir(&authorities).expect("a volume");
        fs::copy(tls().join("ca.crt"), authorities.join("ca.pem")).expect("a file");
        let authorities = authorities.display().to_string();
        pod.with("FAIRWAY_STORE_CA_DIRECTORY", &authorities)
            .with("FAIRWAY_STORE_ACCESS_KEY_ID", USER)
            .with("FAIRWAY_STORE_SECRET_ACCESS_KEY", PASSWORD)
            .with("FAIRWAY_STORE_USER", USER)
            .with("FAIRWAY_STORE_PASSWORD", PASSWORD)
    }

    /// Names of the files that it stores, relative, without those of the server's own.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.files, &self.files, &mut names);
        names.sort();
        names
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> u16 {
        match self.kind {
            Kind::S3 => S3.port,
            Kind::Webdav => WEBDAV.port,
        }
    }

    /// Uploads that were begun and neither completed nor ended, of all tests.
    pub(crate) fn unfinished_uploads() -> usize {
        let multipart = S3.data.join("backups/.sgwtmp/multipart");
        fs::read_dir(multipart).map_or(0, |entries| {
            entries
                .flatten()
                .filter_map(|object| fs::read_dir(object.path()).ok())
                .map(Iterator::count)
                .sum()
        })
    }
}

fn collect(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            // Where mod_dav keeps properties.
            true if path.ends_with(".DAV") => {}
            true => collect(root, &path, names),
            false => names.push(path.strip_prefix(root).expect("within").display().to_string()),
        }
    }
}
