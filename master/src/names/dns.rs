//! Names of services over DNS (RFC 1035; SRV: RFC 2782): `JOB.ROLE.skep` has the addresses of all its instances, `INDEX.JOB.ROLE.skep` that of one,
//! `_PORT._tcp.JOB.ROLE.skep` is where a port of its template is, and SRV of the names without a port says all of their ports. A role within others
//! is written as DNS has it, the innermost first: the role `shop/web` is `web.shop`. Answers for nothing else, and asks nobody else.
//!
//! Whoever reaches the port learns where services are, without a token: so there is none unless somebody names one.

use super::{Instance, Names, Service};
use protocol::{Name, Role};
use simple_dns::rdata::{A, AAAA, RData, SOA, SRV};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The zone that is answered for.
pub const ZONE: &str = "skep";
/// Seconds for which an answer may be kept.
const TTL_S: u32 = 1;
/// Longest answer over UDP to who says nothing, and to who says that it takes more (RFC 6891; what fits into one packet on any usual link).
const UDP_BYTES: usize = 512;
const UDP_BYTES_MAX: usize = 1_232;
/// Most bytes of a question: a name has 255.
const QUESTION_BYTES_MAX: usize = 1_024;
/// Most instances in one answer over TCP: the packet's length has 16 bits.
const TCP_INSTANCES_MAX: usize = 500;
/// Most questions over UDP that are being answered; those beyond are not heard, and asked again.
const ANSWERING_MAX: usize = 256;
/// Most connections, and how long one may say nothing.
const CONNECTIONS_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(5);

/// The port, taken.
#[derive(Debug)]
pub struct Taken {
    udp: UdpSocket,
    tcp: TcpListener,
    /// Where.
    pub address: SocketAddr,
}

/// Takes an address for UDP and TCP.
///
/// # Errors
/// What the system says, with the address.
pub async fn take(address: SocketAddr) -> io::Result<Taken> {
    let explained = |error: io::Error| io::Error::new(error.kind(), format!("DNS at {address}: {error}"));
    let tcp = TcpListener::bind(address).await.map_err(explained)?;
    let address = tcp.local_addr()?;
    Ok(Taken { udp: UdpSocket::bind(address).await.map_err(explained)?, tcp, address })
}

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    task: JoinHandle<((), ())>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers from now on, on the runtime that it is called in.
#[must_use]
pub fn serve(taken: Taken, names: Arc<Names>) -> Running {
    let server = Arc::new(Server { names, turn: AtomicUsize::new(0) });
    let udp = over_udp(Arc::new(taken.udp), Arc::clone(&server));
    let both = futures::future::join(udp, over_tcp(taken.tcp, server));
    Running { address: taken.address, task: tokio::spawn(both) }
}

#[derive(Debug)]
struct Server {
    names: Arc<Names>,
    /// Each answer begins with another instance: so callers spread.
    turn: AtomicUsize,
}

async fn over_udp(socket: Arc<UdpSocket>, server: Arc<Server>) {
    let room = Arc::new(Semaphore::new(ANSWERING_MAX));
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        // What a peer that is gone answers is told to the next read: nothing of that is ours.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (socket, server, asked) = (Arc::clone(&socket), Arc::clone(&server), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = server.answer(&asked, None).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(permit);
        });
    }
}

async fn over_tcp(listener: TcpListener, server: Arc<Server>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(IDLE / 50).await; // Too many files are open.
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let _ = converse(stream, &server).await;
            drop(permit);
        });
    }
}

/// Questions and answers, each behind its length, until the caller is silent.
async fn converse(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        if usize::from(length) > QUESTION_BYTES_MAX {
            return Ok(());
        }
        let mut asked = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut asked)).await??;
        let Some(answer) = server.answer(&asked, Some(usize::from(u16::MAX))).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        tokio::time::timeout(IDLE, async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        })
        .await??;
    }
}

impl Server {
    /// The answer to a packet, no longer than `most` bytes, or than whoever asks over UDP takes; `None` where it is none to be answered.
    async fn answer(&self, asked: &[u8], most: Option<usize>) -> Option<Vec<u8>> {
        let asked = Packet::parse(asked).ok().filter(|asked| !asked.has_flags(PacketFlag::RESPONSE))?;
        let says = asked.opt().map_or(UDP_BYTES, |opt| usize::from(opt.udp_packet_size));
        let most = most.unwrap_or_else(|| says.clamp(UDP_BYTES, UDP_BYTES_MAX));
        let mut reply = Packet::new_reply(asked.id());
        *reply.opcode_mut() = asked.opcode();
        if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        let code = match asked.questions.as_slice() {
            _ if asked.opcode() != OPCODE::StandardQuery => RCODE::NotImplemented,
            [question] => {
                reply.questions.push(question.clone());
                self.look_up(question, &mut reply).await
            }
            _ => RCODE::FormatError,
        };
        *reply.rcode_mut() = code;
        pack(reply, most)
    }

    async fn look_up(&self, question: &Question<'_>, reply: &mut Packet<'_>) -> RCODE {
        let labels: Vec<String> = question.qname.get_labels().iter().map(|label| label.to_string().to_ascii_lowercase()).collect();
        let is_ours = labels.last().is_some_and(|last| last == ZONE);
        if !is_ours
            || !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY)
            || matches!(question.qtype, QTYPE::AXFR | QTYPE::IXFR)
        {
            return RCODE::Refused;
        }
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let labels: Vec<&str> = labels[..labels.len() - 1].iter().map(String::as_str).collect();
        let found = match labels.is_empty() {
            true => Ok(Some(Vec::new())),
            false => self.found(&labels, question.qtype).await,
        };
        let code = match found {
            Err(super::Unknown) => return RCODE::ServerFailure,
            Ok(None) => RCODE::NameError,
            Ok(Some(records)) => {
                let name = question.qname.clone().into_owned();
                reply.answers.extend(records.into_iter().map(|data| ResourceRecord::new(name.clone(), CLASS::IN, TTL_S, data)));
                RCODE::NoError
            }
        };
        if reply.answers.is_empty() {
            reply.name_servers.push(authority());
        }
        code
    }

    /// What a name below the zone has of a type; `None` where there is no such name.
    async fn found(&self, labels: &[&str], wanted: QTYPE) -> Result<Option<Vec<RData<'static>>>, super::Unknown> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for sought in Sought::of(labels) {
            let Some(service) = self.names.find(&sought.role, &sought.job).await? else { continue };
            if let Some(records) = sought.records(&service, wanted, turn) {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }
}

/// What a name may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sought {
    role: Role,
    job: Name,
    /// Only this instance.
    index: Option<u32>,
    /// Only this port.
    port: Option<String>,
}

impl Sought {
    /// All that labels below the zone may stand for, the likelier first: a job may be called as an index is.
    fn of(labels: &[&str]) -> Vec<Self> {
        let (port, rest) = match labels {
            [port, "_tcp" | "_udp", rest @ ..] if port.starts_with('_') => (Some(port[1..].to_owned()), rest),
            rest => (None, rest),
        };
        let job_in = |labels: &[&str], index: Option<u32>| {
            let (job, role) = labels.split_first()?;
            let role: Vec<&str> = role.iter().rev().copied().collect();
            let role = Role::new(&role.join("/")).ok()?;
            Some(Self { role, job: Name::new(job).ok()?, index, port: port.clone() })
        };
        let whole = job_in(rest, None);
        let one = rest.split_first().and_then(|(index, rest)| job_in(rest, Some(index.parse().ok()?)));
        whole.into_iter().chain(one).collect()
    }

    /// What the service has of it; `None` where it has no such instance or port.
    fn records(&self, service: &Service, wanted: QTYPE, turn: usize) -> Option<Vec<RData<'static>>> {
        let all = &service.instances;
        let (first, second) = all.split_at(turn.checked_rem(all.len()).unwrap_or(0));
        let instances = second.iter().chain(first).filter(|instance| self.index.is_none_or(|index| index == instance.index));
        let instances: Vec<&Instance> = instances.take(TCP_INSTANCES_MAX).collect();
        let has_port = |port: &String| all.iter().any(|instance| instance.ports.iter().any(|(name, _)| name.as_str() == port));
        if instances.is_empty() && self.index.is_some() || self.port.as_ref().is_some_and(|port| !has_port(port)) {
            return None;
        }
        let is_wanted = |of: TYPE| wanted == QTYPE::TYPE(of) || wanted == QTYPE::ANY;
        let mut records: Vec<RData<'static>> = Vec::new();
        if self.port.is_none() {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in instances.iter().filter_map(|instance| instance.address) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            records.extend(addresses.into_iter().filter_map(|address| match address {
                IpAddr::V4(ip) if is_wanted(TYPE::A) => Some(RData::A(A { address: ip.into() })),
                IpAddr::V6(ip) if is_wanted(TYPE::AAAA) => Some(RData::AAAA(AAAA { address: ip.into() })),
                _ => None,
            }));
        }
        if is_wanted(TYPE::SRV) {
            for instance in &instances {
                let ports = instance.ports.iter().filter(|(name, _)| self.port.as_ref().is_none_or(|port| name.as_str() == port));
                records.extend(ports.filter_map(|(_, port)| {
                    let target = format!("{}.{}", instance.index, name_of(&service.role, &service.name));
                    let target = simple_dns::Name::new(&target).ok()?.into_owned();
                    Some(RData::SRV(SRV { priority: 0, weight: 1, port: *port, target }))
                }));
            }
        }
        Some(records)
    }
}

/// The name of a service, as it is asked for.
#[must_use]
pub fn name_of(role: &Role, job: &Name) -> String {
    let role: Vec<&str> = role.as_str().split('/').rev().collect();
    format!("{}.{}.{ZONE}", job.as_str(), role.join("."))
}

/// Says for how long nothing is nothing.
fn authority() -> ResourceRecord<'static> {
    let name = |text: &'static str| simple_dns::Name::new_unchecked(text);
    let ttl = i32::try_from(TTL_S).unwrap_or(1);
    let soa = SOA { mname: name("ns.skep"), rname: name("nobody.skep"), serial: 1, refresh: ttl, retry: ttl, expire: ttl, minimum: TTL_S };
    ResourceRecord::new(name(ZONE), CLASS::IN, TTL_S, RData::SOA(soa))
}

/// The packet with as many of its answers as fit, and a mark where they are not all.
fn pack(mut reply: Packet<'_>, most: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = reply.build_bytes_vec_compressed().ok()?;
        if bytes.len() <= most {
            return Some(bytes);
        }
        if reply.answers.is_empty() {
            return None;
        }
        reply.set_flags(PacketFlag::TRUNCATION);
        // Answers of one name and type are about as long as each other.
        let fitting = reply.answers.len() * most / bytes.len();
        reply.answers.truncate(fitting.min(reply.answers.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{AgentId, JobId, ShardId};

    fn service(count: u32) -> Service {
        let name = |text: &str| Name::new(text).unwrap();
        let instance = |index: u32| Instance {
            index,
            attempt: 1,
            agent: AgentId(7),
            host: "a1".into(),
            address: Some(IpAddr::from([10, 0, (index / 200) as u8, (index % 200) as u8])),
            ports: vec![(name("http"), 31_000), (name("admin"), 31_001)],
        };
        let job = JobId::new(ShardId(0), 1);
        Service { job, role: Role::new("shop/web").unwrap(), name: name("front"), instances: (0..count).map(instance).collect() }
    }

    #[test]
    fn names_stand_for_jobs_instances_and_ports() {
        let of = |text: &str| {
            let labels: Vec<&str> = text.split('.').collect();
            let all = Sought::of(&labels);
            all.into_iter().map(|s| format!("{} {} {:?} {:?}", s.role, s.job.as_str(), s.index, s.port)).collect::<Vec<_>>()
        };
        assert_eq!(of("front.web.shop"), ["shop/web front None None"]);
        assert_eq!(of("3.front.web.shop"), ["shop/web/front 3 None None", "shop/web front Some(3) None"]);
        assert_eq!(of("_http._tcp.front.web"), ["web front None Some(\"http\")"]);
        assert_eq!(of("front"), Vec::<String>::new());
        assert_eq!(of("fr_ont.web"), Vec::<String>::new());
        assert_eq!(name_of(&service(1).role, &service(1).name), "front.web.shop.skep");
    }

    #[test]
    fn each_type_has_its_records() {
        let sought = |index: Option<u32>, port: Option<&str>| Sought {
            role: service(1).role,
            job: service(1).name,
            index,
            port: port.map(str::to_owned),
        };
        let count = |sought: &Sought, wanted: TYPE| sought.records(&service(3), QTYPE::TYPE(wanted), 1).map(|records| records.len());
        assert_eq!((count(&sought(None, None), TYPE::A), count(&sought(None, None), TYPE::AAAA)), (Some(3), Some(0)));
        assert_eq!((count(&sought(None, None), TYPE::SRV), count(&sought(Some(2), None), TYPE::SRV)), (Some(6), Some(2)));
        assert_eq!((count(&sought(None, Some("http")), TYPE::SRV), count(&sought(None, Some("http")), TYPE::A)), (Some(3), Some(0)));
        assert_eq!((count(&sought(Some(3), None), TYPE::A), count(&sought(None, Some("ftp")), TYPE::SRV)), (None, None));
        let none = Service { instances: vec![], ..service(0) };
        assert_eq!(sought(None, None).records(&none, QTYPE::TYPE(TYPE::A), 5), Some(vec![]));
    }

    #[test]
    fn an_answer_is_cut_to_what_the_caller_takes() {
        let sought = Sought { role: service(1).role, job: service(1).name, index: None, port: None };
        let mut reply = Packet::new_reply(9);
        let name = simple_dns::Name::new("front.web.shop.skep").unwrap();
        for data in sought.records(&service(400), QTYPE::TYPE(TYPE::A), 0).unwrap() {
            reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, TTL_S, data));
        }
        for most in [UDP_BYTES, UDP_BYTES_MAX] {
            let bytes = pack(reply.clone(), most).unwrap();
            let read = Packet::parse(&bytes).unwrap();
            assert!(
                bytes.len() <= most && read.has_flags(PacketFlag::TRUNCATION) && read.answers.len() > most / 40,
                "{}",
                read.answers.len()
            );
        }
        let bytes = pack(reply, usize::from(u16::MAX)).unwrap();
        assert_eq!(Packet::parse(&bytes).unwrap().answers.len(), 400);
    }
}
