//! PURE: a submission, read against the form that asked for it.

use std::collections::BTreeMap;

use super::{FORM_TYPE, Field, FieldKind, Form, FormKind};
use crate::jid::{self, Jid};

/// Why a form, or the answer to one, is not taken. The texts are for whoever filled it out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// It is no data form.
    #[error("this is no data form")]
    NotAForm,
    /// It is a form, but answers nothing.
    #[error("a form of type submit is needed")]
    NotSubmitted,
    /// It answers another form.
    #[error("the FORM_TYPE is not {0}")]
    OtherForm(String),
    /// A field that must be there is not.
    #[error("the field {0} is needed")]
    Missing(String),
    /// A field stands there twice, or has several values where one is asked for.
    #[error("the field {0} has several values")]
    Several(String),
    /// A value is not of the field's type, or none of its options.
    #[error("the field {0} cannot have that value")]
    Value(String),
}

/// What somebody has filled out. It has values only for fields that were asked for, and each fits its field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers(BTreeMap<String, Vec<String>>);

impl Answers {
    /// The values of a field; none where it was left out.
    #[must_use]
    pub fn all(&self, var: &str) -> &[String] {
        self.0.get(var).map_or(&[], Vec::as_slice)
    }

    /// The one value of a field.
    #[must_use]
    pub fn get(&self, var: &str) -> Option<&str> {
        self.all(var).first().map(String::as_str)
    }

    /// Whether a yes-or-no field says yes.
    #[must_use]
    pub fn flag(&self, var: &str) -> bool {
        matches!(self.get(var), Some("1" | "true"))
    }

    /// The lines of a field as one text.
    #[must_use]
    pub fn text(&self, var: &str) -> String {
        self.all(var).join("\n")
    }

    /// The addresses of a field, in their normal form.
    #[must_use]
    pub fn jids(&self, var: &str) -> Vec<Jid> {
        self.all(var).iter().filter_map(|text| jid::parse(text).ok()).collect()
    }
}

impl Form {
    /// Reads `submission` as the answer to this form. A field that was not asked for is left aside; an empty line of
    /// text counts as left out.
    ///
    /// # Errors
    /// [`FormError`], with the name of the field.
    pub fn read(&self, submission: &Form) -> Result<Answers, FormError> {
        if submission.kind != FormKind::Submit {
            return Err(FormError::NotSubmitted);
        }
        if let (Some(asked), Some(given)) = (self.form_type(), submission.form_type())
            && asked != given
        {
            return Err(FormError::OtherForm(asked.to_owned()));
        }
        let mut answers = BTreeMap::new();
        for asked in &self.fields {
            let Some(var) = asked.var.as_deref().filter(|var| *var != FORM_TYPE) else { continue };
            let mut given = submission.fields.iter().filter(|field| field.var.as_deref() == Some(var));
            let values = given.next().map_or(&[][..], |field| &field.values);
            if given.next().is_some() {
                return Err(FormError::Several(var.to_owned()));
            }
            let values = asked.take(var, values)?;
            if values.is_empty() && asked.required {
                return Err(FormError::Missing(var.to_owned()));
            }
            answers.insert(var.to_owned(), values);
        }
        Ok(Answers(answers))
    }
}

impl Field {
    fn take(&self, var: &str, values: &[String]) -> Result<Vec<String>, FormError> {
        let kind = self.kind.unwrap_or(FieldKind::TextSingle);
        let mut taken: Vec<String> = Vec::new();
        for value in values {
            let fits = match kind {
                FieldKind::Boolean => matches!(value.trim(), "0" | "1" | "false" | "true"),
                _ if value.is_empty() && kind != FieldKind::TextMulti => continue,
                FieldKind::JidSingle | FieldKind::JidMulti => jid::parse(value.trim()).is_ok(),
                FieldKind::ListSingle | FieldKind::ListMulti => {
                    self.options.is_empty() || self.options.iter().any(|(_, option)| option == value)
                }
                _ => true,
            };
            if !fits {
                return Err(FormError::Value(var.to_owned()));
            }
            let value = match kind {
                FieldKind::Boolean | FieldKind::JidSingle | FieldKind::JidMulti => value.trim(),
                _ => value,
            };
            // §3.3: an address or an option stands there once.
            if matches!(kind, FieldKind::JidMulti | FieldKind::ListMulti)
                && taken.iter().any(|earlier| earlier == value)
            {
                continue;
            }
            taken.push(value.to_owned());
        }
        if taken.len() > 1 && !kind.is_multi() {
            return Err(FormError::Several(var.to_owned()));
        }
        if kind == FieldKind::TextMulti && taken.iter().all(String::is_empty) {
            taken.clear();
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Form {
        Form::ask("T")
            .typed("urn:x")
            .with(Field::jids("who").required())
            .with(Field::list("how").option(None, "a").option(None, "b"))
            .with(Field::flag("sure", false))
            .with(Field::text("note"))
            .with(Field::lines("text"))
    }

    #[test]
    fn a_good_answer_is_read() {
        let given = Form::submit()
            .typed("urn:x")
            .with(Field::jids("who").value("A@b").value("A@b").value("c@d/e"))
            .with(Field::text("how").value("b"))
            .with(Field::text("sure").value("true"))
            .with(Field::text("note").value(""))
            .with(Field::lines("text").value("one").value("").value("two"))
            .with(Field::text("more").value("x"));
        let answers = asked().read(&given).unwrap();
        assert_eq!(answers.jids("who").iter().map(Jid::as_str).collect::<Vec<_>>(), ["a@b", "c@d/e"]);
        assert_eq!((answers.get("how"), answers.flag("sure")), (Some("b"), true));
        assert_eq!(answers.text("text"), "one\n\ntwo");
        assert_eq!((answers.get("note"), answers.get("more")), (None, None));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused() {
        let who = || Form::submit().with(Field::text("who").value("a@b"));
        let error = |given: Form| asked().read(&given).unwrap_err();
        assert_eq!(error(Form::ask("T")), FormError::NotSubmitted);
        assert_eq!(error(who().typed("urn:y")), FormError::OtherForm("urn:x".into()));
        assert_eq!(error(Form::submit()), FormError::Missing("who".into()));
        assert_eq!(error(Form::submit().with(Field::text("who").value("@"))), FormError::Value("who".into()));
        assert_eq!(error(who().with(Field::text("how").value("c"))), FormError::Value("how".into()));
        assert_eq!(error(who().with(Field::text("sure").value("2"))), FormError::Value("sure".into()));
        let twice = who().with(Field::text("note").value("1").value("2"));
        assert_eq!(error(twice), FormError::Several("note".into()));
        assert_eq!(error(who().with(Field::text("who").value("c@d"))), FormError::Several("who".into()));
    }
}
