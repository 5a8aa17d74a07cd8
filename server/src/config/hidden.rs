//! A text of the configuration that nobody may see: secrets and passwords.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize, Serializer};

/// A secret in a configuration: it is read, and shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// The secret itself: for what it is needed for, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret as it stands in the configuration, or what is in `file`, without the spaces around it. `None` where
    /// neither is given.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(given: Option<&Hidden>, file: Option<&Path>) -> anyhow::Result<Option<Hidden>> {
        match (given, file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
                Ok(Some(Hidden(text.trim().to_owned())))
            }
            (None, None) => Ok(None),
        }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}
