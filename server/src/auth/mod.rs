//! Credentials: making and checking them, off the arbiters.

pub mod rate;

use std::sync::Arc;

use althing_proto::jid::BareJid;
use althing_proto::sasl::{Credentials, PasswordError, Secret, decoy};
use althing_proto::stream::{Bar, CredentialsReply, PasswordVerdict};

use crate::node::NodeContext;
use crate::session::ending::{self, Ending};
use crate::storage::{Account, Standing, StorageError};

/// Why an account could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken.
    #[error("the account exists already")]
    Exists,
    /// The password cannot be prepared (RFC 4013), or is empty.
    #[error("the password cannot be used: {0}")]
    Password(#[from] PasswordError),
    /// The storage could not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The server lacks randomness, or is stopping.
    #[error("the server cannot make credentials now")]
    Unavailable,
}

/// Makes an account.
///
/// # Errors
/// [`CreateError`].
pub async fn create_account(
    node: &Arc<NodeContext>,
    user: &BareJid,
    password: Secret,
) -> Result<(), CreateError> {
    if node.storage.accounts.get(user).await?.is_some() {
        // Before the dear part: a stranger must not make the server derive keys for nothing.
        return Err(CreateError::Exists);
    }
    let credentials = derive(node, password).await?;
    let account = Account { credentials, created: node.now() };
    if node.storage.accounts.create(user, account).await? { Ok(()) } else { Err(CreateError::Exists) }
}

/// Gives `user` another password, for all mechanisms. `false`: there is no such account.
///
/// # Errors
/// [`CreateError`], but for [`CreateError::Exists`].
pub async fn set_password(
    node: &Arc<NodeContext>,
    user: &BareJid,
    password: Secret,
) -> Result<bool, CreateError> {
    let credentials = derive(node, password).await?;
    Ok(node.storage.accounts.set_credentials(user, credentials).await?)
}

/// Disables the account of `user`: its sessions end on all nodes, and nobody logs in until it is enabled again. How many
/// sessions have ended; `None`: there is no such account.
///
/// First the account, then the sessions: one that begins in between reads at its bind that it may not.
///
/// # Errors
/// As the storage. To do it again does no harm.
pub async fn disable_account(node: &Arc<NodeContext>, user: &BareJid) -> Result<Option<usize>, StorageError> {
    if !node.storage.accounts.set_disabled(user, Some(node.now())).await? {
        return Ok(None);
    }
    Ok(Some(ending::end_account(node, user, Ending::Disabled).await))
}

/// Lets the user of a disabled account log in again. `false`: there is no such account.
///
/// # Errors
/// As the storage.
pub async fn enable_account(node: &Arc<NodeContext>, user: &BareJid) -> Result<bool, StorageError> {
    node.storage.accounts.set_disabled(user, None).await
}

/// What keeps the user out, whatever the password: told to who has shown the right one only.
fn bar(standing: &Standing) -> Option<Bar> {
    standing.disabled.map(|_since| Bar::Disabled)
}

/// PBKDF2 takes milliseconds: on the blocking pool, as many at a time as there are cores.
async fn derive(node: &Arc<NodeContext>, password: Secret) -> Result<Credentials, CreateError> {
    let salt = node.random::<16>().ok_or(CreateError::Unavailable)?;
    let iterations = node.config().auth.scram_iterations;
    let derived = on_blocking_pool(node, move || Credentials::derive(password.expose(), iterations, salt));
    Ok(derived.await.ok_or(CreateError::Unavailable)??)
}

/// The credentials for a SCRAM login.
pub async fn fetch_credentials(node: &Arc<NodeContext>, user: &BareJid) -> CredentialsReply {
    match node.storage.accounts.standing(user).await {
        Ok(Some(standing)) => {
            let bar = bar(&standing);
            CredentialsReply::Found { credentials: Box::new(standing.account.credentials), bar }
        }
        Ok(None) => CredentialsReply::Unknown,
        Err(error) => {
            tracing::warn!(%error, "storage could not answer: a login fails");
            CredentialsReply::Unavailable
        }
    }
}

/// Checks the password of a PLAIN login. An unknown user costs as much as a known one.
pub async fn check_password(node: &Arc<NodeContext>, user: &BareJid, password: Secret) -> PasswordVerdict {
    let standing = match node.storage.accounts.standing(user).await {
        Ok(standing) => standing,
        Err(error) => {
            tracing::warn!(%error, "storage could not answer: a login fails");
            return PasswordVerdict::Unavailable;
        }
    };
    let (secret, iterations) = (node.decoy_secret, node.config().auth.scram_iterations);
    let name = user.as_str().to_owned();
    let bar = standing.as_ref().and_then(bar);
    let checked = on_blocking_pool(node, move || {
        let known = standing.is_some();
        let credentials = standing
            .map_or_else(|| decoy(&secret, &name, iterations), |standing| standing.account.credentials);
        // Not `&&`: the check is made for unknown users too.
        credentials.verify_password(password.expose()) & known
    });
    match checked.await {
        Some(true) => bar.map_or(PasswordVerdict::Right, PasswordVerdict::Barred),
        Some(false) => PasswordVerdict::Wrong,
        None => PasswordVerdict::Unavailable,
    }
}

/// Runs something dear on the blocking pool; `None` if the node is stopping.
async fn on_blocking_pool<T: Send + 'static>(
    node: &Arc<NodeContext>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let _permit = node.hashing.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}
