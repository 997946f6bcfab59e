//! Starts what the ledger wants started: wasm by the executor of its kind, each process in one of its own.

use protocol::message::Launch;
use protocol::{AttemptId, Exit, Given, Loss, Member, MemberId, Program, Usage};

use super::{AgentError, Door, devices, open, processes, spec, table};
use crate::ledger::bundles::{need, needs};
use crate::ledger::event::{Event, Form, Start};
use crate::logs::key;

impl Door {
    pub(super) fn start(&mut self, Start { launch, ports, given, until }: Start) -> Result<(), AgentError> {
        let until_ns = until.map(|until| self.clock.boot_ns(until));
        let needs: Vec<_> = needs(&launch.template).collect();
        let touched: Vec<_> = needs.iter().filter(|(bundle, form)| self.fetcher.locate(*bundle, *form).is_none()).collect();
        if !touched.is_empty() {
            // Somebody touched a file: it is looked at again for the next ones; these are placed again.
            let now = self.clock.now();
            touched.into_iter().for_each(|(bundle, _)| self.ledger.handle(now, Event::Evicted { bundle: *bundle }));
            self.end_all(&launch, |_| true, &Exit::Lost { reason: Loss::Refused });
            return Ok(());
        }
        for (kind, at) in table::kinds(&launch) {
            let member = &launch.template.members[usize::from(at)];
            let (bundle, form) = need(&member.program);
            let compiled = self.fetcher.locate(bundle, form).unwrap_or_default();
            let stdin = member.stdin.and_then(|bundle| self.fetcher.locate(bundle, Form::Plain));
            let plan = open::plan(&launch, member, compiled, stdin, &self.name);
            for (given, attempts) in devices::alike(&launch, &ports, &given) {
                let starts = attempts.into_iter().map(|((index, number), ports)| runtime::Start {
                    key: key(MemberId { attempt: AttemptId::new(launch.job, *index, *number), member: at }),
                    index: *index,
                    attempt: *number,
                    ports: ports.clone(),
                });
                let starts = starts.collect();
                let mut plan = plan.clone();
                plan.env.extend(devices::environment(&launch, member, &given));
                let plan = runtime::Launch { plan, starts };
                let events = self.executors.start(launch.job, kind.clone(), plan, until_ns);
                let (events, now) = (events.map_err(|source| self.executors_error(source))?, self.clock.now());
                events.into_iter().for_each(|event| self.ledger.handle(now, event));
            }
        }
        self.start_processes(&launch, &ports, &given, until_ns);
        Ok(())
    }

    /// Those members that are processes, each in an executor of its own.
    fn start_processes(&mut self, launch: &Launch, ports: &[Vec<u16>], given: &[Given], until_ns: Option<u64>) {
        for (at, member) in (0..).zip(&launch.template.members) {
            let (bundle, form) = need(&member.program);
            if matches!(member.program, Program::Wasm { .. }) {
                continue;
            }
            let id = |(index, number): &(u32, u32)| MemberId { attempt: AttemptId::new(launch.job, *index, *number), member: at };
            let Some(prepared) = self.fetcher.unpacked(bundle, form) else {
                let lost = Exit::Lost { reason: Loss::Refused };
                let members = launch.attempts.iter().map(|attempt| (id(attempt), lost.clone(), Usage::default())).collect();
                self.ledger.handle(self.clock.now(), Event::Ended { members });
                continue;
            };
            let stdin = member.stdin.and_then(|bundle| self.fetcher.locate(bundle, Form::Plain));
            let places = self.template.places();
            let group = if launch.template.is_revocable() { places.idle_group() } else { places.group().to_owned() };
            let common = spec::Common { launch, member, prepared: &prepared, stdin, agent: &self.name, dns: &self.shape.dns, group };
            for (nth, (attempt, ports)) in launch.attempts.iter().zip(ports).enumerate() {
                let member = id(attempt);
                let given = given.get(nth).cloned().unwrap_or_default();
                let ids = if self.template.own_ids() { self.processes.ids() } else { None };
                let one = spec::One { key: key(member), index: attempt.0, attempt: attempt.1, ports, given, ids };
                match spec::spec(&common, &one) {
                    Ok(spec) if ids.is_some() || !self.template.own_ids() => self.processes.start(member, spec, until_ns),
                    Ok(_) => {
                        let lost = (member, Exit::Lost { reason: Loss::Refused }, Usage::default());
                        self.ledger.handle(self.clock.now(), Event::Ended { members: vec![lost] });
                    }
                    Err(reason) => {
                        ids.into_iter().for_each(|ids| self.processes.put_back(ids));
                        self.ledger.handle(self.clock.now(), processes::rejected([member].into_iter(), &reason));
                    }
                }
            }
        }
    }

    /// Says that members of all attempts of a launch ended so.
    fn end_all(&mut self, launch: &Launch, which: impl Fn(&Member) -> bool, exit: &Exit) {
        let attempts = launch.attempts.iter().map(|(index, number)| AttemptId::new(launch.job, *index, *number));
        let members = attempts.flat_map(|attempt| MemberId::all(attempt, &launch.template));
        let ended = members.filter(|id| which(&launch.template.members[usize::from(id.member)]));
        let members = ended.map(|id| (id, exit.clone(), Usage::default())).collect();
        self.ledger.handle(self.clock.now(), Event::Ended { members });
    }
}
