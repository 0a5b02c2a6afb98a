//! Whatever a client sends as `auth`: a field is what it sent under that name, or missing.

use super::AuthPayload;
use crate::fuzz::Damaged;

#[test]
fn handshake_fields_are_what_was_sent_or_missing() {
    bolero::check!().with_type::<Damaged>().for_each(|Damaged(text)| {
        let Ok(auth) = serde_json::from_str::<AuthPayload>(text) else {
            return;
        };
        // A field nobody asks for may be what only a full parse refuses.
        let Ok(sent) = serde_json::from_str::<serde_json::Value>(text) else {
            return;
        };
        for (name, read) in [
            ("accessToken", &auth.access_token),
            ("refreshToken", &auth.refresh_token),
            ("userAgent", &auth.user_agent),
            ("username", &auth.username),
            ("proto", &auth.proto),
        ] {
            assert_eq!(read, &sent[name], "{name}: {text}");
        }
    });
}
