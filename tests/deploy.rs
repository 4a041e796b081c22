//! The scripts and units of `deploy/`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
