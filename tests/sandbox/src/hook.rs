//! The functions that a rule runs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::service::Service;

type HookFn = dyn FnMut(&mut Service) + Send;

/// A function that a rule runs on the service.
#[derive(Clone)]
pub(crate) struct Hook(Arc<Mutex<HookFn>>);

impl Hook {
    pub(crate) fn new(hook: impl FnMut(&mut Service) + Send + 'static) -> Hook {
        Hook(Arc::new(Mutex::new(hook)))
    }

    /// Runs it, while the service is locked.
    pub(crate) fn run(&self, service: &mut Service) {
        let mut hook = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hook(service);
    }
}
