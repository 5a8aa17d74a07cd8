//! PURE: the fields of a data form (XEP-0004 §3.2, §3.3).

use minidom::Element;

use super::FormError;
use crate::ns;
use crate::xml::build::BuilderExt;
use crate::xml::name;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The type of a field (XEP-0004 §3.3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FieldKind { $($(#[$doc])* $variant,)* }

        impl FieldKind {
            const ALL: &'static [FieldKind] = &[$(FieldKind::$variant,)*];

            /// The value of `type`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FieldKind::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// Yes or no.
    Boolean = "boolean",
    /// Text for the reader: a heading, a note.
    Fixed = "fixed",
    /// Not shown, sent back as it is.
    Hidden = "hidden",
    /// Addresses.
    JidMulti = "jid-multi",
    /// One address.
    JidSingle = "jid-single",
    /// Some of the options.
    ListMulti = "list-multi",
    /// One of the options.
    ListSingle = "list-single",
    /// Lines of text.
    TextMulti = "text-multi",
    /// A line of text that is not shown while it is typed.
    TextPrivate = "text-private",
    /// A line of text.
    TextSingle = "text-single",
}

impl FieldKind {
    /// Whether it may have several values.
    #[must_use]
    pub const fn is_multi(self) -> bool {
        matches!(self, FieldKind::JidMulti | FieldKind::ListMulti | FieldKind::TextMulti | FieldKind::Fixed)
    }
}

/// A field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name; only a fixed field may go without.
    pub var: Option<String>,
    /// Its type; none means the one that was asked for, or a line of text.
    pub kind: Option<FieldKind>,
    /// What people see instead of the name.
    pub label: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// Whether a form without it is refused.
    pub required: bool,
    /// What one can choose from: label and value.
    pub options: Vec<(Option<String>, String)>,
    /// Its values.
    pub values: Vec<String>,
}

impl Field {
    /// A field of that type and name.
    #[must_use]
    pub fn new(kind: FieldKind, var: impl Into<String>) -> Self {
        Field {
            var: Some(var.into()),
            kind: Some(kind),
            label: None,
            description: None,
            required: false,
            options: Vec::new(),
            values: Vec::new(),
        }
    }

    /// A line of text.
    #[must_use]
    pub fn text(var: impl Into<String>) -> Self {
        Field::new(FieldKind::TextSingle, var)
    }

    /// Lines of text.
    #[must_use]
    pub fn lines(var: impl Into<String>) -> Self {
        Field::new(FieldKind::TextMulti, var)
    }

    /// A line of text that is not shown.
    #[must_use]
    pub fn secret(var: impl Into<String>) -> Self {
        Field::new(FieldKind::TextPrivate, var)
    }

    /// An address.
    #[must_use]
    pub fn jid(var: impl Into<String>) -> Self {
        Field::new(FieldKind::JidSingle, var)
    }

    /// Addresses.
    #[must_use]
    pub fn jids(var: impl Into<String>) -> Self {
        Field::new(FieldKind::JidMulti, var)
    }

    /// Yes or no, with what is chosen beforehand.
    #[must_use]
    pub fn flag(var: impl Into<String>, value: bool) -> Self {
        Field::new(FieldKind::Boolean, var).value(if value { "1" } else { "0" })
    }

    /// One of the options.
    #[must_use]
    pub fn list(var: impl Into<String>) -> Self {
        Field::new(FieldKind::ListSingle, var)
    }

    /// Text for the reader.
    #[must_use]
    pub fn fixed(text: impl Into<String>) -> Self {
        Field { var: None, ..Field::new(FieldKind::Fixed, "") }.value(text)
    }

    /// With a label.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With a description.
    #[must_use]
    pub fn described(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Which must be filled out.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// With a further option.
    #[must_use]
    pub fn option(mut self, label: Option<&str>, value: impl Into<String>) -> Self {
        self.options.push((label.map(str::to_owned), value.into()));
        self
    }

    /// With a further value.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.values.push(value.into());
        self
    }

    /// With these values too.
    #[must_use]
    pub fn all<T: Into<String>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.values.extend(values.into_iter().map(Into::into));
        self
    }

    pub(super) fn parse(element: &Element) -> Result<Self, FormError> {
        let kind = element.attr("type");
        let mut field = Field {
            var: element.attr("var").map(str::to_owned),
            kind: FieldKind::ALL.iter().copied().find(|known| Some(known.name()) == kind),
            label: element.attr("label").map(str::to_owned),
            description: None,
            required: false,
            options: Vec::new(),
            values: Vec::new(),
        };
        if field.var.is_none() && field.kind != Some(FieldKind::Fixed) {
            return Err(FormError::NotAForm);
        }
        for child in element.children().filter(|child| child.has_ns(ns::DATA_FORMS)) {
            match child.name() {
                "value" => field.values.push(child.text()),
                "required" => field.required = true,
                "desc" => field.description = Some(child.text()),
                "option" => {
                    let value = child.get_child("value", ns::DATA_FORMS).map(Element::text);
                    field.options.push((child.attr("label").map(str::to_owned), value.unwrap_or_default()));
                }
                _ => {}
            }
        }
        Ok(field)
    }

    pub(super) fn to_element(&self) -> Element {
        let mut builder = Element::builder("field", ns::DATA_FORMS);
        if let Some(var) = &self.var {
            builder = builder.set(name!("var"), var);
        }
        if let Some(kind) = self.kind {
            builder = builder.set(name!("type"), kind.name());
        }
        if let Some(label) = &self.label {
            builder = builder.set(name!("label"), label);
        }
        if let Some(text) = &self.description {
            builder = builder.append(Element::builder("desc", ns::DATA_FORMS).append(text.as_str()));
        }
        if self.required {
            builder = builder.append(Element::bare("required", ns::DATA_FORMS));
        }
        let value = |value: &String| Element::builder("value", ns::DATA_FORMS).append(value.as_str()).build();
        builder = builder.append_all(self.values.iter().map(value));
        let options = self.options.iter().map(|(label, chosen)| {
            let mut option = Element::builder("option", ns::DATA_FORMS);
            if let Some(label) = label {
                option = option.set(name!("label"), label);
            }
            option.append(value(chosen)).build()
        });
        builder.append_all(options).build()
    }
}
