//! What is offered when (RFC 6120 §4.3).

use std::time::Duration;

use minidom::Element;

use super::config::StreamConfig;
use super::framing::Framing;
use crate::ns;
use crate::sasl::{Mechanism, TlsInfo};
use crate::xml::build::BuilderExt as _;
use crate::xml::name;

/// Whether a client may log in or register on this connection.
pub(super) fn may_log_in(config: &StreamConfig, tls: Option<&TlsInfo>) -> bool {
    tls.is_some() || config.allow_plaintext
}

/// Whether TLS can begin on this stream: never inside a WebSocket (RFC 7395 §3.9).
pub(super) fn may_start_tls(config: &StreamConfig, tls: Option<&TlsInfo>, framing: Framing) -> bool {
    tls.is_none() && config.starttls && framing == Framing::Tcp
}

/// The mechanisms that fit the connection, the strongest first.
pub(super) fn mechanisms(config: &StreamConfig, tls: Option<&TlsInfo>) -> Vec<Mechanism> {
    if !may_log_in(config, tls) {
        return Vec::new();
    }
    let can_bind = tls.is_some_and(|tls| tls.available().next().is_some());
    let fits =
        |mechanism: &Mechanism| config.mechanisms.contains(mechanism) && (can_bind || !mechanism.is_plus());
    Mechanism::ALL.into_iter().filter(fits).collect()
}

/// XEP-0478: what may be sent at most, and when silence is noticed.
fn limits(max_bytes: usize, idle: Option<Duration>) -> Element {
    let number = |name, number: u64| Element::builder(name, ns::STREAM_LIMITS).append(number.to_string());
    let idle = idle.map(|idle| number("idle-seconds", idle.as_secs()).build());
    Element::builder("limits", ns::STREAM_LIMITS)
        .append(number("max-bytes", max_bytes as u64))
        .append_all(idle)
        .build()
}

/// Features for a client that has not logged in.
pub(super) fn before_login(config: &StreamConfig, tls: Option<&TlsInfo>, framing: Framing) -> Element {
    let mut features = Element::bare("features", ns::STREAM);
    if may_start_tls(config, tls, framing) {
        let mut starttls = Element::bare("starttls", ns::TLS);
        if !config.allow_plaintext {
            starttls.append_child(Element::bare("required", ns::TLS));
        }
        features.append_child(starttls);
    }
    let offered = mechanisms(config, tls);
    if !offered.is_empty() {
        let mut list = Element::bare("mechanisms", ns::SASL);
        for mechanism in &offered {
            list.append_child(Element::builder("mechanism", ns::SASL).append(mechanism.name()).build());
        }
        features.append_child(list);
    }
    if let Some(tls) = tls.filter(|_| offered.iter().any(|mechanism| mechanism.is_plus())) {
        let mut types = Element::bare("sasl-channel-binding", ns::SASL_CHANNEL_BINDING);
        for binding in tls.available() {
            let item = Element::builder("channel-binding", ns::SASL_CHANNEL_BINDING);
            types.append_child(item.set(name!("type"), binding.name()).build());
        }
        features.append_child(types);
    }
    if config.registration && may_log_in(config, tls) {
        features.append_child(Element::bare("register", ns::REGISTER_FEATURE));
    }
    // How long a login may take is no limit on silence.
    features.append_child(limits(config.limits_before.stanza_bytes, None));
    features
}

/// Features for a client that has logged in.
pub(super) fn after_login(config: &StreamConfig) -> Element {
    let mut features = Element::bare("features", ns::STREAM);
    features.append_child(Element::bare("bind", ns::BIND));
    // Clients of RFC 3921 wait for it; `optional` tells all others to skip the round trip.
    let session = Element::builder("session", ns::SESSION).append(Element::bare("optional", ns::SESSION));
    features.append_child(session.build());
    for feature in &config.features_after_login {
        features.append_child(feature.clone());
    }
    features.append_child(limits(config.limits_after.stanza_bytes, config.idle));
    features
}
