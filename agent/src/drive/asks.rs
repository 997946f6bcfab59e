//! What the ledger wants asked of tasks, asked beside all else: each question in a future of its own, which comes back with an answer within its time.

use std::sync::Arc;
use std::time::Duration;

use protocol::message::Launch;
use protocol::{AttemptId, Member, MemberId, Metering, Name, Probe};
use runtime::executor::wire::Ask;
use runtime::text::{Gaps, Text};
use tokio::sync::{Semaphore, mpsc};

use super::{Door, INBOX_MAX, devices, open};
use crate::checks::{self, Way, plain};
use crate::ledger::bundles::need;
use crate::ledger::event::{Answer, CheckId, Event, Form, Question};
use crate::logs::key;

/// Programs beside tasks that are run to check them at the same time: each is a process or three of its own.
const PROGRAMS_MAX: usize = 16;
/// Instructions of one call of an export.
const ASK_FUEL: u64 = 1_000_000_000;
/// How much later than its executor an agent gives an export up.
const LATE: Duration = Duration::from_secs(1);

/// A question, and what came of it.
pub(super) type Answered = (CheckId, Answer);

/// Where answers come, and what is shared by those who ask.
pub(super) struct Asker {
    answers: mpsc::Sender<Answered>,
    programs: Arc<Semaphore>,
}

impl Asker {
    pub fn new() -> (Self, mpsc::Receiver<Answered>) {
        let (answers, answered) = mpsc::channel(INBOX_MAX);
        (Self { answers, programs: Arc::new(Semaphore::new(PROGRAMS_MAX)) }, answered)
    }

    /// Has it asked.
    fn begin(&self, id: CheckId, asked: impl Future<Output = impl Into<Answer> + Send> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let answer = asked.await.into();
            drop(answers.send((id, answer)).await); // The agent may have ended.
        });
    }
}

impl Door {
    pub(super) fn take_answered(&mut self, answered: Answered) {
        let mut answers = vec![answered];
        while let Ok(answered) = self.answered.try_recv() {
            answers.push(answered);
        }
        self.ledger.handle(self.clock.now(), Event::Checked { answers });
    }

    /// Asks one thing of one task.
    pub(super) fn ask(&mut self, question: Question) {
        let wait = Duration::from_millis(question.check.timeout_ms);
        let (id, launch) = (question.id, Arc::clone(&question.launch));
        let Some(member) = launch.template.members.get(usize::from(id.member.member)) else { return };
        let port =
            |name: &Name| launch.template.ports().zip(&question.ports).find(|(known, _)| *known == name).map_or(0, |(_, port)| *port);
        match &question.check.probe {
            Probe::Http { secure, port: name, path } => {
                let ignores_1xx = question.check.ignores_1xx;
                let way = Way::<Nothing>::Http { secure: *secure, port: port(name), path: path.clone(), ignores_1xx };
                self.asker.begin(id, checks::ask(way, wait));
            }
            Probe::Tcp { port: name } => self.asker.begin(id, checks::ask(Way::<Nothing>::Tcp { port: port(name) }, wait)),
            Probe::Exec { command } => self.ask_program(&question, command, wait),
            Probe::Wasm { export } => {
                let asked = self.ask_export(&question, member, export, wait);
                self.asker.begin(id, asked);
            }
        }
    }

    fn ask_program(&mut self, question: &Question, command: &[String], wait: Duration) {
        let attempt = question.id.member.attempt;
        let names: Vec<String> = question.launch.template.ports().map(ToString::to_string).collect();
        let job_id = question.launch.job.to_string();
        let gaps = Gaps { job: &question.launch.title, job_id: &job_id, agent: &self.name, port_names: &names };
        let fill = |text: &String| Text::scan(text, &gaps).fill(attempt.task.index, attempt.number, &question.ports);
        let command: Vec<String> = command.iter().map(fill).collect();
        let name = command.first().map(|name| plain(name)).unwrap_or_default();
        let session = self.processes.session(question.id.member, command);
        let programs = Arc::clone(&self.asker.programs);
        self.asker.begin(question.id, async move {
            let session = match session {
                Ok(session) => session,
                Err(reason) => return Answer::Unwell(reason),
            };
            // Waiting for its turn is not the task's fault: its time begins then.
            let Ok(_turn) = programs.acquire().await else { return Answer::Unwell("the agent ends".to_owned()) };
            checks::ask(Way::Exec(name, session), wait).await
        });
    }

    fn ask_export(
        &mut self,
        question: &Question,
        member: &Member,
        export: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let answer = self.plan_of(question, member).map(|plan| {
            let MemberId { attempt, .. } = question.id.member;
            let (index, number) = (attempt.task.index, attempt.number);
            let start = runtime::Start { key: key(question.id.member), index, attempt: number, ports: question.ports.clone() };
            let wait_ms = question.check.timeout_ms;
            self.executors.ask(question.id.member, Ask { number: 0, plan, start, export: export.to_owned(), wait_ms })
        });
        let export = plain(export);
        async move {
            let Some(answer) = answer else { return Err("its bundle is not here any more".to_owned()) };
            match tokio::time::timeout(wait + LATE, answer).await {
                Ok(Ok(answer)) => answer.map_err(|reason| plain(&reason)),
                Ok(Err(_)) => Err(format!("{export}: its executor does not take questions now")),
                Err(_) => Err(format!("no answer of {export} in {} ms", wait.as_millis())),
            }
        }
    }

    /// A task's plan, with the limits of a question.
    fn plan_of(&mut self, question: &Question, member: &Member) -> Option<runtime::Plan> {
        let AttemptId { task, number } = question.id.member.attempt;
        let launch = Launch { attempts: vec![(task.index, number)], ..question.launch.as_ref().clone() };
        let (bundle, form) = need(&member.program);
        let Form::Wasm(metering) = form else { return None };
        let compiled = self.fetcher.locate(bundle, form)?;
        let stdin = member.stdin.and_then(|bundle| self.fetcher.locate(bundle, Form::Plain));
        let mut plan = open::plan(&launch, member, compiled, stdin, &self.name);
        plan.env.extend(devices::environment(&launch, member, &question.given));
        let (fuel, time_ms) = (plan.limits.fuel_max.unwrap_or(ASK_FUEL).min(ASK_FUEL), question.check.timeout_ms);
        plan.limits.fuel_max = (metering == Metering::Fuel).then_some(fuel);
        plan.limits.cpu_time_ms_max = (metering == Metering::Epoch).then_some(time_ms);
        plan.limits.time_ms_max = Some(time_ms);
        Some(plan)
    }
}

/// Of questions that need no stream to a program.
type Nothing = std::future::Ready<Result<tokio::net::UnixStream, String>>;
