//! What a test reads and changes of the service's state, past the API.

use std::time::Duration;

use crate::{Identity, Record, Samples, Sandbox};

impl Sandbox {
    /// Creates a stream and returns its id. The n-th stream of any sandbox has the same id.
    pub fn create_stream(&self, name: &str) -> String {
        self.service().create_stream(name)
    }

    /// Deletes a stream, as another client might. False if there is no such stream.
    pub fn delete_stream(&self, stream: &str) -> bool {
        self.service().delete_stream(stream)
    }

    /// Writes a record with a random id and the current time as its time stamp, or 1 µs after the
    /// last record if that is later. `payload` is JSON text. It is kept byte for byte, and not
    /// validated against the active schema.
    ///
    /// # Panics
    /// For a payload that is not JSON.
    #[track_caller]
    pub fn write(&self, stream: &str, payload: &str) -> Record {
        self.service().write(stream, payload)
    }

    /// Writes a record with this id and this time stamp to its place in time order, which may be
    /// before records that are already read. Records with equal time stamps are in the order of
    /// writing. With a text that is not a time stamp with an offset, the record goes to the end.
    ///
    /// # Panics
    /// For a payload that is not JSON.
    #[track_caller]
    pub fn write_as(&self, stream: &str, record_id: &str, timestamp: &str, payload: &str) -> Record {
        self.service().write_as(stream, record_id, timestamp, payload)
    }

    /// Writes any text as the last record. It is served verbatim, but for a `readStatus` of "false"
    /// or false, which becomes true once the record is read.
    #[track_caller]
    pub fn write_text(&self, stream: &str, record: &str) {
        self.service().write_text(stream, record);
    }

    /// Writes `count` sample records after the last record: cars for sale, shaped like the vendor's
    /// example. On an empty stream of a new sandbox they are always the same. Ids and time stamps
    /// rise.
    #[track_caller]
    pub fn fill(&self, stream: &str, count: usize) {
        self.service().fill(stream, count);
    }

    /// Like [`fill`](Sandbox::fill), with payloads that are padded to `bytes`. A sample payload
    /// that is longer than that stays as it is.
    #[track_caller]
    pub fn fill_sized(&self, stream: &str, count: usize, bytes: usize) {
        self.service().fill_sized(stream, count, bytes);
    }

    /// Like [`fill`](Sandbox::fill), with sample records that are like this: with payloads of a
    /// certain length, with records that share a time stamp, or with time stamps of every form.
    #[track_caller]
    pub fn fill_with(&self, stream: &str, count: usize, samples: Samples) {
        self.service().fill_with(stream, count, samples);
    }

    /// From now on writes a sample record each time that `every` has passed, with the current time
    /// as its time stamp, until the sandbox is dropped or the stream deleted.
    ///
    /// # Panics
    /// If `every` is zero.
    #[track_caller]
    pub fn write_every(&self, stream: &str, every: Duration) {
        assert!(!every.is_zero(), "a sample record each time that no time has passed");
        if let Some(server) = &self.server {
            server.write_every(stream.to_owned(), every);
        }
    }

    /// Writes a record right behind the first unread one, with a time stamp in the middle between
    /// it and the record that follows it, and returns it. Nothing is written if all records are
    /// read. A rule does this before marks:
    ///
    /// ```
    /// # use streamduo_sandbox::{Endpoint, Rule, Sandbox};
    /// # let sandbox = Sandbox::start();
    /// # let stream = sandbox.create_stream("cars");
    /// let slip_in = move |service: &mut streamduo_sandbox::Service| drop(service.slip_in(&stream));
    /// sandbox.script(Rule::on(Endpoint::Mark).every_nth(3).before(slip_in));
    /// ```
    #[track_caller]
    pub fn slip_in(&self, stream: &str) -> Option<Record> {
        self.service().slip_in(stream)
    }

    /// The unread records, in time order.
    #[track_caller]
    pub fn unread(&self, stream: &str) -> Vec<Identity> {
        self.service().unread(stream)
    }

    /// The read records, in time order.
    #[track_caller]
    pub fn read(&self, stream: &str) -> Vec<Identity> {
        self.service().read(stream)
    }

    /// All records, in time order.
    #[track_caller]
    pub fn records(&self, stream: &str) -> Vec<Record> {
        self.service().records(stream)
    }

    /// The number of records, and how many of them are unread; zeros for a stream that does not
    /// exist.
    pub fn tally(&self, stream: &str) -> (usize, usize) {
        self.service().tally(stream)
    }

    /// Marks the `n` oldest unread records as read, as another consumer might, and returns them.
    #[track_caller]
    pub fn mark_oldest(&self, stream: &str, n: usize) -> Vec<Identity> {
        self.service().mark_oldest(stream, n)
    }

    /// Removes the oldest record with this identity. False if there is none.
    #[track_caller]
    pub fn remove(&self, stream: &str, identity: &Identity) -> bool {
        self.service().remove(stream, identity)
    }

    /// Withdraws the client's permission on a stream: from now on calls on its records get 403.
    #[track_caller]
    pub fn restrict(&self, stream: &str) {
        self.service().restrict(stream);
    }

    /// From now on READ_SINCE_TIMESTAMP returns the last `recordCount` records after the time
    /// stamp, and not the first ones. Which of them the real service returns is not known.
    #[track_caller]
    pub fn return_newest_since(&self, stream: &str) {
        self.service().return_newest_since(stream);
    }

    /// Revokes all tokens issued so far.
    pub fn revoke_tokens(&self) {
        self.service().revoke_tokens();
    }
}
