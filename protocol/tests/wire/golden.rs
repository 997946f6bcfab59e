//! The bytes of one value of each variant. A change here is a change of what old and new binaries say to each other: only lines at an
//! enum's end may be added.

use super::{frames, trace, wires};

const GOLDEN: &str = include_str!("golden.txt");

#[test]
fn the_bytes_of_every_message_are_what_they_were() {
    let lines = frames().into_iter().map(|(name, _, frame)| {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {hex}\n")
    });
    let found: String = lines.collect();
    for (expected, found) in GOLDEN.lines().zip(found.lines()) {
        assert_eq!(expected, found, "the layout of a message has changed");
    }
    assert_eq!(GOLDEN.lines().count(), found.lines().count(), "new variants: golden.txt should be\n{found}");
}

#[test]
fn no_wire_type_is_recursive_or_a_sequence_of_nothing() {
    for wire in wires() {
        let mut trace = trace::Trace::default();
        (wire.walk)(&mut trace);
        assert!(trace.faults.is_empty(), "{}: {:?}", wire.name, trace.faults);
        for (name, (count, walked)) in &trace.variants {
            assert_eq!(walked.len(), *count, "{}: not every variant of {name} was walked", wire.name);
        }
    }
}

/// A check that cannot fail is none: these it must find.
#[test]
fn the_walk_finds_what_it_looks_for() {
    use serde::Deserialize;
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Deep {
        next: Option<Box<Deep>>,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    enum Tree {
        Leaf(u8),
        Branches(Vec<Tree>),
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Hollow {
        nothing: Vec<()>,
    }
    let faults = |walk: fn(&mut trace::Trace)| {
        let mut trace = trace::Trace::default();
        walk(&mut trace);
        trace.faults.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert!(faults(trace::walk::<Deep>).contains("Deep is recursive"));
    assert!(faults(trace::walk::<Tree>).contains("Tree is recursive"));
    assert!(faults(trace::walk::<Hollow>).contains("without bytes"));
}
