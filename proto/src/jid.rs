//! Addresses (RFC 7622), by the `jid` crate.
//!
//! The crate prepares the parts with stringprep (nodeprep, nameprep, resourceprep) and IDNA2008,
//! which is the practice of the field, rather than with RFC 7622's PRECIS profiles: a change would
//! alter stored keys. A parsed JID is normalised; its parts are at most 1,023 bytes each.
//!
//! What comes from outside goes through [`parse`], not through the crate's own constructor: that one takes
//! a few addresses whose normal form it would refuse (a domain label of many `ß` grows past 63 bytes when
//! they become `ss`), and such an address could be stored but never read again.

pub mod escaping;

pub use jid::{
    BareJid, DomainPart, DomainRef, Error as JidError, FullJid, Jid, NodePart, NodeRef, ResourcePart,
    ResourceRef,
};

/// Why a text is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A part is empty, too long, or has characters that it must not have.
    #[error(transparent)]
    Part(#[from] JidError),
    /// Its normal form is not itself an address, or another one.
    #[error("the normal form of the address is not an address")]
    Unstable,
}

/// Parses and normalises an address. The result parses to itself.
///
/// # Errors
/// [`AddressError`].
pub fn parse(text: &str) -> Result<Jid, AddressError> {
    let jid = Jid::new(text)?;
    // Nearly all addresses arrive in normal form: those have just shown that they parse to themselves.
    if jid.as_str() == text || Jid::new(jid.as_str()).is_ok_and(|again| again == jid) {
        Ok(jid)
    } else {
        Err(AddressError::Unstable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_normalised() {
        assert_eq!(parse("Romeo@Example.NET/Orchard").unwrap().as_str(), "romeo@example.net/Orchard");
        assert!(matches!(parse("@example.net"), Err(AddressError::Part(_))));
    }

    #[test]
    fn an_address_whose_normal_form_is_none_is_refused() {
        let growing = format!("{}.example", "ß".repeat(40));
        assert!(Jid::new(&growing).is_ok(), "the crate takes it: else `parse` is no longer needed");
        assert_eq!(parse(&growing), Err(AddressError::Unstable));
    }
}
