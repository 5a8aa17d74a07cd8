//! Registration, SASL and resource binding of the test client.

use althing_proto::ns;
use althing_proto::sasl::client::{ClientBinding, ScramClient};
use althing_proto::sasl::{ChannelBinding, Mechanism, TlsInfo};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minidom::Element;

use crate::client::{Client, stanza_error};
use crate::endpoint::Endpoint;
use crate::random;
use crate::script::captures::escape_xml;
use crate::script::parser::Security;
use crate::stream::Stream;
use crate::tls::Versions;

/// An account and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The localpart.
    pub user: String,
    /// The password in clear.
    pub password: String,
}

impl Account {
    /// A name nobody else uses, beginning with `prefix`, and a password.
    #[must_use]
    pub fn fresh(prefix: &str) -> Account {
        Account { user: format!("{prefix}-{}", random::hex(6)), password: random::hex(8) }
    }

    /// The bare JID at `domain`.
    #[must_use]
    pub fn bare(&self, domain: &str) -> String {
        format!("{}@{domain}", self.user)
    }
}

/// What the client says about channel binding (RFC 5802 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// `n`: it has none.
    Unsupported,
    /// `y`: it has, and thinks the server has not.
    NotOffered,
    /// `p=`: it binds to this.
    Use(ChannelBinding),
}

/// The server's last word on a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Logged in.
    Accepted,
    /// The condition of the failure (RFC 6120 §6.5).
    Refused(String),
}

/// The mechanisms in `features`.
#[must_use]
pub fn offered(features: &Element) -> Vec<String> {
    features
        .get_child("mechanisms", ns::SASL)
        .map(|list| list.children().map(Element::text).collect())
        .unwrap_or_default()
}

/// The strongest mechanism that is offered and needs no channel binding, as a plain client would choose.
///
/// # Errors
/// When there is none.
pub fn choose(features: &Element) -> Result<Mechanism> {
    let offered = offered(features);
    Mechanism::ALL
        .into_iter()
        .find(|mechanism| !mechanism.is_plus() && offered.iter().any(|name| name == mechanism.name()))
        .with_context(|| format!("no usable mechanism among {offered:?}"))
}

/// Logs in with one mechanism, offered or not.
///
/// # Errors
/// Whatever is neither success nor a SASL failure, such as a server that proves nothing.
pub async fn authenticate(
    stream: &mut Stream,
    account: &Account,
    mechanism: Mechanism,
    binding: Binding,
) -> Result<Verdict> {
    if mechanism == Mechanism::Plain {
        let message = format!("\0{}\0{}", account.user, account.password);
        start(stream, mechanism, message.as_bytes()).await?;
        return match sasl_answer(stream).await? {
            Answer::Success(_) => Ok(Verdict::Accepted),
            Answer::Failure(condition) => Ok(Verdict::Refused(condition)),
            Answer::Challenge(_) => bail!("PLAIN was answered with a challenge"),
        };
    }
    let (exporter, server_end_point) = stream.bindings();
    let info = TlsInfo { exporter, server_end_point };
    let binding = match binding {
        Binding::Unsupported => ClientBinding::Unsupported,
        Binding::NotOffered => ClientBinding::NotOffered,
        Binding::Use(kind) => ClientBinding::Use(kind, &info),
    };
    let nonce = random::hex(16);
    let scram = ScramClient::new(mechanism, &account.user, &account.password, None, binding, &nonce)?;
    start(stream, mechanism, &scram.first()).await?;
    let challenge = match sasl_answer(stream).await? {
        Answer::Challenge(data) => data,
        Answer::Failure(condition) => return Ok(Verdict::Refused(condition)),
        Answer::Success(_) => bail!("success without a challenge"),
    };
    let (verify, proof) = scram.respond(&challenge)?;
    stream.send(&format!("<response xmlns='{}'>{}</response>", ns::SASL, BASE64.encode(proof))).await?;
    match sasl_answer(stream).await? {
        Answer::Success(data) => {
            verify.finish(&data)?;
            Ok(Verdict::Accepted)
        }
        Answer::Failure(condition) => Ok(Verdict::Refused(condition)),
        Answer::Challenge(_) => bail!("a second challenge"),
    }
}

async fn start(stream: &mut Stream, mechanism: Mechanism, message: &[u8]) -> Result<()> {
    let (name, data) = (mechanism.name(), BASE64.encode(message));
    stream.send(&format!("<auth xmlns='{}' mechanism='{name}'>{data}</auth>", ns::SASL)).await
}

enum Answer {
    Challenge(Vec<u8>),
    Success(Vec<u8>),
    Failure(String),
}

async fn sasl_answer(stream: &mut Stream) -> Result<Answer> {
    let element = stream.element().await?;
    ensure!(element.ns() == ns::SASL, "expected an answer of SASL, got {element:?}");
    let data = || match element.text().trim() {
        "" | "=" => Ok(Vec::new()),
        text => BASE64.decode(text).context("no base64"),
    };
    match element.name() {
        "challenge" => Ok(Answer::Challenge(data()?)),
        "success" => Ok(Answer::Success(data()?)),
        "failure" => {
            let condition = element.children().find(|child| child.name() != "text");
            Ok(Answer::Failure(condition.context("a failure without condition")?.name().to_owned()))
        }
        other => bail!("<{other}/> is no answer of SASL"),
    }
}

/// Binds a resource (RFC 6120 §7) after the header that follows SASL; returns the full JID.
///
/// # Errors
/// Refusal, or an answer that holds no JID.
pub async fn bind(stream: &mut Stream, resource: Option<&str>) -> Result<String> {
    stream.send(&bind_request(resource)).await?;
    let answer = stream.element().await?;
    ensure!(answer.attr("id") == Some("bind"), "expected the answer to bind, got {answer:?}");
    if answer.attr("type") != Some("result") {
        bail!("bind was refused: {}", stanza_error(&answer)?);
    }
    let jid = answer.get_child("bind", ns::BIND).and_then(|bind| bind.get_child("jid", ns::BIND));
    Ok(jid.context("the answer to bind holds no JID")?.text())
}

/// The request of [`bind`]; its id is `bind`.
#[must_use]
pub fn bind_request(resource: Option<&str>) -> String {
    let wish = resource.map(|name| format!("<resource>{}</resource>", escape_xml(name))).unwrap_or_default();
    format!("<iq type='set' id='bind'><bind xmlns='{}'>{wish}</bind></iq>", ns::BIND)
}

/// Registers an account (XEP-0077 §3.1) on a stream that is not logged in.
///
/// # Errors
/// Refusal, with its condition.
pub async fn register(stream: &mut Stream, account: &Account) -> Result<()> {
    let (user, password) = (escape_xml(&account.user), escape_xml(&account.password));
    let query = format!(
        "<query xmlns='{}'><username>{user}</username><password>{password}</password></query>",
        ns::REGISTER
    );
    stream.send(&format!("<iq type='set' id='register'>{query}</iq>")).await?;
    let answer = stream.element().await?;
    ensure!(answer.name() == "iq", "expected the answer to a registration, got {answer:?}");
    match answer.attr("type") {
        Some("result") => Ok(()),
        _ => bail!("registration was refused: {}", stanza_error(&answer)?),
    }
}

/// Registers an account over a connection of its own.
///
/// # Errors
/// As [`register`].
pub async fn register_at(endpoint: &Endpoint, account: &Account) -> Result<()> {
    let (mut stream, _) = Stream::open(endpoint, Security::StartTls, Versions::Any).await?;
    register(&mut stream, account).await
}

/// A stream that is logged in, with nothing but the bind to do.
///
/// # Errors
/// Any step that fails.
pub async fn authenticated(endpoint: &Endpoint, account: &Account, security: Security) -> Result<Stream> {
    let (mut stream, features) = Stream::open(endpoint, security, Versions::Any).await?;
    let mechanism = choose(&features)?;
    let verdict = authenticate(&mut stream, account, mechanism, Binding::Unsupported).await?;
    ensure!(verdict == Verdict::Accepted, "{} cannot log in: {verdict:?}", account.user);
    stream.header().await?;
    Ok(stream)
}

/// A stream that is logged in and bound, but not yet read in the background.
///
/// # Errors
/// Any step that fails.
pub async fn logged_in(
    endpoint: &Endpoint,
    account: &Account,
    resource: Option<&str>,
    security: Security,
) -> Result<(Stream, String)> {
    let mut stream = authenticated(endpoint, account, security).await?;
    let jid = bind(&mut stream, resource).await?;
    Ok((stream, jid))
}

/// A client over STARTTLS, logged in and bound; it has sent no presence.
///
/// # Errors
/// Any step that fails.
pub async fn connect(endpoint: &Endpoint, account: &Account, resource: &str) -> Result<Client> {
    let (stream, jid) = logged_in(endpoint, account, Some(resource), Security::StartTls).await?;
    Ok(Client::new(stream, jid))
}

/// Registers a fresh account whose name begins with `prefix` and connects it.
///
/// # Errors
/// Any step that fails.
pub async fn newcomer(endpoint: &Endpoint, prefix: &str) -> Result<Client> {
    let account = Account::fresh(prefix);
    register_at(endpoint, &account).await?;
    connect(endpoint, &account, "test").await
}
