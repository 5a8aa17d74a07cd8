//! XEP-0199 §4.2: silent clients are asked whether they are there, and given up when they do not answer.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use althing_proto::ns;
use althing_tests::client::Client;
use althing_tests::login::newcomer;
use althing_tests::node::TestNode;
use anyhow::{Result, ensure};

const OVERLAY: &str = "[limits]\nclient_ping_s = 1\nclient_ping_timeout_s = 1\n";

/// Waits for the server's question; its id.
async fn asked(client: &mut Client) -> Result<String> {
    let domain = client.domain().to_owned();
    let ping = client.recv().await?;
    ensure!(ping.is("iq", ns::CLIENT) && ping.attr("type") == Some("get"), "no ping: {ping:?}");
    ensure!(ping.attr("from") == Some(domain.as_str()) && ping.attr("to") == Some(client.jid()));
    ensure!(ping.has_child("ping", ns::PING), "no ping: {ping:?}");
    Ok(ping.attr("id").unwrap_or_default().to_owned())
}

/// An answer keeps the stream, an error as well as a result (§4.3), and so does whatever else comes, a space too.
#[tokio::test]
async fn who_answers_stays() -> Result<()> {
    let node = TestNode::start(OVERLAY).await?;
    let mut client = newcomer(&node.endpoint(), "lively").await?;
    let domain = client.domain().to_owned();
    let id = asked(&mut client).await?;
    client.send(&format!("<iq type='result' id='{id}' to='{domain}'/>")).await?;
    let id = asked(&mut client).await?;
    let refusal =
        "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    client.send(&format!("<iq type='error' id='{id}' to='{domain}'>{refusal}</iq>")).await?;
    asked(&mut client).await?;
    client.send(" ").await?;
    asked(&mut client).await?;
    client.ping().await
}

#[tokio::test]
async fn who_says_nothing_is_given_up() -> Result<()> {
    let node = TestNode::start(OVERLAY).await?;
    let mut client = newcomer(&node.endpoint(), "silent").await?;
    asked(&mut client).await?;
    assert_eq!(client.expect_stream_error().await?, "connection-timeout");
    Ok(())
}
