//! The scripts and units of `deploy/`.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes `folder` a PATH with nothing but these programs of the system, and programs of the names in
/// `failing` that do nothing but fail.
fn path_with(folder: &Path, programs: &[&str], failing: &[&str]) {
    let found = |program: &str| {
        let places = ["/bin", "/usr/bin"].map(|place| PathBuf::from(place).join(program));
        places.into_iter().find(|path| path.exists()).expect("every system has it")
    };
    for program in programs {
        symlink(found(program), folder.join(program)).expect("a link");
    }
    for program in failing {
        let path = folder.join(program);
        std::fs::write(&path, "#!/bin/sh\nexit 1\n").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    }
}

fn base_images(failing: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    path_with(folder.path(), &["bash", "dirname", "mktemp", "rm", "awk", "id"], failing);
    let script = root().join("deploy/base-images.sh");
    let bash = folder.path().join("bash");
    let mut command = Command::new(bash);
    command.args([script.as_os_str(), "aarch64".as_ref()]).env("PATH", folder.path());
    command.output().expect("it runs")
}

#[test]
fn base_images_says_which_program_is_missing_and_how_to_get_it() {
    for (there, missing) in [
        (&[][..], "docker is missing. Install Docker: apt-get install docker.io"),
        (&["docker"][..], "apt-get is missing"),
        (&["docker", "apt-get"][..], "debootstrap is missing. Install it as root: apt-get install"),
    ] {
        let ended = base_images(there);
        assert_eq!(ended.status.code(), Some(1), "{there:?}");
        let said = text(&ended.stderr);
        assert!(said.contains(missing) && !said.contains("not found"), "{said}");
    }
}

/// What `.ci/licences` says of one package; `None`: there is no Python that can run it.
/// Where most packages come from.
const REGISTRY: &str = "registry+https://registry.example/index";

fn licences(licence: serde_json::Value, source: serde_json::Value) -> Option<(bool, String)> {
    let can = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !can.is_ok_and(|ended| ended.status.success()) {
        return None;
    }
    let package = json!({"name": "x", "version": "1.0.0", "license": licence, "source": source});
    let mut check = Command::new(root().join(".ci/licences"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let other = json!({"name": "y", "version": "1.0.0", "license": "MIT", "source": REGISTRY});
    let metadata = json!({"packages": [package, other, other]}).to_string();
    check.stdin.take().expect("a pipe").write_all(metadata.as_bytes()).expect("it reads");
    let ended = check.wait_with_output().expect("it ends");
    Some((ended.status.success(), text(&ended.stderr)))
}

#[test]
fn licences_and_sources_that_are_not_allowed_are_refused() {
    for (licence, source, why) in [
        (json!("MIT OR Apache-2.0"), json!(REGISTRY), None),
        (json!("MIT/GPL-3.0"), json!(null), None),
        (json!("(MIT OR GPL-2.0) AND Apache-2.0 WITH LLVM-exception"), json!(REGISTRY), None),
        (json!("GPL-3.0"), json!(REGISTRY), Some("has the licence GPL-3.0")),
        (json!("MIT AND GPL-3.0"), json!(REGISTRY), Some("has the licence MIT AND GPL-3.0")),
        (json!("MIT WITH Some-exception"), json!(REGISTRY), Some("Some-exception")),
        (json!("(MIT"), json!(REGISTRY), Some("cannot be read")),
        (json!(null), json!(REGISTRY), Some("names no licence")),
        (json!("MIT"), json!("git+https://example.org/x"), Some("comes from git+https")),
        (json!("MIT"), json!("registry+https://example.org/"), Some("comes from registry+")),
    ] {
        let Some((passed, said)) = licences(licence.clone(), source) else {
            eprintln!("passed over: there is no Python 3.11 or later");
            return;
        };
        assert_eq!(passed, why.is_none(), "{licence}: {said}");
        assert!(said.contains(why.unwrap_or_default()), "{licence}: {said}");
    }
}
