//! Unpacking in a process of its own, and the store that has it done. This program is both sides: with `unpack` as its first argument it is
//! the process; with `escape` it enters the process's jail and tries to get out.

#![allow(clippy::unwrap_used)]

use runtime::container::build::{self, Item};
use runtime::container::{Digest, Hands, Image, ImageConfig, Limits, OVERLAY_OPTION, Prepared, Store, UnpackError, Wanted, Work, serve};
use runtime::executor::process::Started;
use runtime::jail::unpacking;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack"] => runtime::container::unpack_main(),
        ["escape", target, parent] => return escape(Path::new(target), parent.parse().unwrap()),
        ["prepare", data, archive] => return say(Path::new(data), Path::new(archive)),
        ["template", data, owner] => {
            let code = runtime::executor::process::main(Path::new(data), owner.parse().unwrap(), &unpacker(Path::new(data)));
            assert_eq!(code, std::process::ExitCode::SUCCESS, "it said why");
            return;
        }
        _ => {}
    }
    // Nothing may depend on it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, claim) in CLAIMS {
        let dir = std::env::temp_dir().join(format!("skep-store-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        claim(&runtime, &dir);
        println!("test {name} ... ok");
        fs::remove_dir_all(&dir).unwrap();
    }
}

type Runtime = tokio::runtime::Runtime;
type Claim = fn(&Runtime, &Path);

const CLAIMS: [(&str, Claim); 10] = [
    ("archives_become_what_a_task_starts_from", archives_become_what_a_task_starts_from),
    ("what_is_refused_leaves_nothing", what_is_refused_leaves_nothing),
    ("what_is_given_up_leaves_nothing", what_is_given_up_leaves_nothing),
    ("an_agent_that_is_killed_takes_the_process_with_it", an_agent_that_is_killed_takes_the_process_with_it),
    ("a_full_disk_is_the_operators_move_and_leaves_nothing", a_full_disk_is_the_operators_move_and_leaves_nothing),
    ("images_share_layers_until_the_last_is_gone", images_share_layers_until_the_last_is_gone),
    ("at_once_prepared_images_share_too", at_once_prepared_images_share_too),
    ("a_store_finds_again_what_is_whole", a_store_finds_again_what_is_whole),
    ("the_unpacking_process_reaches_its_folder_and_nothing_else", the_unpacking_process_reaches_its_folder_and_nothing_else),
    ("what_other_programs_write_is_read", what_other_programs_write_is_read),
];

/// Has all work done by a thread of this process, which starts `binary`.
fn hands(dir: &Path, binary: &Path) -> Hands {
    let (dir, binary) = (dir.to_owned(), binary.to_owned());
    Arc::new(move |work, archive| {
        let (dir, binary) = (dir.clone(), binary.clone());
        Box::pin(async move {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            std::thread::spawn(move || serve(&dir, &binary, &work, archive, theirs));
            ours.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(ours)
        })
    })
}

fn open_with(runtime: &Runtime, dir: &Path, limits: Limits, binary: &Path) -> Store {
    runtime.block_on(Store::open(dir.to_owned(), limits, hands(dir, binary))).unwrap()
}

fn open(runtime: &Runtime, dir: &Path) -> Store {
    open_with(runtime, &dir.join("store"), Limits::default(), &std::env::current_exe().unwrap())
}

fn prepare(runtime: &Runtime, store: &Store, path: &Path, wanted: Wanted) -> Result<Prepared, UnpackError> {
    let digest = Digest::of(&fs::read(path).unwrap());
    runtime.block_on(store.prepare(path, digest, wanted))
}

/// An archive in `dir` of an image with these layers.
fn image(dir: &Path, name: &str, layers: &[&[Item]]) -> PathBuf {
    let layers: Vec<_> = layers.iter().map(|items| build::layer(items).unwrap()).collect();
    let config = ImageConfig { command: vec!["/bin/sh".into()], dir: "/".into(), ..ImageConfig::default() };
    let path = dir.join(name);
    fs::write(&path, build::image(name, &layers, &config)).unwrap();
    path
}

fn base() -> Vec<Item> {
    vec![Item::folder("etc", 0o755), Item::file("etc/id", 0o644, &[b'b'; 100_000])]
}

fn layers_of(prepared: &Prepared) -> &[PathBuf] {
    match prepared {
        Prepared::Image(Image { layers, .. }) => layers,
        other => panic!("{other:?}"),
    }
}

fn count(dir: &Path, name: &str) -> usize {
    fs::read_dir(dir.join("store").join(name)).unwrap().count()
}

/// Waits for what happens by itself.
fn becomes(what: &str, until: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if until() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not after 10 s");
}

/// What is removed is removed beside the threads that answer.
fn becomes_empty(dir: &Path, name: &str) {
    becomes(&format!("{name} is empty"), || count(dir, name) == 0);
}

fn archives_become_what_a_task_starts_from(runtime: &Runtime, dir: &Path) {
    let store = open(runtime, dir);
    let archive = image(dir, "one", &[&base(), &[Item::file("etc/id", 0o600, b"2")]]);
    let prepared = prepare(runtime, &store, &archive, Wanted::Image).unwrap();
    let layers = layers_of(&prepared);
    assert_eq!((fs::read(layers[0].join("etc/id")).unwrap().len(), fs::read(layers[1].join("etc/id")).unwrap()), (100_000, b"2".to_vec()));
    assert_eq!(fs::metadata(&layers[1]).unwrap().permissions().mode() & 0o7777, 0o755, "a root that nothing is said of");
    assert_eq!(prepare(runtime, &store, &archive, Wanted::Image).unwrap(), prepared, "the second time it is there");
    // The same archive is also a bundle, if somebody wants it so.
    let Prepared::Folder(folder) = prepare(runtime, &store, &archive, Wanted::Bundle).unwrap() else { panic!() };
    assert!(folder.join("oci-layout").is_file());
    let script = dir.join("script");
    fs::write(&script, "#!/bin/sh\necho run\n").unwrap();
    let Prepared::File(file) = prepare(runtime, &store, &script, Wanted::Bundle).unwrap() else { panic!() };
    assert_eq!(Command::new(file).output().unwrap().stdout, b"run\n");
    let gz = dir.join("bundle.tar.gz");
    let mut to = flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
    io::Write::write_all(&mut to, &build::layer(&[Item::file("bin/x", 0o700, b"x"), Item::symlink("y", "bin/x")]).unwrap()).unwrap();
    to.finish().unwrap();
    let Prepared::Folder(folder) = prepare(runtime, &store, &gz, Wanted::Bundle).unwrap() else { panic!() };
    assert_eq!(fs::read(folder.join("y")).unwrap(), b"x");
    assert_eq!(fs::metadata(folder.join("bin/x")).unwrap().permissions().mode() & 0o7777, 0o555);
    becomes_empty(dir, "new");
}

fn what_is_refused_leaves_nothing(runtime: &Runtime, dir: &Path) {
    let store = open(runtime, dir);
    let good = build::layer(&base()).unwrap();
    let mut bad = build::layer(&[Item::file("AAAA", 0o644, b"x"), Item::file("fine", 0o644, b"x")]).unwrap();
    // `AAAA` becomes `../A`; the sum of its letters has to stay right.
    bad[..4].copy_from_slice(b"../A");
    let sum: u32 = bad[..512].iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    bad[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let path = dir.join("bad");
    fs::write(&path, build::image("bad", &[good, bad], &ImageConfig::default())).unwrap();
    match prepare(runtime, &store, &path, Wanted::Image) {
        Err(UnpackError::Refused(said)) => assert!(said.starts_with("layer 2 (") && said.contains("entry \"../A\""), "{said}"),
        other => panic!("{other:?}"),
    }
    fs::write(&path, "\x1b[2J".repeat(1_000)).unwrap();
    let error = prepare(runtime, &store, &path, Wanted::Image).unwrap_err();
    assert!(matches!(&error, UnpackError::Refused(said) if said.contains("no tar archive")), "{error}");
    let small = Limits { bytes_max: 10_000, ..Limits::default() };
    let limited = open_with(runtime, &dir.join("limited"), small, &std::env::current_exe().unwrap());
    let error = prepare(runtime, &limited, &image(dir, "large", &[&base()]), Wanted::Image).unwrap_err();
    assert!(matches!(error, UnpackError::Limit(_)), "{error}");
    let unread = File::options().write(true).open(&path).unwrap();
    let named = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap().into();
    for file in [unread, named] {
        let binary = std::env::current_exe().unwrap();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let asked = Work::Prepare(Digest([2; 32]), Wanted::Image, Limits::default());
        assert_eq!(serve(&dir.join("store"), &binary, &asked, Some(file), theirs), 0);
        let mut said = String::new();
        io::Read::read_to_string(&mut ours, &mut said).unwrap();
        assert!(said.contains("was not opened to be read"), "{said}");
    }
    assert_eq!((store.bytes(), count(dir, "items"), count(dir, "layers")), (0, 0, 0));
    becomes_empty(dir, "new");
    assert!(!dir.join("A").exists() && !dir.join("store/A").exists());
    for binary in ["/nowhere/skep", "/bin/false", "/bin/true"] {
        let broken = open_with(runtime, &dir.join("broken"), Limits::default(), Path::new(binary));
        let error = prepare(runtime, &broken, &image(dir, "one", &[&base()]), Wanted::Image).unwrap_err();
        assert!(matches!(error, UnpackError::Failed(_)), "{binary}: {error}");
    }
}

/// What unpacks for a template: this program, or one of the name `endless` beside its data directory.
fn unpacker(data: &Path) -> PathBuf {
    let endless = data.with_file_name("endless");
    if endless.exists() { endless } else { std::env::current_exe().unwrap() }
}

/// A program that unpacks nothing, and does not end by itself.
fn endless(dir: &Path) -> PathBuf {
    let path = dir.join("endless");
    fs::write(&path, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn what_is_given_up_leaves_nothing(runtime: &Runtime, dir: &Path) {
    let store = open_with(runtime, &dir.join("store"), Limits::default(), &endless(dir));
    let archive = image(dir, "one", &[&base()]);
    let waiting = store.prepare(&archive, Digest([1; 32]), Wanted::Image);
    let given_up = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), waiting).await });
    assert!(given_up.is_err(), "{given_up:?}");
    becomes_empty(dir, "new");
    assert_eq!((count(dir, "items"), count(dir, "layers")), (0, 0));
}

/// Has one archive prepared by a template, and says what came of it.
fn say(data: &Path, archive: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let owner = rustix::process::geteuid().as_raw();
    let itself = std::env::current_exe().unwrap();
    let said = runtime.block_on(async {
        let template = Arc::new(Started::start(&itself, data, owner).unwrap().meet().await.unwrap());
        let store = template.places().unpacked();
        let hands: Hands = Arc::new(move |work, archive| {
            let template = Arc::clone(&template);
            Box::pin(async move { template.unpack(work, archive).await })
        });
        Store::open(store, Limits::default(), hands).await?.prepare(archive, Digest([1; 32]), Wanted::Image).await
    });
    match said {
        Ok(prepared) => println!("{prepared:?}"),
        Err(error) => println!("{error:?}"),
    }
}

fn itself() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn an_agent_that_is_killed_takes_the_process_with_it(runtime: &Runtime, dir: &Path) {
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    endless(dir);
    let mut agent = itself().arg("prepare").arg(&data).arg(image(dir, "one", &[&base()])).spawn().unwrap();
    let new = || fs::read_dir(data.join("unpacked/new")).map_or(0, Iterator::count);
    becomes("it is being unpacked", || new() == 1);
    agent.kill().unwrap();
    agent.wait().unwrap();
    becomes("nothing of it is left", || new() == 0);
    open_with(runtime, &data.join("unpacked"), Limits::default(), Path::new("/bin/false"));
    let live = fs::canonicalize(data.join("processes/live"));
    becomes("the template has ended", || live.as_ref().is_err() || !live.as_ref().unwrap().exists());
}

fn a_full_disk_is_the_operators_move_and_leaves_nothing(_: &Runtime, dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root: no small file system can be mounted");
    }
    let archive = image(dir, "large", &[&[Item::file("large", 0o644, &vec![7; 4 << 20])]]);
    let script = r#"mount -t tmpfs -o size=2m,mode=755 tmpfs "$2" || exit 99; mkdir "$2/data" && "$1" prepare "$2/data" "$3" && ls "$2/data/unpacked/items" "$2/data/unpacked/layers""#;
    fs::create_dir(dir.join("disk")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap()).arg(dir.join("disk")).arg(&archive);
    let output = command.output().unwrap();
    if output.status.code() == Some(99) {
        return println!("skipped: no file system can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("Failed(\"layer 1 (") && said.contains("entry \\\"large\\\": writing it: No space left"), "{said}");
    assert_eq!(said.lines().filter(|line| !line.is_empty() && !line.contains(':')).count(), 0, "{said}");
}

fn images_share_layers_until_the_last_is_gone(runtime: &Runtime, dir: &Path) {
    let store = open(runtime, dir);
    let archives = [b"1", b"2", b"3"].map(|own| {
        let name = String::from_utf8(own.to_vec()).unwrap();
        image(dir, &name, &[&base(), &[Item::file("own", 0o644, &own.repeat(50_000))]])
    });
    let digests = archives.clone().map(|path| Digest::of(&fs::read(path).unwrap()));
    let prepared = archives.clone().map(|path| prepare(runtime, &store, &path, Wanted::Image).unwrap());
    assert_eq!((count(dir, "layers"), layers_of(&prepared[0])[0].clone()), (4, layers_of(&prepared[2])[0].clone()));
    let before = store.bytes();
    assert!((250_000..320_000).contains(&before), "{before}: the shared layer counts once");
    store.remove(digests[2], Wanted::Image);
    assert!(store.locate(digests[2], Wanted::Image).is_none() && store.bytes() < before - 49_000);
    becomes("it takes no room", || (count(dir, "layers"), count(dir, "items")) == (3, 2));
    assert!(layers_of(&prepared[0])[0].join("etc/id").exists());
    // One that is wanted again at once is not found as it was before it was removed.
    store.remove(digests[1], Wanted::Image);
    let again = prepare(runtime, &store, &archives[1], Wanted::Image).unwrap();
    assert!(layers_of(&again).iter().all(|layer| layer.is_dir()));
    for digest in [digests[0], digests[1]] {
        store.remove(digest, Wanted::Image);
    }
    assert_eq!(store.bytes(), 0);
    becomes("nothing takes room", || (count(dir, "layers"), count(dir, "items")) == (0, 0));
    becomes_empty(dir, "new");
}

fn at_once_prepared_images_share_too(runtime: &Runtime, dir: &Path) {
    let store = open(runtime, dir);
    let archives: Vec<_> = (0..4).map(|at| image(dir, &format!("{at}"), &[&base(), &[Item::file("own", 0o644, &[at; 10])]])).collect();
    runtime.block_on(async {
        let mut waiting = tokio::task::JoinSet::new();
        for path in archives {
            let store = store.clone();
            waiting.spawn(async move { store.prepare(&path, Digest::of(&fs::read(&path).unwrap()), Wanted::Image).await.unwrap() });
        }
        for prepared in waiting.join_all().await {
            assert!(layers_of(&prepared).iter().all(|layer| layer.is_dir()));
        }
    });
    assert_eq!((count(dir, "layers"), count(dir, "items")), (5, 4));
    becomes_empty(dir, "new");
}

fn a_store_finds_again_what_is_whole(runtime: &Runtime, dir: &Path) {
    let archives = ["1", "2", "3"].map(|name| image(dir, name, &[&base(), &[Item::file("own", 0o644, name.as_bytes())]]));
    let digests = archives.clone().map(|path| Digest::of(&fs::read(path).unwrap()));
    let store = open(runtime, dir);
    let prepared = archives.clone().map(|path| prepare(runtime, &store, &path, Wanted::Image).unwrap());
    let bytes = store.bytes();
    drop(store);
    // As a crash leaves it: half of something new, a layer whose image never came, an item that is not whole.
    fs::create_dir_all(dir.join("store/new/0/layers/x")).unwrap();
    fs::create_dir_all(dir.join("store/layers").join(Digest([9; 32]).to_string())).unwrap();
    fs::write(dir.join("store/items").join(format!("{}-image", digests[1])).join("about.json"), "{").unwrap();
    fs::create_dir_all(dir.join("store/items/stranger")).unwrap();
    let store = open(runtime, dir);
    assert_eq!(store.locate(digests[0], Wanted::Image).as_ref(), Some(&prepared[0]));
    assert_eq!(store.locate(digests[1], Wanted::Image), None);
    assert_eq!((count(dir, "new"), count(dir, "layers"), count(dir, "items")), (0, 3, 2));
    assert!(store.bytes() < bytes);
    prepare(runtime, &store, &archives[1], Wanted::Image).unwrap();
    assert_eq!(store.bytes(), bytes);
    drop(store);
    fs::remove_dir_all(&layers_of(&prepared[2])[1]).unwrap();
    let store = open(runtime, dir);
    assert_eq!((store.locate(digests[2], Wanted::Image), count(dir, "items")), (None, 2));
    drop(store);
    fs::write(dir.join("store/form"), "0 0").unwrap();
    assert_eq!(open(runtime, dir).bytes(), 0, "what is of another form is thrown away");
}

fn the_unpacking_process_reaches_its_folder_and_nothing_else(_: &Runtime, dir: &Path) {
    let target = dir.join("target");
    fs::create_dir(&target).unwrap();
    fs::write(dir.join("outside"), "unseen").unwrap();
    let run = |parent: u32| itself().arg("escape").arg(&target).arg(parent.to_string()).output().unwrap();
    let orphan = run(1);
    assert!(String::from_utf8_lossy(&orphan.stdout).contains("which waited for it, has ended"), "{orphan:?}");
    let output = run(std::process::id());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let given = ["write in its folder", "link in its folder", "link between folders", "make a whiteout", "hide a folder", "own a file"];
    let (mut denied, mut allowed) = (0, 0);
    for line in said.lines() {
        let (what, result) = line.split_once(": ").unwrap();
        if given.contains(&what) {
            assert!(result == "allowed" || (what == "own a file" && !rustix::process::geteuid().is_root()), "{line}");
            allowed += 1;
        } else {
            assert!(["denied 1", "denied 2", "denied 13", "denied 18"].contains(&result), "{line}");
            denied += 1;
        }
    }
    assert_eq!((allowed, denied), (6, 21), "{said}");
    assert_eq!(fs::read(dir.join("outside")).unwrap(), b"unseen");
}

/// All capabilities in the second form (linux/capability.h, `vfs_cap_data`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0];

/// Tries to get out of the jail; says of each try whether it was allowed.
fn escape(target: &Path, parent: u32) {
    let outside = target.parent().unwrap().join("outside");
    let waiting = rustix::process::getppid().unwrap();
    let folder = match unpacking::enter(&outside, target, parent, 1 << 20) {
        Ok((_, folder)) => folder,
        Err(error) => return println!("{error}"),
    };
    let folder = folder.as_fd();
    let at = |path: &str, flags: OFlags| rustix::fs::openat(folder, path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let create = OFlags::WRONLY | OFlags::CREATE;
    let own = at("own", create).unwrap();
    report("write in its folder", rustix::io::write(&own, b"x"));
    report("link in its folder", rustix::fs::symlinkat("/etc/passwd", folder, "link"));
    rustix::fs::mkdirat(folder, "d", Mode::RWXU).unwrap();
    report("link between folders", rustix::fs::linkat(folder, "own", folder, "d/own", AtFlags::empty()));
    report("make a whiteout", rustix::fs::mknodat(folder, "gone", FileType::CharacterDevice, Mode::empty(), 0));
    let opaque = at("d", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    report("hide a folder", rustix::fs::fsetxattr(&opaque, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()));
    report("own a file", rustix::fs::fchown(&own, Some(rustix::fs::Uid::from_raw(1_000)), None));
    report("read /etc/passwd", fs::read("/etc/passwd"));
    report("read beside it", fs::read(&outside));
    report("read above it", at("../outside", OFlags::RDONLY));
    report("read through its link", at("link", OFlags::RDONLY));
    report("write beside it", File::options().append(true).open(&outside));
    report("write above it", at("../outside", OFlags::WRONLY));
    report("take what is above", rustix::fs::linkat(folder, "../outside", folder, "taken", AtFlags::empty()));
    report("remove what is above", rustix::fs::unlinkat(folder, "../outside", AtFlags::empty()));
    report("change a mode by path", fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)));
    report("own by path", std::os::unix::fs::chown(&outside, Some(1_000), None));
    report(
        "own above it",
        rustix::fs::chownat(folder, "../outside", Some(rustix::fs::Uid::from_raw(1_000)), None, AtFlags::SYMLINK_NOFOLLOW),
    );
    report("rename", fs::rename("own", "other"));
    report("make a device", rustix::fs::mknodat(folder, "null", FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)));
    report("make a FIFO", rustix::fs::mknodat(folder, "fifo", FileType::Fifo, Mode::RUSR, 0));
    report("trust an attribute", rustix::fs::fsetxattr(&opaque, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()));
    report("give a capability", rustix::fs::fsetxattr(&own, "security.capability", &CAPABILITY, rustix::fs::XattrFlags::empty()));
    report("link by path", symlink("x", &outside));
    report("start a thread", std::thread::Builder::new().spawn(|| {}).map(drop));
    report("execute", Command::new("/bin/true").status());
    report("bind UDP", std::net::UdpSocket::bind("127.0.0.1:0"));
    report("signal its parent", rustix::process::kill_process(waiting, rustix::process::Signal::CONT));
}

fn report<T, E: Into<io::Error>>(what: &str, tried: Result<T, E>) {
    match tried.map_err(Into::into) {
        Ok(_) => println!("{what}: allowed"),
        Err(error) => println!("{what}: denied {}", error.raw_os_error().unwrap_or(0)),
    }
}

/// Makes images with umoci and skopeo, of three layers that change and delete what is below, and says as which archives.
const MAKE: &str = r#"set -e
cd "$1"; export HOME="$1" XDG_RUNTIME_DIR="$1"
umoci init --layout oci; umoci new --image oci:t
umoci unpack $2 --image oci:t b
mkdir -p b/rootfs/etc b/rootfs/bin b/rootfs/opt/app b/rootfs/tmp; chmod 1777 b/rootfs/tmp
echo 'app:x:1000:1000::/home/app:/bin/sh' > b/rootfs/etc/passwd; echo 'extra:x:7:app' > b/rootfs/etc/group
echo old > b/rootfs/opt/app/old; echo gone > b/rootfs/gone; echo one > b/rootfs/bin/one; chmod 755 b/rootfs/bin/one
ln b/rootfs/bin/one b/rootfs/opt/two; ln -s /bin/one b/rootfs/link; head -c 300000 /dev/zero > b/rootfs/zeros
umoci repack --refresh-bundle --image oci:t b
rm b/rootfs/gone; rm -r b/rootfs/opt/app; mkdir b/rootfs/opt/app; echo new > b/rootfs/opt/app/new
umoci repack --refresh-bundle --image oci:t b
deep=b/rootfs/$(printf 'n%.0s' $(seq 150))/$(printf 'm%.0s' $(seq 150)); mkdir -p $deep; echo deep > $deep/deep; chmod 700 b/rootfs/opt
umoci repack --image oci:t b
umoci config --image oci:t --config.entrypoint /bin/one --config.cmd go --config.user app --config.env A=1 --config.workingdir /opt --config.stopsignal SIGINT
umoci gc --layout oci
umoci unpack $2 --image oci:t plain
skopeo --insecure-policy copy -q oci:oci:t oci-archive:oci.tar:t
skopeo --insecure-policy copy -q oci:oci:t docker-archive:docker.tar:t:1
gzip -k docker.tar
skopeo --insecure-policy copy -q --dest-compress --dest-compress-format zstd oci:oci:t oci:zoci:t && skopeo --insecure-policy copy -q oci:zoci:t oci-archive:zstd.tar:t || true
"#;

fn what_other_programs_write_is_read(runtime: &Runtime, dir: &Path) {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there("skopeo") || !there("umoci") {
        return println!("skipped: skopeo and umoci are not both here");
    }
    let is_root = rustix::process::geteuid().is_root();
    let made = Command::new("sh").args(["-c", MAKE, "sh"]).arg(dir).arg(if is_root { "" } else { "--rootless" }).output().unwrap();
    assert!(made.status.success(), "{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    let store = open(runtime, dir);
    let mut seen: Option<Prepared> = None;
    for name in ["oci.tar", "docker.tar", "docker.tar.gz", "zstd.tar"] {
        if !dir.join(name).exists() {
            println!("skipped: {name}: this skopeo does not write it");
            continue;
        }
        let prepared = prepare(runtime, &store, &dir.join(name), Wanted::Image).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(seen.get_or_insert_with(|| prepared.clone()), &prepared, "{name} has the same layers");
    }
    let Some(Prepared::Image(image)) = seen else { panic!() };
    let pieces = runtime::container::start(&image, &runtime::container::Overrides::default()).unwrap();
    assert_eq!((pieces.command.as_slice(), pieces.uid, pieces.gid), (["/bin/one".to_owned(), "go".to_owned()].as_slice(), 1_000, 1_000));
    assert_eq!((pieces.groups.as_slice(), pieces.dir.as_str(), pieces.stop_signal), ([7].as_slice(), "/opt", Some(2)));
    if !is_root {
        return println!("skipped: not root: no overlay is mounted");
    }
    // Names, kinds, modes, owners, links and contents as umoci unpacks them.
    let list = "find . -mindepth 1 ! -type d -printf '%p %y %m %U %G %s %l\\n' -o -mindepth 1 -printf '%p %y %m %U %G\\n'";
    let script = format!(
        "mkdir -p \"$2/m\" && mount -t overlay overlay -o \"{OVERLAY_OPTION},lowerdir=$1\" \"$2/m\" || exit 99
        (cd \"$2/m\" && {list} | sort) > \"$2/ours\"; (cd \"$2/plain/rootfs\" && {list} | sort) > \"$2/theirs\"
        diff \"$2/theirs\" \"$2/ours\" && diff -r --no-dereference \"$2/plain/rootfs\" \"$2/m\" && cat \"$2/ours\""
    );
    let lower: Vec<_> = image.layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
    let same = Command::new("unshare").args(["-m", "sh", "-c", &script, "sh", &lower.join(":")]).arg(dir).output().unwrap();
    if same.status.code() == Some(99) {
        return println!("skipped: no overlay can be mounted here: {}", String::from_utf8_lossy(&same.stderr));
    }
    let listed = String::from_utf8_lossy(&same.stdout);
    assert!(same.status.success() && listed.contains("./opt/app/new") && !listed.contains("gone"), "{listed}");
}
