//! The rules of the house that a machine can hold: lengths, names, who may know whom, what pure rooms may not touch.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const ROOMS: [&str; 7] = ["protocol", "runtime", "agent", "master", "cli", "sim", "tests"];
const PURE: [&str; 5] = ["master/src/shard", "master/src/jobs", "master/src/admit", "master/src/plan", "agent/src/ledger"];
const NAMES_BANNED: [&str; 8] = ["util", "utils", "common", "helpers", "misc", "manager", "types", "handler"];

struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a folder of the checkout can be read").path()) {
        if entry.is_dir() && !entry.ends_with("target") {
            walk(&entry, found);
        } else if entry.is_file() {
            found.push(entry);
        }
    }
}

fn files(folders: &[&str], ending: &str) -> Vec<Source> {
    let mut found = vec![];
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).expect("found below the root").to_string_lossy().into_owned();
    found.iter().map(|path| Source { path: name(path), text: text(path) }).collect()
}

/// What is no UTF-8 is so on purpose: some hostile inputs are.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("a source can be read")).into_owned()
}

fn sources() -> Vec<Source> {
    let all = files(&ROOMS, ".rs");
    assert!(all.len() > 20, "the rules look at the whole house, not at {} files", all.len());
    all
}

/// The part of a file before its tests.
fn shipped(source: &Source) -> &str {
    let in_tests = source.path.starts_with("tests/") || source.path.contains("/tests") || source.path.ends_with("tests.rs");
    if in_tests { "" } else { source.text.split("#[cfg(test)]\nmod ").next().unwrap_or("") }
}

/// A line without its comment and the texts in it, so that words are not taken for code.
fn code(line: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        if !inside && line[at..].starts_with("//") {
            break;
        }
        if letter == '"' && before != '\\' && before != '\'' {
            inside = !inside;
        }
        if !inside {
            kept.push(letter);
        }
        before = letter;
    }
    kept
}

fn has_word(line: &str, word: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_');
    line.match_indices(word).any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

fn none(what: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}

fn lines_with(what: &str, words: &[&str], allowed: impl Fn(&str) -> bool, only: impl Fn(&str) -> bool) {
    let mut broken = vec![];
    for source in sources().iter().filter(|source| only(&source.path) && !allowed(&source.path)) {
        for (at, line) in shipped(source).lines().enumerate() {
            let line = code(line);
            if let Some(word) = words.iter().find(|word| has_word(&line, word)) {
                broken.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    none(what, broken);
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = vec![];
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            broken.push(format!("{}: {} lines, at most {FILE_LINES_MAX}", source.path, lines.len()));
        }
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = has_word(&code(line), "fn") && line.trim_end().ends_with('{');
            let end = format!("{}}}", " ".repeat(indent));
            let length = if starts { lines[at..].iter().position(|line| **line == end) } else { None };
            if let Some(length) = length.filter(|length| *length >= FUNCTION_LINES_MAX) {
                broken.push(format!("{}:{}: a function of {} lines, at most {FUNCTION_LINES_MAX}", source.path, at + 1, length + 1));
            }
        }
    }
    none("too long", broken);
}

#[test]
fn every_file_says_what_it_knows() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    none("no `//!` at the head", silent.map(|source| source.path).collect());
}

#[test]
fn names_say_something() {
    let stem = |source: &Source| Path::new(&source.path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let broken = sources().into_iter().filter(|source| stem(source).is_some_and(|stem| NAMES_BANNED.contains(&stem.as_str())));
    none("names that say nothing", broken.map(|source| source.path).collect());
}

#[test]
fn pure_rooms_decide_and_do_nothing_else() {
    let words = [
        "async",
        "await",
        "tokio",
        "Instant",
        "SystemTime",
        "thread",
        "Mutex",
        "RwLock",
        "rand",
        "getrandom",
        "HashMap",
        "HashSet",
        "fs",
        "net",
        "println",
        "eprintln",
        "tracing",
        "f32",
        "f64",
    ];
    lines_with("a pure room touches the world", &words, |_| false, |path| PURE.iter().any(|room| path.starts_with(room)));
}

#[test]
fn one_place_knows_quic_one_knows_wasmtime() {
    lines_with("names quinn", &["quinn"], |path| path.starts_with("protocol/src/link"), |_| true);
    let tls = |path: &str| {
        let folders = ["protocol/src/link", "protocol/src/identity", "master/src/http", "agent/src/checks/tls.rs"];
        folders.iter().any(|folder| path.starts_with(folder))
    };
    lines_with("names rustls", &["rustls"], tls, |_| true);
    let wasm = ["wasmtime", "wasmtime_wasi", "wasmtime_wasi_config"];
    lines_with("names wasmtime", &wasm, |path| path.starts_with("runtime/src/wasm/"), |_| true);
    lines_with("names openraft", &["openraft"], |path| path.starts_with("master/src/journal/"), |_| true);
}

#[test]
fn unsafe_stands_in_two_places_and_says_why() {
    let allowed = |path: &str| path.starts_with("runtime/src/jail/") || path == "runtime/src/wasm/cache.rs";
    lines_with("unsafe", &["unsafe"], allowed, |_| true);
    let mut broken = vec![];
    for source in sources().iter().filter(|source| allowed(&source.path)) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| has_word(&code(line), "unsafe") && !line.contains("allow(")) {
            let explained = lines[at.saturating_sub(6)..at].iter().any(|line| line.contains("SAFETY:"));
            if !explained {
                broken.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    none("unsafe without `// SAFETY:`", broken);
}

#[test]
fn the_missing_arrows_are_missing() {
    let allowed: [(&str, &[&str]); 5] = [
        ("protocol", &[]),
        ("runtime", &[]),
        ("agent", &["protocol", "runtime"]),
        ("master", &["protocol"]),
        ("sim", &["agent", "master", "protocol"]),
    ];
    let mut broken = vec![];
    for (room, knows) in allowed {
        let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).expect("every room has a manifest");
        let ours = ["protocol", "runtime", "agent", "master", "sim"].into_iter().filter(|name| {
            let named = |line: &str| line.starts_with(&format!("{name}.workspace")) || line.starts_with(&format!("{name} ="));
            manifest.lines().any(named)
        });
        broken.extend(ours.filter(|name| !knows.contains(name)).map(|name| format!("{room} knows {name}")));
    }
    none("an arrow that the house does not have", broken);
}

#[test]
fn nothing_of_a_machine_is_left_in_the_tree() {
    let mut broken = vec![];
    for ending in [".rs", ".toml", ".md", ".sh", ".wit", ".yml", ".py"] {
        for source in files(&["protocol", "runtime", "agent", "master", "cli", "sim", "tests", "samples", "wit", ".ci"], ending) {
            for (at, line) in source.text.lines().enumerate().filter(|_| source.path != "tests/it/tidy.rs") {
                // Put together here, so that the rule itself holds none.
                let marks = ["work", "farm", "root"].map(|folder| format!("/{folder}/"));
                broken.extend(
                    marks.iter().filter(|mark| line.contains(mark.as_str())).map(|mark| format!("{}:{}: {mark}", source.path, at + 1)),
                );
            }
        }
    }
    none("a machine's path", broken);
}
