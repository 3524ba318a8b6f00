//! The reply to a request for a list, which takes several datagrams.

use super::decode::{Message, messages};

/// A dump that is being read.
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// Sequence number of the request.
    seq: u32,
    /// Whether the table did not change since the dump began.
    consistent: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// `consistent`: the table did not change during the dump.
    Done {
        consistent: bool,
    },
}

const ENOENT: i32 = 2;

impl Dump {
    /// The reply to the request with this sequence number.
    pub fn new(seq: u32) -> Self {
        Self { seq, consistent: true }
    }

    /// Takes one datagram, and passes each message of the list. A table that does not exist counts
    /// as empty.
    ///
    /// # Errors
    ///
    /// The errno, if the kernel refuses the request or cannot complete the dump.
    pub fn datagram(&mut self, octets: &[u8], mut each: impl FnMut(&Message<'_>)) -> Result<Progress, i32> {
        for message in messages(octets).filter(|m| m.seq == self.seq) {
            // The kernel flags only the first message after a change.
            self.consistent &= !message.is_interrupted();
            let refused = message.outcome().map(|outcome| outcome.errno);
            match refused.or_else(|| message.end_of_dump()) {
                Some(0 | ENOENT) => return Ok(Progress::Done { consistent: self.consistent }),
                Some(errno) => return Err(errno),
                None => each(&message),
            }
        }
        Ok(Progress::More)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{encode::Encoder, flag};

    const ROUTE: u16 = 24;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;

    /// A message of a dump whose request had number 7.
    fn datagram(seq: u32, kind: u16, flags: u16, code: i32) -> Vec<u8> {
        let mut encoder = Encoder::new(seq);
        encoder.message(kind, flags, |m| m.fields(code.to_ne_bytes()));
        encoder.bytes().to_vec()
    }

    /// Reads all datagrams; returns the number of messages of the list, and the end.
    fn read(datagrams: &[Vec<u8>]) -> (u32, Result<Progress, i32>) {
        let (mut dump, mut count, mut end) = (Dump::new(7), 0, Ok(Progress::More));
        for octets in datagrams {
            end = dump.datagram(octets, |_| count += 1);
            if end != Ok(Progress::More) {
                break;
            }
        }
        (count, end)
    }

    #[test]
    fn a_list_ends_as_the_kernel_reports_it() {
        let entry = |flags| datagram(7, ROUTE, flags, 0);
        let done = |flags, code| datagram(7, DONE, flags, code);
        let (whole, changed) =
            (Ok(Progress::Done { consistent: true }), Ok(Progress::Done { consistent: false }));
        let cases = [
            ("empty", vec![done(0, 0)], (0, whole)),
            ("two entries", vec![entry(0), entry(0), done(0, 0)], (2, whole)),
            ("not complete", vec![entry(0)], (1, Ok(Progress::More))),
            ("of an earlier request", vec![datagram(6, ROUTE, 0, 0), done(0, 0)], (0, whole)),
            (
                "changed in between",
                vec![entry(0), entry(flag::DUMP_INTR), entry(0), done(0, 0)],
                (3, changed),
            ),
            ("changed at the end", vec![entry(0), done(flag::DUMP_INTR, 0)], (1, changed)),
            ("no such table", vec![done(0, -2)], (0, whole)),
            ("no such table, as an error", vec![datagram(7, ERROR, 0, -2)], (0, whole)),
            ("refused", vec![datagram(7, ERROR, 0, -95)], (0, Err(95))),
            ("given up in the middle", vec![entry(0), done(0, -90)], (1, Err(90))),
        ];
        for (name, datagrams, expected) in cases {
            assert_eq!(read(&datagrams), expected, "{name}");
        }
    }
}
