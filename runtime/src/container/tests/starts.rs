//! How an image is started: what its maker and a job say together, and who its user is.

use super::super::start::{Accounts, Overrides, Pieces, StartError, start};
use super::super::{Image, Transport, config};
use super::*;
use serde_json::{Value, json};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:web:/srv/www:/bin/sh\nno\n::::::\n7:x:70:71:name is a number:/n:/bin/sh\nbad:x:x:1::/:\n";
const GROUP: &str = "root:x:0:\nweb:x:34:\nssl:x:40:alice,www\nlog:x:41:www\nlog2:x:41:www\nbad\n";

/// An image with these accounts, which a task of `user` is started from.
fn account(user: &str, passwd: Option<&str>, group: Option<&str>) -> Result<Pieces, StartError> {
    let place = Place::new();
    let mut items = vec![Item::folder("etc", 0o755)];
    items.extend(passwd.map(|text| Item::file("etc/passwd", 0o644, text.as_bytes())));
    items.extend(group.map(|text| Item::file("etc/group", 0o644, text.as_bytes())));
    let layer = place.layer(&build::layer(&items).unwrap(), &Limits::default()).unwrap();
    let config = ImageConfig { user: user.into(), command: texts(&["x"]), ..ImageConfig::default() };
    let layers = vec![layer];
    let image = Image { accounts: Box::new(Accounts::read(&layers)), layers, config };
    start(&image, &Overrides::default())
}

#[test]
fn a_user_is_who_the_image_says() {
    type Expected = (u32, u32, &'static [u32], &'static str);
    let cases: [(&str, Expected); 14] = [
        ("", (0, 0, &[], "/root")),
        ("root", (0, 0, &[], "/root")),
        ("www", (33, 34, &[40, 41], "/srv/www")),
        ("33", (33, 34, &[40, 41], "/srv/www")),
        ("www:", (33, 34, &[40, 41], "/srv/www")),
        ("www:ssl", (33, 40, &[], "/srv/www")),
        ("www:7", (33, 7, &[], "/srv/www")),
        ("33:34", (33, 34, &[], "/srv/www")),
        (":ssl", (0, 40, &[], "/root")),
        ("1000", (1_000, 0, &[], "/")),
        ("1000:1000", (1_000, 1_000, &[], "/")),
        ("7", (70, 71, &[], "/n")),
        ("0:web", (0, 34, &[], "/root")),
        ("2147483647", (2_147_483_647, 0, &[], "/")),
    ];
    for (user, (uid, gid, groups, home)) in cases {
        let pieces = account(user, Some(PASSWD), Some(GROUP)).unwrap_or_else(|error| panic!("{user}: {error}"));
        let found = pieces.env.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.as_str());
        assert_eq!((pieces.uid, pieces.gid, pieces.groups.as_slice(), found), (uid, gid, groups, Some(home)), "{user}");
    }
    for user in ["nobody", "bad", "-1", "4294967295", "2147483648", "alice"] {
        let error = account(user, Some(PASSWD), Some(GROUP)).unwrap_err();
        assert_eq!(error, StartError::User { user: user.into() });
    }
    for group in ["none", "bad", "-1"] {
        let error = account(&format!("www:{group}"), Some(PASSWD), Some(GROUP)).unwrap_err();
        assert_eq!(error, StartError::Group { group: group.into() });
    }
    // An image of one program has no accounts.
    let pieces = account("5:6", None, None).unwrap();
    assert_eq!((pieces.uid, pieces.gid), (5, 6));
    assert_eq!(account("", None, None).unwrap().uid, 0);
    let long = account("x", Some(&"x".repeat(2 << 20)), None).unwrap_err();
    assert!(matches!(long, StartError::Accounts(UnpackError::Limit(_))), "{long}");
}

#[test]
fn a_job_says_what_it_wants_otherwise() {
    let config = ImageConfig {
        entrypoint: texts(&["/entry", "-e"]),
        command: texts(&["serve", "80"]),
        env: pairs(&[("A", "1"), ("PATH", "/image"), ("A", "2")]),
        dir: "/srv".into(),
        stop_signal: Some(3),
        ..ImageConfig::default()
    };
    let image = Image { layers: vec![], config, accounts: Box::new(Accounts::read(&[])) };
    let plain = start(&image, &Overrides::default()).unwrap();
    assert_eq!(plain.command, ["/entry", "-e", "serve", "80"]);
    assert_eq!(plain.env, pairs(&[("A", "2"), ("PATH", "/image"), ("HOME", "/")]));
    assert_eq!((plain.dir.as_str(), plain.stop_signal), ("/srv", Some(3)));
    let command = |command: Option<&[&str]>, args: Option<&[&str]>| {
        start(&image, &Overrides { command: command.map(texts), args: args.map(texts), ..Overrides::default() }).unwrap().command
    };
    assert_eq!(command(None, Some(&["other"])), ["/entry", "-e", "other"]);
    assert_eq!(command(None, Some(&[])), ["/entry", "-e"]);
    assert_eq!(command(Some(&["/own"]), None), ["/own"]);
    assert_eq!(command(Some(&["/own"]), Some(&["a"])), ["/own", "a"]);
    let env = pairs(&[("A", "3"), ("B", "b=c"), ("HOME", "/h")]);
    let other = start(&image, &Overrides { env, user: Some("7:8".into()), dir: Some("work".into()), ..Overrides::default() }).unwrap();
    assert_eq!(other.env, pairs(&[("A", "3"), ("PATH", "/image"), ("B", "b=c"), ("HOME", "/h")]));
    assert_eq!((other.uid, other.gid, other.dir.as_str()), (7, 8, "/work"));
    let empty = Image { layers: vec![], config: ImageConfig::default(), accounts: Box::new(Accounts::read(&[])) };
    assert_eq!(start(&empty, &Overrides::default()), Err(StartError::Command));
    let env =
        start(&Image { config: ImageConfig { command: texts(&["x"]), ..ImageConfig::default() }, ..empty.clone() }, &Overrides::default());
    assert!(env.unwrap().env[0].1.contains("/usr/bin"), "a path to look for programs");
    for env in [pairs(&[("A=B", "")]), pairs(&[("", "x")]), pairs(&[("A", "a\0b")])] {
        assert!(matches!(start(&image, &Overrides { env, ..Overrides::default() }), Err(StartError::Text { .. })));
    }
}

#[test]
fn a_configuration_is_read_as_its_maker_meant_it() {
    let read = |settings: Value| {
        let file = json!({ "os": "linux", "rootfs": { "diff_ids": [format!("sha256:{}", "0".repeat(64))] }, "config": settings });
        config::parse(file.to_string().as_bytes(), &Limits::default()).map(|(config, _)| config)
    };
    let full = read(json!({
        "User": "www", "Env": ["A=1", "B", "C=x=y", "=", ""], "Entrypoint": ["/e"], "Cmd": null, "WorkingDir": "app",
        "StopSignal": "SIGUSR1", "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "99": {}, "x/tcp": {}, "1/sctp": {} }, "Labels": { "a": "b" },
    }));
    let expected = ImageConfig {
        entrypoint: texts(&["/e"]),
        command: vec![],
        env: pairs(&[("A", "1"), ("C", "x=y")]),
        user: "www".into(),
        dir: "/app".into(),
        stop_signal: Some(10),
        ports: vec![(53, Transport::Udp), (80, Transport::Tcp), (99, Transport::Tcp)],
    };
    assert_eq!(full, Ok(expected));
    assert_eq!(read(Value::Null).unwrap(), ImageConfig { dir: "/".into(), ..ImageConfig::default() });
    let signals = [("15", 15), ("TERM", 15), ("sigquit", 3), ("SIGRTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)];
    for (name, number) in signals {
        assert_eq!(read(json!({ "StopSignal": name })).unwrap().stop_signal, Some(number), "{name}");
    }
    for name in ["SIG", "0", "65", "-9", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN3", "TERMX"] {
        assert!(read(json!({ "StopSignal": name })).is_err(), "{name}");
    }
}
