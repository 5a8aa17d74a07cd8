//! The modules of a node in their fixed order, indexed by what they want.

use std::sync::Arc;

use althing_proto::stanza::{Kind, Stanza};

use super::interest::{At, Interest, Wanted};
use crate::aside::Queue;
use crate::metrics::ModuleMetrics;
use crate::modules::Module;

/// A module in its place.
pub struct Member {
    /// The module.
    pub module: &'static dyn Module,
    /// Its name.
    pub name: &'static str,
    /// What it has done.
    pub counts: ModuleMetrics,
    /// What it does aside.
    pub queue: Arc<Queue>,
}

/// The modules of a node.
#[derive(Default)]
pub struct Registry {
    members: Vec<Member>,
    /// (interest, member) by kind of stanza, each in registry order.
    iq: Vec<(Interest, usize)>,
    presence: Vec<(Interest, usize)>,
    message: Vec<(Interest, usize)>,
}

impl Registry {
    /// Indexes `modules`; their order is the order inside every stage. What they do is counted, and not shown.
    #[must_use]
    pub fn new(modules: impl IntoIterator<Item = &'static dyn Module>) -> Self {
        Self::counted(modules, |_| ModuleMetrics::default())
    }

    /// Indexes `modules`; what each does is counted in the series that `counts` has for its name.
    #[must_use]
    pub fn counted(
        modules: impl IntoIterator<Item = &'static dyn Module>,
        counts: impl Fn(&str) -> ModuleMetrics,
    ) -> Self {
        let members = modules.into_iter().map(|module| {
            let name = module.spec().name;
            let counts = counts(name);
            let queue = Arc::new(Queue::new(name, module.capacity(), counts.clone()));
            Member { module, name, counts, queue }
        });
        let mut registry = Registry { members: members.collect(), ..Registry::default() };
        for (at, member) in registry.members.iter().enumerate() {
            for interest in member.module.interests() {
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

    /// All modules with what belongs to each, in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// All modules, in order.
    pub fn modules(&self) -> impl Iterator<Item = &'static dyn Module> + '_ {
        self.members.iter().map(|member| member.module)
    }

    /// The modules that want `stanza` at that place, each once, in order.
    pub fn interested<'a>(&'a self, stanza: &'a Stanza, at: At) -> impl Iterator<Item = &'a Member> + 'a {
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
            self.members.get(*module)
        })
    }
}
