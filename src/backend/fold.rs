//! Puts an edit onto the message it changes.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The fields an edit replaces: the text, and the revision, which is the edit's place. All else stays the original's.
pub fn edit_fields(message: &RawValue, rev: i64) -> String {
    format!(r#"{{"message":{},"rev":{rev}}}"#, message.get())
}

/// Replaces fields of a JSON object by those of another; values are copied, never re-encoded.
pub fn apply_edit(body: &str, edit: &str) -> Result<String, serde_json::Error> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(body)?;
    fields.extend(serde_json::from_str::<BTreeMap<String, &RawValue>>(edit)?);
    serde_json::to_string(&fields)
}

#[cfg(test)]
mod tests {
    use super::apply_edit;

    #[test]
    fn edit_replaces_its_fields_and_leaves_the_rest_verbatim() {
        let folded = apply_edit(
            r#"{"id":"a","message":"old","n":12345678901234567890123}"#,
            r#"{"message":"new","rev":7}"#,
        );
        assert_eq!(
            folded.unwrap(),
            r#"{"id":"a","message":"new","n":12345678901234567890123,"rev":7}"#
        );
    }
}
