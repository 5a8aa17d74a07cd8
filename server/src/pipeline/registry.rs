//! The modules of a node in their fixed order, indexed by what they want.

use althing_proto::stanza::{Kind, Stanza};

use super::interest::{At, Interest, Wanted};
use crate::modules::Module;

/// The modules of a node.
#[derive(Default)]
pub struct Registry {
    modules: Vec<&'static dyn Module>,
    /// (interest, module) by kind of stanza, each in registry order.
    iq: Vec<(Interest, usize)>,
    presence: Vec<(Interest, usize)>,
    message: Vec<(Interest, usize)>,
}

impl Registry {
    /// Indexes `modules`; their order is the order inside every stage.
    #[must_use]
    pub fn new(modules: impl IntoIterator<Item = &'static dyn Module>) -> Self {
        let mut registry = Registry { modules: modules.into_iter().collect(), ..Registry::default() };
        for (at, module) in registry.modules.iter().enumerate() {
            for interest in module.interests() {
                let list = match interest.wanted {
                    Wanted::IqGet(_) | Wanted::IqSet(_) => &mut registry.iq,
                    Wanted::Presence => &mut registry.presence,
                    Wanted::Message => &mut registry.message,
                };
                list.push((*interest, at));
            }
        }
        registry
    }

    /// All modules, in order.
    pub fn modules(&self) -> impl Iterator<Item = &'static dyn Module> + '_ {
        self.modules.iter().copied()
    }

    /// The modules that want `stanza` at that place, each once, in order.
    pub fn interested<'a>(
        &'a self,
        stanza: &'a Stanza,
        at: At,
    ) -> impl Iterator<Item = &'static dyn Module> + 'a {
        let list = match stanza.kind() {
            Kind::Iq(_) => &self.iq,
            Kind::Presence(_) => &self.presence,
            Kind::Message(_) => &self.message,
        };
        let mut last = None;
        list.iter().filter_map(move |(interest, module)| {
            if last == Some(*module) || !interest.matches(stanza, at) {
                return None;
            }
            last = Some(*module);
            self.modules.get(*module).copied()
        })
    }
}
