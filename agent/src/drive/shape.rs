//! What the agent says of itself: what the machine has, what it was started with, and over both what an operator said since, which is kept here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::agent::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, RESOURCES_BYTES_MAX};
use protocol::reservation::RESERVATIONS_MAX;
use protocol::{AgentChange, AgentInfo, Attributes, FaultDomain, Reservation, Resources};

use super::{AgentConfig, AgentError, Door, whole};
use crate::fingerprint::{self, Have};
use crate::ledger::event::Event;

/// All of it.
pub(super) struct Shape {
    path: PathBuf,
    /// As it was when the agent began: what tasks write does not make its disk smaller.
    have: Have,
    /// What people call it.
    pub name: String,
    attributes: Attributes,
    domain: FaultDomain,
    /// Where names of services are answered for, as tasks are told; empty: nobody said.
    pub dns: String,
    /// What of its capacity is kept for roles.
    pub reservations: Vec<Reservation>,
    /// What its machine or its rights lack.
    pub weaknesses: Vec<String>,
    /// What an operator said since.
    set: AgentChange,
}

impl Shape {
    /// What the machine has, under what its agent was started with.
    pub fn open(config: &AgentConfig) -> Result<Self, AgentError> {
        let mut have = fingerprint::have(&config.data_dir)?;
        if let Some(text) = &config.resources {
            have = fingerprint::overridden(have, text)?;
        }
        let path = config.data_dir.join("changed");
        let set = read(&path).map_err(|source| AgentError::File { step: "reading", path: path.clone(), source })?;
        let shape = Self {
            path,
            have,
            name: config.name.clone().unwrap_or_else(fingerprint::host),
            attributes: config.attributes.clone(),
            domain: config.domain.clone(),
            dns: config.dns.join(","),
            reservations: config.reservations.clone(),
            weaknesses: config.template.weaknesses().to_vec(),
            set,
        };
        shape.check_reservations(&shape.info()?)?;
        Ok(shape)
    }

    /// There is as much of everything as is kept of it, each role once.
    fn check_reservations(&self, info: &AgentInfo) -> Result<(), AgentError> {
        let wrong = |reason: String| AgentError::Info { field: "reserve", reason };
        if self.reservations.len() > RESERVATIONS_MAX {
            return Err(wrong(format!("at most {RESERVATIONS_MAX} roles")));
        }
        let mut sum = Resources::NONE;
        for (at, one) in self.reservations.iter().enumerate() {
            if self.reservations[..at].iter().any(|other| other.reserved == one.reserved) {
                return Err(wrong(format!("the role {} is there twice", one.reserved.role)));
            }
            sum = sum.checked_add(&one.resources).ok_or_else(|| wrong("more than there can be".into()))?;
        }
        match info.capacity.short_of(&sum)[..] {
            [] => Ok(()),
            [ref kind, ..] => Err(wrong(format!("more {kind} would be kept than the agent has"))),
        }
    }

    /// What the agent says of itself; what operators said of it is checked.
    pub fn info(&self) -> Result<AgentInfo, AgentError> {
        self.with(&self.set)
    }

    /// All that operators would have said with this, and what the agent would say of itself then.
    pub fn changed(&self, change: AgentChange) -> Result<(AgentChange, AgentInfo), AgentError> {
        let set = change.over(self.set.clone());
        if set.resources.len() > RESOURCES_BYTES_MAX || set.attributes.len() > ATTRIBUTES_MAX {
            let reason = format!("at most {RESOURCES_BYTES_MAX} bytes, and {ATTRIBUTES_MAX} attributes");
            return Err(AgentError::Info { field: "resources", reason });
        }
        let info = self.with(&set)?;
        Ok((set, info))
    }

    /// It is so from now on, also when the agent starts again.
    pub fn keep(&mut self, set: AgentChange) -> Result<(), AgentError> {
        let failed = |source| AgentError::File { step: "writing", path: self.path.clone(), source };
        let bytes = postcard::to_allocvec(&set).map_err(|error| failed(io::Error::other(error.to_string())))?;
        whole::write(&self.path, &bytes).map_err(failed)?;
        self.set = set;
        Ok(())
    }

    fn with(&self, set: &AgentChange) -> Result<AgentInfo, AgentError> {
        let have = fingerprint::overridden(self.have.clone(), &set.resources)?;
        let mut attributes = fingerprint::attributes(&self.attributes);
        for (name, value) in &set.attributes {
            match value {
                Some(value) => drop(attributes.insert(name.clone(), value.clone())),
                None => drop(attributes.remove(name)),
            }
        }
        let info = AgentInfo {
            name: self.name.clone(),
            capacity: have.capacity,
            ports: have.ports,
            attributes,
            domain: set.domain.as_ref().unwrap_or(&self.domain).clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            weaknesses: self.weaknesses.clone(),
        };
        checked(info)
    }
}

impl Door {
    /// The agent is as an operator says, if that leaves what it has promised: on disk before its masters are told. Its tasks go on.
    pub(super) fn change(&mut self, change: AgentChange) -> Result<(), String> {
        let (set, info) = self.shape.changed(change).map_err(|error| error.to_string())?;
        if let Some(reason) = self.ledger.against(&info) {
            return Err(reason);
        }
        self.shape.keep(set).map_err(|error| error.to_string())?;
        self.ledger.handle(self.clock.now(), Event::Changed { info: Box::new(info) });
        Ok(())
    }
}

fn checked(info: AgentInfo) -> Result<AgentInfo, AgentError> {
    let wrong = |field| {
        let reason = format!("1 to {ATTRIBUTE_BYTES_MAX} bytes without control characters are allowed, and {ATTRIBUTES_MAX} attributes");
        AgentError::Info { field, reason }
    };
    let short = |text: &str| text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control);
    let domain = [&info.domain.region, &info.domain.zone, &info.domain.rack];
    if info.name.is_empty() || !short(&info.name) {
        return Err(wrong("name"));
    }
    if info.attributes.len() > ATTRIBUTES_MAX
        || !info.attributes.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
    {
        return Err(wrong("attributes"));
    }
    if !domain.into_iter().all(|part| short(part)) {
        return Err(wrong("domain"));
    }
    assert!(AgentInfo { weaknesses: vec![], ..info.clone() }.is_bounded(), "each part was checked where it was made");
    Ok(info)
}

fn read(path: &Path) -> io::Result<AgentChange> {
    match fs::read(path) {
        Ok(bytes) => postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AgentChange::default()),
        Err(error) => Err(error),
    }
}
