//! What a process in the jail can and cannot do, tried by one.

use crate::executor::fixture::{self, Folder};
use std::fs;
use std::process::{Command, Output};

/// Runs the example in the jail, as another user where this one is root.
fn jailed(folder: &Folder) -> Output {
    let (dir, readable) = (folder.path().join("dir"), folder.path().join("readable"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&readable).unwrap();
    fs::write(readable.join("readable"), "seen").unwrap();
    fs::write(folder.path().join("outside"), "unseen").unwrap();
    let uid = fixture::uid();
    if let Some(uid) = uid {
        std::os::unix::fs::chown(&dir, Some(uid), Some(uid)).unwrap();
        std::os::unix::fs::chown(&readable, Some(uid), Some(uid)).unwrap();
    }
    let mut command = Command::new(fixture::binary());
    command.arg("jailed").arg(&dir).arg(&readable).arg(uid.map_or("none".into(), |uid| uid.to_string()));
    command.env_remove("TMPDIR").output().unwrap()
}

#[test]
fn a_jailed_process_reaches_what_it_was_given_and_nothing_else() {
    let lacks = super::grants::lacks();
    let folder = Folder::new();
    let output = jailed(&folder);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut denied = 0;
    for line in said.lines().filter(|line| !line.starts_with("weakness")) {
        let (what, result) = line.split_once(": ").unwrap();
        let given = ["read what it may", "write in its directory", "remove in its directory", "start a thread", "see its socket"];
        let by_landlock = ["read", "list", "write"].iter().any(|verb| what.starts_with(verb));
        if given.contains(&what) {
            assert_eq!(result, "allowed", "{what}");
        } else if lacks.is_some() && by_landlock {
            println!("skipped: {what}: {lacks:?}");
        } else {
            assert!(result == "denied 1" || result == "denied 13", "{line}");
            denied += 1;
        }
    }
    assert!(denied >= if lacks.is_some() { 9 } else { 17 }, "{denied} things were denied:\n{said}");
    assert!(!folder.path().join("readable/written").exists() && !folder.path().join("dir/link").exists());
}

#[test]
fn a_step_that_fails_is_named_with_what_the_system_said() {
    let folder = Folder::new();
    // Another thread runs already: that of the test.
    let error = super::enter(&super::Confinement { writable: vec![folder.path().into()], ..super::Confinement::default() }).unwrap_err();
    assert_eq!(error.step, "one thread");
    assert!(error.to_string().contains("threads run already"), "{error}");
}

#[test]
fn what_is_lacking_is_said_in_sentences() {
    for sentence in super::probe() {
        assert!(sentence.len() > 40 && sentence.contains(": "), "{sentence}");
    }
    assert_eq!(super::probe().iter().any(|sentence| sentence.starts_with("not root")), !rustix::process::geteuid().is_root());
}
