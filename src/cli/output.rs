//! What the command line writes. Nothing else in this crate writes to standard output or standard
//! error but the logs: `print!` and its like panic when the reader is gone, as after
//! `p2pfaas node --print-config | head -1`.
//!
//! A reader that is gone wants no more output. That is no failure of the command: it goes on with
//! its work, writes nothing more, and its exit code says what came of the work.

use std::io::{self, ErrorKind, Write};

use super::{Failure, broken};

/// Writes `text` to standard output, as it is.
///
/// # Errors
/// It cannot be written for another reason than that the reader is gone, such as a full disk.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    written(&mut io::stdout().lock(), text)
}

/// Writes `text` and the end of a line to standard error. There is nobody to tell when that fails.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn written(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            Err(broken(format!("the output cannot be written: {why}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write in the same way.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_no_failure_and_a_full_disk_is_one() {
        let mut kept = Vec::new();
        assert!(written(&mut kept, "line\n").is_ok());
        assert_eq!(kept, b"line\n");
        assert!(written(&mut Failing(ErrorKind::BrokenPipe), "line\n").is_ok());
        let full = written(&mut Failing(ErrorKind::StorageFull), "line\n");
        assert!(matches!(full, Err(Failure::Broken(why)) if why.contains("output")));
    }
}
