//! The one binary: reads its arguments, does one verb, and says with its exit code how that went: 0 done, 1 the task or the plan says so,
//! 2 could not be placed or was refused, 64 wrong usage.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod backup;
mod bench;
mod browser;
mod busybox;
mod client;
mod daemon;
mod demo;
mod deploy;
mod exec;
mod import;
mod job;
mod logs;
mod maintenance;
mod manage;
mod masters;
mod otlp;
mod plan;
mod plugins;
mod policies;
mod print;
mod reservations;
mod rights;
mod roles;
mod run;
mod show;
mod store;
mod submit;
mod thing;
mod top;
mod unwell;
mod up;

use args::{Cli, Verb};
use clap::{CommandFactory, Parser};
use runtime::wasm::compile::CompileLimits;
use std::process::ExitCode;

/// Compiled code and many small messages: measured faster and smaller than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: u8 = 64;
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let refused = error.downcast_ref::<client::Refused>().is_some() || error.downcast_ref::<job::Unfit>().is_some();
            eprintln!("skep: {error:#}");
            ExitCode::from(if refused { REFUSED } else { 1 })
        }
    }
}

/// The verbs that must not have started a thread, then all others on one runtime.
fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        Verb::Executor { dir } => return daemon::executor(&dir),
        Verb::Compile { wasm, compiled, metering, address_bytes_max, cpu_seconds_max } => {
            let limits = CompileLimits { address_bytes_max, cpu_seconds_max };
            return daemon::compile(&wasm, &compiled, &metering, limits);
        }
        Verb::Unpack => runtime::container::unpack_main(),
        Verb::Template { data, owner } => {
            return Ok(runtime::executor::process::main(&data, owner, &std::env::current_exe()?));
        }
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "skep", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    // What takes root, or what only its user may read, before there is a thread.
    let ready = match &cli.verb {
        Verb::Agent(flags) => Ready::Agent(rights::begin(&flags.data, rights::Around::None)?),
        Verb::Up(flags) => Ready::Up(Box::new(up::Prepared::new(flags)?)),
        Verb::Demo(flags) => Ready::Demo(Box::new(demo::Prepared::new(flags)?)),
        _ => Ready::Nothing,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(verb(cli, ready))
}

/// What was made ready before the runtime started.
enum Ready {
    Nothing,
    Agent(rights::Begun),
    Up(Box<up::Prepared>),
    Demo(Box<demo::Prepared>),
}

async fn verb(cli: Cli, ready: Ready) -> anyhow::Result<ExitCode> {
    let (reach, shape) = (&cli.reach, cli.output);
    match (cli.verb, ready) {
        (Verb::Up(flags), Ready::Up(prepared)) => up::up(flags, *prepared, shape).await,
        (Verb::Agent(flags), Ready::Agent(begun)) => daemon::agent(flags, begun).await,
        (Verb::Demo(_), Ready::Demo(prepared)) => demo::demo(*prepared).await,
        (verb, _) => other(verb, reach, shape).await,
    }
}

async fn other(verb: Verb, reach: &args::Reach, shape: args::Shape) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(flags) => run::run(reach, *flags, shape).await,
        Verb::Plan(flags) => plan::plan(reach, &flags, shape).await,
        Verb::Apply(flags) => deploy::apply(reach, flags, shape).await,
        Verb::Restart(flags) => deploy::restart(reach, flags, shape).await,
        Verb::Rollback(flags) => deploy::rollback(reach, flags, shape).await,
        Verb::Ps(flags) => show::ps(reach, flags, shape).await,
        Verb::Status(flags) => show::status(reach, flags, shape).await,
        Verb::Explain(flags) => show::explain(reach, flags, shape).await,
        Verb::Logs(flags) => logs::logs(reach, flags, shape).await,
        Verb::Top(flags) => top::top(reach, flags, shape).await,
        Verb::Exec(flags) => exec::exec(reach, flags).await,
        Verb::Stop(flags) => manage::stop(reach, flags, shape).await,
        Verb::Scale(flags) => manage::scale(reach, flags, shape).await,
        Verb::Import(flags) => import::import(flags, shape),
        Verb::Push(flags) => manage::push(reach, flags, shape).await,
        Verb::Agents(flags) => manage::agents(reach, flags, shape).await,
        Verb::Maintenance(flags) => maintenance::maintenance(reach, flags, shape).await,
        Verb::Frameworks(flags) => manage::frameworks(reach, flags, shape).await,
        Verb::Tokens(flags) => manage::tokens(reach, flags, shape).await,
        Verb::Roles(flags) => roles::roles(reach, flags, shape).await,
        Verb::Audit(flags) => audit::audit(reach, &flags, shape).await,
        Verb::Policy(flags) => policies::policy(reach, flags, shape).await,
        Verb::Masters(flags) => masters::masters(reach, flags, shape).await,
        Verb::Master(flags) => daemon::master(flags, shape).await,
        Verb::Bench(flags) => bench::bench(flags).await,
        Verb::Up(_) | Verb::Agent(_) | Verb::Demo(_) => unreachable!("they were made ready"),
        Verb::Executor { .. } | Verb::Compile { .. } | Verb::Unpack | Verb::Template { .. } | Verb::Completions { .. } => {
            unreachable!("done before the runtime started")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_and_flags_agree_with_each_other() {
        Cli::command().debug_assert();
        let compile = Cli::try_parse_from(["skep", "compile", "a.wasm", "a.bin", "fuel", "1000", "5"]).unwrap();
        assert!(matches!(compile.verb, Verb::Compile { .. }));
        assert!(matches!(Cli::try_parse_from(["skep", "unpack"]).unwrap().verb, Verb::Unpack));
        let agent = Cli::try_parse_from(["skep", "agent", "--to", "a:1,b:2", "--to", "c:3"]).unwrap();
        assert!(matches!(agent.verb, Verb::Agent(agent) if agent.masters == ["a:1", "b:2", "c:3"]));
    }
}
