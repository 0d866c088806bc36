//! Which cluster is worked on, for every way to name one.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// A folder with a kubeconfig for each of these: name, context, cluster, user.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: serde_json::Value) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content.to_string()).unwrap();
        path
    }
}

fn kubeconfig(parts: serde_json::Value) -> serde_json::Value {
    let mut whole = serde_json::json!({"apiVersion": "v1", "kind": "Config"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(parts.as_object().unwrap().clone());
    whole
}

fn context_of(name: &str, cluster: &str, user: &str) -> serde_json::Value {
    serde_json::json!([{"name": name, "context": {"cluster": cluster, "user": user}}])
}

fn cluster_of(name: &str, server: &str) -> serde_json::Value {
    serde_json::json!([{"name": name, "cluster": {"server": server}}])
}

fn target(variables: &[(&str, &str)]) -> Result<Target> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Target::from_variables(Paths::at("/nowhere".into()), |name| {
        variables.get(name).map(OsString::from)
    })
}

fn existing(target: &Target) -> &Existing {
    match &target.kind {
        Kind::Existing(existing) => existing,
        Kind::Embedded => panic!("it is the embedded cluster"),
    }
}

fn whole(folder: &Folder, name: &str) -> PathBuf {
    folder.write(
        name,
        kubeconfig(serde_json::json!({
            "current-context": "production",
            "contexts": [
                {"name": "production", "context": {"cluster": "production", "user": "me"}},
                {"name": "staging", "context": {"cluster": "staging", "user": "me"}},
            ],
            "clusters": [
                {"name": "production", "cluster": {"server": "https://production.example.com"}},
                {"name": "staging", "cluster": {"server": "https://staging.example.com:6443"}},
            ],
            "users": [{"name": "me", "user": {"token": "of-the-first"}}],
        })),
    )
}

#[test]
fn without_variables_or_with_empty_ones_it_is_the_embedded_cluster() {
    for variables in [
        &[][..],
        &[("KUBECONFIG", "/production")],
        &[("KUBE_CONTEXT", ""), ("REGISTRY", "")],
    ] {
        let target = target(variables).unwrap();
        assert!(target.is_embedded(), "{variables:?}");
        assert_eq!(target.registry(), target.paths.registry_host());
        assert_eq!(target.context(), target.paths.name());
    }
}

#[tokio::test]
async fn the_context_that_is_named_is_taken_and_never_the_current_one() {
    let folder = Folder::new();
    let file = whole(&folder, "config");
    let target = target(&[
        ("KUBE_CONTEXT", "staging"),
        ("REGISTRY", "registry.example.com/team/"),
        ("KUBECONFIG", file.to_str().unwrap()),
    ])
    .unwrap();
    assert_eq!(target.registry(), "registry.example.com/team");
    let config = existing(&target).config().await.unwrap();
    assert_eq!(config.cluster_url.host(), Some("staging.example.com"));
    assert_eq!(config.proxy_url, None);
}

#[tokio::test]
async fn context_cluster_and_user_may_be_in_different_files_and_the_first_to_set_one_wins() {
    let folder = Folder::new();
    let contexts = folder.write(
        "contexts",
        kubeconfig(serde_json::json!({"contexts": context_of("staging", "there", "me")})),
    );
    let clusters = folder.write(
        "clusters",
        kubeconfig(serde_json::json!({"clusters": cluster_of("there", "https://there.example.com")})),
    );
    let users = folder.write(
        "users",
        kubeconfig(serde_json::json!({
            "users": [{"name": "me", "user": {"tokenFile": "token"}}],
            "clusters": cluster_of("there", "https://elsewhere.example.com"),
            "contexts": context_of("staging", "elsewhere", "nobody"),
        })),
    );
    let missing = folder.0.path().join("missing");
    let list = std::env::join_paths([
        missing.as_path(),
        Path::new(""),
        &contexts,
        &clusters,
        &users,
        &whole(&folder, "more"),
    ])
    .unwrap();
    let target = target(&[
        ("KUBE_CONTEXT", "staging"),
        ("REGISTRY", "registry.example.com"),
        ("KUBECONFIG", list.to_str().unwrap()),
    ])
    .unwrap();
    let config = existing(&target).config().await.unwrap();
    assert_eq!(config.cluster_url.host(), Some("there.example.com"));
    // A relative path is relative to the file that has it.
    let token = folder.0.path().join("token");
    assert_eq!(config.auth_info.token_file.as_deref(), token.to_str());
}

#[test]
fn without_kubeconfig_it_is_the_one_in_the_home_folder() {
    let folder = Folder::new();
    whole(&folder, ".kube/config");
    for kubeconfig in [None, Some(("KUBECONFIG", ""))] {
        let mut variables = vec![
            ("KUBE_CONTEXT", "staging"),
            ("REGISTRY", "registry.example.com"),
            ("HOME", folder.0.path().to_str().unwrap()),
        ];
        variables.extend(kubeconfig);
        assert_eq!(target(&variables).unwrap().context(), "staging");
    }
}

#[test]
fn what_is_missing_or_wrong_is_told_in_one_sentence_that_names_what_to_set() {
    let folder = Folder::new();
    let file = whole(&folder, "config");
    let file = file.to_str().unwrap();
    let registry = ("REGISTRY", "registry.example.com/team");
    for (variables, expected) in [
        (
            vec![("KUBE_CONTEXT", "staging"), ("KUBECONFIG", file)],
            "set REGISTRY=host/path too: the registry to which images are pushed and from which the cluster of \
             KUBE_CONTEXT=staging pulls them"
                .to_owned(),
        ),
        (
            vec![registry],
            "set KUBE_CONTEXT=name too: the context of the cluster that pulls from REGISTRY=registry.example.com/team"
                .to_owned(),
        ),
        (
            vec![("KUBE_CONTEXT", "stagign"), registry, ("KUBECONFIG", file)],
            format!("there is no context stagign in {file}; set KUBE_CONTEXT to one of these: production, staging"),
        ),
        (
            vec![("KUBE_CONTEXT", "staging"), registry, ("KUBECONFIG", "/nowhere")],
            "there is no context in /nowhere; set KUBECONFIG to the file that holds KUBE_CONTEXT=staging"
                .to_owned(),
        ),
        (
            vec![("KUBE_CONTEXT", "staging"), registry],
            "set KUBECONFIG to the file that holds the context KUBE_CONTEXT".to_owned(),
        ),
    ] {
        let error = target(&variables).unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
    }
}

#[test]
fn a_file_that_is_no_kubeconfig_is_told_and_not_passed_over() {
    let folder = Folder::new();
    let bad = folder.write("bad", serde_json::json!(["no", "kubeconfig"]));
    let list = std::env::join_paths([&bad, &whole(&folder, "config")]).unwrap();
    let error = target(&[
        ("KUBE_CONTEXT", "staging"),
        ("REGISTRY", "registry.example.com"),
        ("KUBECONFIG", list.to_str().unwrap()),
    ])
    .unwrap_err();
    let text = error.to_string();
    assert_eq!(text, format!("read {}", bad.display()));
}

/// The proxy that is used for the context `staging`.
async fn proxy(folder: &Folder, named: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
    let mut clusters = cluster_of("there", "https://there.example.com:6443");
    if let Some(named) = named {
        clusters[0]["cluster"]["proxy-url"] = named.into();
    }
    let file = folder.write(
        "proxied",
        kubeconfig(serde_json::json!({
            "contexts": context_of("staging", "there", "me"),
            "clusters": clusters,
        })),
    );
    let mut all = vec![
        ("KUBE_CONTEXT", "staging"),
        ("REGISTRY", "registry.example.com"),
        ("KUBECONFIG", file.to_str().unwrap()),
    ];
    all.extend(variables);
    let target = target(&all).unwrap();
    // The features of kube that speak to a proxy are there.
    target.client().await.unwrap();
    let config = existing(&target).config().await.unwrap();
    config.proxy_url.map(|uri| uri.to_string())
}

#[tokio::test]
async fn a_proxy_is_taken_from_the_kubeconfig_and_where_it_names_none_from_the_environment() {
    const NAMED: &str = "socks5://127.0.0.1:1080";
    const OTHER: (&str, &str) = ("HTTPS_PROXY", "http://proxy.example.com:3128");
    let folder = Folder::new();
    let folder = &folder;
    let all = ("NO_PROXY", "*");
    assert_eq!(
        proxy(folder, Some(NAMED), &[OTHER, all]).await.as_deref(),
        Some("socks5://127.0.0.1:1080/")
    );
    assert_eq!(
        proxy(folder, None, &[OTHER]).await.as_deref(),
        Some("http://proxy.example.com:3128/")
    );
    let small = ("https_proxy", OTHER.1);
    assert_eq!(
        proxy(folder, None, &[small]).await.as_deref(),
        Some("http://proxy.example.com:3128/")
    );
    let ours = ("NO_PROXY", "localhost, .example.com,");
    assert_eq!(proxy(folder, None, &[OTHER, ours]).await, None);
    assert_eq!(proxy(folder, None, &[]).await, None);
}

#[test]
fn the_programs_know_the_named_context_only() {
    let folder = Folder::new();
    let file = whole(&folder, "config");
    let target = target(&[
        ("KUBE_CONTEXT", "staging"),
        ("REGISTRY", "registry.example.com"),
        ("KUBECONFIG", file.to_str().unwrap()),
    ])
    .unwrap();
    for (command, context) in [(target.kubectl(), "--context"), (target.helm(), "--kube-context")] {
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, [context, "staging"]);
        let kubeconfig = command.get_envs().find(|(name, _)| *name == "KUBECONFIG");
        assert_eq!(
            kubeconfig,
            Some((OsStr::new("KUBECONFIG"), Some(file.as_os_str())))
        );
    }
}
