//! What its framework says to a task that is a process: a pipe of which the task has the other end. A frame for each message: a big-endian `u32` length, and
//! so many bytes. What the task's pipe does not take waits here, within bounds; whoever sends never waits.

use crate::messages::Messages;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, write};

/// It.
pub(super) struct Mailbox {
    /// `None`: the task has closed its end.
    pipe: Option<OwnedFd>,
    waiting: Messages,
    /// Of the frame that is on its way, what the pipe has not taken yet.
    frame: Vec<u8>,
}

impl Mailbox {
    /// Writes into `pipe`, which does not wait.
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), waiting: Messages::default(), frame: vec![] }
    }

    /// Takes a message in.
    pub(super) fn hear(&mut self, message: Vec<u8>) {
        self.waiting.push(message);
        self.pass_on();
    }

    /// The pipe, while something waits until it takes more.
    pub(super) fn waits(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| !self.frame.is_empty()).map(OwnedFd::as_fd)
    }

    /// How many messages were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.waiting.dropped()
    }

    /// Gives the pipe what it takes.
    pub(super) fn pass_on(&mut self) {
        let Some(pipe) = &self.pipe else { return self.waiting.drop_all() };
        loop {
            if self.frame.is_empty() {
                let Some(message) = self.waiting.take() else { return };
                let length = u32::try_from(message.len()).expect("what waits is bounded").to_be_bytes();
                self.frame = [&length[..], &message].concat();
            }
            match write(pipe, &self.frame) {
                Ok(taken) => drop(self.frame.drain(..taken)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    (self.pipe, self.frame) = (None, vec![]);
                    self.waiting.drop_new(); // The one that was on its way.
                    return self.waiting.drop_all();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::WAITING_MAX;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::fs::File;
    use std::io::Read;

    fn frames(pipe: &OwnedFd) -> Vec<Vec<u8>> {
        let (mut bytes, mut file) = (vec![], File::from(pipe.try_clone().unwrap()));
        let _ = file.read_to_end(&mut bytes); // Ends with what is there, since nothing is waited for.
        let (mut frames, mut rest) = (vec![], &bytes[..]);
        while let Some((length, behind)) = rest.split_first_chunk() {
            let (frame, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            frames.push(frame.to_vec());
            rest = behind;
        }
        frames
    }

    #[test]
    fn a_task_that_reads_nothing_costs_its_bound_and_no_frame_is_torn() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut mailbox = Mailbox::new(writer);
        mailbox.hear(b"first".to_vec());
        mailbox.hear(vec![]);
        assert!(mailbox.waits().is_none());
        assert_eq!(frames(&reader), [b"first".to_vec(), vec![]]);
        let count = 400_u32;
        (0..count).for_each(|n| mailbox.hear([n.to_be_bytes().to_vec(), vec![0; 996]].concat()));
        assert!(mailbox.waits().is_some() && mailbox.dropped() > 0);
        let mut came = vec![];
        // Whole frames and a part of one fit the pipe: the rest of that one comes next.
        let mut file = File::from(reader.try_clone().unwrap());
        while mailbox.waits().is_some() || came.is_empty() {
            let mut piece = vec![0; 1 << 20];
            let read = file.read(&mut piece).unwrap();
            came.extend_from_slice(&piece[..read]);
            mailbox.pass_on();
        }
        let mut rest = vec![];
        let _ = file.read_to_end(&mut rest);
        came.extend(rest);
        let numbers: Vec<u32> = came.chunks(1_004).map(|frame| u32::from_be_bytes(frame[4..8].try_into().unwrap())).collect();
        assert!(came.len().is_multiple_of(1_004) && came.chunks(1_004).all(|frame| frame[..4] == 1_000_u32.to_be_bytes()));
        assert!(numbers.is_sorted() && numbers.first() == Some(&0) && numbers.last() == Some(&(count - 1)), "{numbers:?}");
        assert_eq!(numbers.len() as u64 + mailbox.dropped(), u64::from(count));
        let newest: Vec<u32> = (count - WAITING_MAX as u32..count).collect();
        assert!(numbers.ends_with(&newest), "the oldest are dropped");
    }

    #[test]
    fn to_a_task_that_has_closed_its_end_all_is_dropped() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut mailbox = Mailbox::new(writer);
        drop(reader);
        (0..3).for_each(|_| mailbox.hear(b"nobody".to_vec()));
        assert!(mailbox.waits().is_none() && mailbox.dropped() == 3);
    }
}
