//! The reference auth, room and message services.
