//! `refreshToken`, and the token check of `join`.

use std::sync::Arc;

use crate::auth::RefreshError;
use crate::chat::ChatError;
use crate::config::Rule;
use crate::guard::TokenRequest;
use crate::model::unix_ms;
use crate::socket::protocol::{TokenRefresh, event};
use crate::socket::{Session, Socket};

/// `refreshToken`: counted by address, then the socket's newest refresh token is exchanged.
pub async fn refresh(session: &Arc<Session>, socket: &Socket) -> Result<(), ChatError> {
    let app = &session.app;
    match app
        .guard
        .count_token_request(session.address, &session.identity())
        .await
    {
        Ok(TokenRequest::Allowed) => exchange(session, socket).await,
        Ok(TokenRequest::Blocked(left)) => {
            crate::socket::control::cut(session, socket, Rule::TokenRequests.as_str(), Some(left));
            Err(ChatError::Blocked("too many token requests".into()))
        }
        Err(error) => {
            tracing::warn!(%error, "token request not counted");
            Err(ChatError::AuthUnavailable)
        }
    }
}

async fn exchange(session: &Arc<Session>, socket: &Socket) -> Result<(), ChatError> {
    let app = &session.app;
    let identity = session.identity();
    let refreshed = match app.auth.refresh(&session.tokens().refresh, session.proto2).await {
        Ok(refreshed) if refreshed.identity.user == identity.user => refreshed,
        Ok(_) => {
            super::block_and_cut(session, socket, Rule::RefreshOfAnother).await;
            return Err(ChatError::Blocked("Invalid refresh token".into()));
        }
        Err(RefreshError::Refused) => return Err(ChatError::AuthExpired),
        Err(RefreshError::Unavailable(_)) => return Err(ChatError::AuthUnavailable),
    };
    let answer = TokenRefresh {
        access_token: &refreshed.access_token,
        refresh_token: refreshed.refresh_token.as_deref(),
    };
    app.deliver.emit(socket, event::TOKEN_REFRESH, &answer).await;
    session.renew(refreshed);
    Ok(())
}

/// The auth service refused the access token: it is exchanged as at the handshake, else the socket ends. An outage ends
/// nothing.
pub async fn renew(session: &Arc<Session>, socket: &Socket, refused: &str) {
    // The client may have renewed it meanwhile.
    if session.holds(refused) && matches!(exchange(session, socket).await, Err(ChatError::AuthExpired)) {
        crate::socket::control::cut(session, socket, "auth_expired", None);
    }
}

/// Proves that the token still holds: not revoked, and not expired, or renewed in silence as at the handshake.
pub async fn require_valid(session: &Arc<Session>, socket: &Socket) -> Result<(), ChatError> {
    let identity = session.identity();
    if session.app.guard.is_revoked(&identity).await? {
        return Err(ChatError::AuthExpired);
    }
    if identity.expires_at.is_some_and(|at| at <= unix_ms()) {
        return exchange(session, socket).await;
    }
    Ok(())
}
