//! How many records to ask for: few at first, more as long as the service serves them, fewer when it does not.

use log::info;

/// The page size that the service is known to serve: the vendor's tap always asked for it. (Fewer in the tests of the loop,
/// where streams are short.)
pub const KNOWN_PAGE: usize = if cfg!(test) { 3 } else { 100 };

/// The size of the pages of one run.
#[derive(Debug)]
pub struct Pages {
    /// What to ask for next.
    size: usize,
    /// What to ask for at most: `pageSize`, or less once the service has shown its own limit.
    most: usize,
    /// The largest size that was asked for and answered.
    served: usize,
    /// The size of the largest page so far: what the service serves at least when there is enough.
    largest: usize,
    /// The size of the last page, if it was shorter than what was asked for and still not the last.
    short: Option<usize>,
}

impl Pages {
    /// Begins with the known size, or with `most` where that is smaller.
    pub fn up_to(most: usize) -> Pages {
        let size = most.min(KNOWN_PAGE);
        Pages { size, most, served: size, largest: KNOWN_PAGE, short: None }
    }

    /// How many records to ask for.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether so many were asked for before, and came: then a failure has another reason.
    pub fn is_proven(&self) -> bool {
        self.size <= self.served
    }

    /// Learns from a page of `shown` records where `asked` were asked for. Returns whether it is the last page: shorter than
    /// what was asked for, and than what the service is known to serve, should it cap pages.
    pub fn learn(&mut self, asked: usize, shown: usize) -> bool {
        self.served = self.served.max(asked);
        self.largest = self.largest.max(shown);
        let last = shown < asked.min(self.largest);
        if shown >= asked {
            self.short = None;
            self.size = self.most.min(2 * asked).max(self.size);
        } else if !last && self.short.replace(shown) == Some(shown) {
            info!("the service shows {shown} records at most: no more are asked for");
            self.most = shown;
            self.size = shown;
        }
        last
    }

    /// A request for a size that never worked has failed: asks for half of it from now on.
    pub fn shrink(&mut self, reason: &anyhow::Error) {
        let tried = self.size;
        self.size = self.served.max(tried / 2);
        self.most = self.size;
        info!("{tried} records are too many for one request, {} are asked for from now on: {reason:#}", self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for while the service serves up to `cap` of `records`, until the last page.
    fn asked(most: usize, cap: usize, mut records: usize) -> Vec<usize> {
        let mut pages = Pages::up_to(most);
        let mut asked = Vec::new();
        loop {
            let size = pages.size();
            let shown = records.min(size).min(cap);
            records -= shown;
            asked.push(size);
            if pages.learn(size, shown) {
                return asked;
            }
        }
    }

    #[test]
    fn pages_double_up_to_the_most() {
        assert_eq!(asked(30, usize::MAX, 150), [3, 6, 12, 24, 30, 30, 30, 30]);
        assert_eq!(asked(2, usize::MAX, 5), [2, 2, 2]);
        assert_eq!(asked(100_000, usize::MAX, 2), [3]);
    }

    #[test]
    fn a_silent_cap_is_noticed_and_the_stream_still_drained() {
        assert_eq!(asked(30, 3, 14), [3, 6, 6, 3, 3]);
        assert_eq!(asked(30, 5, 22), [3, 6, 6, 5, 5]);
        assert_eq!(asked(30, 3, 9), [3, 6, 6, 3]);
    }

    #[test]
    fn a_size_that_fails_is_halved_but_not_below_what_worked() {
        let mut pages = Pages::up_to(1000);
        assert!(pages.is_proven());
        pages.learn(3, 3);
        pages.learn(6, 6);
        assert_eq!((pages.size(), pages.is_proven()), (12, false));
        pages.shrink(&anyhow::anyhow!("413"));
        assert_eq!((pages.size(), pages.is_proven()), (6, true));
        pages.learn(6, 6);
        assert_eq!(pages.size(), 6);
    }
}
