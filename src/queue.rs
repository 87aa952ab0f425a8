//! A queue between threads, with the ends of std's channels. Those come in three kinds, and each is compiled for each type
//! of items: 6 KB a type, where this one takes one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The end that items are put in at; there may be several. The queue ends when the last one is dropped.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that items come out of.
pub struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Told of every item that comes or goes, and when the last sender or the receiver does.
    changed: Condvar,
    /// The most items that wait.
    room: usize,
}

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

/// A queue in which at most `room` items wait; with `usize::MAX` nobody waits to send.
pub fn queue<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), senders: 1, has_receiver: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), room });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts an item in when there is room; false if nobody will take it, for the receiver is gone.
    pub fn send(&self, item: T) -> bool {
        let shared = &*self.0;
        let mut state = shared.lock();
        while state.has_receiver && state.items.len() >= shared.room {
            state = shared.wait(state);
        }
        if state.has_receiver {
            state.items.push_back(item);
            shared.changed.notify_all();
        }
        state.has_receiver
    }
}

impl<T> Receiver<T> {
    /// The next item, when there is one; `None` when there is none and all senders are gone.
    pub fn receive(&self) -> Option<T> {
        let shared = &*self.0;
        let mut state = shared.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                shared.changed.notify_all();
                return Some(item);
            }
            if state.senders == 0 {
                return None;
            }
            state = shared.wait(state);
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.lock().has_receiver = false;
        self.0.changed.notify_all();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn items_come_in_order_and_then_the_end() {
        let (sender, receiver) = queue(2);
        thread::scope(|scope| {
            scope.spawn(move || assert!((0..1000).all(|number| sender.send(number))));
            assert!((0..1000).all(|number| receiver.receive() == Some(number)));
            assert_eq!(receiver.receive(), None);
        });
    }

    #[test]
    fn all_items_of_all_senders_come() {
        let (sender, receiver) = queue(usize::MAX);
        thread::scope(|scope| {
            for lane in 0..4 {
                let sender = sender.clone();
                scope.spawn(move || assert!((0..250).all(|number| sender.send(4 * number + lane))));
            }
            drop(sender);
            let mut all: Vec<i32> = std::iter::from_fn(|| receiver.receive()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        });
    }

    #[test]
    fn who_waits_for_room_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = queue(1);
        assert!(sender.send("fills it"));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| sender.send("does not fit"));
            drop(receiver);
            assert!(!waiting.join().unwrap());
        });
        assert!(!sender.send("neither does this"));
    }

    #[test]
    fn who_waits_for_an_item_learns_that_the_senders_are_gone() {
        let (sender, receiver) = queue::<()>(1);
        let other = sender.clone();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| receiver.receive());
            drop((sender, other));
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
