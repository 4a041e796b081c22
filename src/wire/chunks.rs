//! Bodies in chunks (RFC 9112, 7.1): taken apart, and made. Sans-IO.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// Bytes of a line with a chunk's size, its extensions included, at most.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Bytes and lines of trailers at most.
const TRAILER_BYTES_MAX: usize = 16 << 10;
const TRAILERS_MAX: usize = 64;

/// What comes next of a body in chunks.
#[derive(Debug, Default)]
enum Next {
    /// The line with a chunk's size.
    #[default]
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    /// The lines behind the last chunk.
    Trailers,
    /// Nothing.
    End,
}

/// What a body in chunks comes to, bit by bit.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkPiece {
    /// Bytes of it.
    Data(Bytes),
    /// More has to come first.
    More,
    /// That was all.
    End,
}

/// Takes a body in chunks apart.
#[derive(Debug, Default)]
pub struct Chunks {
    next: Next,
    /// The trailers, once they have come.
    pub trailers: HeaderMap,
}

impl Chunks {
    /// Takes what it can from the beginning of `came`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, came: &mut Bytes) -> Result<ChunkPiece, &'static str> {
        loop {
            match &mut self.next {
                Next::End => return Ok(ChunkPiece::End),
                Next::Data(left) => {
                    if came.is_empty() {
                        return Ok(ChunkPiece::More);
                    }
                    let bytes = (came.len() as u64).min(*left);
                    *left -= bytes;
                    if *left == 0 {
                        self.next = Next::DataEnd;
                    }
                    return Ok(ChunkPiece::Data(came.split_to(bytes as usize)));
                }
                Next::DataEnd => match came.first() {
                    None => return Ok(ChunkPiece::More),
                    Some(b'\n') => {
                        let _ = came.split_to(1);
                        self.next = Next::Size;
                    }
                    Some(b'\r') if came.len() < 2 => return Ok(ChunkPiece::More),
                    Some(b'\r') if came.get(1) == Some(&b'\n') => {
                        let _ = came.split_to(2);
                        self.next = Next::Size;
                    }
                    Some(_) => return Err("a chunk is longer than it says"),
                },
                Next::Size => {
                    let Some(end) = memchr(b'\n', came) else {
                        return match came.len() > LINE_BYTES_MAX {
                            true => Err("the line of a chunk's size is too long"),
                            false => Ok(ChunkPiece::More),
                        };
                    };
                    let line = came.split_to(end + 1);
                    self.next = match size(&line).ok_or("a chunk's size is no number")? {
                        0 => Next::Trailers,
                        bytes => Next::Data(bytes),
                    };
                }
                Next::Trailers => match self.trailers(came)? {
                    true => self.next = Next::End,
                    false => return Ok(ChunkPiece::More),
                },
            }
        }
    }

    /// Takes the trailers once they are whole.
    fn trailers(&mut self, came: &mut Bytes) -> Result<bool, &'static str> {
        let mut room = [httparse::EMPTY_HEADER; TRAILERS_MAX];
        let wrong = "the trailers cannot be read";
        let (length, lines) = match httparse::parse_headers(came, &mut room) {
            Ok(httparse::Status::Complete(whole)) => whole,
            Ok(httparse::Status::Partial) if came.len() <= TRAILER_BYTES_MAX => return Ok(false),
            _ => return Err(wrong),
        };
        for line in lines {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| wrong)?;
            let value = HeaderValue::from_bytes(line.value).map_err(|_| wrong)?;
            self.trailers.append(name, value);
        }
        let _ = came.split_to(length);
        Ok(true)
    }
}

/// The size that a line tells.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits)?;
    let ends = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| ends)
}

/// What is sent before a chunk of `bytes`.
pub fn chunk_head(bytes: usize) -> Bytes {
    format!("{bytes:x}\r\n").into()
}

/// What is sent behind a chunk.
pub const CHUNK_END: Bytes = Bytes::from_static(b"\r\n");
/// What is sent behind the last one, where there are no trailers.
pub const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// What is sent behind the last chunk, with `trailers`.
pub fn last_chunk(trailers: &HeaderMap) -> Bytes {
    let mut out = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.freeze()
}

/// A chunk as it is sent.
pub fn chunk(data: &[u8]) -> Bytes {
    let head = chunk_head(data.len());
    [&head[..], data, &CHUNK_END].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that comes out of `pieces`, and whether the end came.
    fn taken(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, HeaderMap, Bytes), &'static str> {
        let (mut chunks, mut data, mut came) = (Chunks::default(), Vec::new(), Bytes::new());
        let mut ended = false;
        for piece in pieces {
            came = [&came[..], piece].concat().into();
            loop {
                match chunks.take(&mut came)? {
                    ChunkPiece::Data(bytes) => data.extend_from_slice(&bytes),
                    ChunkPiece::More => break,
                    ChunkPiece::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((data, ended, chunks.trailers, came))
    }

    proptest! {
        #[test]
        fn what_is_made_into_chunks_comes_out_again_whatever_the_pieces(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let mut trailers = HeaderMap::new();
            trailers.insert(HeaderName::from_static("x-t"), HeaderValue::from_static("1"));
            let mut wire: Vec<u8> = bodies.iter().flat_map(|body| chunk(body).to_vec()).collect();
            wire.extend_from_slice(&last_chunk(&trailers));
            wire.extend_from_slice(b"next");
            let (mut pieces, mut rest) = (Vec::new(), &wire[..]);
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces.push(rest);
            let (data, ended, told, left) = taken(&pieces).expect("good");
            prop_assert_eq!(data, bodies.concat());
            prop_assert!(ended && told.contains_key("x-t"));
            prop_assert_eq!(&left[..], b"next");
        }
    }

    #[test]
    fn what_is_no_chunk_is_an_error_and_extensions_are_passed_over() {
        assert_eq!(taken(&[b"3;a=b\r\nabc\r\n0\r\n\r\n"]).expect("good").0, b"abc");
        assert_eq!(taken(&[b"3 \r\nabc\r\n0\r\n\r\n"]).expect("good").0, b"abc");
        for wrong in [&b"x\r\n"[..], b"\r\n", b"3\r\nabcd\r\n", b"11111111111111111\r\n", b"3x\r\n"]
        {
            assert!(taken(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(taken(&[&[b'0'; LINE_BYTES_MAX + 1]]).is_err());
        let endless = format!("0\r\nx: {}", "y".repeat(TRAILER_BYTES_MAX));
        assert!(taken(&[endless.as_bytes()]).is_err());
        assert!(!taken(&[b"3\r\nabc\r\n"]).expect("good").1, "it has not ended");
    }
}
