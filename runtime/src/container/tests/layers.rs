//! What a layer becomes: owners, modes and times, and what it hides, as a real overlay shows it.

use super::super::implied;
use super::super::merged::View;
use super::super::tree::{Attributes, Place as At, Tree, Whiteouts};
use super::*;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

/// Layers of an image, the lowest first.
fn stack(place: &Place, layers: &[Vec<u8>]) -> Vec<PathBuf> {
    let image = build::image("test", layers, &ImageConfig::default());
    let Unpacked::Image { layers, .. } = place.unpack(&image, Wanted::Image, &Limits::default()).unwrap() else { panic!() };
    layers.iter().map(|layer| place.target().join("layers").join(layer.id.to_string())).collect()
}

#[test]
fn owners_modes_and_times_are_kept_as_far_as_they_can_be() {
    let place = Place::new();
    let owned = |entry: Vec<u8>, mode: &[u8; 8]| changed(changed(changed(entry, 100, mode), 108, b"0001750\0"), 116, b"0000144\0");
    let entries = [
        owned(folder("./"), b"0000711\0"),
        owned(folder("tmp"), b"0001777\0"),
        owned(folder("shut"), b"0000000\0"),
        owned(file("shut/suid", b"x"), b"0006755\0"),
        pax(&[("mtime", b"1700000000.25"), ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")]),
        owned(file("caps", b"x"), b"0000600\0"),
        owned(symlink("link", "/nowhere"), b"0000777\0"),
        file("implied/x", b""),
    ];
    let layer = place.layer(&ended(&entries), &Limits::default()).unwrap();
    let about = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    let mode = |name: &str| about(name).mode() & 0o7777;
    if is_root() {
        assert_eq!([".", "tmp", "shut", "shut/suid", "caps"].map(mode), [0o711, 0o1777, 0, 0o755, 0o600]);
        for name in [".", "tmp", "shut/suid", "link"] {
            assert_eq!((about(name).uid(), about(name).gid()), (1_000, 100), "{name}");
        }
        assert_eq!((about("implied").uid(), mode("implied")), (0, 0o755));
    } else {
        println!("skipped: owners: not root");
        assert_eq!([".", "tmp", "shut", "shut/suid", "caps"].map(mode), [0o711, 0o1777, 0o700, 0o755, 0o600]);
        assert_eq!(about("caps").uid(), rustix::process::geteuid().as_raw());
    }
    assert_eq!((about("caps").mtime(), about("caps").mtime_nsec()), (1_700_000_000, 250_000_000));
    assert_eq!((about("tmp").mtime(), about("shut").mtime(), about(".").mtime()), (10, 10, 10));
    let attributes = rustix::fs::listxattr(layer.join("caps"), &mut [0; 100]).unwrap();
    assert_eq!(attributes, 0, "capabilities are dropped");
}

#[test]
fn a_layer_needs_no_mark_at_its_end_since_its_digest_says_that_it_is_whole() {
    let entries = [file("a", b"a"), file("b", b"12345")].concat();
    for end in [entries.len(), entries.len() - 507] {
        let place = Place::new();
        let layer = place.layer(&entries[..end], &Limits::default()).unwrap();
        assert_eq!(fs::read(layer.join("b")).unwrap(), b"12345");
        assert!(Place::new().bundle(&entries[..end], &Limits::default()).is_err());
    }
    assert!(Place::new().layer(&entries[..entries.len() - 508], &Limits::default()).is_err());
}

#[test]
fn whiteouts_are_what_an_overlay_understands() {
    let place = Place::new();
    let entries = [
        file(".wh.gone", b""),
        file("d/.wh.gone", b""),
        file("opaque/.wh..wh..opq", b""),
        file("opaque/x", b""),
        file(".wh..wh.plnk", b""),
        // In one layer: what it has stays, and hides what is below.
        file("kept", b"x"),
        file(".wh.kept", b""),
        file(".wh.late", b""),
        file("late", b"x"),
        file(".wh.fresh", b""),
        file("fresh/x", b"x"),
        folder("old"),
        file(".wh.old", b""),
    ];
    let layer = place.layer(&ended(&entries), &Limits::default()).unwrap();
    let is_device =
        |name: &str| fs::symlink_metadata(layer.join(name)).is_ok_and(|about| about.file_type().is_char_device() && about.rdev() == 0);
    for name in ["gone", "d/gone"] {
        assert!(is_device(name), "{name}");
    }
    let opaque = |name: &str| {
        let mut value = [0; 4];
        rustix::fs::getxattr(layer.join(name), "user.overlay.opaque", &mut value).is_ok_and(|bytes| value[..bytes] == *b"y")
    };
    assert_eq!(["opaque", "fresh", "old", "d", "."].map(opaque), [true, true, true, false, false]);
    for name in ["kept", "late", "fresh/x", "opaque/x"] {
        assert!(layer.join(name).is_file(), "{name}");
    }
    let mut names: Vec<_> = fs::read_dir(&layer).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "fresh", "gone", "kept", "late", "old", "opaque"]);
}

#[test]
fn whiteouts_that_could_mean_something_else_are_refused() {
    let cases: [(&str, &[Vec<u8>], &str); 6] = [
        (".wh.", &[file(".wh.", b"")], "a whiteout of nothing"),
        (".wh..", &[file("d/.wh..", b"")], "a whiteout of nothing"),
        (".wh...", &[file("d/.wh...", b"")], "a whiteout of nothing"),
        ("in a whiteout", &[file(".wh.d/x", b"")], "has the name of a whiteout"),
        ("through a link", &[symlink("l", ".."), file("l/.wh.canary", b"")], "is a symbolic link"),
        ("all, through a link", &[symlink("l", ".."), file("l/.wh..wh..opq", b"")], "is a symbolic link"),
    ];
    for (what, entries, words) in cases {
        match Place::new().layer(&ended(entries), &Limits::default()) {
            Err(UnpackError::Refused(said)) => assert!(said.contains(words), "{what}: {said}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Four layers with all that they can do to each other, and what is seen then: files with their contents, folders, links.
fn stacked() -> (Vec<Vec<u8>>, Vec<&'static str>) {
    let layers = vec![
        ended(&[
            folder("etc"),
            file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            file("a", b"a1"),
            file("d/x", b"x1"),
            file("d/y", b"y1"),
            file("o/hidden", b"h1"),
            file("r/old", b"o1"),
            file("back", b"b1"),
            symlink("l", "d"),
        ]),
        ended(&[file(".wh.a", b""), file("d/.wh.x", b""), file("o/.wh..wh..opq", b""), file("o/new", b"n2"), file(".wh.back", b"")]),
        ended(&[file(".wh.r", b""), file("r/new", b"n3"), file("back", b"b3"), file("d/z", b"z3"), hard_link("d/w", "d/z")]),
        ended(&[file("etc/passwd", b"root:x:0:0::/root:/bin/ash\n"), file("d/.wh.y", b""), symlink("l", "o"), file("empty", b"")]),
    ];
    let seen = vec![
        "back b3",
        "d/",
        "d/w z3",
        "d/z z3",
        "empty ",
        "etc/",
        "etc/passwd root:x:0:0::/root:/bin/ash",
        "l -> o",
        "o/",
        "o/new n2",
        "r/",
        "r/new n3",
    ];
    (layers, seen)
}

#[test]
fn folders_that_a_layer_does_not_name_are_as_lower_layers_say() {
    let mode = |entry: Vec<u8>, mode: &[u8; 8], uid: &[u8; 8]| changed(changed(entry, 100, mode), 108, uid);
    let place = Place::new();
    let entries = [
        vec![mode(folder("./"), b"0000711\0", b"0000003\0"), mode(folder("tmp"), b"0001777\0", b"0000000\0"), folder("opt/same")],
        vec![mode(folder("home"), b"0000750\0", b"0000001\0"), mode(folder("home/app"), b"0000700\0", b"0001750\0"), folder("gone/d")],
        vec![file("tmp/x", b""), file("home/app/a/b", b""), file("opt/same/x", b""), file("new/d/x", b""), file(".wh.gone", b"")],
        vec![file("gone/d/x", b""), mode(folder("new"), b"0000700\0", b"0000007\0")],
    ];
    let layers = entries.map(|entries| ended(&entries));
    let image = build::image("test", &layers, &ImageConfig::default());
    let Unpacked::Image { layers, .. } = place.unpack(&image, Wanted::Image, &Limits::default()).unwrap() else { panic!() };
    let paths: Vec<_> = layers.iter().map(|layer| place.target().join("layers").join(layer.id.to_string())).collect();
    let abouts: Vec<_> = layers.iter().map(|layer| layer.about.clone().unwrap()).collect();
    assert_eq!(abouts[2].implied, ["", "home", "home/app", "home/app/a", "new", "new/d", "opt", "opt/same", "tmp"]);
    let into = place.target().join("layers");
    let mended = implied::mend(&paths, &abouts, &into).unwrap().unwrap();
    let top = into.join(mended.id.to_string());
    let said = |name: &str| {
        let about = fs::symlink_metadata(top.join(name)).unwrap();
        (about.mode() & 0o7777, if is_root() { about.uid() } else { 0 })
    };
    let uid = |uid: u32| if is_root() { uid } else { 0 };
    assert_eq!(said("."), (0o711, uid(3)));
    assert_eq!([said("tmp"), said("home"), said("home/app")], [(0o1777, 0), (0o750, uid(1)), (0o700, uid(1_000))]);
    let mut names: Vec<_> = fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["home", "tmp"], "what is right already, or new, or gone, needs nothing");
    assert_eq!(fs::read_dir(top.join("home/app")).unwrap().count(), 0);
    // With that layer on top there is nothing left to do; and nothing at all where all is named.
    let (all, mut known) = ([paths.clone(), vec![top]].concat(), abouts.clone());
    known.push(mended.about.unwrap());
    assert_eq!(implied::mend(&all, &known, &into).unwrap(), None);
    assert_eq!(implied::mend(&paths[..1], &abouts[..1], &into).unwrap(), None);
}

/// What an overlay of `layers` shows; `None` where none can be mounted.
fn mounted(place: &Place, layers: &[PathBuf]) -> Option<Vec<String>> {
    if !is_root() {
        println!("skipped: not root: no overlay is mounted");
        return None;
    }
    let at = place.0.join("target/merged");
    fs::create_dir_all(&at).unwrap();
    let lower: Vec<_> = layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
    let script = r#"mount -t overlay overlay -o "$1,lowerdir=$2" "$3" || exit 99; cd "$3"
        find . -mindepth 1 | sort | while read -r f; do f=${f#./}
        if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"; elif [ -d "$f" ]; then echo "$f/"; else echo "$f $(cat "$f")"; fi; done"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", super::super::OVERLAY_OPTION]).arg(lower.join(":")).arg(&at).env("LC_ALL", "C");
    let output = command.output().unwrap();
    if output.status.code() == Some(99) {
        println!("skipped: no overlay can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn an_overlay_of_the_layers_shows_the_image() {
    let place = Place::new();
    let (layers, expected) = stacked();
    let layers = stack(&place, &layers);
    if let Some(seen) = mounted(&place, &layers) {
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_view_without_a_mount_shows_the_same() {
    let place = Place::new();
    let (layers, expected) = stacked();
    let layers = stack(&place, &layers);
    let view = View::new(&layers);
    let read = |path: &str| view.read(path, 1_000).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
    for (path, contents) in expected.iter().filter_map(|line| line.split_once(' ')).filter(|(_, contents)| !contents.starts_with("->")) {
        assert_eq!(read(path).unwrap().trim_end(), contents, "{path}");
    }
    for gone in ["a", "d/x", "d/y", "o/hidden", "r/old", "d", "nowhere", "etc/passwd/x", "l/x"] {
        assert_eq!(read(gone), None, "{gone}");
    }
    assert_eq!(read("l/new").unwrap(), "n2", "through a link, in another layer");
}

#[test]
fn a_view_follows_links_only_within() {
    let place = Place::new();
    fs::write(place.0.join("passwd"), "outside").unwrap();
    let layers = stack(
        &place,
        &[ended(&[
            file("etc/real", b"inside"),
            symlink("etc/up", "../../../../../../../../../../etc/real"),
            symlink("etc/absolute", "/etc/real"),
            symlink("etc/out", "/etc/passwd"),
            symlink("etc/loop", "loop"),
            symlink("etc/long", &format!("{}real", "../etc/".repeat(11))),
            symlink("far", "etc"),
            file("large", &[b'x'; 101]),
        ])],
    );
    let view = View::new(&layers);
    let read = |path: &str| view.read(path, 100);
    for path in ["etc/up", "etc/absolute", "far/up", "far/absolute", "etc/long"] {
        assert_eq!(read(path).unwrap().unwrap(), b"inside", "{path}");
    }
    assert_eq!(read("etc/out").unwrap(), None);
    for (path, words) in [("etc/loop", "40 symbolic links"), ("large", "longer than 100 bytes")] {
        let error = read(path).unwrap_err().to_string();
        assert!(error.contains(words), "{path}: {error}");
    }
}

#[test]
fn where_no_device_can_be_made_a_file_is_the_whiteout() {
    let place = Place::new();
    let lower = place.target().join("lower");
    let upper = place.target().join("upper");
    for folder in ["lower/d", "upper/d", "lower/o"] {
        fs::create_dir_all(place.target().join(folder)).unwrap();
    }
    for name in ["a", "d/x", "d/y", "o/x"] {
        fs::write(lower.join(name), name).unwrap();
    }
    let attributes = Attributes { mode: 0o755, owner: None, mtime: (0, 0) };
    let mut tree = Tree::new(File::open(&upper).unwrap().into(), attributes).unwrap();
    tree.whiteouts = Whiteouts::File;
    let at = |path: &str| At::new(path.as_bytes(), &Limits::default()).unwrap().unwrap();
    for gone in ["a", "d/x", "o/gone"] {
        tree.whiteout(&at(gone)).unwrap();
    }
    tree.opaque(b"o").unwrap();
    // Over a whiteout of this form a folder hides what is below too.
    tree.whiteout(&at("e")).unwrap();
    tree.folder(Some(&at("e")), attributes).unwrap();
    tree.finish().unwrap();
    assert!(fs::symlink_metadata(upper.join("a")).unwrap().is_file());
    let layers = [lower, upper];
    let view = View::new(&layers);
    let read = |path: &str| view.read(path, 100).unwrap();
    assert_eq!((read("a"), read("d/x"), read("o/x"), read("d/y").unwrap()), (None, None, None, b"d/y".to_vec()));
    if let Some(seen) = mounted(&place, &layers) {
        let seen: Vec<_> = seen.iter().filter(|line| !line.starts_with("o/")).collect();
        assert_eq!(seen, ["d/", "d/y d/y", "e/"]);
    }
}
