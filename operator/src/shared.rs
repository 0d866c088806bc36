//! The engine as the tasks of this process share it.

use fairway_engine::{Engine, Instant, Now};
use jiff::Timestamp;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The engine, for the tasks of this process. They share one lock, which nobody holds while waiting, parsing an
/// event or planning.
#[derive(Debug)]
pub(crate) struct SharedEngine {
    engine: Mutex<Engine>,
    /// The origin of the engine's monotonic clock.
    origin: tokio::time::Instant,
    /// A pass can be started.
    ready: Notify,
}

impl SharedEngine {
    /// Shares an engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine: Mutex::new(engine),
            origin: tokio::time::Instant::now(),
            ready: Notify::new(),
        }
    }

    /// Does something with the engine, and wakes the driver when a pass is ready after it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Engine, Now) -> T) -> T {
        let (result, is_ready) = {
            let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut engine, self.now());
            (result, engine.is_ready())
        };
        if is_ready {
            self.ready.notify_one();
        }
        result
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::now(),
            monotonic: Instant::after_origin(self.origin.elapsed()),
        }
    }

    /// Waits until a pass may be ready to start.
    pub(crate) async fn wait_ready(&self) {
        let timer = self.with(|engine, _| engine.next_timer());
        match timer {
            None => self.ready.notified().await,
            Some(at) => {
                tokio::select! {
                    () = self.ready.notified() => {}
                    () = tokio::time::sleep_until(self.origin + at.since_origin()) => {}
                }
            }
        }
    }
}
