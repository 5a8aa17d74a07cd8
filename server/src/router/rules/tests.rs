//! The delivery table of RFC 6121 §8.5 with every cell: who gets each stanza, in each situation.

use super::*;

/// What becomes of a stanza: the resources that get it, or a word.
fn outcome(kind: Kind, sessions: &[(&str, Option<i8>)], addressed: Option<&str>) -> String {
    let priorities = || sessions.iter().filter_map(|(_, priority)| *priority);
    let reachable = top_priority(priorities()).is_some();
    let there = match addressed {
        None => Presence::Account { reachable },
        Some(name) if sessions.iter().any(|(there, _)| *there == name) => Presence::ResourceBound,
        Some(_) => Presence::ResourceAbsent { reachable },
    };
    let rule = rule(kind, there);
    match rule {
        Rule::ToAccount => "account".to_owned(),
        Rule::Keep => "keep".to_owned(),
        Rule::Bounce => "bounce".to_owned(),
        Rule::Ignore => "nothing".to_owned(),
        Rule::ToResource => addressed.unwrap().to_owned(),
        _ => {
            let least = least_priority(rule, priorities());
            let taken = sessions.iter().filter(|(_, priority)| least.is_some() && *priority >= least);
            let names: Vec<&str> = taken.map(|(name, _)| *name).collect();
            // A presence for nobody is for nobody; a message never comes so far.
            if names.is_empty() { "nothing".to_owned() } else { names.concat() }
        }
    }
}

/// The sessions of an account: resource, and priority where it is available.
type Sessions = &'static [(&'static str, Option<i8>)];

/// Who is there. `None` is bound and has sent no presence; the capitals are resources of the account.
const NOBODY: Sessions = &[];
const BOUND: Sessions = &[("S", None)];
const NEGATIVE: Sessions = &[("N", Some(-1)), ("S", None)];
const MIXED: Sessions = &[("A", Some(5)), ("B", Some(0)), ("C", Some(5)), ("N", Some(-1)), ("S", None)];
const ZERO: Sessions = &[("B", Some(0)), ("D", Some(0))];

/// The situations, in the order of the table's columns: who is there, and which resource is addressed. An account that
/// does not exist has nobody there, so it is the first and the ninth column, whatever the stanza.
const COLUMNS: [(Sessions, Option<&str>); 10] = [
    // To the bare JID (§8.5.1, §8.5.2).
    (NOBODY, None),
    (BOUND, None),
    (NEGATIVE, None),
    (MIXED, None),
    (ZERO, None),
    // To the full JID of a session (§8.5.3.1): available, negative, without presence.
    (MIXED, Some("B")),
    (MIXED, Some("N")),
    (MIXED, Some("S")),
    // To one that is not there (§8.5.3.2): nobody else is either, or others are.
    (NOBODY, Some("X")),
    (MIXED, Some("X")),
];

const TABLE: &str = "
    message-normal        keep    keep    keep    AC      BD      B       N       S       bounce  bounce
    message-chat          keep    keep    keep    AC      BD      B       N       S       keep    AC
    message-headline      nothing nothing nothing ABC     BD      B       N       S       nothing nothing
    message-groupchat     bounce  bounce  bounce  bounce  bounce  B       N       S       bounce  bounce
    message-error         nothing nothing nothing nothing nothing B       N       S       nothing nothing
    presence-             nothing nothing N       ABCN    BD      B       N       S       nothing nothing
    presence-unavailable  nothing nothing N       ABCN    BD      B       N       S       nothing nothing
    presence-subscribe    account account account account account account account account account account
    presence-subscribed   account account account account account account account account account account
    presence-unsubscribe  account account account account account account account account account account
    presence-unsubscribed account account account account account account account account account account
    presence-probe        account account account account account B       N       S       nothing nothing
    presence-error        nothing nothing nothing nothing nothing B       N       S       nothing nothing
    iq-get                account account account account account B       N       S       bounce  bounce
    iq-set                account account account account account B       N       S       bounce  bounce
    iq-result             account account account account account B       N       S       nothing nothing
    iq-error              account account account account account B       N       S       nothing nothing
";

/// T6, R16, C15, S6: every cell; messages of all types, presence of all types, IQ of all types.
#[test]
fn t6_r16_c15_rfc_6121_section_8_5_cell_by_cell() {
    let mut kinds: Vec<(String, Kind)> = Vec::new();
    kinds.extend(MessageType::ALL.iter().map(|t| (format!("message-{}", t.name()), Kind::Message(*t))));
    kinds.extend(PresenceType::ALL.iter().map(|t| (format!("presence-{}", t.name()), Kind::Presence(*t))));
    kinds.extend(IqType::ALL.iter().map(|t| (format!("iq-{}", t.name()), Kind::Iq(*t))));
    let rows: Vec<Vec<&str>> = TABLE
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| !row.is_empty())
        .collect();
    assert_eq!(rows.len(), kinds.len(), "a row for each kind of stanza");
    for row in rows {
        let (name, cells) = row.split_first().unwrap();
        let kind = kinds.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(cells.len(), COLUMNS.len(), "{name}");
        for ((sessions, addressed), expected) in COLUMNS.iter().zip(cells) {
            let found = outcome(kind, sessions, *addressed);
            assert_eq!(found, *expected, "{name}, {sessions:?}, to {addressed:?}");
        }
    }
}

/// RFC 6120 §8.3.1: whatever is bounced may be answered; errors and answers never are, or two servers would go on
/// for ever.
#[test]
fn t6_no_error_is_answered() {
    for (kind, columns) in [
        Kind::Message(MessageType::Error),
        Kind::Presence(PresenceType::Error),
        Kind::Iq(IqType::Error),
        Kind::Iq(IqType::Result),
    ]
    .map(|kind| (kind, COLUMNS))
    {
        assert!(!kind.may_be_answered());
        for (sessions, addressed) in columns {
            assert_ne!(outcome(kind, sessions, addressed), "bounce", "{kind:?}");
        }
    }
}

#[test]
fn negative_priorities_never_win() {
    assert_eq!(top_priority([-1, 3, 0, 3].into_iter()), Some(3));
    assert_eq!(top_priority([-1, -128].into_iter()), None);
    assert_eq!(top_priority([0].into_iter()), Some(0));
}
