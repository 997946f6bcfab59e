//! What the engine runs on: tokio, chance that a simulator may decide, and no ticks where nobody needs them.

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_core::{Error, RngCore};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::watch;

thread_local! {
    /// What this thread's draws follow from, where a simulator says so.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// How many groups of this process have other members.
static IN_COMPANY: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Whether a group has other members; it counts until this is dropped.
#[derive(Debug, Default)]
pub struct Company(bool);

impl Company {
    /// It has, or has not any more.
    pub fn set(&mut self, others: bool) {
        if std::mem::replace(&mut self.0, others) != others {
            IN_COMPANY.send_modify(|count| *count = if others { *count + 1 } else { *count - 1 });
        }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// From now on what engines draw on this thread follows from `seed`; `None`: nobody can know it. For a simulator.
pub fn draw_from(seed: Option<u64>) {
    SEED.set(seed);
}

/// Tokio with [`Dice`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Engine;

type Of<T> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;

impl AsyncRuntime for Engine {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = Of<T>;
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Dice;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Box::pin(tokio::time::sleep(duration))
    }

    /// What the engine ticks by, and nothing else of it: also where its ticks are off, it would wake each tenth of a second to see that.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let is_needed = SEED.get().is_some() || *IN_COMPANY.borrow() > 0;
        Box::pin(async move {
            if !is_needed {
                // Its sender is there for ever.
                let _ = IN_COMPANY.subscribe().wait_for(|count| *count > 0).await;
            }
            tokio::time::sleep_until(deadline).await;
        })
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Dice {
        match SEED.get() {
            None => Dice::Any(TokioRuntime::thread_rng()),
            Some(_) => Dice::Seeded,
        }
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

/// What engines draw with: by how much one of them waits longer than another before it wants to lead.
#[derive(Debug)]
pub enum Dice {
    /// Nobody can know it.
    Any(<TokioRuntime as AsyncRuntime>::ThreadLocalRng),
    /// It follows from this thread's seed.
    Seeded,
}

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        match self {
            Self::Any(rng) => rng.next_u64(),
            Self::Seeded => {
                // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
                let seed = SEED.get().unwrap_or_default().wrapping_add(0x9e37_79b9_7f4a_7c15);
                SEED.set(Some(seed));
                let value = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                value ^ value >> 31
            }
        }
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let drawn = self.next_u64().to_le_bytes();
            part.copy_from_slice(&drawn[..part.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_follows_from_the_seed_until_nobody_says_one() {
        let draw = |seed| {
            draw_from(Some(seed));
            [Engine::thread_rng().next_u64(), Engine::thread_rng().next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        draw_from(None);
        assert!(matches!(Engine::thread_rng(), Dice::Any(_)));
    }
}
