//! What stands in `deploy/`, `functions/` and the Dockerfiles, against the program: every port,
//! environment name and metric that is used there exists.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use p2pfaas::config::{AdminToken, GivenKey, Settings};

/// The port at which functions answer.
const FUNCTION_PORT: u16 = 8080;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            below(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// All files about deployment, with their text.
fn manifests() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        ["Dockerfile", "Dockerfile.aarch64", "README.md"].map(|name| root().join(name)).into();
    below(&root().join("docs"), &mut paths);
    below(&root().join("deploy"), &mut paths);
    below(&root().join("functions"), &mut paths);
    assert!(paths.len() > 20, "{paths:?}");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{name}: {why}"));
        (name, text)
    };
    paths.into_iter().map(read).collect()
}

/// The words of `text` that begin with `prefix` and go on with characters of names.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let rest = &text[at..];
        let inside = text[..at].chars().next_back().is_some_and(is_name);
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        (!inside).then_some(&rest[..end])
    })
}

#[test]
fn every_environment_name_means_something_to_the_node() {
    let mut seen = BTreeSet::new();
    for (file, text) in manifests() {
        for name in words(&text, "P2PFAAS_") {
            // The tests' own, and names with a part left open, as in `P2PFAAS_<KEY>`.
            if name.starts_with("P2PFAAS_REQUIRE_") || name == "P2PFAAS_" {
                continue;
            }
            seen.insert(name.to_owned());
            let loaded = Settings::load(None, [(name.to_owned(), "1".to_owned())], &[]);
            let unknown = loaded.is_ok_and(|loaded| !loaded.warnings.is_empty());
            assert!(!unknown, "{file}: {name}");
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn the_settings_for_kubernetes_are_good_ones() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/settings.env"));
    let text = text.expect("a file");
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let loaded = Settings::load(None, pairs, &[]).expect("good");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.settings.init_servers, ["p2pfaas-peers"]);
}

#[test]
fn every_metric_is_one_of_the_nodes() {
    let files = std::fs::read_dir(root().join("src/metrics")).expect("a folder");
    let read = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).expect("a source");
    let source: String = files.map(|file| read(file.expect("an entry"))).collect();
    let known: BTreeSet<&str> = words(&source, "p2pfaas_").collect();
    let mut seen = BTreeSet::new();
    for (file, text) in manifests() {
        if !file.starts_with("deploy/prometheus/") {
            continue;
        }
        for name in words(&text, "p2pfaas_") {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| known.contains(family))
                .unwrap_or(name);
            assert!(known.contains(family), "{file}: {name}");
            seen.insert(family.to_owned());
        }
    }
    assert!(seen.len() > 15, "{seen:?}");
}

/// The port in a line that names one of a container: `port: 1`, `"0:1"`, `EXPOSE 1`, `http://x:1/`.
fn ports(line: &str) -> Vec<u16> {
    let line = line.trim().trim_start_matches("- ");
    let number = |text: &str| text.trim().trim_matches('"').parse::<u16>().ok();
    if let Some(exposed) = line.strip_prefix("EXPOSE ") {
        return exposed.split(' ').filter_map(number).collect();
    }
    for key in ["containerPort:", "targetPort:", "port:"] {
        if let Some(value) = line.strip_prefix(key) {
            return number(value).into_iter().collect();
        }
    }
    if let Some(mapping) = line.strip_prefix('"').and_then(|rest| rest.split('"').next())
        // The address may be a variable.
        && let mapping = mapping.rsplit("}:").next().unwrap_or(mapping).trim_end_matches("/udp")
        && mapping.chars().all(|c| c.is_ascii_digit() || ".:".contains(c))
        && mapping.contains(':')
    {
        return mapping.rsplit(':').next().and_then(number).into_iter().collect();
    }
    Vec::new()
}

#[test]
fn every_port_of_a_container_is_one_that_the_program_listens_on() {
    let of = Settings::default();
    let node = [
        of.scheduler_port,
        of.discovery_port,
        of.learner_port,
        of.learner_ws_port,
        of.peer_tls_port,
    ];
    let mut seen = BTreeSet::new();
    for (file, text) in manifests() {
        for line in text.lines() {
            for port in ports(line) {
                assert!(node.contains(&port) || port == FUNCTION_PORT, "{file}: {line}");
                seen.insert(port);
            }
        }
    }
    assert_eq!(seen, node.into_iter().chain([FUNCTION_PORT]).collect(), "all are used somewhere");
}

#[test]
fn ports_are_read_in_each_form_that_manifests_have() {
    for (line, want) in [
        ("EXPOSE 18080 19000", vec![18080, 19000]),
        ("  - containerPort: 1", vec![1]),
        ("    - \"127.0.0.1:8081:8080\"  # calls", vec![8080]),
        ("- \"18081:18080\"", vec![18080]),
        ("- \"1:19000/udp\"", vec![19000]),
        ("- \"${ADDRESS:-127.0.0.1}:1:19020\"", vec![19020]),
        ("        port: 18080", vec![18080]),
        ("      port: calls", vec![]),
        ("nodePort: 30080", vec![]),
        ("command: [\"function\", \"fn-echo\"]", vec![]),
    ] {
        assert_eq!(ports(line), want, "{line}");
    }
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|why| panic!("{file}: {why}"))
}

/// What `line` says after `key`, if a line of the file does. What is a comment does not count.
fn said<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim)
}

/// The secrets of a node: what it is told of, and the file that has it.
const SECRETS: [(&str, &str); 2] =
    [("P2PFAAS_CLUSTER_KEY", "cluster-key"), ("P2PFAAS_ADMIN_TOKEN", "admin-token")];

#[test]
fn every_deployment_gives_its_nodes_a_key_and_a_token() {
    let [one, functions, three] =
        ["", "-fn", "-cluster"].map(|name| text(&format!("deploy/docker-compose{name}.yml")));
    assert_eq!(said(&functions, "file: docker-compose"), Some(".yml"), "it has what that one has");
    let kubernetes = text("deploy/kubernetes/settings.env");
    let pod = text("deploy/kubernetes/daemonset.yaml");
    let folder = said(&pod, "mountPath: /run").expect("a folder of secrets");
    assert!(pod.contains("secretName: p2pfaas") && !pod.contains("optional: true"));
    let [unit, service] =
        ["env", "service"].map(|end| text(&format!("deploy/systemd/p2pfaas.{end}")));
    let balena = text("deploy/balena/docker-compose.yml");
    for (name, file) in SECRETS {
        for compose in [&one, &three] {
            assert_eq!(said(compose, &format!("{name}_FILE: /run/secrets/")), Some(file));
            assert_eq!(compose.matches(&format!("- {file}\n")).count(), 1, "nodes get the file");
        }
        for compose in [&one, &functions, &three] {
            assert!(compose.contains(&format!("  {file}:\n    file: ./secrets/{file}\n")));
        }
        let path = said(&kubernetes, &format!("{name}_FILE=/run"));
        assert_eq!(path, Some(&*format!("{folder}/{file}")));
        let made = format!("--from-literal={file}=");
        assert!(text("deploy/kubernetes/README.md").contains(&made), "{made}");
        // systemd gives the service a copy of a file, under this path.
        let path = said(&unit, &format!("{name}_FILE=/run/credentials/p2pfaas.service/"));
        assert_eq!(path, Some(file));
        let copied = said(&service, &format!("LoadCredential={file}:/etc/p2pfaas/"));
        assert_eq!(copied, Some(file));
        // A variable of the fleet takes the place of what stands in the file; without one no node starts.
        let missing = said(&balena, &format!("{name}: ")).expect("a word");
        let loaded = Settings::load(None, [(name.to_owned(), missing.to_owned())], &[]);
        assert!(loaded.is_err(), "{name}={missing} would be taken");
    }
}

#[test]
fn the_script_for_secrets_makes_them_once_and_for_nodes_of_any_user() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("secrets");
    let run = || {
        let script = root().join("deploy/secrets.sh");
        let ran = Command::new(script).arg(&made).output().expect("it runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let said = String::from_utf8(ran.stdout).expect("text");
        (said, SECRETS.map(|(_, file)| std::fs::read_to_string(made.join(file)).expect("made")))
    };
    let (said, secrets) = run();
    let [key, token] = &secrets;
    assert!(key != token && !said.contains(key.trim()) && !said.contains(token.trim()), "{said}");
    assert_eq!(run().1, secrets, "what is there stays");
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&made), 0o700);
    for (_, file) in SECRETS {
        assert_eq!(mode(&made.join(file)), 0o644);
    }
    let told =
        SECRETS.map(|(name, file)| (format!("{name}_FILE"), made.join(file).display().to_string()));
    let settings = Settings::load(None, told, &[]).expect("good").settings;
    assert_eq!(GivenKey::of(&settings).expect("one").read().expect("a key").ids().len(), 1);
    assert!(AdminToken::load(&settings).expect("a token").file().is_some());
}

/// Runs `command`; `false`, said aloud, if this machine has no such program.
fn checked(command: &[&str]) -> bool {
    let (program, arguments) = command.split_first().expect("a program");
    let Ok(ran) = Command::new(program).args(arguments).current_dir(root()).output() else {
        // Not eprintln: the test runner hides that of tests that pass.
        let _ = writeln!(std::io::stderr(), "skipped: this machine has no {program}");
        return false;
    };
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    true
}

#[test]
fn compose_takes_every_compose_file() {
    // Compose is a plugin of Docker's or, before, a program of its own.
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    let compose: &[&str] = match plugin.is_ok_and(|ran| ran.status.success()) {
        true => &["docker", "compose"],
        false => &["docker-compose"],
    };
    let files = manifests().into_iter().map(|(name, _)| name);
    for file in files.filter(|name| name.contains("docker-compose") && name.ends_with(".yml")) {
        let check = ["-f", &file, "config", "-q"];
        // balena's paths are meant from the root of the checkout.
        let folder = if file.contains("balena") { "." } else { "deploy" };
        let command = [compose, &["--project-directory", folder], &check].concat();
        if !checked(&command) {
            let required = std::env::var("P2PFAAS_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
            assert!(!required, "P2PFAAS_REQUIRE_DOCKER is set and there is no Compose");
            return;
        }
    }
}

#[test]
fn kustomize_takes_the_manifests_for_kubernetes() {
    checked(&["kubectl", "kustomize", "deploy/kubernetes"]);
}

#[test]
fn the_dashboard_is_json_with_panels() {
    let text = std::fs::read_to_string(root().join("deploy/prometheus/dashboard.json"));
    let dashboard: serde_json::Value = serde_json::from_str(&text.expect("a file")).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 5));
}
