//! PURE: data forms (XEP-0004): what is asked, what is answered, and tables of results.
//!
//! ```
//! use althing_proto::form::{Field, Form};
//!
//! let asked = Form::ask("Adding a user")
//!     .typed("http://jabber.org/protocol/admin")
//!     .with(Field::jid("accountjid").labelled("The address").required());
//! let submitted = Form::submit().with(Field::text("accountjid").value("juliet@shakespeare.lit"));
//! let answers = asked.read(&submitted)?;
//! assert_eq!(answers.get("accountjid"), Some("juliet@shakespeare.lit"));
//! # Ok::<(), althing_proto::form::FormError>(())
//! ```
//!
//! [`Form::parse`] reads an element, [`Form::to_element`] writes one. What a form does not know is left aside, as
//! XEP-0004 asks of both sides: media, validation hints, layouts.

mod answers;
mod field;

use minidom::Element;

use crate::ns;
use crate::xml::build::BuilderExt;
use crate::xml::name;

pub use answers::{Answers, FormError};
pub use field::{Field, FieldKind};

/// The field that scopes the others (XEP-0068).
pub const FORM_TYPE: &str = "FORM_TYPE";

/// What a form is for (XEP-0004 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormKind {
    /// Asks to fill it out.
    Form,
    /// Answers one that asks.
    Submit,
    /// Declines to answer.
    Cancel,
    /// Tells results.
    Result,
}

impl FormKind {
    /// The value of `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FormKind::Form => "form",
            FormKind::Submit => "submit",
            FormKind::Cancel => "cancel",
            FormKind::Result => "result",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [FormKind::Form, FormKind::Submit, FormKind::Cancel, FormKind::Result]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A data form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What it is for.
    pub kind: FormKind,
    /// Its title.
    pub title: Option<String>,
    /// What to do, a paragraph an entry.
    pub instructions: Vec<String>,
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// The columns of its table (§3.4).
    pub reported: Vec<Field>,
    /// The rows of its table, each with a value a column.
    pub items: Vec<Vec<Field>>,
}

impl Form {
    /// An empty form of that kind.
    #[must_use]
    pub fn new(kind: FormKind) -> Self {
        Form {
            kind,
            title: None,
            instructions: Vec::new(),
            fields: Vec::new(),
            reported: Vec::new(),
            items: Vec::new(),
        }
    }

    /// A form to fill out.
    #[must_use]
    pub fn ask(title: impl Into<String>) -> Self {
        Form { title: Some(title.into()), ..Form::new(FormKind::Form) }
    }

    /// A form with results.
    #[must_use]
    pub fn result() -> Self {
        Form::new(FormKind::Result)
    }

    /// A filled-out form.
    #[must_use]
    pub fn submit() -> Self {
        Form::new(FormKind::Submit)
    }

    /// With a title.
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// With a further paragraph of instructions.
    #[must_use]
    pub fn instruct(mut self, text: impl Into<String>) -> Self {
        self.instructions.push(text.into());
        self
    }

    /// With the field `FORM_TYPE` in front (XEP-0068).
    #[must_use]
    pub fn typed(mut self, form_type: &str) -> Self {
        self.fields.insert(0, Field::new(FieldKind::Hidden, FORM_TYPE).value(form_type));
        self
    }

    /// With a further field.
    #[must_use]
    pub fn with(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// With a further column of its table.
    #[must_use]
    pub fn column(mut self, field: Field) -> Self {
        self.reported.push(field);
        self
    }

    /// With a further row of its table: a value a column, in the columns' order.
    #[must_use]
    pub fn row<T: Into<String>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        let vars = self.reported.iter().filter_map(|column| column.var.clone());
        let row = vars.zip(values).map(|(var, value)| Field { kind: None, ..Field::text(var) }.value(value));
        self.items.push(row.collect());
        self
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, var: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.var.as_deref() == Some(var))
    }

    /// The first value of the field of that name.
    #[must_use]
    pub fn value(&self, var: &str) -> Option<&str> {
        self.field(var)?.values.first().map(String::as_str)
    }

    /// What scopes the fields (XEP-0068): the value of `FORM_TYPE`. It counts in a form and a result only where it is
    /// hidden.
    #[must_use]
    pub fn form_type(&self) -> Option<&str> {
        let field = self.field(FORM_TYPE)?;
        let hidden = field.kind == Some(FieldKind::Hidden);
        (hidden || self.kind == FormKind::Submit).then(|| field.values.first().map(String::as_str))?
    }

    /// Reads a form.
    ///
    /// # Errors
    /// [`FormError::NotAForm`] for another element, an unknown `type`, or a field without a name that is not fixed.
    pub fn parse(element: &Element) -> Result<Self, FormError> {
        let kind = element.attr("type").and_then(FormKind::from_name);
        let (Some(kind), true) = (kind, element.is("x", ns::DATA_FORMS)) else {
            return Err(FormError::NotAForm);
        };
        let mut form = Form::new(kind);
        for child in element.children().filter(|child| child.has_ns(ns::DATA_FORMS)) {
            match child.name() {
                "title" => form.title = Some(child.text()),
                "instructions" => form.instructions.push(child.text()),
                "field" => form.fields.push(Field::parse(child)?),
                "reported" => form.reported.extend(fields(child)?),
                "item" => form.items.push(fields(child)?),
                _ => {}
            }
        }
        Ok(form)
    }

    /// The form among the children of `element`, if there is one.
    ///
    /// # Errors
    /// As [`Form::parse`].
    pub fn find(element: &Element) -> Result<Option<Self>, FormError> {
        element.get_child("x", ns::DATA_FORMS).map(Form::parse).transpose()
    }

    /// The element.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let text = |name, text: &String| Element::builder(name, ns::DATA_FORMS).append(text.as_str()).build();
        let mut builder = Element::builder("x", ns::DATA_FORMS).set(name!("type"), self.kind.name());
        builder = builder.append_all(self.title.iter().map(|title| text("title", title)));
        builder = builder.append_all(self.instructions.iter().map(|line| text("instructions", line)));
        builder = builder.append_all(self.fields.iter().map(Field::to_element));
        if !self.reported.is_empty() {
            let columns = self.reported.iter().map(Field::to_element);
            builder = builder.append(Element::builder("reported", ns::DATA_FORMS).append_all(columns));
        }
        let rows = self.items.iter().map(|row| {
            Element::builder("item", ns::DATA_FORMS).append_all(row.iter().map(Field::to_element)).build()
        });
        builder.append_all(rows).build()
    }
}

impl From<Form> for Element {
    fn from(form: Form) -> Element {
        form.to_element()
    }
}

fn fields(element: &Element) -> Result<Vec<Field>, FormError> {
    let fields = element.children().filter(|child| child.is("field", ns::DATA_FORMS));
    fields.map(Field::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Form, FormError> {
        Form::parse(&xml.parse().unwrap())
    }

    /// XEP-0004 §3.1 to §3.4: what is written is read.
    #[test]
    fn a_form_survives_its_way_over_the_wire() {
        let form = Form::ask("Title")
            .instruct("One.")
            .instruct("Two.")
            .typed("urn:example")
            .with(Field::fixed("Section"))
            .with(Field::jids("who").labelled("Who").described("Addresses").required())
            .with(Field::list("how").value("a").option(Some("A"), "a").option(None, "b"))
            .with(Field::flag("sure", true))
            .with(Field::lines("text").value("1").value("2"));
        assert_eq!(Form::parse(&form.to_element()).unwrap(), form);
        assert_eq!(form.form_type(), Some("urn:example"));
        let table = Form::result()
            .column(Field::jid("jid").labelled("Address"))
            .column(Field::text("name"))
            .row(["a@b", "A"])
            .row(["c@d", "C"]);
        let read = Form::parse(&table.to_element()).unwrap();
        assert_eq!(read, table);
        assert_eq!(read.items[1][0].values, ["c@d"]);
    }

    #[test]
    fn what_is_no_form_is_refused_and_what_is_unknown_is_left_aside() {
        for xml in [
            "<y xmlns='jabber:x:data' type='form'/>",
            "<x xmlns='jabber:x:other' type='form'/>",
            "<x xmlns='jabber:x:data'/>",
            "<x xmlns='jabber:x:data' type='letter'/>",
            "<x xmlns='jabber:x:data' type='form'><field/></x>",
        ] {
            assert_eq!(parse(xml), Err(FormError::NotAForm), "{xml}");
        }
        let form = parse(
            "<x xmlns='jabber:x:data' type='submit' y='z'><page xmlns='urn:layout'/><field var='a' \
             type='colour'><validate xmlns='urn:v'/><value>1</value><value/></field></x>",
        )
        .unwrap();
        assert_eq!(form.field("a").unwrap().values, ["1", ""]);
        assert_eq!(form.field("a").unwrap().kind, None, "an unknown type is as none");
    }

    /// XEP-0068: a visible FORM_TYPE scopes nothing, but in a submission, where types may be left out.
    #[test]
    fn the_form_type_counts_where_it_is_hidden() {
        let field = "<field var='FORM_TYPE'><value>urn:x</value></field></x>";
        let form = |kind: &str| parse(&format!("<x xmlns='jabber:x:data' type='{kind}'>{field}")).unwrap();
        assert_eq!(form("result").form_type(), None);
        assert_eq!(form("submit").form_type(), Some("urn:x"));
    }
}
