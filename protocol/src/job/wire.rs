//! How a job stands in postcard. What came later is an extension: a job that has none has the bytes that it always had, so that builds of before
//! read it; one that has some says so in place of its kind, by a variant that builds of before do not know.

use super::{AFTER_MAX, About, Job, Kind, Restart, Template, Update};
use crate::place::Placement;
use crate::{Name, Role, bounded};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// Most extensions of one job.
const EXTENSIONS_MAX: usize = 16;

/// [`Job`], to be written.
#[derive(Serialize)]
struct Written<'a> {
    role: &'a Role,
    name: &'a Option<Name>,
    kind: WrittenKind<'a>,
    priority: u8,
    count: u32,
    template: &'a Arc<Template>,
    restart: &'a Restart,
    update_parallel: u32,
}

#[derive(Serialize)]
enum WrittenKind<'a> {
    Batch,
    Service,
    Task,
    Extended(Kind, Vec<WrittenExtension<'a>>),
    System,
}

/// What a job of before did not have. New ones at the end.
#[derive(Serialize)]
enum WrittenExtension<'a> {
    Place(&'a Placement),
    About(&'a About),
    Update(&'a Update),
    After(&'a [Name]),
}

/// [`Job`], as it is read.
#[derive(Deserialize)]
struct Read {
    role: Role,
    name: Option<Name>,
    kind: ReadKind,
    priority: u8,
    count: u32,
    template: Arc<Template>,
    restart: Restart,
    update_parallel: u32,
}

#[derive(Deserialize)]
enum ReadKind {
    Batch,
    Service,
    Task,
    Extended(Kind, #[serde(deserialize_with = "bounded::list::<_, _, EXTENSIONS_MAX>")] Vec<ReadExtension>),
    System,
}

#[derive(Deserialize)]
enum ReadExtension {
    Place(Placement),
    About(About),
    Update(Update),
    After(#[serde(deserialize_with = "bounded::list::<_, _, AFTER_MAX>")] Vec<Name>),
}

impl Serialize for Job {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.place.as_deref().map(WrittenExtension::Place);
        let about = self.about.as_deref().map(WrittenExtension::About);
        let update = (self.update != Update::default()).then_some(WrittenExtension::Update(&self.update));
        let after = (!self.after.is_empty()).then_some(WrittenExtension::After(&self.after));
        let extensions: Vec<WrittenExtension<'_>> = [place, about, update, after].into_iter().flatten().collect();
        let kind = match self.kind {
            kind if !extensions.is_empty() => WrittenKind::Extended(kind, extensions),
            Kind::Batch => WrittenKind::Batch,
            Kind::Service => WrittenKind::Service,
            Kind::Task => WrittenKind::Task,
            Kind::System => WrittenKind::System,
        };
        let Self { role, name, priority, count, template, restart, update_parallel, .. } = self;
        let (priority, count, update_parallel) = (*priority, *count, *update_parallel);
        Written { role, name, kind, priority, count, template, restart, update_parallel }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { role, name, kind, priority, count, template, restart, update_parallel } = Read::deserialize(deserializer)?;
        let (kind, extensions) = match kind {
            ReadKind::Batch => (Kind::Batch, vec![]),
            ReadKind::Service => (Kind::Service, vec![]),
            ReadKind::Task => (Kind::Task, vec![]),
            ReadKind::System => (Kind::System, vec![]),
            ReadKind::Extended(kind, extensions) => (kind, extensions),
        };
        let (mut place, mut about, mut update, mut after) = (None, None, Update::default(), Vec::new());
        for extension in extensions {
            match extension {
                ReadExtension::Place(placement) => place = (!placement.is_empty()).then(|| Arc::new(placement)),
                ReadExtension::About(said) => about = (!said.is_empty()).then(|| Arc::new(said)),
                ReadExtension::Update(how) => update = how,
                ReadExtension::After(names) => after = names,
            }
        }
        Ok(Self { role, name, kind, priority, count, template, restart, update_parallel, place, about, update, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::RestartPolicy;
    use crate::place::{Constraint, Field, Rule};
    use crate::{Digest, Limits, Member, Metering, Program, Resources};

    /// A kind as they knew it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum FormerKind {
        Batch,
        Service,
        Task,
    }

    /// A job as builds before extensions wrote it.
    #[derive(Serialize, Deserialize)]
    struct Former {
        role: Role,
        name: Option<Name>,
        kind: FormerKind,
        priority: u8,
        count: u32,
        template: Arc<Template>,
        restart: Restart,
        update_parallel: u32,
    }

    fn job(kind: Kind) -> Job {
        let resources = Resources { cpu_milli: 100, ..Resources::NONE };
        let limits = Limits {
            fuel_max: Some(1_000),
            cpu_time_ms_max: None,
            time_ms_max: None,
            memory_bytes_max: 1 << 20,
            table_elements_max: 100,
            host_bytes_max: 1 << 20,
            processes_max: 64,
            log_bytes_max: 1 << 16,
            log_bytes_per_s_max: 1 << 20,
        };
        let member = Member {
            name: None,
            program: Program::Wasm { bundle: Digest([7; 32]), metering: Metering::Fuel, strict: false },
            args: vec!["a".into()],
            env: vec![],
            config: vec![],
            stdin: None,
            resources: resources.clone(),
            ports: vec![],
            limits,
        };
        let restart = Restart {
            policy: RestartPolicy::Never,
            retries_max: None,
            backoff_first_ms: 1_000,
            backoff_factor_milli: 2_000,
            backoff_max_ms: 10_000,
        };
        Job {
            role: Role::new("web").unwrap(),
            name: Some(Name::new("shop").unwrap()),
            kind,
            priority: 50,
            count: 3,
            template: Arc::new(Template { members: vec![member], resources }),
            restart,
            update_parallel: 1,
            place: None,
            about: None,
            update: Update::default(),
            after: vec![],
        }
    }

    #[test]
    fn a_job_without_extensions_has_the_bytes_of_before() {
        for (kind, was) in [(Kind::Batch, FormerKind::Batch), (Kind::Service, FormerKind::Service), (Kind::Task, FormerKind::Task)] {
            let job = job(kind);
            let bytes = postcard::to_allocvec(&job).unwrap();
            let former: Former = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(former.kind, was);
            assert_eq!(postcard::to_allocvec(&former).unwrap(), bytes);
            assert_eq!(postcard::from_bytes::<Job>(&bytes).unwrap(), job);
        }
        let head = postcard::to_allocvec(&job(Kind::Service)).unwrap();
        // Role, name, kind, priority, count, one member without a name.
        assert_eq!(&head[..15], b"\x03web\x01\x04shop\x01\x32\x03\x01\x00");
    }

    #[test]
    fn a_system_job_is_what_builds_of_before_do_not_know() {
        let plain = Job { count: 0, ..job(Kind::System) };
        let after = Job { after: vec![Name::new("db").unwrap()], ..plain.clone() };
        for (job, head) in
            [(&plain, &b"\x03web\x01\x04shop\x04\x32\x00"[..]), (&after, &b"\x03web\x01\x04shop\x03\x03\x01\x03\x01\x02db"[..])]
        {
            let bytes = postcard::to_allocvec(job).unwrap();
            assert_eq!(&bytes[..head.len()], head);
            assert_eq!(postcard::from_bytes::<Job>(&bytes).unwrap(), *job);
            assert!(postcard::from_bytes::<Former>(&bytes).is_err());
            assert_eq!((job.since(), job.kind.lasts()), (3, true));
        }
    }

    #[test]
    fn a_job_with_a_place_is_read_by_whoever_knows_places_only() {
        let constraints = vec![Constraint { field: Field::Rack, rule: Rule::MaxPer(2) }];
        let place = Some(Arc::new(Placement { constraints, spread: vec![Field::Attribute("disk".into())] }));
        let job = Job { place, ..job(Kind::Service) };
        let bytes = postcard::to_allocvec(&job).unwrap();
        assert_eq!(postcard::from_bytes::<Job>(&bytes).unwrap(), job);
        assert!(postcard::from_bytes::<Former>(&bytes).is_err());
        // Role and name, the variant, the kind, one extension, and what it is: one constraint, rack, MAX_PER 2; one field, an attribute.
        assert_eq!(&bytes[..23], b"\x03web\x01\x04shop\x03\x01\x01\x00\x01\x03\x05\x02\x01\x04\x04di");
    }

    #[test]
    fn what_is_said_of_a_job_stands_behind_its_place() {
        let labels = vec![("team".to_owned(), "a".to_owned())];
        let about = About { labels, origin: Some(crate::job::Origin { by: "x".into(), note: "{}".into() }) };
        let job = Job { about: Some(Arc::new(about)), ..job(Kind::Service) };
        let bytes = postcard::to_allocvec(&job).unwrap();
        assert_eq!(postcard::from_bytes::<Job>(&bytes).unwrap(), job);
        // Role and name, the variant, the kind, one extension, and what it is: one label; an origin, by whom and of what.
        assert_eq!(&bytes[..26], b"\x03web\x01\x04shop\x03\x01\x01\x01\x01\x04team\x01a\x01\x01x\x02");
        let empty = Job { about: Some(Arc::default()), ..job.clone() };
        let read: Job = postcard::from_bytes(&postcard::to_allocvec(&empty).unwrap()).unwrap();
        assert_eq!((read.about, job.since()), (None, 3));
    }

    #[test]
    fn how_a_job_is_updated_and_what_it_waits_for_are_extensions() {
        let update = Update { canary: 1, max_over_milli: 500, ..Update::default() };
        let job = Job { update, after: vec![Name::new("db").unwrap()], ..job(Kind::Service) };
        let bytes = postcard::to_allocvec(&job).unwrap();
        assert_eq!(postcard::from_bytes::<Job>(&bytes).unwrap(), job);
        assert_eq!(job.since(), 3);
        // Role and name, the variant, the kind, two extensions: how it is updated (rolling, no least, 500 over, 1 first, …) and what it waits for.
        assert_eq!(&bytes[..19], b"\x03web\x01\x04shop\x03\x01\x02\x02\x00\x00\xf4\x03\x01");
        assert_eq!(&bytes[19..29], b"\xc0\xcf\x24\x01\x00\xe8\x07\x03\x01\x02");
    }
}
