//! What a stranger may put into an archive, entry by entry: each as a layer of an image and as a bundle.

use super::*;
use Says::{Fine, Limit, Refused};

/// What is expected of an archive, with a part of the words.
#[derive(Clone, Copy, Debug)]
enum Says {
    Fine,
    Refused(&'static str),
    Limit(&'static str),
}

impl Says {
    fn check(self, what: &str, found: &Result<PathBuf, UnpackError>) {
        let fits = match (self, found) {
            (Fine, Ok(_)) => true,
            (Refused(words), Err(UnpackError::Refused(said))) | (Limit(words), Err(UnpackError::Limit(said))) => said.contains(words),
            _ => false,
        };
        assert!(fits, "{what}: expected {self:?}, found {found:?}");
    }
}

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    layer_bytes_max: 512 << 10,
    entries_max: 100,
    layer_entries_max: 50,
    layers_max: 4,
    path_bytes_max: 600,
    depth_max: 8,
};

/// What it is, its entries, and what is said of it as a layer and as a bundle.
type Case = (&'static str, Vec<Vec<u8>>, Says, Says);

fn both(what: &'static str, entries: Vec<Vec<u8>>, says: Says) -> Case {
    (what, entries, says, says)
}

fn check(cases: Vec<Case>) {
    for (what, entries, layer, bundle) in cases {
        let archive = ended(&entries);
        layer.check(&format!("{what}, as a layer"), &Place::new().layer(&archive, &LIMITS));
        bundle.check(&format!("{what}, as a bundle"), &Place::new().bundle(&archive, &LIMITS));
    }
}

#[test]
fn names_that_lead_out_are_refused_and_named() {
    check(vec![
        both("above the root", vec![file("../x", b"")], Refused("entry \"../x\": its name has \"..\"")),
        both("above, by a way", vec![file("a/../../x", b"")], Refused("\"..\"")),
        both("up within", vec![file("a/b/../c", b"")], Refused("\"..\"")),
        both("absolute", vec![file("/tmp/x", b"")], Refused("entry \"/tmp/x\": its name is absolute")),
        both("a folder above", vec![folder("..")], Refused("\"..\"")),
        both("the root as a file", vec![file("./", b"x")], Refused("yet has 1 bytes")),
        both("the root as a link", vec![symlink(".", "/")], Refused("the root itself")),
        both("no name", vec![file("", b"")], Refused("no name")),
        both("a NUL", vec![pax(&[("path", b"a\0b")]), file("x", b"")], Refused("NUL")),
        both("a NUL in a link", vec![pax(&[("linkpath", b"a\0b")]), symlink("x", "y")], Refused("NUL")),
        both("points in the name", vec![file("./a/./b", b"x"), file("..a", b"x"), file("a..", b"x"), file("...", b"x")], Fine),
        both("a long part", vec![pax(&[("path", &[b'a'; 256])]), file("x", b"")], Limit("256 bytes; at most 255")),
        both("a long name", vec![pax(&[("path", b"abc/".repeat(200).as_slice())]), folder("x")], Limit("800 bytes; at most 600")),
        both("deep", vec![file("1/2/3/4/5/6/7/8/9/x", b"")], Limit("9 folders; at most 8")),
    ]);
}

#[test]
fn links_lead_nowhere_that_something_is_written() {
    check(vec![
        ("a link out", vec![symlink("l", "../canary")], Fine, Refused("may leave the bundle, to \"../canary\"")),
        ("an absolute link", vec![symlink("l", "/etc/passwd")], Fine, Refused("may leave")),
        ("a way out and in again", vec![symlink("d/l", "../../target/x")], Fine, Refused("may leave")),
        ("up in the middle", vec![symlink("d/l", "x/../../y")], Fine, Refused("may leave")),
        both("up as far as the root", vec![symlink("d/e/l", "../../x")], Fine),
        both("a link to nothing", vec![symlink("l", "")], Refused("a link to nothing")),
        ("through a link out", vec![symlink("l", ".."), file("l/canary", b"x")], Refused("is a symbolic link"), Refused("may leave")),
        both(
            "through a link inside",
            vec![folder("d"), symlink("l", "d"), file("l/x", b"x")],
            Refused("entry \"l/x\": a folder on its way"),
        ),
        both("a folder through a link", vec![folder("d"), symlink("l", "d"), folder("l/x/y")], Refused("is a symbolic link")),
        both("a link through a link", vec![folder("d"), symlink("l", "d"), symlink("l/x", "y")], Refused("is a symbolic link")),
        both("a file over a link", vec![symlink("l", "d"), file("l", b"x")], Fine),
        ("a file over a link out", vec![symlink("l", "../../../canary"), file("l", b"x")], Fine, Refused("may leave")),
        both("hard, out", vec![hard_link("l", "../canary")], Refused("link to \"../canary\": its name has")),
        both("hard, absolute", vec![hard_link("l", "/etc/passwd")], Refused("absolute")),
        both("hard, to nothing", vec![hard_link("l", "x")], Refused("a link to \"x\", which is not a file before it")),
        both("hard, to a folder", vec![folder("d"), hard_link("l", "d")], Refused("not a file before it")),
        both("hard, to the root", vec![hard_link("l", ".")], Refused("a hard link to a folder")),
        both("hard, to itself", vec![file("l", b"x"), hard_link("./l", "l")], Refused("a link to itself")),
        both("hard, through a link", vec![folder("d"), file("d/x", b""), symlink("l", "d"), hard_link("y", "l/x")], Refused("not a file")),
        both("hard", vec![file("d/x", b"x"), hard_link("e/y", "d/x"), hard_link("z", "e/y")], Fine),
        (
            // At its new place the same words lead out.
            "hard, to a link",
            vec![symlink("a/b/l", "../../x"), hard_link("l", "a/b/l")],
            Fine,
            Refused("a hard link to a symbolic link"),
        ),
        ("to a long name", vec![pax(&[("linkpath", &[b'a'; 601])]), symlink("l", "x")], Limit("601 bytes"), Limit("601 bytes")),
    ]);
}

#[test]
fn only_files_folders_and_links_are_made() {
    let device = |path: &str, flag| raw(path.as_bytes(), flag, b"", b"");
    check(vec![
        both("a character device", vec![device("null", b'3')], Refused("entry \"null\": it is a device")),
        both("a block device", vec![device("etc/sda", b'4')], Refused("it is a device")),
        both("a FIFO", vec![device("pipe", b'6')], Refused("it is a FIFO")),
        ("a device in dev", vec![device("dev/null", b'3'), device("dev/x/pipe", b'6')], Fine, Refused("it is a device")),
        both("a name like dev", vec![device("devices/null", b'3')], Refused("it is a device")),
        both("sparse", vec![changed(file("s", b""), 156, b"S")], Refused("sparse")),
        both("sparse, by pax", vec![pax(&[("GNU.sparse.major", b"1")]), file("s", b"")], Refused("sparse")),
        both("a volume's name", vec![device("v", b'V')], Refused("type 'V'")),
        both("a part of a file", vec![device("v", b'M')], Refused("type 'M'")),
        both("what is not known", vec![device("v", b'Q')], Refused("type 'Q'")),
        both("contiguous", vec![raw(b"f", b'7', b"", b"x")], Fine),
        both("old", vec![raw(b"f", 0, b"", b"x"), raw(b"d/", 0, b"", b""), file("d/x", b"")], Fine),
    ]);
}

#[test]
fn what_programs_would_read_differently_is_refused() {
    let hidden = file("hidden", b"");
    check(vec![
        both("a folder with data", vec![sized(b"d", b'5', b"", 512, &[0; 512])], Refused("no file and yet has 512 bytes")),
        both("a link with data", vec![sized(b"l", b'2', b"x", 512, &[0; 512])], Refused("no file and yet has 512 bytes")),
        both("a size that is no number", vec![changed(file("x", b""), 124, b"0000000000x\0")], Refused("bad number")),
        both("a size below nothing", vec![changed(file("x", b""), 124, &[0xff; 12])], Refused("")),
        both("a size beyond all", vec![pax(&[("size", b"18446744073709551615")]), file("x", b"")], Refused("more than any file")),
        both("longer than there is", vec![sized(b"x", b'0', b"", 300_000, b"x")], Refused("ends too early")),
        both("longer than it may be", vec![sized(b"x", b'0', b"", 2 << 20, b"x")], Limit("a file of 2097152 bytes")),
        both("no size", vec![pax(&[("size", b"-1")]), file("x", b"")], Refused("\"size\" is no number")),
        both("twice", vec![pax(&[("path", b"a"), ("path", b"b")]), file("x", b"")], Refused("twice")),
        both("twice in two", vec![pax(&[("path", b"a")]), pax(&[("path", b"b")]), file("x", b"")], Refused("twice")),
        both("in two ways", vec![raw(b"", b'L', b"", b"a\0"), pax(&[("path", b"b")]), file("x", b"")], Refused("twice")),
        both("for all", vec![changed(pax(&[("path", b"a")]), 156, b"g"), file("x", b"")], Refused("more than a comment")),
        both("a comment for all", vec![changed(pax(&[("comment", b"a")]), 156, b"g"), file("x", b"")], Fine),
        both("of nothing", vec![pax(&[("path", b"a")])], Refused("ends after an extended header")),
        both("a long header", vec![sized(b"x", b'x', b"", 2 << 20, b"")], Limit("an extended header of 2097152 bytes")),
        both("a record too long", vec![raw(b"x", b'x', b"", b"99 path=a\n"), file("x", b"")], Refused("not well formed")),
        both("a record without a length", vec![raw(b"x", b'x', b"", b" path=a\n"), file("x", b"")], Refused("not well formed")),
        both("a record of none", vec![raw(b"x", b'x', b"", b"0 path=a\n"), file("x", b"")], Refused("not well formed")),
        both("a record without a value", vec![raw(b"x", b'x', b"", b"8 path\n\n"), file("x", b"")], Refused("not well formed")),
        both("a wrong sum", vec![file("x", b"").into_iter().map(|byte| if byte == b'x' { b'y' } else { byte }).collect()], Refused("sum")),
        both("an empty block", vec![file("x", b""), vec![0; 512], hidden.clone()], Refused("an empty block between")),
        both("an owner beyond all", vec![pax(&[("uid", b"4294967295")]), file("x", b"")], Refused("owner's number")),
    ]);
    let place = Place::new();
    // What follows is data of the first, whatever its own header says.
    let archive = ended(&[pax(&[("size", b"512")]), sized(b"x", b'0', b"", 0, b""), hidden]);
    let folder = place.bundle(&archive, &LIMITS).unwrap();
    assert_eq!((fs::metadata(folder.join("x")).unwrap().len(), folder.join("hidden").exists()), (512, false));
}

#[test]
fn later_entries_replace_earlier_ones_but_no_folder_with_its_files() {
    check(vec![
        both("two files", vec![file("x", b"1"), file("x", b"2")], Fine),
        both("two folders", vec![folder("d"), file("d/x", b""), folder("d/")], Fine),
        both("a folder over a file", vec![file("x", b"1"), folder("x"), file("x/y", b"")], Fine),
        both("a file over a folder", vec![folder("x"), file("x", b"1")], Refused("a folder of that name before it")),
        both("a link over a folder", vec![folder("x"), symlink("x", "y")], Refused("a folder of that name before it")),
        both("below a file", vec![file("x", b"1"), file("x/y", b"")], Refused("a folder on its way is a file")),
    ]);
    let place = Place::new();
    // The other name keeps what it had: nothing is written through it.
    let archive = ended(&[file("x", b"1"), hard_link("y", "x"), file("x", b"2")]);
    let folder = place.bundle(&archive, &LIMITS).unwrap();
    assert_eq!((fs::read(folder.join("x")).unwrap(), fs::read(folder.join("y")).unwrap()), (b"2".to_vec(), b"1".to_vec()));
}

#[test]
fn more_than_may_be_is_a_limit() {
    let many = |count: usize| (0..count).map(|at| file(&format!("f{at}"), b"")).collect::<Vec<_>>();
    let deep = |count: usize| (0..count).map(|at| file(&format!("{at}/b/c/d/e/f/g/h"), b"")).collect::<Vec<_>>();
    let large = |count: usize| (0..count).map(|at| file(&format!("f{at}"), &[7; 100_000])).collect::<Vec<_>>();
    check(vec![
        ("many", many(51), Limit("more than 50 files"), Fine),
        ("too many", many(101), Limit("more than 50 files"), Limit("more than 100 files")),
        ("folders that nobody named", deep(13), Limit("more than 50 files"), Limit("more than 100 files")),
        ("long", large(6), Limit("longer than 524288 bytes"), Fine),
        ("too long", large(11), Limit("longer than 524288 bytes"), Limit("longer than 1048576 bytes")),
        ("long after the end", vec![vec![0; 1 << 20]], Limit("longer than 524288 bytes"), Limit("longer than 1048576 bytes")),
    ]);
}

#[test]
fn odd_names_are_only_names() {
    let names: [&[u8]; 7] = [b"a\nb", b"\xff\xfe", b"\x1b[2J", b"a b", b"*", b"-rf", "ő".as_bytes()];
    let place = Place::new();
    let entries: Vec<_> = names.iter().map(|name| raw(name, b'0', b"", name)).collect();
    let folder = place.bundle(&ended(&entries), &LIMITS).unwrap();
    for name in names {
        assert_eq!(fs::read(folder.join(std::ffi::OsStr::from_bytes(name))).unwrap(), name);
    }
    // And none reaches a terminal as it is.
    let error = Place::new().bundle(&ended(&[raw(b"\x1b[2J\xff\n/..", b'0', b"", b"")]), &LIMITS).unwrap_err();
    assert_eq!(error.to_string(), r#"entry "\x1b[2J\xff\n/..": its name has ".." in it"#);
}

#[test]
fn an_archive_that_was_cut_is_never_taken_for_a_whole_one() {
    let whole = ended(&[folder("d"), pax(&[("path", b"d/long")]), file("x", &[7; 700]), file("y", b"")]);
    for cut in 0..whole.len() - 512 {
        if cut % 512 > 1 && cut % 97 != 0 {
            continue;
        }
        match Place::new().bundle(&whole[..cut], &LIMITS) {
            Err(UnpackError::Refused(said)) => assert!(said.contains("end"), "{cut}: {said}"),
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    // One empty block is enough.
    Place::new().bundle(&whole[..whole.len() - 512], &LIMITS).unwrap();
}

/// A small generator of numbers (Marsaglia, "Xorshift RNGs", 2003): the same in each run.
fn noise(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn whatever_the_bytes_nothing_outside_is_written() {
    let hostile = [
        vec![file("../canary", b"x"), symlink("l", "../.."), file("l/canary", b"x"), hard_link("h", "../canary")],
        vec![folder("d"), file("d/.wh.x", b""), symlink("d/l", "/"), file("d/f", &[1; 600]), hard_link("d/g", "d/f")],
        vec![pax(&[("path", b"p/q"), ("mtime", b"1.5")]), file("x", b"x"), raw(b"", b'K', b"", b"y\0"), symlink("z", "w"), folder("p")],
    ];
    let seeds: Vec<Vec<u8>> = hostile.iter().map(|entries| ended(entries)).collect();
    let (mut state, mut fine) = (0x9e37_79b9_7f4a_7c15, 0);
    for round in 0..600 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..noise(&mut state) % 4 {
            let at = noise(&mut state) % bytes.len();
            bytes[at] = [0, b'/', b'.', b'1', b'5', 0xff, bytes[at] ^ 1][noise(&mut state) % 7];
        }
        // Else hardly any header would be looked at.
        for at in (0..bytes.len()).step_by(512) {
            if bytes[at + 257..].starts_with(b"ustar") {
                let block = summed(bytes[at..at + 512].try_into().unwrap());
                bytes[at..at + 512].copy_from_slice(&block);
            }
        }
        let place = Place::new();
        let done = if round % 2 == 0 { place.bundle(&bytes, &LIMITS).is_ok() } else { place.layer(&bytes, &LIMITS).is_ok() };
        fine += usize::from(done);
    }
    assert!(fine > 50 && fine < 550, "{fine} of 600 were unpacked: the noise finds both");
}
