//! Compressed archives: what is read, and where bombs end.

use super::*;

fn sample() -> Vec<u8> {
    ended(&[folder("d"), file("d/x", &[7; 5_000]), file("run", b"#!/bin/sh\n")])
}

#[test]
fn the_same_archive_may_come_in_any_form() {
    let plain = sample();
    let (first, second) = plain.split_at(1_000);
    // A frame that is to be skipped (RFC 8878 3.1.2).
    let skipped = [b"\x50\x2a\x4d\x18\x04\0\0\0more".as_slice(), &zstd(&plain)].concat();
    let forms = [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("gzip in parts", [gzip(first), gzip(second)].concat()),
        ("zstd", zstd(&plain)),
        ("zstd in frames", [zstd(first), zstd(second)].concat()),
        ("zstd with a frame to skip", skipped),
    ];
    for (form, bytes) in forms {
        let place = Place::new();
        let folder = place.bundle(&bytes, &Limits::default()).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(fs::read(folder.join("d/x")).unwrap(), [7; 5_000], "{form}");
        assert_eq!(fs::metadata(folder.join("run")).unwrap().mode() & 0o7777, 0o555, "{form}");
    }
}

#[test]
fn what_is_not_read_or_damaged_says_so() {
    let (gz, zst) = (gzip(&sample()), zstd(&sample()));
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 9].to_vec();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("xz", b"\xfd7zXZ\0more".to_vec(), "compressed by xz"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "compressed by bzip2"),
        ("cut gzip", cut(&gz), "ends too early"),
        ("cut zstd", cut(&zst), "damaged"),
        ("gzip and more", [gz.as_slice(), b"more than a header has"].concat(), "damaged"),
        ("no tar", vec![b'a'; 2_000], "no tar archive"),
        ("empty", vec![], "ends without the mark"),
        ("short", vec![b'a'; 100], "ends within a header"),
        ("gzip of no tar", gzip(b"x"), "ends within a header"),
    ];
    for (what, bytes, words) in cases {
        match Place::new().bundle(&bytes, &Limits::default()) {
            Err(UnpackError::Refused(said)) => assert!(said.contains(words), "{what}: {said}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn bombs_end_early() {
    let zeros = ended(&[file("x", &vec![0; 80 << 20])]);
    let packed = gzip(&zeros);
    assert!(packed.len() < zeros.len() / 200);
    match Place::new().bundle(&packed, &Limits::default()) {
        Err(UnpackError::Limit(said)) => assert!(said.contains("entry \"x\": it becomes more than 200 times as long"), "{said}"),
        other => panic!("{other:?}"),
    }
    let small = Limits { bytes_max: 1 << 20, layer_bytes_max: 1 << 20, ..Limits::default() };
    let bomb = ended(&[file("a", &vec![0; 600 << 10]), file("b", &vec![0; 600 << 10])]);
    for packed in [gzip(&bomb), zstd(&bomb)] {
        match Place::new().bundle(&packed, &small) {
            Err(UnpackError::Limit(said)) => assert!(said.contains("longer than 1048576 bytes"), "{said}"),
            other => panic!("{other:?}"),
        }
        // An archive of an image that is compressed as a whole, before anything of it is looked at.
        match Place::new().unpack(&packed, Wanted::Image, &small) {
            Err(UnpackError::Limit(said)) => assert!(said.contains("longer than 1048576 bytes"), "{said}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bundle_is_for_everyone_to_read_and_nobody_to_write() {
    let place = Place::new();
    let entries = [
        changed(folder("d"), 100, b"0000700\0"),
        changed(file("d/secret", b"x"), 100, b"0000600\0"),
        changed(file("d/suid", b"x"), 100, b"0006711\0"),
        changed(file("d/open", b"x"), 100, b"0000666\0"),
    ];
    let folder = place.bundle(&ended(&entries), &Limits::default()).unwrap();
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().mode() & 0o7777;
    assert_eq!([".", "d", "d/secret", "d/suid", "d/open"].map(mode), [0o755, 0o755, 0o444, 0o555, 0o444]);
    assert_eq!(fs::metadata(folder.join("d/open")).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_eq!(fs::metadata(folder.join("d/open")).unwrap().mtime(), 10);
}

#[test]
fn a_file_is_told_by_its_first_bytes() {
    use super::super::{Look, look};
    let place = Place::new();
    let cases: [(&[u8], Look); 8] = [
        (b"\0asm\x01\0\0\0", Look::Wasm),
        (b"\x7fELF\x02", Look::Elf),
        (b"#!/bin/sh\n", Look::Script),
        (&sample(), Look::Archive),
        (&gzip(&sample()), Look::Archive),
        (&zstd(&sample()), Look::Archive),
        (b"PK\x03\x04", Look::Other),
        (b"x", Look::Other),
    ];
    let said = |bytes: &[u8]| {
        fs::write(place.target().join("file"), bytes).unwrap();
        look(&File::open(place.target().join("file")).unwrap())
    };
    for (bytes, expected) in cases {
        assert_eq!(said(bytes), Ok(expected));
    }
    for (bytes, words) in [(b"".as_slice(), "empty"), (b"\xfd7zXZ\0", "xz")] {
        let error = said(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
