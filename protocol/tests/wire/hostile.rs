//! Bytes that are no message: a clear error each, nothing allocated beyond what they are worth, and no panic.

use super::{frames, wires};
use protocol::frame::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, decode, encode, length};
use protocol::message::{ATTEMPTS_PER_MESSAGE_MAX, FromAgent};

/// The largest number of 64 bits as a varint, and one byte more than that may have.
const VARINT_MAX: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
const VARINT_OVERLONG: [u8; 11] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];

#[test]
fn a_length_is_judged_before_anything_is_allocated() {
    let cases = [
        (0, Err(FrameError::Empty)),
        (1, Ok(1)),
        (FRAME_BYTES_MAX as u32, Ok(FRAME_BYTES_MAX)),
        (FRAME_BYTES_MAX as u32 + 1, Err(FrameError::TooLong { bytes: FRAME_BYTES_MAX as u64 + 1 })),
        (u32::MAX, Err(FrameError::TooLong { bytes: u64::from(u32::MAX) })),
    ];
    for (header, expected) in cases {
        assert_eq!(length(header.to_le_bytes()), expected);
    }
}

#[test]
fn a_message_too_long_for_a_frame_leaves_the_buffer_as_it_was() {
    let mut buffer = vec![1, 2, 3];
    let long = "x".repeat(FRAME_BYTES_MAX);
    assert!(matches!(encode(&long, &mut buffer), Err(FrameError::TooLong { .. })));
    assert_eq!(buffer, [1, 2, 3]);
    let fits = "x".repeat(FRAME_BYTES_MAX - 3);
    assert_eq!(encode(&fits, &mut buffer), Ok(()));
    assert_eq!(buffer.len(), 3 + HEADER_BYTES + FRAME_BYTES_MAX);
}

#[test]
fn every_message_cut_anywhere_is_malformed() {
    for (name, wire, frame) in frames() {
        let body = &frame[HEADER_BYTES..];
        for cut in 0..body.len() {
            let error = (wire.decode)(&body[..cut]).err();
            assert!(matches!(error, Some(FrameError::Malformed { .. })), "{name} cut to {cut} bytes: {error:?}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    for (name, wire, frame) in frames() {
        for rest in [1, 2, 100] {
            let body = [&frame[HEADER_BYTES..], &vec![0; rest][..]].concat();
            assert_eq!((wire.decode)(&body).err(), Some(FrameError::Trailing { bytes: rest }), "{name}");
        }
    }
}

#[test]
fn a_variant_that_nobody_knows_is_refused() {
    for wire in wires().into_iter().filter(|wire| !wire.variants.is_empty()) {
        for tag in [&[wire.variants.len() as u8][..], &[0x7f], &[0xff, 0x7f], &VARINT_MAX, &VARINT_OVERLONG] {
            let body = [tag, &[0; 64]].concat();
            assert!(matches!((wire.decode)(&body), Err(FrameError::Malformed { .. })), "{} {tag:?}", wire.name);
        }
    }
}

#[test]
fn a_frame_with_any_bit_turned_is_a_message_or_an_error() {
    for (name, wire, frame) in frames() {
        let body = &frame[HEADER_BYTES..];
        for bit in 0..body.len() * 8 {
            let mut turned = body.to_vec();
            turned[bit / 8] ^= 1 << (bit % 8);
            if let Ok(again) = (wire.decode)(&turned) {
                assert!(length([again[0], again[1], again[2], again[3]]).is_ok(), "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_list_that_says_it_is_longer_is_refused_at_its_end() {
    // `FromAgent::Status` and `Report`, whose lists are of messages' largest elements: the length is a lie, or the list too long.
    let status = |count: &[u8], elements: usize| [&[2], count, &[0; 4].repeat(elements)].concat();
    let report = |count: &[u8], elements: usize| [&[3, 0], count, &[0; 4].repeat(elements), &[1]].concat();
    let four_thousand = [0x80, 0x20];
    assert_eq!(ATTEMPTS_PER_MESSAGE_MAX, 4_096);
    let over = [0x81, 0x20];
    for body in [
        status(&VARINT_MAX, 10),
        status(&VARINT_OVERLONG, 10),
        status(&[0xff, 0xff, 0xff, 0x7f], 200_000),
        status(&four_thousand, 4_095),
        status(&over, 4_097),
        report(&VARINT_MAX, 10),
        report(&over, 4_097),
    ] {
        assert!(matches!(decode::<FromAgent>(&body), Err(FrameError::Malformed { .. })));
    }
    assert!(decode::<FromAgent>(&status(&four_thousand, 4_096)).is_ok());
    assert!(decode::<FromAgent>(&report(&four_thousand, 4_096)).is_ok());
}

#[test]
fn noise_is_a_message_or_an_error() {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    };
    for round in 0..2_000 {
        let body: Vec<u8> = (0..round % 97).map(|_| next()).collect();
        for wire in wires() {
            let _ = (wire.decode)(&body);
        }
    }
    for wire in wires() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let _ = (wire.decode)(&vec![byte; FRAME_BYTES_MAX]);
        }
    }
}
