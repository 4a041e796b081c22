//! What an error came of, kept as it is.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error below another one. It is shared, so that an error which holds it can be handed on more than
/// once. Two causes are equal if they say the same.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Keeps an error. Words alone will do where no error lies below.
    pub fn of(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }

    /// The first error of type `E` in the chain of causes, if there is one.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn Error + 'static)> = Some(&*self.0);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // One of these stands for the error that it holds, which is next.
            next = match error.downcast_ref::<Self>() {
                Some(cause) => Some(&*cause.0),
                None => error.source(),
            };
        }
        None
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.to_string() == other.to_string()
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] Cause);

    #[test]
    fn the_error_below_is_found_through_all_that_hold_it() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for cause in
            [Cause::of(refused()), Cause::of(Outer(Cause::of(Outer(Cause::of(refused())))))]
        {
            let found: &io::Error = cause.find().expect("it lies below");
            assert_eq!(found.kind(), io::ErrorKind::ConnectionRefused);
            assert!(cause.find::<fmt::Error>().is_none());
        }
        assert!(Cause::of("words").find::<io::Error>().is_none());
    }

    #[test]
    fn causes_are_equal_if_they_say_the_same() {
        let cause = Cause::of("reset");
        assert_eq!(cause, cause.clone());
        assert_eq!(cause, Cause::of("reset".to_owned()));
        assert_ne!(cause, Cause::of("refused"));
        assert_eq!(Outer(cause).to_string(), "outer: reset");
    }
}
