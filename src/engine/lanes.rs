//! The layers of an image are worked on in a few lanes side by side: each takes one layer after another. What they tell
//! is reported by the thread that started them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::progress::{Event, Report};
use crate::error::{Context, Error, Result};
use crate::queue::{Receiver, Sender, queue};

/// What lanes tell the thread that reports.
enum Message {
    Event(Event),
    LaneEnded,
}

/// Passes events on to the thread that reports.
#[derive(Clone)]
pub(super) struct Teller(Sender<Message>);

impl Teller {
    pub fn tell(&self, event: Event) {
        // Nobody listens any more when all is over.
        let _ = self.0.send(Message::Event(event));
    }
}

/// Lanes for one image.
pub(super) struct Lanes {
    pub teller: Teller,
    /// No more work is begun; set after a failure, so that what has begun may end early.
    pub stop: Arc<AtomicBool>,
    receiver: Receiver<Message>,
}

impl Lanes {
    pub fn new() -> Lanes {
        let (sender, receiver) = queue(usize::MAX);
        Lanes { teller: Teller(sender), stop: Arc::default(), receiver }
    }

    /// Calls `work` with each number below `count`, the lowest first, at most `width` at a time. When all that began has
    /// ended, the result is the first failure: what others then fail of says nothing.
    pub fn run(
        &self,
        width: usize,
        count: usize,
        work: &(dyn Fn(usize) -> Result<()> + Sync),
        report: Report,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let fail = |error| {
            locked(&failure).get_or_insert(error);
            self.stop.store(true, Ordering::Relaxed);
        };
        let lane = || {
            while !self.stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                work(number).unwrap_or_else(fail);
            }
            let _ = self.teller.0.send(Message::LaneEnded);
        };
        thread::scope(|scope| {
            let mut running = 0;
            for number in 0..width.min(count) {
                let builder = thread::Builder::new().name(format!("layer {number}"));
                match builder.spawn_scoped(scope, lane).context(|| "start a thread".into()) {
                    Ok(_) => running += 1,
                    Err(e) => {
                        fail(e);
                        break;
                    }
                }
            }
            while running > 0 {
                match self.receiver.receive() {
                    Some(Message::Event(event)) => report(event),
                    _ => running -= 1,
                }
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// What a mutex holds, whoever died with it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn done(number: usize) -> Event {
        Event::LayerDone { layer: number.to_string() }
    }

    #[test]
    fn all_is_done_and_reported() {
        let (lanes, mut told) = (Lanes::new(), Vec::new());
        let work = |number| {
            lanes.teller.tell(done(number));
            Ok(())
        };
        lanes.run(3, 50, &work, &mut |event| told.push(event)).unwrap();
        assert_eq!(told.len(), 50);
        assert!((0..50).all(|number| told.contains(&done(number))));
        lanes.run(3, 0, &work, &mut |_| panic!("there was nothing to do")).unwrap();
    }

    #[test]
    fn the_first_failure_stops_all_and_is_the_result() {
        let (lanes, mut told) = (Lanes::new(), Vec::new());
        let work = |number| {
            if number == 2 {
                return Err(Error::new(Kind::Invalid, "the third"));
            }
            // Ends when another has failed, and fails of it.
            while number > 2 && !lanes.stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            lanes.teller.tell(done(number));
            if number > 2 { Err(Error::new(Kind::Cancelled, "stopped")) } else { Ok(()) }
        };
        let failed = lanes.run(2, 1000, &work, &mut |event| told.push(event)).unwrap_err();
        assert_eq!(failed.to_string(), "the third");
        assert!(told.len() <= 4, "{told:?}");
    }
}
