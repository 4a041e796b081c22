//! WebSocket frames, bounded before they are there: the protocol's codecs look at a frame's size only
//! once it is whole, and its length may be anything up to 2^63.

/// Bytes of a frame's head at most.
pub(crate) const HEAD_BYTES_MAX: usize = 14;

/// A frame that is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes, above {max}")]
pub struct FrameTooLarge {
    /// As its head says.
    pub bytes: u64,
    /// As many as it may have.
    pub max: u64,
}

/// Watches a stream of frames as it comes, in pieces of any size.
#[derive(Clone, Debug)]
pub struct FrameWatch {
    max: u64,
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of a head that are there.
    have: usize,
    /// Bytes of a frame that are still to come.
    left: u64,
}

impl FrameWatch {
    /// Frames of at most `max` bytes, their heads aside.
    pub fn new(max: u64) -> Self {
        Self { max, head: [0; HEAD_BYTES_MAX], have: 0, left: 0 }
    }

    /// Looks at the next piece of the stream.
    ///
    /// # Errors
    /// A frame begins in it that is too large.
    pub fn came(&mut self, mut piece: &[u8]) -> Result<(), FrameTooLarge> {
        while let Some((first, rest)) = piece.split_first() {
            if self.left > 0 {
                let passed = self.left.min(piece.len() as u64);
                self.left -= passed;
                piece = piece.get(passed as usize..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            piece = rest;
            if let Some(bytes) = length(self.head.get(..self.have).unwrap_or(&self.head)) {
                if bytes > self.max {
                    return Err(FrameTooLarge { bytes, max: self.max });
                }
                (self.have, self.left) = (0, bytes);
            }
        }
        Ok(())
    }
}

/// The bytes that follow a frame's head; `None`: the head is not whole. RFC 6455, section 5.2.
fn length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    let (length, at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(head.get(2..10)?.try_into().ok()?), 10),
        short => (short.into(), 2),
    };
    (head.len() >= at + mask_bytes).then_some(length)
}

/// Whether the frame that begins at `bytes` may be waited for.
///
/// # Errors
/// It is larger than `max` bytes.
pub fn check_next(bytes: &[u8], max: u64) -> Result<(), FrameTooLarge> {
    match length(bytes.get(..bytes.len().min(HEAD_BYTES_MAX)).unwrap_or_default()) {
        Some(bytes) if bytes > max => Err(FrameTooLarge { bytes, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame of `n` bytes, masked or not.
    fn frame(n: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x81];
        match n {
            0..126 => frame.push(mask | n as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(7, n + if masked { 4 } else { 0 }));
        frame
    }

    proptest! {
        #[test]
        fn a_frame_that_is_too_large_is_seen_by_its_head_alone_however_it_comes(
            good in prop::collection::vec((0_usize..1000, any::<bool>()), 0..6),
            large in 1001_usize..70_000, masked: bool, step in 1_usize..50,
        ) {
            let mut watch = FrameWatch::new(1000);
            let whole: Vec<u8> = good.iter().flat_map(|(n, masked)| frame(*n, *masked)).collect();
            for piece in whole.chunks(step) {
                prop_assert_eq!(watch.came(piece), Ok(()));
            }
            let large_frame = frame(large, masked);
            let head = large_frame.get(..HEAD_BYTES_MAX).unwrap_or_default();
            let wrong = FrameTooLarge { bytes: large as u64, max: 1000 };
            prop_assert_eq!(check_next(&large_frame, 1000), Err(wrong));
            prop_assert_eq!(head.chunks(step).try_for_each(|piece| watch.came(piece)), Err(wrong));
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut watch = FrameWatch::new(100);
            for piece in pieces {
                let _ = (watch.came(&piece), check_next(&piece, 100));
            }
        }
    }
}
