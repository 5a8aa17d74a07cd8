//! PURE: a stanza for several sessions of an account, and what becomes of it where one of them ends before it has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The copies of one stanza: how many of them have not failed. It is delivered while one may still arrive, or has.
#[derive(Debug)]
pub struct Copies(AtomicUsize);

impl Copies {
    /// For so many sessions.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Copies(AtomicUsize::new(count)))
    }

    /// One copy will not arrive: `true` where it was the last, so that nobody has the stanza.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Who else gets a stanza that is for a session.
#[derive(Debug, Clone)]
pub enum Share {
    /// Nobody: it is looked up once more where the session has ended.
    Alone,
    /// Other sessions of the account: it is looked up once more where all of them have ended.
    Copy(Arc<Copies>),
    /// Others that it does not matter to: nobody misses it where the session has ended.
    Broadcast,
}

impl Share {
    /// The session has ended without the stanza: whether nobody else has it, or will have it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Share::Alone => true,
            Share::Copy(copies) => copies.failed(),
            Share::Broadcast => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_copy_that_fails_says_so_and_none_where_one_arrives() {
        let copies = Copies::new(3);
        let shares = [(); 3].map(|()| Share::Copy(Arc::clone(&copies)));
        assert_eq!(shares.map(|share| share.is_lost()), [false, false, true]);
        let copies = Copies::new(3);
        assert_eq!([copies.failed(), copies.failed()], [false, false]);
        assert!(Share::Alone.is_lost() && !Share::Broadcast.is_lost());
    }
}
