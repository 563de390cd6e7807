//! Unpacks answers. An HTTP library unpacks `gzip` once, and no more than the first part: it drops
//! the rest of an answer that a gateway has packed in several ones, and knows neither the old name
//! `x-gzip` (RFC 9110 section 8.4.1.3) nor an answer that was packed twice. So the body itself
//! tells.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What gzip begins with, and no JSON does.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How often an answer may be packed.
const MAX_PACKED: usize = 3;

/// The same body, unpacked.
pub fn unpacked(body: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut body: Box<dyn BufRead> = Box::new(BufReader::new(body));
    for _ in 0..MAX_PACKED {
        if !body.fill_buf()?.starts_with(&MAGIC) {
            break;
        }
        body = Box::new(BufReader::new(MultiGzDecoder::new(body)));
    }
    Ok(body)
}
