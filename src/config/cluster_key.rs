//! The cluster key as the settings give it.

use std::io;
use std::path::{Path, PathBuf};

use super::Settings;
use crate::keys::Secret;
use crate::storage::{SECRET_BYTES_MAX, read_text};
use crate::trust::{BadClusterKey, ClusterKeys, read_keys};

/// Why the cluster key cannot be used. No message has it.
#[derive(Debug, thiserror::Error)]
pub enum BadGivenKey {
    /// It is none.
    #[error("{of}: {why}")]
    Key {
        /// Where it is from.
        of: String,
        /// What is wrong with it.
        why: BadClusterKey,
    },
    /// Its file cannot be read.
    #[error("cluster_key_file {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Where the cluster key is from; it is read again from there while the node runs.
#[derive(Clone, Debug)]
pub struct GivenKey {
    given: Secret,
    file: Option<PathBuf>,
    cluster: String,
}

impl GivenKey {
    /// As the settings say; `None`: they give none, and the node is open.
    pub fn of(settings: &Settings) -> Option<Self> {
        settings.has_cluster_key().then(|| Self {
            given: settings.cluster_key.clone(),
            file: settings.cluster_key_file.clone(),
            cluster: settings.cluster_name.clone(),
        })
    }

    /// The file that it is in, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the one key or the two.
    ///
    /// # Errors
    /// The file cannot be read, or what is given is no key.
    pub fn read(&self) -> Result<ClusterKeys, BadGivenKey> {
        let (of, text) = match &self.file {
            None => ("cluster_key".to_owned(), self.given.clone()),
            Some(path) => {
                let unreadable = |why| BadGivenKey::Unreadable { path: path.clone(), why };
                let text = read_text(path, SECRET_BYTES_MAX).map_err(unreadable)?;
                (format!("cluster_key_file {}", path.display()), Secret::new(text))
            }
        };
        let keys = read_keys(text.reveal()).map_err(|why| BadGivenKey::Key { of, why })?;
        Ok(ClusterKeys::new(&keys, &self.cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

    #[test]
    fn a_key_is_read_from_where_it_is_given_and_shown_nowhere() {
        assert!(GivenKey::of(&Settings::default()).is_none());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let settings = Settings { cluster_key: Secret::new(KEY), ..Settings::default() };
        let given = GivenKey::of(&settings).expect("one");
        let ids = given.read().expect("a key").ids();
        let in_file = Settings { cluster_key_file: Some(path.clone()), ..Settings::default() };
        let of_file = GivenKey::of(&in_file).expect("one");
        assert!(matches!(of_file.read(), Err(BadGivenKey::Unreadable { .. })));
        std::fs::write(&path, format!("{OTHER}\n{KEY}\n")).expect("written");
        let both = of_file.read().expect("two keys").ids();
        assert_eq!((both.len(), both.get(1)), (2, ids.first()));
        std::fs::write(&path, format!("{KEY}0")).expect("written");
        let why = of_file.read().expect_err("none").to_string();
        assert!(why.starts_with("cluster_key_file ") && !why.contains(KEY), "{why}");
        assert!(!format!("{settings:?} {given:?} {both:?}").contains(&KEY[..16]));
    }

    #[test]
    fn the_name_of_the_cluster_makes_another_key_of_it() {
        let of = |name: &str| Settings {
            cluster_key: Secret::new(KEY),
            cluster_name: name.to_owned(),
            ..Settings::default()
        };
        let ids = |name| GivenKey::of(&of(name)).expect("one").read().expect("a key").ids();
        assert_ne!(ids("fog"), ids("edge"));
    }
}
