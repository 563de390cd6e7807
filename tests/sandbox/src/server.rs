//! The server: one thread that accepts connections and handles each request as the script says.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;

use crate::Endpoint;
use crate::answer::Answer;
use crate::api;
use crate::fault::Rule;
use crate::gateway::{Gateway, Late};
use crate::hook::Hook;
use crate::journal::{Call, CallId, Journal};
use crate::link::Link;
use crate::route::Request;
use crate::service::Service;
use crate::tls::{self, Acceptor};
use crate::wire::{AnswerBody, Connection, Transfer};

/// The state that the server's thread and the test share.
pub(crate) struct Shared {
    service: Mutex<Service>,
    rules: Mutex<Vec<Rule>>,
    gateway: Mutex<Gateway>,
    pub(crate) journal: Journal,
    /// Counts the releases of held requests.
    releases: watch::Sender<u64>,
    pub(crate) link: Link,
    connections: Mutex<Vec<AbortHandle>>,
    /// The message of the first panic in a hook.
    hook_panic: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(service: Service, link: Link) -> Shared {
        Shared {
            service: Mutex::new(service),
            rules: Mutex::default(),
            gateway: Mutex::default(),
            journal: Journal::default(),
            releases: watch::Sender::new(0),
            link,
            connections: Mutex::default(),
            hook_panic: Mutex::default(),
        }
    }

    /// The service, locked.
    pub(crate) fn service(&self) -> MutexGuard<'_, Service> {
        lock(&self.service)
    }

    /// Adds a rule to the script.
    pub(crate) fn script(&self, rule: Rule) {
        lock(&self.gateway).kept.extend(rule.answer_of.map(|endpoint| (endpoint, None)));
        lock(&self.rules).push(rule);
    }

    /// Removes all rules, and forgets the requests that were to be carried out late.
    pub(crate) fn clear_script(&self) {
        lock(&self.rules).clear();
        *lock(&self.gateway) = Gateway::default();
    }

    /// Carries out all requests that are late.
    pub(crate) fn apply_late(&self) {
        let late = std::mem::take(&mut lock(&self.gateway).late);
        let service = &mut *self.service();
        late.into_iter().for_each(|late| self.apply(late, service));
    }

    /// Carries out a late request.
    fn apply(&self, late: Late, service: &mut Service) {
        self.run_hook(late.between.as_ref(), service);
        let endpoint = late.request.endpoint;
        let answer = api::answer(service, late.request, &late.body, late.overrides);
        lock(&self.gateway).keep(endpoint, &answer);
    }

    /// Lets all held requests go on.
    pub(crate) fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Closes all connections.
    pub(crate) fn close_connections(&self) {
        lock(&self.connections).drain(..).for_each(|connection| connection.abort());
    }

    /// Takes the message of the first panic in a hook.
    pub(crate) fn take_hook_panic(&self) -> Option<String> {
        lock(&self.hook_panic).take()
    }

    /// Runs a hook, and keeps the message if it panics.
    fn run_hook(&self, hook: Option<&Hook>, service: &mut Service) {
        let Some(hook) = hook else { return };
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook.run(service))) else { return };
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        lock(&self.hook_panic).get_or_insert_with(|| text.to_owned());
    }
}

/// Locks a mutex. Poisoning is ignored: no panic leaves its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server. Dropping it stops it and closes all connections.
pub(crate) struct Server {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on `listener`, on a thread of its own: https where there is an acceptor.
    pub(crate) fn start(listener: TcpListener, tls: Option<Acceptor>, shared: Arc<Shared>) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (handle, requests) = (runtime.handle().clone(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("streamduo-sandbox".to_owned()).spawn(move || {
            runtime.spawn(accept(listener, tls, requests));
            // Ends when the sender is dropped. Dropping the runtime then drops all tasks and their
            // connections.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Server { shared, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Writes a sample record each time that `every` has passed, until the server stops or the
    /// stream is deleted.
    pub(crate) fn write_every(&self, stream: String, every: Duration) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                match shared.service().stream_mut(&stream) {
                    Some(stream) => stream.store.append_sample(),
                    None => return,
                };
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Do not panic in a drop if the thread has panicked.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<Acceptor>, shared: Arc<Shared>) {
    let mut connections = 0;
    loop {
        // A connection was aborted, or there are too many open files: try again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        connections += 1;
        let _ = stream.set_nodelay(true);
        let (tls, requests) = (tls.clone(), Arc::clone(&shared));
        let connection = tokio::spawn(async move {
            // Ignore the error: the client does not want this certificate.
            if let Ok(stream) = tls::accept(tls, stream).await {
                serve(Connection::new(stream), connections, requests).await;
            }
        });
        let mut open = lock(&shared.connections);
        open.retain(|connection| !connection.is_finished());
        open.push(connection.abort_handle());
    }
}

async fn serve(connection: Connection, connection_number: usize, shared: Arc<Shared>) {
    let flushed = connection.flushed();
    let fresh = AtomicBool::new(true);
    let service = service_fn(|request: HttpRequest<Incoming>| {
        let (shared, flushed) = (Arc::clone(&shared), Arc::clone(&flushed));
        let first_on_connection = fresh.swap(false, Ordering::Relaxed);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            // In a task of its own: a real service too carries out a request whose client has
            // disconnected.
            let exchange = Exchange { shared, connection_number, first_on_connection, head, body, flushed };
            tokio::spawn(exchange.handle()).await.map_err(io::Error::other)?
        }
    });
    // Ignore the error: the client has disconnected, or a rule has cut the answer or closed the
    // connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

/// One request and its answer.
struct Exchange {
    shared: Arc<Shared>,
    connection_number: usize,
    first_on_connection: bool,
    head: Parts,
    body: Bytes,
    flushed: Arc<Notify>,
}

impl Exchange {
    async fn handle(self) -> io::Result<Response<AnswerBody>> {
        let request = Request::new(&self.head, &self.body);
        // Subscribe before the call is in the journal: a test that sees it there may release it at
        // once.
        let mut releases = self.shared.releases.subscribe();
        let endpoint = request.endpoint;
        let id = self.shared.journal.add(self.call(&request));
        let rule = self.rule(endpoint, id);
        self.shared.link.travel(self.first_on_connection).await;
        let pause = async {
            // Even a sleep of zero takes a millisecond.
            if !rule.delay.is_zero() {
                tokio::time::sleep(rule.delay).await;
            }
            if rule.hold {
                self.shared.journal.set_held(id);
                if releases.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        let answer = if rule.applied {
            let answer = self.carry_out(request, &rule);
            pause.await;
            answer
        } else {
            pause.await;
            self.carry_out(request, &rule)
        };
        self.respond(rule.change(answer), &rule, id)
    }

    fn call(&self, request: &Request) -> Call {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            (name.as_str().to_owned(), text(value.as_bytes()))
        };
        Call {
            endpoint: request.endpoint,
            method: self.head.method.to_string(),
            path: self.head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            body: text(&self.body),
            headers: self.head.headers.iter().map(header).collect(),
            status: None,
            connection: self.connection_number,
            record_count: request.record_count,
            mark_as_read: request.mark_as_read,
            returned: 0,
        }
    }

    /// The first rule for this call, or a rule without any effect.
    fn rule(&self, endpoint: Endpoint, id: CallId) -> Rule {
        let rules = lock(&self.shared.rules);
        let rule = rules.iter().find(|rule| rule.matches(endpoint, id.nth));
        rule.cloned().unwrap_or_else(|| Rule::on(endpoint))
    }

    fn carry_out(&self, request: Request, rule: &Rule) -> Answer {
        let shared = &*self.shared;
        let service = &mut *shared.service();
        let endpoint = request.endpoint;
        let late = rule.applied_after.map(|after| Late::new(after, request.clone(), self.body.clone(), rule));
        shared.run_hook(rule.before.as_ref(), service);
        let mut answer = Answer::text("");
        if !rule.skips_service() {
            let own = api::answer(service, request, &self.body, rule.overrides());
            answer = lock(&shared.gateway).pass(endpoint, own, rule.answer_of);
        }
        shared.run_hook(rule.after.as_ref(), service);
        let due = lock(&shared.gateway).take_due(late);
        due.into_iter().for_each(|late| shared.apply(late, service));
        answer
    }

    fn respond(&self, answer: Answer, rule: &Rule, id: CallId) -> io::Result<Response<AnswerBody>> {
        let Answer { status, content_type, body, returned } = answer;
        let body = if rule.gzip { gzip(&body)? } else { body };
        let body = Bytes::from(body);
        let closes = rule.transfer == Transfer::Close || (rule.transfer != Transfer::Complete && body.is_empty());
        self.shared.journal.set_answered(id, (!closes).then_some(status.as_u16()), returned);
        if closes {
            return Err(io::Error::other("closed by the script"));
        }
        let mut response = Response::builder().status(status);
        if let Some(headers) = response.headers_mut() {
            if status != StatusCode::NO_CONTENT {
                headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
            }
            if rule.gzip {
                headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            }
            for (name, value) in &rule.headers {
                headers.insert(name, value.clone());
            }
        }
        let pace = self.shared.link.transfer();
        let body = match rule.transfer {
            Transfer::Complete | Transfer::Close => AnswerBody::complete(body, pace),
            Transfer::Cut => AnswerBody::half(&body, false, Arc::clone(&self.flushed), pace),
            Transfer::CutChunked => AnswerBody::half(&body, true, Arc::clone(&self.flushed), pace),
            Transfer::Endless => AnswerBody::endless(body, false, pace),
            Transfer::EndlessChunked => AnswerBody::endless(body, true, pace),
        };
        response.body(body).map_err(io::Error::other)
    }
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}
