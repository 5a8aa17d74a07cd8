//! Reads a wire script into steps; every error names its line.

use althing_proto::ns;
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;

/// A script that was read.
#[derive(Debug, Clone)]
pub struct Script {
    /// The name of its file without the ending.
    pub name: String,
    /// Who takes part, in the order of declaration.
    pub clients: Vec<Declared>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// What a declared client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// `client tablet = alice/tablet`, or `client tablet = alice/tablet at quick`
    Client {
        /// The account, made fresh for each run.
        account: String,
        /// The resource to bind.
        resource: String,
        /// What the domain of its account begins with, where it is not the first one of the server.
        host: Option<String>,
    },
    /// `component gw = gateway`: an external component (XEP-0114).
    Component {
        /// What its domain begins with.
        label: String,
    },
}

/// A line that declares who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// How the script calls it.
    pub name: String,
    /// What it is.
    pub role: Role,
}

/// One line of the script, with its block.
#[derive(Debug, Clone)]
pub struct Step {
    /// Line in the file, from 1.
    pub line: usize,
    /// The client that acts.
    pub who: String,
    /// What it does.
    pub action: Action,
}

/// How a stream is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plain TCP.
    Plain,
    /// STARTTLS (RFC 6120 §5).
    StartTls,
    /// TLS from the first byte (XEP-0368).
    DirectTls,
}

/// What a client does or sees.
#[derive(Debug, Clone)]
pub enum Action {
    /// Stream, TLS, login and bind; no presence.
    Connect,
    /// TCP, TLS and a stream header; the features are the next thing received.
    Open(Security),
    /// SASL and the next stream header, perhaps in a language; the features are the next thing received.
    Authenticate(Option<String>),
    /// Sends presence of this priority and takes its own copy (RFC 6121 §4.2.2).
    Online(i8),
    /// Both subscriptions between this client's account and the other's, done beforehand.
    Befriend(String),
    /// Bytes to send, names not yet filled in.
    Send(String),
    /// The next stanzas, one for each template.
    Receive {
        /// What must arrive.
        templates: Vec<Element>,
        /// Whether in any order.
        any_order: bool,
    },
    /// Stanzas that may come from here on, each once, and are not looked at when they do.
    Tolerate(Vec<Element>),
    /// Whether messages to the other come back from here on.
    Unheard {
        /// To whom.
        by: String,
        /// Whether they do.
        now: bool,
    },
    /// Nothing has arrived and nothing is on its way.
    ReceiveNothing,
    /// A stream error of this condition, then the end of the stream.
    StreamError(String),
    /// A component's attachment is refused with this stream error.
    Refused(String),
    /// The end of the stream, without an error.
    Closed,
    /// Kills the TCP connection.
    Disconnect,
    /// Closes the stream in order (RFC 6120 §4.4).
    Close,
    /// Whatever came or comes for it until the end of the script is not looked at.
    Ignore,
}

/// Reads a script.
///
/// # Errors
/// What is wrong, with its line.
pub fn parse(name: &str, text: &str) -> Result<Script> {
    let mut script = Script { name: name.to_owned(), clients: Vec::new(), steps: Vec::new() };
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let content = line.trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        ensure!(!content.starts_with([' ', '\t']), "line {number}: a block without a line that opens it");
        let mut block = Vec::new();
        while let Some((_, next)) = lines.peek() {
            if !next.is_empty() && !next.starts_with([' ', '\t']) {
                break;
            }
            block.push(lines.next().map_or("", |(_, line)| line));
        }
        let block = dedent(&block);
        statement(&mut script, number, content, &block)
            .with_context(|| format!("line {number}: {content}"))?;
    }
    ensure!(!script.steps.is_empty(), "the script does nothing");
    Ok(script)
}

fn statement(script: &mut Script, line: usize, content: &str, block: &str) -> Result<()> {
    let head = content.strip_suffix(':');
    ensure!(head.is_none() == block.is_empty(), "a line that ends in `:` has a block, and no other");
    if let Some(declaration) = content.strip_prefix("client ") {
        script.clients.push(declared(declaration)?);
        return Ok(());
    }
    if let Some((name, label)) = content.strip_prefix("component ").and_then(|rest| rest.split_once('=')) {
        let (name, label) = (name.trim().to_owned(), label.trim().to_owned());
        ensure!(!name.is_empty() && !label.is_empty(), "an empty name");
        script.clients.push(Declared { name, role: Role::Component { label } });
        return Ok(());
    }
    let (who, verb) = head.unwrap_or(content).split_once(' ').context("expected `NAME VERB`")?;
    ensure!(script.clients.iter().any(|client| client.name == who), "no client {who} is declared");
    let action = match verb.trim() {
        "connects" => Action::Connect,
        "opens" => Action::Open(Security::StartTls),
        "opens with direct TLS" => Action::Open(Security::DirectTls),
        "opens without TLS" => Action::Open(Security::Plain),
        "authenticates" => Action::Authenticate(None),
        "comes online" => Action::Online(0),
        "sends" => Action::Send(block.to_owned()),
        "receives" => Action::Receive { templates: elements(block)?, any_order: false },
        "receives in any order" => Action::Receive { templates: elements(block)?, any_order: true },
        "may receive" => Action::Tolerate(elements(block)?),
        "receives nothing" => Action::ReceiveNothing,
        "is closed" => Action::Closed,
        "disconnects" => Action::Disconnect,
        "closes" => Action::Close,
        "ignores the rest" => Action::Ignore,
        other => long_verb(other)?,
    };
    let takes_block = matches!(action, Action::Send(_) | Action::Receive { .. } | Action::Tolerate(_));
    ensure!(
        takes_block != block.is_empty(),
        "this verb {} a block",
        if takes_block { "needs" } else { "has not" }
    );
    script.steps.push(Step { line, who: who.to_owned(), action });
    Ok(())
}

/// Verbs that carry a word of their own.
fn long_verb(verb: &str) -> Result<Action> {
    if let Some(priority) = verb.strip_prefix("comes online with priority ") {
        return Ok(Action::Online(priority.parse().context("a priority is a number from -128 to 127")?));
    }
    if let Some(lang) = verb.strip_prefix("authenticates in ") {
        return Ok(Action::Authenticate(Some(lang.to_owned())));
    }
    if let Some(other) = verb.strip_prefix("is a friend of ") {
        return Ok(Action::Befriend(other.to_owned()));
    }
    if let Some(condition) = verb.strip_prefix("is refused with ") {
        return Ok(Action::Refused(condition.to_owned()));
    }
    if let Some(other) = verb.strip_prefix("cannot write to ") {
        return Ok(Action::Unheard { by: other.to_owned(), now: true });
    }
    if let Some(other) = verb.strip_prefix("can write again to ") {
        return Ok(Action::Unheard { by: other.to_owned(), now: false });
    }
    if let Some(condition) = verb.strip_prefix("receives the stream error ") {
        return Ok(Action::StreamError(condition.to_owned()));
    }
    bail!("unknown verb")
}

fn declared(text: &str) -> Result<Declared> {
    let (name, address) = text.split_once('=').context("expected `client NAME = ACCOUNT/RESOURCE`")?;
    let (address, host) = match address.trim().split_once(" at ") {
        Some((address, host)) => (address, Some(host.to_owned())),
        None => (address.trim(), None),
    };
    let (account, resource) = address.split_once('/').context("expected ACCOUNT/RESOURCE")?;
    let name = name.trim();
    ensure!(!name.is_empty() && !account.is_empty() && !resource.is_empty(), "an empty name");
    let role = Role::Client { account: account.to_owned(), resource: resource.to_owned(), host };
    Ok(Declared { name: name.to_owned(), role })
}

/// Takes the common indentation away; empty lines at the end vanish.
fn dedent(lines: &[&str]) -> String {
    let filled = || lines.iter().filter(|line| !line.trim().is_empty());
    let indent = filled().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    let text: Vec<&str> = lines.iter().map(|line| line.get(indent..).unwrap_or("").trim_end()).collect();
    text.join("\n").trim_end().to_owned()
}

/// The elements of a block. Their default namespace is `jabber:client`, the prefix `stream` is known,
/// and `{error TYPE CONDITION}` stands for a whole stanza error.
///
/// # Errors
/// XML that is not well-formed, or no element at all.
pub fn elements(block: &str) -> Result<Vec<Element>> {
    let block = expand_errors(block)?;
    let text = format!("<block xmlns='{}' xmlns:stream='{}'>{block}</block>", ns::CLIENT, ns::STREAM);
    let parsed = Element::from_reader(text.as_bytes()).context("the block is not well-formed XML")?;
    let found: Vec<Element> = parsed.children().cloned().collect();
    ensure!(!found.is_empty(), "no element in the block");
    Ok(found)
}

/// `{error cancel item-not-found}` becomes the element of RFC 6120 §8.3.
fn expand_errors(block: &str) -> Result<String> {
    let mut out = String::with_capacity(block.len());
    let mut rest = block;
    while let Some(start) = rest.find("{error ") {
        let tail = &rest[start + "{error ".len()..];
        let (inner, after) = tail.split_once('}').context("`{error` without `}`")?;
        let (kind, condition) = inner.split_once(' ').context("expected {error TYPE CONDITION}")?;
        out.push_str(&rest[..start]);
        out.push_str(&format!("<error type='{kind}'><{condition} xmlns='{}'/></error>", ns::STANZA_ERRORS));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "# a comment\nclient alice = alice/phone\n\nalice connects\nalice sends:\n    <iq>\n      <x/>\n    </iq>\n\nalice receives:\n    <a/>\n    <b/>\n";

    #[test]
    fn reads_clients_steps_and_blocks() {
        let script = parse("small", SMALL).unwrap();
        let role = |host: Option<&str>| Role::Client {
            account: "alice".to_owned(),
            resource: "phone".to_owned(),
            host: host.map(str::to_owned),
        };
        assert_eq!(script.clients[0].role, role(None));
        let elsewhere = parse("x", "client a = alice/phone at quick\na connects\n").unwrap();
        assert_eq!(elsewhere.clients[0].role, role(Some("quick")));
        assert_eq!(script.steps.iter().map(|step| step.line).collect::<Vec<_>>(), [4, 5, 10]);
        assert!(matches!(&script.steps[1].action, Action::Send(text) if text == "<iq>\n  <x/>\n</iq>"));
        assert!(matches!(&script.steps[2].action, Action::Receive { templates, .. } if templates.len() == 2));
    }

    #[test]
    fn errors_name_their_line() {
        let wrong = |text: &str| format!("{:#}", parse("x", text).unwrap_err());
        assert!(wrong("client a = a/b\na dances").starts_with("line 2"));
        assert!(wrong("bob connects").contains("no client bob"));
        assert!(wrong("client a = a/b\na sends:\na connects").contains("has a block"));
        assert!(wrong("client a = a/b\na connects\n  <x/>").contains("has a block"));
        assert!(wrong("client a = a/b\na connects:\n  <x/>").contains("this verb has not"));
        assert!(wrong("client a = a/b\na receives:\n  <x>").contains("not well-formed"));
        assert!(wrong("client a = a/b\n").contains("does nothing"));
        assert!(wrong("  <x/>").contains("line 1"));
    }

    #[test]
    fn verbs_with_words_of_their_own() {
        let text = "client a = a/b\na comes online with priority -1\na is a friend of a\na receives the stream error conflict\n";
        let script = parse("x", text).unwrap();
        assert!(matches!(script.steps[0].action, Action::Online(-1)));
        let component = parse("x", "component gw = gateway\ngw connects\n").unwrap();
        assert_eq!(component.clients[0].role, Role::Component { label: "gateway".to_owned() });
        assert!(matches!(&script.steps[2].action, Action::StreamError(name) if name == "conflict"));
        assert!(parse("x", "client a = a/b\na comes online with priority 200\n").is_err());
    }
}
