//! What a file's content can be told by: its length and its CRC-32.

use std::io::{self, Write};

/// The remainders of all bytes, for the polynomial of IEEE 802.3, its bits reversed.
const REMAINDERS: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (0xedb8_8320 & (rest & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many bytes.
    pub bytes: u64,
    /// Their CRC-32, as zip and PNG have it.
    pub crc: u32,
}

impl Digest {
    /// Of all of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = Self::default();
        digest.add(bytes);
        digest
    }

    /// Of what it was of, and then `bytes`.
    fn add(&mut self, bytes: &[u8]) {
        let step = |rest: u32, byte: &u8| {
            let at = usize::from(rest as u8 ^ byte);
            REMAINDERS.get(at).copied().unwrap_or_default() ^ (rest >> 8)
        };
        self.crc = !bytes.iter().fold(!self.crc, step);
        self.bytes += bytes.len() as u64;
    }
}

/// Writes on to another writer, and keeps the digest of all that it wrote.
pub(super) struct Digesting<W> {
    pub(super) to: W,
    pub(super) digest: Digest,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.add(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32_comes_out_in_one_piece_and_in_several() {
        let whole = Digest { bytes: 9, crc: 0xcbf4_3926 };
        assert_eq!(Digest::of(b"123456789"), whole);
        let mut to = Digesting { to: Vec::new(), digest: Digest::default() };
        to.write_all(b"1234").and_then(|()| to.write_all(b"56789")).expect("into memory");
        assert_eq!((to.digest, &*to.to), (whole, &b"123456789"[..]));
        assert_eq!(Digest::of(b""), Digest::default());
    }
}
