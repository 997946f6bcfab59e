//! What is kept of tasks' output, and what it costs.

use super::*;
use crate::executor::fixture::Folder;

struct Case {
    folder: Folder,
    logs: Logs,
}

fn case() -> Case {
    let folder = Folder::new();
    fs::create_dir(folder.path().join(FOLDER)).unwrap();
    Case { logs: Logs::new(folder.path()), folder }
}

impl Case {
    fn files(&self) -> usize {
        fs::read_dir(self.folder.path().join(FOLDER)).unwrap().count()
    }

    fn disk_bytes(&self) -> u64 {
        fs::read_dir(self.folder.path().join(FOLDER)).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn texts(&self, key: Key, offset: u64, max: usize) -> (Vec<(u8, String)>, LogRead) {
        let read = read_log(self.folder.path(), key, offset, max).unwrap();
        let (mut rest, mut texts) = (read.bytes.as_slice(), vec![]);
        while let Some(record) = first_record(rest) {
            texts.push((record[0], String::from_utf8(record[RECORD_HEADER_BYTES..].to_vec()).unwrap()));
            rest = &rest[record.len()..];
        }
        assert!(rest.is_empty(), "only whole records are read");
        (texts, read)
    }
}

#[test]
fn a_file_is_made_at_the_first_byte_and_keeps_the_order_of_both_streams() {
    let case = case();
    let log = case.logs.task(Key(1), 1_000);
    assert_eq!(case.files(), 0);
    assert_eq!(case.texts(Key(1), 0, 100).1, LogRead::default());
    case.logs.write(&log, Stream::Stdout, b"one");
    case.logs.write(&log, Stream::Stderr, b"two");
    case.logs.write(&log, Stream::Stdout, b"three");
    let texts = vec![(1, "one".into()), (2, "two".into()), (1, "three".into())];
    let (all, read) = case.texts(Key(1), 0, 1_000);
    assert_eq!((all, read.offset, read.next_offset), (texts.clone(), 0, 26));
    let (first, read) = case.texts(Key(1), 0, 1);
    assert_eq!((first, read.next_offset), (texts[..1].to_vec(), 8), "at least one record");
    assert_eq!(case.texts(Key(1), 8, 1_000).0, texts[1..]);
    assert_eq!(case.texts(Key(1), 9, 1_000).0, texts[2..], "inside a record means the next one");
    assert_eq!(case.texts(Key(1), 26, 1_000).1, LogRead { bytes: vec![], offset: 26, next_offset: 26 });
    assert_eq!(case.texts(Key(1), u64::MAX, 1_000).1.next_offset, u64::MAX);
}

#[test]
fn a_flood_keeps_its_newest_part_within_the_limit() {
    let case = case();
    let log = case.logs.task(Key(1), 4_096);
    for n in 0..10_000 {
        case.logs.write(&log, Stream::Stdout, format!("line {n}").as_bytes());
        assert!(n % 500 != 0 || case.disk_bytes() <= 4_096);
    }
    case.logs.write(&log, Stream::Stdout, &[b'x'; 100_000]);
    assert!(case.disk_bytes() <= 4_096, "{} bytes", case.disk_bytes());
    let (texts, read) = case.texts(Key(1), 0, usize::MAX);
    assert!(read.offset > 100_000 && read.next_offset > read.offset);
    assert!(texts.last().unwrap().1.ends_with('x'));
}

#[test]
fn no_limit_too_small_to_hold() {
    let case = case();
    for limit in 0..64 {
        let log = case.logs.task(Key(limit), limit.try_into().unwrap());
        for _ in 0..10 {
            case.logs.write(&log, Stream::Stderr, b"some bytes that do not fit");
        }
    }
    assert!(case.disk_bytes() < 64 * 64);
}

#[test]
fn at_most_so_many_files_are_open_and_closed_ones_go_on() {
    let case = case();
    let logs: Vec<_> = (0..OPEN_MAX as u128 + 100).map(|key| case.logs.task(Key(key), 1_000)).collect();
    for round in ["a", "b"] {
        logs.iter().for_each(|log| case.logs.write(log, Stream::Stdout, round.as_bytes()));
        let open = logs.iter().filter(|log| locked(&log.written).file.is_some()).count();
        assert!(open <= OPEN_MAX, "{open} are open");
    }
    for log in &logs {
        assert_eq!(case.texts(log.key, 0, 100).0, [(1, "a".into()), (1, "b".into())]);
    }
}

#[test]
fn output_of_the_oldest_ended_tasks_goes_first() {
    let case = case();
    for key in 0..ENDED_TASKS_MAX as u128 + 2 {
        let log = case.logs.task(Key(key), 1_000);
        case.logs.write(&log, Stream::Stdout, b"x");
        case.logs.end(&log);
    }
    assert_eq!(case.files(), ENDED_TASKS_MAX);
    assert!(case.texts(Key(1), 0, 100).0.is_empty() && !case.texts(Key(2), 0, 100).0.is_empty());
}

#[test]
fn a_record_that_is_being_written_is_not_read() {
    let case = case();
    let log = case.logs.task(Key(1), 1_000);
    case.logs.write(&log, Stream::Stdout, b"whole");
    let file = path(&case.folder.path().join(FOLDER), Key(1), 0);
    OpenOptions::new().append(true).open(file).unwrap().write_all(&[1, 200, 0, 0, 0, b'p']).unwrap();
    assert_eq!(case.texts(Key(1), 0, 1_000).0, [(1, "whole".into())]);
}
