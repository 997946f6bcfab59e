//! A container image of one program, busybox, for the tour and the tests: made here out of the file that Debian's package busybox-static brings.

use runtime::container::ImageConfig;
use runtime::container::build::{Item, image, layer};
use std::path::Path;

/// Where the package puts it.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
/// What it can be called as.
const NAMES: [&str; 24] = [
    "cat", "date", "dd", "echo", "env", "false", "head", "hostname", "httpd", "id", "ls", "mkdir", "mount", "ps", "pwd", "rm", "sh",
    "sleep", "stat", "tail", "touch", "true", "uname", "wget",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/www:/bin/sh\n";

/// The program.
///
/// # Errors
/// It is not on this machine.
pub fn program() -> Result<Vec<u8>, String> {
    let found = BUSYBOX.iter().find_map(|path| std::fs::read(Path::new(path)).ok());
    found.ok_or_else(|| "there is no busybox here (Debian: apt-get install busybox-static)".into())
}

/// The bytes of the image.
///
/// # Errors
/// Why there is none: it is not on this machine.
pub fn busybox() -> Result<Vec<u8>, String> {
    let program = program()?;
    let mut base = vec![
        Item::folder("bin", 0o755),
        Item::file("bin/busybox", 0o755, &program),
        Item::folder("etc", 0o755),
        Item::file("etc/passwd", 0o644, PASSWD.as_bytes()),
        Item::file("etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n"),
        Item::folder("tmp", 0o777),
        Item::folder("root", 0o700),
    ];
    base.extend(NAMES.iter().map(|name| Item::symlink(&format!("bin/{name}"), "busybox")));
    let site = [Item::folder("www", 0o755), Item::file("www/index.html", 0o644, b"hello from a container\n")];
    let layers = [layer(&base), layer(&site)].into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let config = ImageConfig {
        entrypoint: vec!["/bin/sh".into(), "-c".into()],
        command: vec!["cat index.html".into()],
        env: vec![("PATH".into(), "/bin".into())],
        user: "web".into(),
        dir: "/www".into(),
        stop_signal: None,
        ports: vec![],
    };
    Ok(image("skep/busybox:demo", &layers, &config))
}
