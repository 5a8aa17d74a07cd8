//! Does a stanza match a template? Attributes and children in any order, nothing unexpected.

use althing_proto::ns;
use minidom::Element;

use super::captures::Captures;

/// Why a stanza is not what the template asks for; says where in the stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch(pub String);

/// Checks `got` against `template`; what `{=name}` catches is added to `captures`, on success only.
///
/// # Errors
/// The first difference found, with the path to it.
pub fn matches(template: &Element, got: &Element, captures: &mut Captures) -> Result<(), Mismatch> {
    let mut caught = captures.clone();
    element(template, got, &mut caught, got.name())?;
    *captures = caught;
    Ok(())
}

fn element(template: &Element, got: &Element, captures: &mut Captures, path: &str) -> Result<(), Mismatch> {
    if template.name() != got.name() {
        return fail(path, format!("expected <{}/>, got <{}/>", template.name(), got.name()));
    }
    if template.ns() != got.ns() {
        return fail(path, format!("expected the namespace {:?}, got {:?}", template.ns(), got.ns()));
    }
    attributes(template, got, captures, path)?;
    children(template, got, captures, path)
}

fn attributes(
    template: &Element,
    got: &Element,
    captures: &mut Captures,
    path: &str,
) -> Result<(), Mismatch> {
    for ((namespace, name), expected) in template.attrs() {
        match got.attr_ns(namespace, name) {
            Some(value) => self::value(expected, value, captures, &format!("{path}/@{name}"))?,
            None if expected == "{any?}" => {}
            None => return fail(path, format!("the attribute {name} is missing")),
        }
    }
    for ((namespace, name), value) in got.attrs() {
        let expected = template.attr_ns(namespace, name).is_some();
        if !expected && !may_be_added(got, namespace.as_str(), name.as_str()) {
            return fail(path, format!("unexpected attribute {name}={value:?}"));
        }
    }
    Ok(())
}

/// What a server may add to any stanza: `xml:lang` (RFC 6120 §8.1.5) and who raised an error (§8.3.1).
fn may_be_added(element: &Element, namespace: &str, name: &str) -> bool {
    (namespace == ns::XML && name == "lang")
        || (namespace.is_empty() && name == "by" && element.name() == "error")
}

fn children(template: &Element, got: &Element, captures: &mut Captures, path: &str) -> Result<(), Mismatch> {
    let expected: Vec<&Element> = template.children().collect();
    let arrived: Vec<&Element> =
        got.children().filter(|child| !may_be_left_out(got, child) || wants(&expected, child)).collect();
    let text = template.text();
    let open = text.contains("{children}");
    let text = text.replace("{children}", "");
    if !open && arrived.len() > expected.len() {
        let names: Vec<String> = arrived.iter().map(|child| format!("<{}/>", child.name())).collect();
        return fail(
            path,
            format!("{} children instead of {}: {}", arrived.len(), expected.len(), names.join(" ")),
        );
    }
    assign(&expected, &arrived, &mut vec![false; arrived.len()], captures, path)?;
    let got_text = got.text();
    if expected.is_empty() && !open {
        value(&text, &got_text, captures, &format!("{path}/text()"))
    } else if text.trim().is_empty() && got_text.trim().is_empty() || open {
        Ok(())
    } else {
        value(text.trim(), got_text.trim(), captures, &format!("{path}/text()"))
    }
}

/// What a script need not speak of: the human-readable text of an error, which never decides (RFC 6120 §4.9.2, §8.3.2);
/// the id that the receiver's server gives a message (XEP-0359 §3), whose bytes nobody knows before.
fn may_be_left_out(parent: &Element, child: &Element) -> bool {
    match child.name() {
        "text" => {
            parent.name() == "error" && (child.ns() == ns::STANZA_ERRORS || child.ns() == ns::STREAM_ERRORS)
        }
        "stanza-id" if parent.is("message", ns::CLIENT) && child.is("stanza-id", ns::STANZA_ID) => {
            let receiver = parent.attr("to").or(parent.attr("from")).and_then(|to| to.split('/').next());
            let is_ours = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            receiver.is_some() && child.attr("by") == receiver && child.attr("id").is_some_and(is_ours)
        }
        _ => false,
    }
}

/// Whether the script speaks of it.
fn wants(expected: &[&Element], child: &Element) -> bool {
    let by = child.attr("by").filter(|_| child.name() == "stanza-id");
    // A name that is to be filled in may be anybody's.
    let may_be = |of: &str| of.contains('{') || Some(of) == by;
    expected.iter().any(|template| {
        template.name() == child.name() && (by.is_none() || template.attr("by").is_none_or(may_be))
    })
}

/// Gives each expected child an arrived one of its own; goes back where an early choice was wrong.
fn assign(
    expected: &[&Element],
    arrived: &[&Element],
    taken: &mut Vec<bool>,
    captures: &mut Captures,
    path: &str,
) -> Result<(), Mismatch> {
    let Some((first, rest)) = expected.split_first() else { return Ok(()) };
    let inner = format!("{path}/{}", first.name());
    let mut reason = Mismatch(format!("{path}: <{}/> is missing", first.name()));
    for (index, candidate) in arrived.iter().enumerate() {
        if taken[index] {
            continue;
        }
        let mut caught = captures.clone();
        let tried = element(first, candidate, &mut caught, &inner).and_then(|()| {
            taken[index] = true;
            assign(rest, arrived, taken, &mut caught, path)
        });
        match tried {
            Ok(()) => {
                *captures = caught;
                return Ok(());
            }
            Err(why) => {
                taken[index] = false;
                if candidate.name() == first.name() {
                    reason = why;
                }
            }
        }
    }
    Err(reason)
}

fn value(expected: &str, got: &str, captures: &mut Captures, path: &str) -> Result<(), Mismatch> {
    if expected == "{any}" || expected == "{any?}" {
        return Ok(());
    }
    if let Some(name) = expected.strip_prefix("{=").and_then(|rest| rest.strip_suffix('}')) {
        captures.set(name, got);
        return Ok(());
    }
    let wanted = captures.fill(expected, str::to_owned).map_err(|why| Mismatch(format!("{path}: {why}")))?;
    if wanted == got { Ok(()) } else { fail(path, format!("expected {wanted:?}, got {got:?}")) }
}

fn fail(path: &str, what: String) -> Result<(), Mismatch> {
    Err(Mismatch(format!("{path}: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::parser::elements;

    fn check(template: &str, got: &str) -> Result<Captures, String> {
        let template = elements(template).unwrap();
        let got = elements(got).unwrap();
        let mut captures = Captures::default();
        captures.set("bob", "bob@localhost/x");
        matches(&template[0], &got[0], &mut captures).map(|()| captures).map_err(|why| why.0)
    }

    #[test]
    fn order_of_attributes_and_children_is_free() {
        check("<a x='1' y='2'><b/><c/></a>", "<a y='2' x='1'>\n <c/>\n <b/></a>").unwrap();
    }

    #[test]
    fn whatever_is_not_asked_for_is_an_error() {
        assert!(check("<a/>", "<a x='1'/>").unwrap_err().contains("unexpected attribute x"));
        assert!(check("<a/>", "<a><b/></a>").unwrap_err().contains("1 children instead of 0"));
        assert!(check("<a/>", "<a>text</a>").is_err());
        assert!(check("<a><b/></a>", "<a>text<b/></a>").is_err());
        assert!(check("<a x='1'/>", "<a/>").unwrap_err().contains("the attribute x is missing"));
        assert!(check("<a xmlns='u'/>", "<a/>").unwrap_err().contains("namespace"));
    }

    #[test]
    fn marks_open_children_text_and_values() {
        check("<a>{children}<b/></a>", "<a><c/><b/>text</a>").unwrap();
        assert!(check("<a>{children}<b/></a>", "<a><c/></a>").unwrap_err().contains("<b/> is missing"));
        check("<a x='{any}'>{any}</a>", "<a x='1'>2</a>").unwrap();
        check("<a x='{any?}'/>", "<a/>").unwrap();
        assert!(check("<a x='{any}'/>", "<a/>").is_err());
    }

    #[test]
    fn names_are_filled_in_and_caught() {
        let captures = check("<a to='{bob}' id='{=id}'/>", "<a to='bob@localhost/x' id='7'/>").unwrap();
        assert_eq!(captures.get("id"), Some("7"));
        check("<a x='{=v}'><b>{v}</b></a>", "<a x='1'><b>1</b></a>").unwrap();
        assert!(check("<a x='{=v}'><b>{v}</b></a>", "<a x='1'><b>2</b></a>").is_err());
    }

    #[test]
    fn a_wrong_early_choice_of_a_child_is_taken_back() {
        check("<a><i x='{any}'/><i x='1'/></a>", "<a><i x='1'/><i x='2'/></a>").unwrap();
        assert!(check("<a><i x='1'/><i x='1'/></a>", "<a><i x='1'/><i x='2'/></a>").is_err());
    }

    #[test]
    fn the_text_of_an_error_may_be_there_or_not() {
        let template = "<iq>{error cancel service-unavailable}</iq>";
        let body = "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";
        let text = "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no</text>";
        check(template, &format!("<iq><error type='cancel'>{body}</error></iq>")).unwrap();
        check(template, &format!("<iq><error type='cancel' by='x'>{body}{text}</error></iq>")).unwrap();
        assert!(check(template, &format!("<iq><error type='wait'>{body}</error></iq>")).is_err());
    }

    #[test]
    fn the_id_of_the_receivers_server_may_be_there_or_not() {
        let id = "0123456789abcdef0123456789abcdef";
        let with = |by: &str, id: &str| {
            let id = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='{id}'/>");
            format!("<message xmlns='jabber:client' to='a@b/c'><body>1</body>{id}</message>")
        };
        let template = "<message xmlns='jabber:client' to='a@b/c'><body>1</body></message>";
        check(template, template).unwrap();
        check(template, &with("a@b", id)).unwrap();
        check(&with("a@b", "{=id}"), &with("a@b", id)).unwrap();
        for forged in [with("a@b/c", id), with("d@b", id), with("a@b", "1")] {
            assert!(check(template, &forged).is_err(), "{forged}");
        }
        assert!(check(&with("a@b", "{any}"), template).is_err(), "it was asked for");
    }
}
