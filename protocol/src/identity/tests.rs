//! Authorities, identities and their files.

use super::*;
use crate::Digest;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skep-identity-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::open_or_create(&self.0.join("ca")).unwrap()
    }

    pub(crate) fn authority_with_new_intermediate(&self) -> Authority {
        self.authority().with_new_intermediate(&self.0.join("ca")).unwrap().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn agent_identity(authority: &Authority, lifetime: Duration) -> Identity {
    let (key, request) = csr().unwrap();
    Identity::new(authority.issue_agent(AgentId(7), &request, lifetime).unwrap(), key).unwrap()
}

#[test]
fn an_authority_is_made_once_and_opened_after_that() {
    let folder = Folder::new();
    let made = folder.authority();
    let opened = folder.authority();
    assert_eq!((made.root_der(), made.cluster()), (opened.root_der(), opened.cluster()));
    assert_eq!(made.root_digest(), Digest::of(made.root_der()));
    assert!(made.root_pem().starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_ne!(Folder::new().authority().cluster(), made.cluster());
}

#[test]
fn only_the_owner_may_read_what_an_authority_writes() {
    let folder = Folder::new();
    let authority = folder.authority();
    agent_identity(&authority, AGENT_LIFETIME).save(&folder.0.join("agent")).unwrap();
    for dir in ["ca", "agent"] {
        let dir = folder.0.join(dir);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = Folder::new();
    folder.authority();
    let path = folder.0.join("ca/intermediate.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Authority::open_or_create(&folder.0.join("ca")).err().unwrap();
    assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error}");
}

#[test]
fn the_roots_key_may_be_kept_elsewhere() {
    let folder = Folder::new();
    let root = folder.authority().root_digest();
    fs::remove_file(folder.0.join("ca/root.key.pem")).unwrap();
    let opened = folder.authority();
    assert_eq!(opened.root_digest(), root);
    agent_identity(&opened, AGENT_LIFETIME);
}

#[test]
fn a_damaged_authority_is_refused_and_never_made_anew() {
    let files = ["ca/root.pem", "ca/intermediate.pem"];
    for file in files {
        for damage in [&b""[..], b"no pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &[b'x'; 70_000]] {
            let folder = Folder::new();
            folder.authority();
            fs::write(folder.0.join(file), damage).unwrap();
            assert!(Authority::open_or_create(&folder.0.join("ca")).is_err(), "{file}");
            assert_eq!(fs::read(folder.0.join(file)).unwrap(), damage);
        }
        let folder = Folder::new();
        folder.authority();
        fs::remove_file(folder.0.join(file)).unwrap();
        let error = Authority::open_or_create(&folder.0.join("ca")).err().unwrap();
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[test]
fn an_intermediate_of_another_cluster_is_refused() {
    let (one, other) = (Folder::new(), Folder::new());
    one.authority();
    other.authority();
    fs::copy(other.0.join("ca/intermediate.pem"), one.0.join("ca/intermediate.pem")).unwrap();
    assert!(Authority::open_or_create(&one.0.join("ca")).is_err());
}

#[test]
fn an_identity_is_loaded_as_it_was_saved() {
    let folder = Folder::new();
    let authority = folder.authority();
    let dir = folder.0.join("agent");
    assert!(Identity::load(&dir).unwrap().is_none());
    let agent = agent_identity(&authority, AGENT_LIFETIME);
    agent.save(&dir).unwrap();
    agent.save(&dir).unwrap();
    let loaded = Identity::load(&dir).unwrap().unwrap();
    assert_eq!((loaded.chain_der(), loaded.key_pkcs8_der()), (agent.chain_der(), agent.key_pkcs8_der()));
    assert_eq!((loaded.agent(), loaded.cluster(), loaded.root_der()), (Some(AgentId(7)), authority.cluster(), authority.root_der()));
    assert!(!loaded.is_due() && loaded.lifetime_left() > AGENT_LIFETIME / 2);
    assert!(agent_identity(&authority, Duration::from_secs(0)).is_due());
    let master = authority.issue_master(1, &["localhost".into(), "127.0.0.1".into(), "::1".into()], MASTER_LIFETIME).unwrap();
    assert_eq!(master.subject(), Subject::Master(1));
}

#[test]
fn an_identity_whose_parts_do_not_belong_together_is_refused() {
    let (one, other) = (Folder::new(), Folder::new());
    let (one, other) = (one.authority(), other.authority());
    let (key, request) = csr().unwrap();
    let (other_key, _) = csr().unwrap();
    let chain = one.issue_agent(AgentId(7), &request, AGENT_LIFETIME).unwrap();
    let mixed = vec![chain[0].clone(), chain[1].clone(), other.root_der().to_vec()];
    let swapped = vec![chain[1].clone(), chain[0].clone(), chain[2].clone()];
    let cases = [
        (chain.clone(), other_key),
        (mixed, key.clone()),
        (swapped, key.clone()),
        (vec![], key.clone()),
        (chain[..2].to_vec(), key.clone()),
    ];
    for (index, (chain, key)) in cases.into_iter().enumerate() {
        assert!(Identity::new(chain, key).is_err(), "case {index}");
    }
    assert!(Identity::new(chain, key).is_ok());
}

#[test]
fn of_a_request_only_its_key_is_believed() {
    let folder = Folder::new();
    let authority = folder.authority();
    // It asks to be a master and an authority.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(vec!["master.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let uri = format!("skep://{}/master/0", authority.cluster());
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    let request = params.serialize_request(&key).unwrap();
    if let Ok(chain) = authority.issue_agent(AgentId(9), request.der(), AGENT_LIFETIME) {
        let identity = Identity::new(chain, key.serialize_der()).unwrap();
        assert_eq!(identity.subject(), Subject::Agent(AgentId(9)));
    }
}

#[test]
fn a_request_that_is_none_is_refused() {
    let folder = Folder::new();
    let authority = folder.authority();
    let (_, good) = csr().unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default().serialize_request(&other).unwrap();
    let cases = [vec![], good[..good.len() - 1].to_vec(), forged, vec![0x30; 4_000], vec![0x30; 5_000], other.der().to_vec()];
    for (index, request) in cases.into_iter().enumerate() {
        let error = authority.issue_agent(AgentId(7), &request, AGENT_LIFETIME).err();
        assert!(matches!(error, Some(IdentityError::Malformed { .. })), "case {index}: {error:?}");
    }
}

#[test]
fn a_host_that_is_neither_name_nor_address_is_refused() {
    let folder = Folder::new();
    let authority = folder.authority();
    for host in ["", "a b", "a/b", "a\0", &"a".repeat(254), "é"] {
        assert!(authority.issue_master(1, &[host.to_owned()], MASTER_LIFETIME).is_err(), "{host:?}");
    }
    assert!(authority.issue_master(1, &vec!["a".to_owned(); 65], MASTER_LIFETIME).is_err());
}

#[test]
fn no_certificate_holds_longer_than_the_one_that_signs_it() {
    let folder = Folder::new();
    let identity = agent_identity(&folder.authority(), Duration::from_secs(u64::MAX));
    let chain: Vec<_> = identity.chain_der().iter().map(|der| Facts::of(der).unwrap().not_after_s).collect();
    assert!(chain[0] <= chain[1] && chain[1] <= chain[2], "{chain:?}");
}
