//! The token that whoever changes a node must know.
//!
//! What is kept of it is an HMAC, and what a request brings is put through the same function before the two
//! are compared, in constant time: how long that takes tells nothing of the token, neither how much of it was
//! right nor how long it is.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arc_swap::ArcSwapOption;
use ring::hmac;

use super::Settings;
use crate::keys::Secret;
use crate::lock;
use crate::storage::{SECRET_BYTES_MAX, read_text};

/// How many bytes a token may have: fewer could be guessed, and more need not be put into a header.
pub const TOKEN_BYTES: RangeInclusive<usize> = 16..=512;
/// What the token is put through this function with. It is no secret: it makes all tokens as long.
const HMAC_KEY: &[u8] = b"p2pfaas admin token";

/// Why a token cannot be used. No message has the token.
#[derive(Debug, thiserror::Error)]
pub enum BadToken {
    /// It is given in both ways.
    #[error("admin_token and admin_token_file are both set: only one of them may be")]
    Both,
    /// It has not the form of one.
    #[error(
        "{of} is no token: that has {} to {} visible ASCII characters and no spaces (what was given is not shown)",
        TOKEN_BYTES.start(),
        TOKEN_BYTES.end()
    )]
    Form {
        /// Where it is from.
        of: String,
    },
    /// Its file cannot be read.
    #[error("admin_token_file {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Whether a text has the form of a token.
pub(super) fn has_form(token: &str) -> bool {
    TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|c| c.is_ascii_graphic())
}

/// The token that `token` or `file` gives; not set: neither is given.
///
/// # Errors
/// Both are given, the file cannot be read, or what is given is no token.
pub fn given_token(token: &Secret, file: Option<&Path>) -> Result<Secret, BadToken> {
    let (of, token) = match (token.is_set(), file) {
        (true, Some(_)) => return Err(BadToken::Both),
        (false, None) => return Ok(Secret::default()),
        (true, None) => ("admin_token".to_owned(), token.clone()),
        (false, Some(path)) => {
            let unreadable = |why| BadToken::Unreadable { path: path.to_owned(), why };
            let text = read_text(path, SECRET_BYTES_MAX).map_err(unreadable)?;
            (format!("admin_token_file {}", path.display()), Secret::new(text.trim()))
        }
    };
    if has_form(token.reveal()) { Ok(token) } else { Err(BadToken::Form { of }) }
}

/// The token of a node, which can change while the node runs.
pub struct AdminToken {
    key: hmac::Key,
    /// `None`: nobody needs one.
    wanted: ArcSwapOption<hmac::Tag>,
    file: Option<PathBuf>,
    /// What was last wrong with the file, so that it is told once.
    failed: Mutex<Option<String>>,
}

impl AdminToken {
    /// As the settings give it.
    ///
    /// # Errors
    /// As [`given_token`].
    pub fn load(settings: &Settings) -> Result<Self, BadToken> {
        let file = settings.admin_token_file.clone();
        let token = given_token(&settings.admin_token, file.as_deref())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, HMAC_KEY);
        let tag = token.is_set().then(|| hmac::sign(&key, token.reveal().as_bytes()));
        let wanted = ArcSwapOption::from_pointee(tag);
        Ok(Self { key, wanted, file, failed: Mutex::default() })
    }

    /// Whether changes want a token.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load().is_some()
    }

    /// Whether this is the token, or none is wanted.
    pub fn opens(&self, given: &[u8]) -> bool {
        let wanted = self.wanted.load();
        let is_it = |tag: &hmac::Tag| hmac::verify(&self.key, given, tag.as_ref()).is_ok();
        wanted.as_deref().is_none_or(is_it)
    }

    /// The file that the token is in, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file again, if there is one; from then on its token is the one that is wanted. Where it
    /// cannot be used, the one before stays, and the log says why. It may be called as often as one likes:
    /// what has not changed makes no line.
    pub fn reload(&self) {
        let Some(path) = &self.file else { return };
        let mut failed = lock(&self.failed);
        match given_token(&Secret::default(), Some(path)) {
            Ok(token) => {
                *failed = None;
                if !self.opens(token.reveal().as_bytes()) {
                    let tag = hmac::sign(&self.key, token.reveal().as_bytes());
                    self.wanted.store(Some(tag.into()));
                    tracing::info!(file = %path.display(), "there is another admin token");
                }
            }
            Err(why) => {
                let why = why.to_string();
                if failed.as_ref() != Some(&why) {
                    tracing::error!(
                        why,
                        "the admin token stays as it was: its file cannot be used"
                    );
                    *failed = Some(why);
                }
            }
        }
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_wanted = self.is_wanted();
        f.debug_struct("AdminToken").field("is_wanted", &is_wanted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn of_file(path: &Path) -> Settings {
        Settings { admin_token_file: Some(path.to_owned()), ..Settings::default() }
    }

    #[test]
    fn only_the_token_itself_opens_and_without_one_all_is_open() {
        let open = AdminToken::load(&Settings::default()).expect("none");
        assert!(!open.is_wanted() && open.opens(b"") && open.opens(b"x"));
        let settings = Settings { admin_token: Secret::new(TOKEN), ..Settings::default() };
        let token = AdminToken::load(&settings).expect("a token");
        assert!(token.is_wanted() && token.opens(TOKEN.as_bytes()));
        for wrong in ["", "x", &TOKEN[1..], &format!("{TOKEN}x"), "correct-horse-batterY"] {
            assert!(!token.opens(wrong.as_bytes()), "{wrong}");
        }
        let shown = format!("{token:?} {settings:?}");
        assert!(!shown.contains("horse") && shown.contains("is_wanted: true"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = "x".repeat(513);
        let bad = ["short-and-hidde", "secret with spaces in it", "sécret-sécret-sécret", &*long];
        for bad in bad {
            let settings = Settings { admin_token: Secret::new(bad), ..Settings::default() };
            let why = AdminToken::load(&settings).expect_err(bad).to_string();
            assert!(why.starts_with("admin_token is no token") && !why.contains(bad), "{why}");
        }
        for good in ["0123456789abcdef", &long[..512], "~!@#$%^&*()_+{}|:\"<>?/"] {
            assert!(has_form(good), "{good}");
        }
    }

    #[test]
    fn a_file_is_read_without_the_space_around_its_text_and_read_again_when_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        assert!(matches!(AdminToken::load(&of_file(&path)), Err(BadToken::Unreadable { .. })));
        std::fs::write(&path, format!(" {TOKEN}\r\n")).expect("written");
        let both = Settings { admin_token: Secret::new(TOKEN), ..of_file(&path) };
        assert!(matches!(AdminToken::load(&both), Err(BadToken::Both)));
        let token = AdminToken::load(&of_file(&path)).expect("a token");
        assert!(token.opens(TOKEN.as_bytes()));
        std::fs::write(&path, "another-token-than-that\n").expect("written");
        token.reload();
        assert!(token.opens(b"another-token-than-that") && !token.opens(TOKEN.as_bytes()));
        for unusable in ["", "short", "\u{0}"] {
            std::fs::write(&path, unusable).expect("written");
            token.reload();
            assert!(token.opens(b"another-token-than-that"), "it stays");
            assert!(!token.opens(unusable.as_bytes()));
        }
        std::fs::remove_file(&path).expect("removed");
        token.reload();
        assert!(token.opens(b"another-token-than-that") && !token.opens(b""), "it stays");
    }
}
