//! The second of a template's two processes: one small process with one thread, which alone keeps root, and from which executors are forked. What
//! an agent asks for is made only in the template's own folders and groups, with no user but those that tasks and roles have.

use super::ask::{self, About, Answer, Ask, Hello, Refusal};
use super::clear;
use super::places::{Owner, Places, Which};
use super::run::{self, Lent, Machine};
use super::{own_mounts, session};
use crate::container::{self, absent_is_fine};
use crate::executor::apart::{LOOK_EACH, Watch};
use crate::executor::{ExecutorSpec, place};
use crate::jail::cell::network::Networks;
use crate::jail::cell::{self, Host, sys};
use crate::jail::cgroup::{Hierarchies, Pool, attach_at_once};
use crate::process::{IDS, IDS_PER_TASK, KEEPER, Network, ProcessSpec, ROLE_IDS, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, geteuid};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often is looked whether the host has changed, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves until nobody asks any more. One that takes another's place is not introduced `again`.
pub(super) fn serve(data: &Path, owner: Owner, binary: &Path, stream: UnixStream, again: bool) -> io::Result<()> {
    let mut template = match Template::begin(data, owner, binary) {
        Ok(template) => template,
        Err(reason) => {
            if !again {
                say(&stream, &Hello::Err(reason.clone()));
            }
            return Err(io::Error::other(reason));
        }
    };
    if !again {
        say(&stream, &Hello::Ok(template.about()));
    }
    // The hierarchies of control groups are found by now, and held.
    own_mounts::leave_out_what_no_task_needs();
    template.stream = Some(stream);
    loop {
        template.lendings.bury(&template.machine);
        template.keep_apart();
        let wait = template.waits();
        let Some(stream) = &template.stream else { break };
        if !comes(stream, wait)? {
            template.lendings.groups.sweep(Instant::now());
            continue;
        }
        let Some((conversation, file)) = ask::next(stream)? else { break };
        let Some(conversation) = conversation else { continue };
        // Whoever asks and then says nothing, or no request, finds it closed.
        if let Ok(asked) = ask::read::<Ask>(&conversation) {
            template.obey(asked, conversation, file);
        }
    }
    template.end();
    Ok(())
}

struct Template {
    /// Where requests come.
    stream: Option<UnixStream>,
    machine: Machine,
    binary: PathBuf,
    weaknesses: Vec<String>,
    lendings: Lendings,
    looked: Instant,
    /// Where some of its tasks, or of those of templates before, are promised no processor: what others do, and when that was read.
    watch: Option<Watch>,
    watched: Instant,
    watches: bool,
    /// As long as it is held, tasks join their control groups at once.
    _attaching: Option<OwnedFd>,
}

impl Template {
    fn begin(data: &Path, owner: Owner, binary: &Path) -> Result<Self, String> {
        cell::prepare();
        place::prepare_forks();
        let attaching = attach_at_once();
        let places = Places::furnish(data, owner)?;
        let host = Host::prepare(&places.processes())?;
        let hierarchies = Hierarchies::find();
        let weaknesses =
            crate::jail::probe().into_iter().chain(cell::lacks()).chain(hierarchies.lacks()).chain(hierarchies.lacks_places()).collect();
        let lendings = Lendings { networks: Networks::new(), groups: Pool::new(&hierarchies), lent: BTreeMap::new() };
        let machine = Machine { hierarchies, host, places, owner };
        let (binary, looked) = (binary.into(), Instant::now());
        // Those of templates before are where these left them.
        let watches = machine.hierarchies.is_populated(&machine.places.idle_group());
        let watch = Watch::open();
        Ok(Self { stream: None, machine, binary, weaknesses, lendings, looked, watch, watched: looked, watches, _attaching: attaching })
    }

    /// How long is waited for a request before something else is to be done; `None`: until it comes.
    fn waits(&self) -> Option<Duration> {
        let looks = self.watches && self.watch.is_some();
        if looks { Some(LOOK_EACH) } else { Some(LOOK_EVERY).filter(|_| !self.lendings.lent.is_empty()) }
    }

    /// Has tasks that are promised no processor run where others need none, while there are such.
    fn keep_apart(&mut self) {
        let Some(watch) = self.watch.as_mut().filter(|_| self.watches && self.watched.elapsed() >= LOOK_EACH) else { return };
        self.watched = Instant::now();
        if watch.look().is_some() {
            self.place_apart();
        }
        let is_populated = || self.machine.hierarchies.is_populated(&self.machine.places.idle_group());
        self.watches = self.lendings.lent.values().any(Lent::is_idle) || is_populated();
    }

    /// Where that cannot be, it is not tried again: such tasks run where they were put last, or on all processors.
    fn place_apart(&mut self) {
        let Machine { hierarchies, places, .. } = &self.machine;
        let placed = self.watch.as_ref().map(|watch| hierarchies.place(&places.idle_group(), watch.processors()));
        if let Some(Err(reason)) = placed {
            eprintln!("template: {reason}");
            self.watch = None;
        }
    }

    fn about(&self) -> About {
        let (places, bounded) = (self.machine.places.clone(), self.machine.hierarchies.lacks().is_empty());
        About { places, weaknesses: self.weaknesses.clone(), own_ids: geteuid().is_root(), bounded }
    }

    fn obey(&mut self, asked: Ask, conversation: UnixStream, file: Option<File>) {
        let (mut spec, until_ns) = match asked {
            Ask::Executor(spec) => (*spec, None),
            Ask::Fenced(spec, until_ns) => (*spec, Some(until_ns)),
            asked => {
                return match sys::fork() {
                    Ok(sys::Forked::Child) => {
                        self.leave_to_others();
                        self.answer(asked, conversation, file)
                    }
                    Ok(sys::Forked::Parent(_)) => {}
                    // Whoever asked finds the conversation closed.
                    Err(error) => eprintln!("template: forking: {error}"),
                };
            }
        };
        if self.looked.elapsed() > LOOK_EVERY {
            self.machine.host.renew();
            self.looked = Instant::now();
        }
        let allowed = allowed(&spec, &self.machine);
        let lent = self.lendings.lend(&mut spec, &self.machine.places);
        if lent.is_idle() && !self.watches {
            self.watches = true;
            self.place_apart();
        }
        match sys::fork() {
            Ok(sys::Forked::Child) => {
                self.leave_to_others();
                run::run(&spec, until_ns, allowed, conversation, lent, &self.machine)
            }
            Ok(sys::Forked::Parent(pid)) => drop(self.lendings.lent.insert(pid, lent)),
            Err(error) => eprintln!("template: forking an executor: {error}"),
        }
    }

    /// What was forked holds nothing of what the template has for others.
    fn leave_to_others(&mut self) {
        (self.stream, self.watch) = (None, None);
        self.lendings.networks = None;
        self.lendings.lent.clear();
    }

    /// In a process of its own, which ends with it.
    fn answer(&self, asked: Ask, conversation: UnixStream, file: Option<File>) -> ! {
        let (places, hierarchies) = (&self.machine.places, &self.machine.hierarchies);
        let said = |done: io::Result<()>| {
            say(&conversation, &Answer::from(done.map_err(|error| error.to_string())));
            0
        };
        let code = match asked {
            Ask::Executor(_) | Ask::Fenced(..) => unreachable!("it was taken out before"),
            Ask::Session(session) => session::serve(&session, places, conversation, hierarchies),
            Ask::Wasm(spec) => {
                // It comes back only where it did not become the executor.
                say(&conversation, &self.become_executor(&spec, &conversation));
                1
            }
            Ask::End(which) => said(clear::end(places, which)),
            Ask::Clear(which) => said(clear::clear(places, which, hierarchies)),
            Ask::Unpack(work) => container::serve(&places.unpacked(), &self.binary, &work, file, conversation),
            Ask::Vanish => said(places.vanish()),
        };
        sys::end_at_once(code)
    }

    /// This process becomes the executor of wasm tasks that is asked for; why not where it comes back.
    fn become_executor(&self, spec: &ExecutorSpec, conversation: &UnixStream) -> Refusal {
        let dir = self.machine.places.dir(Which::Wasm(spec.number));
        let refused = |step: &str, path: &Path, error: io::Error| (step.to_owned(), path.to_owned(), error.to_string());
        let is_role = spec.uid.map_or(self.machine.owner.0 == 0 || !geteuid().is_root(), |uid| ROLE_IDS.contains(&uid));
        if !is_role {
            return refused("giving a user to", &dir, io::Error::other(format!("{:?} is no role's", spec.uid)));
        }
        let (listener, errors) = match place::prepare(&dir, spec, self.machine.owner.0) {
            Ok(made) => made,
            Err((step, path, error)) => return refused(step, &path, error),
        };
        // Closed by the program's beginning, which tells that it began.
        if let Err(error) = rustix::io::fcntl_setfd(conversation, rustix::io::FdFlags::CLOEXEC) {
            return refused("starting", &self.binary, error.into());
        }
        if spec.idle {
            sys::allow_hurry();
        }
        let mut command = Command::new(&self.binary);
        command.arg("executor").arg(&dir).stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::from(errors));
        refused("starting", &self.binary, command.env_clear().current_dir("/").exec())
    }

    /// Nobody asks any more: what no task needs is removed, and all where no task is left.
    fn end(mut self) {
        let Machine { places, hierarchies, .. } = &self.machine;
        self.lendings.groups.clear();
        // With tasks in it neither can be removed.
        if absent_is_fine(fs::remove_dir(places.live())).is_ok() {
            let _ = hierarchies.remove(places.group());
            let _ = hierarchies.remove(&places.idle_group());
        }
    }
}

/// Says a whole message; who is gone misses nothing.
pub(super) fn say(mut to: &UnixStream, message: &impl serde::Serialize) {
    let _ = ask::framed(message).and_then(|bytes| to.write_all(&bytes));
}

/// Whether a task may be what it is asked to be: whatever an agent says, it is none of root's.
fn allowed(spec: &ProcessSpec, machine: &Machine) -> Result<(), String> {
    let places = &machine.places;
    if geteuid().is_root() {
        let own = spec.ids.outside.is_some_and(|first| IDS.contains(&first) && (first - IDS.start).is_multiple_of(IDS_PER_TASK));
        if !own || spec.ids.count > KEEPER {
            return Err(format!("{:?} are no ids of a task", spec.ids));
        }
    } else if spec.ids.outside.is_some() {
        return Err("users of their own take root".into());
    }
    if !places.has_group(&spec.cgroup) {
        return Err(format!("control group {:?}: expected one in {}", spec.cgroup, places.group()));
    }
    let stranger = match &spec.root {
        Root::Host { bundle, .. } => Some(bundle).filter(|bundle| !places.has_bundle(bundle)),
        Root::Layers { layers } => layers.iter().find(|layer| !places.has_layer(layer)),
    };
    match stranger {
        Some(path) => Err(format!("{} is nothing that was unpacked in {}", path.display(), places.unpacked().display())),
        None => Ok(()),
    }
}

/// Waits until something comes, or for so long.
fn comes(stream: &UnixStream, wait: Option<Duration>) -> io::Result<bool> {
    let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
    match poll(&mut [PollFd::new(stream, PollFlags::IN)], wait.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What executors have of what serves one task after another.
struct Lendings {
    networks: Option<Networks>,
    groups: Pool,
    lent: BTreeMap<u32, Lent>,
}

impl Lendings {
    /// Lends what the task may have.
    fn lend(&mut self, spec: &mut ProcessSpec, places: &Places) -> Lent {
        let network = match (&mut self.networks, spec.network) {
            (Some(networks), Network::None) => Some(networks.take()),
            _ => None,
        };
        let bounds = run::bounds(spec);
        // Of any other the executor says that it is none of ours.
        let group = Some(spec.cgroup.clone()).filter(|group| places.has_group(group));
        let slot = group.as_ref().and_then(|group| self.groups.take(group, &bounds));
        if let Some(slot) = &slot {
            spec.cgroup.clone_from(&slot.name);
        }
        Lent { network, slot, bounds, key: spec.key, group }
    }

    /// Buries executors that ended; of those that left nothing but an empty directory, what they had is free again.
    fn bury(&mut self, machine: &Machine) {
        while let Ok(Some((pid, how))) = rustix::process::wait(WaitOptions::NOHANG) {
            let lent = self.lent.remove(&pid.as_raw_nonzero().get().unsigned_abs());
            let Some(lent) = lent.filter(|_| how.exit_status() == Some(run::CLEAN)) else { continue };
            let _ = absent_is_fine(fs::remove_dir(machine.places.dir(Which::Process(lent.key)))); // It stays, empty.
            if let (Some(Ok(network)), Some(networks)) = (lent.network, self.networks.as_mut()) {
                networks.put_back(network);
            }
            match (lent.slot, lent.group) {
                (Some(slot), _) => self.groups.put_back(slot.name, lent.bounds),
                (None, Some(group)) => _ = machine.hierarchies.remove(&group), // It is empty; what stays is removed with its parent.
                (None, None) => {}
            }
        }
    }
}
