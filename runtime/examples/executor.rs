//! The processes that the tests of this room need: an executor without the rest of the program, a client that can be killed, and a process
//! that enters the jail and tries to get out. Every line that the last one prints is `WHAT: allowed` or `WHAT: denied ERRNO`.

use runtime::executor::process::Started;
use runtime::executor::{ExecutorSpec, serve};
use runtime::jail::{self, Confinement};
use runtime::{Launch, Runtime};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect::<Vec<_>>()[..] {
        ["executor", dir] => serve::main(Path::new(dir)),
        ["template", data, owner] => template(Path::new(data), owner),
        ["client", launch, data, readable, uid] => client(Path::new(launch), Path::new(data), Path::new(readable), uid),
        ["jailed", dir, readable, uid] => jailed(Path::new(dir), Path::new(readable), uid),
        _ => ExitCode::FAILURE,
    }
}

fn template(data: &Path, owner: &str) -> ExitCode {
    runtime::executor::process::main(data, owner.parse().expect("a user"), &std::env::current_exe().expect("it runs"))
}

/// Starts an executor and the tasks in the file `launch`, says so, and waits to be killed.
fn client(launch: &Path, data: &Path, readable: &Path, uid: &str) -> ExitCode {
    let launch: Launch = postcard::from_bytes(&fs::read(launch).expect("the test wrote it")).expect("the test wrote a launch");
    let spec = ExecutorSpec {
        number: 7,
        role: "test".into(),
        metering: runtime::Metering::Fuel,
        uid: uid.parse().ok(),
        tasks_max: 1_000,
        memory_bytes_max: 1 << 30,
        readable: vec![readable.into()],
        idle: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let owner = rustix::process::geteuid().as_raw();
    runtime.block_on(async {
        let template = Started::start(&std::env::current_exe().expect("it runs"), data, owner).expect("it starts").meet().await;
        let mut executor = template.expect("a template").launch(spec).await.expect("an executor");
        executor.commands.launch(launch).expect("it fits");
        executor.commands.flush().await.expect("it listens");
        println!("launched");
        while executor.events.next().await.is_some() {}
    });
    ExitCode::FAILURE
}

fn jailed(dir: &Path, readable: &Path, uid: &str) -> ExitCode {
    let parent = rustix::process::getppid().expect("it has one");
    let listener = UnixListener::bind(dir.join("socket")).expect("a socket from before");
    let confinement =
        Confinement { uid: uid.parse().ok(), readable: vec![readable.into()], writable: vec![dir.into()], ..Confinement::default() };
    match jail::enter(&confinement) {
        Ok(weaknesses) => weaknesses.iter().for_each(|weakness| println!("weakness: {weakness}")),
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let mut held = String::new();
    let create = |path: &Path| OpenOptions::new().create(true).append(true).open(path).map(drop);
    report("read what it may", File::open(readable.join("readable")).and_then(|mut file| file.read_to_string(&mut held)));
    report("write in its directory", create(&dir.join("written")));
    report("remove in its directory", fs::remove_file(dir.join("written")));
    report("start a thread", std::thread::Builder::new().spawn(|| {}).map(|thread| thread.join().is_ok()));
    report("see its socket", listener.local_addr());
    report("read /etc/passwd", fs::read("/etc/passwd"));
    report("read /etc/shadow", fs::read("/etc/shadow"));
    report("read /proc/self/environ", fs::read("/proc/self/environ"));
    report("list /", fs::read_dir("/"));
    report("read above what it may", fs::read(readable.join("../outside")));
    report("write what it may read", create(&readable.join("written")));
    report("write in /tmp", create(&std::env::temp_dir().join(format!("skep-escape-{}", std::process::id()))));
    report("link out of its directory", std::os::unix::fs::symlink("/etc/passwd", dir.join("link")));
    report("connect TCP", TcpStream::connect("127.0.0.1:1"));
    report("listen TCP", TcpListener::bind("127.0.0.1:0"));
    report("bind UDP", UdpSocket::bind("127.0.0.1:0"));
    report("connect a unix socket", UnixStream::connect(dir.join("socket")));
    report("execute", Command::new("/bin/true").status());
    report("signal its parent", rustix::process::kill_process(parent, rustix::process::Signal::CONT).map_err(io::Error::from));
    report("become root", rustix::thread::set_thread_uid(rustix::process::Uid::ROOT).map_err(io::Error::from));
    report("make a process group", rustix::process::setpgid(None, None).map_err(io::Error::from));
    report("change the root", rustix::process::chroot("/tmp").map_err(io::Error::from));
    ExitCode::SUCCESS
}

fn report<T>(what: &str, tried: io::Result<T>) {
    match tried {
        Ok(_) => println!("{what}: allowed"),
        Err(error) => println!("{what}: denied {}", error.raw_os_error().unwrap_or(0)),
    }
}
