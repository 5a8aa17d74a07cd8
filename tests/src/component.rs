//! An external component (XEP-0114) of a test: header, handshake, stanzas.

use althing_proto::ns;
use althing_proto::sasl::Secret;
use althing_proto::stream::component::handshake;
use anyhow::{Context, Result, bail, ensure};
use minidom::Element;

use crate::endpoint::Endpoint;
use crate::script::captures::escape_xml;
use crate::setup::COMPONENT_SECRET;
use crate::stream::{Event, Stream};

/// One attached component.
pub struct Component {
    stream: Stream,
    domain: String,
}

impl Component {
    /// Connects to a node as `domain` and attaches.
    ///
    /// # Errors
    /// A stream error, with its condition, or whatever else is no empty handshake.
    pub async fn attach(endpoint: &Endpoint, domain: &str) -> Result<Component> {
        Component::attach_over(endpoint, domain, false).await
    }

    /// As [`Component::attach`], in clear text or over TLS.
    ///
    /// # Errors
    /// As there.
    pub async fn attach_over(endpoint: &Endpoint, domain: &str, secure: bool) -> Result<Component> {
        let (mut component, id) = Component::open_over(endpoint, domain, secure).await?;
        component.send(&format!("<handshake>{}</handshake>", answer_to(&id))).await?;
        let answer = component.element().await?;
        ensure!(answer.is("handshake", ns::CLIENT), "the handshake is answered with {answer:?}");
        Ok(component)
    }

    /// Connects as `domain` and sends the header; the id of the server's header.
    ///
    /// # Errors
    /// No connection, or no header in answer.
    pub async fn open(endpoint: &Endpoint, domain: &str) -> Result<(Component, String)> {
        Component::open_over(endpoint, domain, false).await
    }

    async fn open_over(endpoint: &Endpoint, domain: &str, secure: bool) -> Result<(Component, String)> {
        let mut stream = Stream::connect_component(endpoint, secure).await?;
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' to='{}'>",
            ns::COMPONENT_ACCEPT,
            ns::STREAM,
            escape_xml(domain)
        );
        stream.send(&header).await?;
        match stream.event().await? {
            Event::Header(header) => {
                let id = header.id.context("the header has no id")?;
                Ok((Component { stream, domain: domain.to_owned() }, id))
            }
            other => bail!("expected the server's header, got {other:?}"),
        }
    }

    /// Its domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Sends text as it is.
    ///
    /// # Errors
    /// A closed connection.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.stream.send(text).await
    }

    /// What comes next, within one step.
    ///
    /// # Errors
    /// Silence for too long, or XML that no server may send.
    pub async fn event(&mut self) -> Result<Event> {
        self.stream.event().await
    }

    /// The next element, within one step.
    ///
    /// # Errors
    /// As [`Component::event`], or the end of the stream.
    pub async fn element(&mut self) -> Result<Element> {
        self.stream.element().await
    }
}

/// What a component that knows the secret says to a stream's id.
#[must_use]
pub fn answer_to(id: &str) -> String {
    handshake(id, &Secret::new(COMPONENT_SECRET))
}
