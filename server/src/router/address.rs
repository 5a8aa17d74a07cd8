//! PURE: what kind of place an address names.

use althing_proto::jid::{BareJid, FullJid, Jid};

/// What a stanza's recipient is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A domain that is served here, with or without a resource.
    Server,
    /// An account of a domain that is served here.
    Account(BareJid),
    /// A resource of such an account.
    Resource(FullJid),
    /// Another server's domain, or an address in it.
    Remote,
}

/// Classifies the recipient `to` of a stanza, among the `domains` served here. Without a recipient it is
/// the sender's own account (RFC 6120 §10.3).
#[must_use]
pub fn classify(to: Option<&Jid>, from: Option<&Jid>, domains: &[String]) -> Target {
    let Some(to) = to else {
        return match from {
            Some(from) if from.node().is_some() => Target::Account(from.to_bare()),
            _ => Target::Server,
        };
    };
    if !domains.iter().any(|domain| domain == to.domain().as_str()) {
        return Target::Remote;
    }
    match (to.node(), to.try_as_full()) {
        (None, _) => Target::Server,
        (Some(_), Ok(full)) => Target::Resource(full.clone()),
        (Some(_), Err(bare)) => Target::Account(bare.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let domains = ["example.net".to_owned(), "example.org".to_owned()];
        let from = Jid::new("a@example.net/x").unwrap();
        let target = |to: Option<&str>| {
            let to = to.map(|to| Jid::new(to).unwrap());
            classify(to.as_ref(), Some(&from), &domains)
        };
        let account = |jid: &str| Target::Account(BareJid::new(jid).unwrap());
        assert_eq!(target(None), account("a@example.net"));
        assert_eq!(target(Some("example.net")), Target::Server);
        assert_eq!(target(Some("example.org/echo")), Target::Server);
        assert_eq!(target(Some("b@example.org")), account("b@example.org"));
        assert_eq!(
            target(Some("b@example.org/r")),
            Target::Resource(FullJid::new("b@example.org/r").unwrap())
        );
        assert_eq!(target(Some("b@sub.example.net")), Target::Remote);
        assert_eq!(target(Some("example.com")), Target::Remote);
        let server = Jid::new("example.net").unwrap();
        assert_eq!(classify(None, Some(&server), &domains), Target::Server);
    }
}
