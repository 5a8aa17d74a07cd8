//! Every namespace of the wire, its specification on the line above.

/// RFC 6120 §4.8.1: the stream root element.
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// RFC 6120 §4.8.2: content of a client-to-server stream.
pub const CLIENT: &str = "jabber:client";
/// RFC 6120 §4.8.2: content of a server-to-server stream.
pub const SERVER: &str = "jabber:server";
/// XEP-0114 §3: content of a stream that a component has opened.
pub const COMPONENT_ACCEPT: &str = "jabber:component:accept";
/// RFC 6120 §4.9.2: conditions of stream errors.
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// RFC 7395 §3.3.2: `<open/>` and `<close/>` of a stream over a WebSocket.
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// RFC 6120 §8.3.2: conditions of stanza errors.
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// RFC 6120 §5: STARTTLS negotiation.
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// RFC 6120 §6: SASL negotiation.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// RFC 6120 §7: resource binding.
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// RFC 3921 §3 (obsolete): session establishment, kept as an optional no-op.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// XEP-0440: SASL channel-binding type capability.
pub const SASL_CHANNEL_BINDING: &str = "urn:xmpp:sasl-cb:0";
/// Namespaces in XML 1.0: `xml:lang` and its kin.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// RFC 6121 §2: roster management.
pub const ROSTER: &str = "jabber:iq:roster";
/// RFC 6121 §2.6.1: the stream feature of roster versioning.
pub const ROSTER_VERSIONING: &str = "urn:xmpp:features:rosterver";
/// RFC 6121 §3.4.1: the stream feature of subscription pre-approval.
pub const PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";
/// XEP-0030: service discovery, identity and features.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// XEP-0030: service discovery, associated items.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// XEP-0049: private XML storage.
pub const PRIVATE: &str = "jabber:iq:private";
/// XEP-0115: entity capabilities.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// XEP-0390: entity capabilities 2.0.
pub const ECAPS2: &str = "urn:xmpp:caps";
/// XEP-0300: hash functions.
pub const HASHES: &str = "urn:xmpp:hashes:2";
/// XEP-0128 and XEP-0157: the FORM_TYPE of what a server tells of itself.
pub const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";
/// XEP-0478: limits of a stream.
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// XEP-0198: stream management.
pub const STREAM_MANAGEMENT: &str = "urn:xmpp:sm:3";
/// XEP-0012: last activity.
pub const LAST: &str = "jabber:iq:last";
/// XEP-0054: vcard-temp.
pub const VCARD: &str = "vcard-temp";
/// XEP-0055: search.
pub const SEARCH: &str = "jabber:iq:search";
/// XEP-0106: the feature of escaped local parts.
pub const JID_ESCAPING: &str = "jid\\20escaping";
/// XEP-0153: the hash of the avatar in a vCard.
pub const VCARD_UPDATE: &str = "vcard-temp:x:update";
/// XEP-0050: ad-hoc commands.
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// XEP-0039: statistics.
pub const STATS: &str = "http://jabber.org/protocol/stats";
/// XEP-0077: in-band registration.
pub const REGISTER: &str = "jabber:iq:register";
/// XEP-0077 §8: the stream feature of in-band registration.
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// XEP-0082 needs none; XEP-0092: software version.
pub const VERSION: &str = "jabber:iq:version";
/// XEP-0199: ping.
pub const PING: &str = "urn:xmpp:ping";
/// XEP-0202: entity time.
pub const TIME: &str = "urn:xmpp:time";
/// XEP-0033: extended stanza addressing.
pub const ADDRESS: &str = "http://jabber.org/protocol/address";
/// XEP-0359: unique and stable stanza ids.
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// XEP-0203: delayed delivery.
pub const DELAY: &str = "urn:xmpp:delay";
/// XEP-0004: data forms.
pub const DATA_FORMS: &str = "jabber:x:data";
/// XEP-0016: privacy lists.
pub const PRIVACY: &str = "jabber:iq:privacy";
/// XEP-0186: the invisible command.
pub const INVISIBLE: &str = "urn:xmpp:invisible:1";
/// XEP-0191: blocking command.
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// XEP-0191 §3.3: the condition of an error for a blocked recipient.
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// XEP-0215: external service discovery.
pub const EXTERNAL_SERVICES: &str = "urn:xmpp:extdisco:2";
/// XEP-0377: reports in a blocking command.
pub const REPORTING: &str = "urn:xmpp:reporting:1";
/// XEP-0334: message processing hints.
pub const HINTS: &str = "urn:xmpp:hints";
/// XEP-0184: message delivery receipts.
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// XEP-0333: chat markers.
pub const CHAT_MARKERS: &str = "urn:xmpp:chat-markers:0";
/// XEP-0085: chat state notifications.
pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// XEP-0160: the feature of messages that wait.
pub const OFFLINE: &str = "msgoffline";
/// XEP-0280: message carbons.
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// XEP-0297: forwarded stanzas.
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// XEP-0045 §7: what a room says of its occupants, and invitations that it passes on.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// XEP-0249: an invitation to a room from its sender.
pub const DIRECT_INVITATION: &str = "jabber:x:conference";
/// XEP-0352: whether anybody looks at a client.
pub const CLIENT_STATE: &str = "urn:xmpp:csi:0";
/// XEP-0313: message archives.
pub const MAM: &str = "urn:xmpp:mam:2";
/// XEP-0059: pages of long lists.
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// XEP-0122: what may be put into the fields of a form.
pub const FORM_VALIDATION: &str = "http://jabber.org/protocol/xdata-validate";
/// XEP-0424: retracted messages.
pub const RETRACTION: &str = "urn:xmpp:message-retract:1";
