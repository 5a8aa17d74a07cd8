//! Section `[contact]`: whom people may write to about this service.

use super::Config;
use super::section::section;
use super::validate::{Finding, finding};

section! {
    /// Whom people may write to about this service, told by service discovery (XEP-0157). Lists of URIs, such as
    /// `mailto:abuse@example.org` or `xmpp:admin@example.org`.
    Contact = "contact" {
        /// For abuse that comes from this server. Addresses that begin with `xmpp:` get the reports of XEP-0377 too.
        abuse: Vec<String> = Vec::new();
        /// The administrators.
        admin: Vec<String> = Vec::new();
        /// For opinions on the service.
        feedback: Vec<String> = Vec::new();
        /// For sales and marketing.
        sales: Vec<String> = Vec::new();
        /// For concerns about security.
        security: Vec<String> = Vec::new();
        /// Where the state of the service is told.
        status: Vec<String> = Vec::new();
        /// For help with the service.
        support: Vec<String> = Vec::new();
    }
}

impl Contact {
    /// The lists by the names of XEP-0157 without `-addresses`, those without an entry too.
    #[must_use]
    pub fn lists(&self) -> [(&'static str, &[String]); 7] {
        [
            ("abuse", &self.abuse),
            ("admin", &self.admin),
            ("feedback", &self.feedback),
            ("sales", &self.sales),
            ("security", &self.security),
            ("status", &self.status),
            ("support", &self.support),
        ]
    }
}

/// Whether `text` has the shape of a URI (RFC 3986 §3): a scheme, a colon, something more, nothing unprintable.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let printable = |c: char| !c.is_whitespace() && !c.is_control() && !"<>\"{}|\\^`".contains(c);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(of_scheme)
        && !rest.is_empty()
        && rest.chars().all(printable)
}

impl Config {
    pub(super) fn check_contact(&self, found: &mut Vec<Finding>) {
        for (name, list) in self.contact.lists() {
            for entry in list.iter().filter(|entry| !is_uri(entry)) {
                found.push(finding(
                    &format!("contact.{name}"),
                    format!("\"{entry}\" is no URI"),
                    "URIs, such as \"mailto:abuse@example.org\" or \"xmpp:admin@example.org\"",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_a_scheme_and_something_behind_it() {
        for good in ["mailto:a@b", "xmpp:a@b?message", "https://x.example/y?z=1"] {
            assert!(is_uri(good), "{good}");
        }
        for bad in ["", "a@b", "mailto:", ":x", "1a:b", "mailto:a b", "x:<y>"] {
            assert!(!is_uri(bad), "{bad}");
        }
    }
}
