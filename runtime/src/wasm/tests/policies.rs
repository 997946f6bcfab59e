//! Policies, from components that samples/build makes.

use crate::Metering;
use crate::wasm::compile::compile;
use crate::wasm::policy::{ADMISSION_FUEL, Amounts, Candidate, Job, Policies, Want};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("skep-policies-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The sample, compiled.
    fn compiled(&self, sample: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/dist").join(sample);
        let wasm = std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: run samples/build", path.display()));
        let compiled = self.0.join(sample);
        std::fs::write(&compiled, compile(&wasm, Metering::Fuel).unwrap()).unwrap();
        compiled
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn amounts(cpu_milli: u64) -> Amounts {
    Amounts { cpu_milli, memory_bytes: 0, disk_bytes: 0, ports: 0, devices_milli: vec![] }
}

fn want(role: &str) -> Want {
    Want { role: role.into(), priority: 50, needs: amounts(100), count: 3 }
}

fn candidate(name: &str, free_cpu_milli: u64, attributes: &[(&str, &str)]) -> Candidate {
    Candidate {
        name: name.into(),
        region: String::new(),
        zone: String::new(),
        rack: "r1".into(),
        attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        capacity: amounts(4_000),
        free: amounts(free_cpu_milli),
        attempts: 0,
        room: 3,
    }
}

fn job(name: &str, count: u32, cpu_milli: u64) -> Job {
    Job {
        role: "default".into(),
        name: Some(name.into()),
        kind: "batch".into(),
        priority: 50,
        count,
        needs: amounts(cpu_milli),
        json: "{}".into(),
    }
}

fn policies() -> Policies {
    Policies::new(Path::new("skep")).unwrap()
}

#[test]
fn the_samples_say_what_they_are_for() {
    let (folder, policies) = (Folder::new("samples"), policies());
    let pack = policies.scores(&folder.compiled("pack.wasm")).unwrap();
    let shown = [candidate("empty", 4_000, &[]), candidate("full", 1_000, &[]), candidate("spot", 500, &[("spot", "true")])];
    for _ in 0..200 {
        let ranking = pack.score(&want("default"), &shown).unwrap();
        assert!(ranking.fill && ranking.scores == [0.0, 0.75, -0.125], "{ranking:?}");
    }
    let modest = policies.admissions(&folder.compiled("modest.wasm")).unwrap();
    assert_eq!(modest.admit(&job("small", 64, 1_000)).unwrap(), Ok(()));
    let refused = modest.admit(&job("large", 65, 1_000)).unwrap().unwrap_err();
    assert_eq!(refused, "its 65 tasks need 65 cores together; a job may have 64");
}

#[test]
fn a_policy_that_goes_wrong_ends_and_says_how() {
    let (folder, policies) = (Folder::new("wayward"), policies());
    let compiled = folder.compiled("wayward.wasm");
    let scores = policies.scores(&compiled).unwrap();
    let shown = [candidate("a", 4_000, &[]), candidate("b", 4_000, &[])];
    let said = |role: &str| scores.score(&want(role), &shown).map(|ranking| ranking.scores);
    assert_eq!(said("right"), Ok(vec![0.0, 1.0]));
    assert_eq!(said("few").map(|scores| scores.len()), Ok(1));
    assert!(said("nan").is_ok_and(|scores| scores.iter().all(|score| score.is_nan())));
    for (role, why) in [("loops", "out of fuel"), ("traps", "unreachable"), ("hungry", "unreachable")] {
        let reason = said(role).expect_err(role);
        assert!(reason.contains(why), "{role}: {reason}");
    }
    let admissions = policies.admissions(&compiled).unwrap();
    assert_eq!(admissions.admit(&job("fine", 1, 1)).unwrap(), Ok(()));
    assert_eq!(admissions.admit(&job("no", 1, 1)).unwrap(), Err("this policy says no".into()));
    let reason = admissions.admit(&job("loops", 1, 1)).unwrap_err();
    assert!(reason.contains(&ADMISSION_FUEL.to_string()), "{reason}");
}

#[test]
fn what_is_no_policy_or_imports_something_is_refused() {
    let (folder, policies) = (Folder::new("refused"), policies());
    for (sample, why) in [("modest.wasm", "placement-score"), ("nap.wasm", "may import nothing"), ("noop.wasm", "core module")] {
        let error = policies.scores(&folder.compiled(sample)).err().expect(sample).to_string();
        assert!(error.contains(why), "{sample}: {error}");
    }
    assert!(policies.admissions(&folder.compiled("pack.wasm")).is_err());
    std::fs::write(folder.0.join("text"), "no code").unwrap();
    assert!(policies.admissions(&folder.0.join("text")).is_err());
}
