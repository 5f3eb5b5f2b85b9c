//! The files of an agent and a relay, tried by another user of the machine.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use hearth_tests::{
    not_tried,
    process::{Finished, Home, finish},
    test_bed::TestBed,
};

/// The user `nobody`.
const NOBODY: &str = "65534";

#[tokio::test]
async fn another_user_reads_no_file_of_agent_and_relay_that_holds_a_secret() {
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !has_setpriv || fs::metadata("/proc/self").unwrap().uid() != 0 {
        not_tried("only root, with setpriv, may try to read a file as another user");
        return;
    }
    let (bed, _ollama) = TestBed::scripted().await;
    // Makes the file with the owner's choices.
    assert!(finish(bed.hearth(&["pause"])).await.status.success());
    let home = bed.home.path();
    let mut found = Vec::new();
    files(home, &mut found);
    let names: Vec<_> = found
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    for name in ["hub.token", "relay.db", "relay.db-wal", "wishes.json"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }

    // Not the folders keep others out, but the mode of each file.
    open_folders(home);
    let open = home.join("open");
    fs::write(&open, "anybody may read this").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let read = cat(&bed.home, &open).await;
    assert_eq!(read.stdout, "anybody may read this", "{}", read.stderr);
    // A lock is an empty file, and holds no secret.
    let holds = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
    let mut refused = 0;
    for path in found.iter().filter(holds) {
        let read = cat(&bed.home, path).await;
        assert!(!read.status.success(), "{}", path.display());
        assert_eq!(read.stdout, "", "{}", path.display());
        assert!(read.stderr.contains("Permission denied"), "{}", read.stderr);
        refused += 1;
    }
    assert!(refused >= 4, "only {refused} of {found:?}");
}

/// Reads the file as another user.
async fn cat(home: &Home, path: &Path) -> Finished {
    let mut command = home.command("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    command.arg("cat").arg(path).env("LC_ALL", "C");
    finish(command).await
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn open_folders(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let entries = fs::read_dir(folder).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            open_folders(&path);
        }
    }
}
