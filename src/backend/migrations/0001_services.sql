-- Users, sessions, rooms and messages; one text for SQLite and PostgreSQL. Times are Unix milliseconds.

CREATE TABLE users (
    platformid    TEXT NOT NULL PRIMARY KEY,
    username      TEXT NOT NULL,
    username_key  TEXT NOT NULL UNIQUE, -- lower case: names are compared without case
    password_hash TEXT
);

-- A session is the family of refresh tokens that began with one login.
CREATE TABLE sessions (
    sid        TEXT NOT NULL PRIMARY KEY,
    platformid TEXT NOT NULL REFERENCES users (platformid) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    hash       TEXT NOT NULL PRIMARY KEY, -- SHA-256; the token itself is never stored
    sid        TEXT NOT NULL REFERENCES sessions (sid) ON DELETE CASCADE,
    parent     TEXT,                      -- the token this one replaced
    expires_at BIGINT NOT NULL,
    rotated_at BIGINT
);
CREATE INDEX refresh_tokens_by_sid ON refresh_tokens (sid);
CREATE INDEX refresh_tokens_by_parent ON refresh_tokens (parent);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- A room everyone left keeps its row, so that events archived late do not come back to life.
CREATE TABLE rooms (
    room_id    TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT,
    owner      TEXT,
    gone       BIGINT NOT NULL DEFAULT 0,
    cleared_ts BIGINT NOT NULL DEFAULT -1 -- events up to this time were removed with the room
);

CREATE TABLE members (
    room_id    TEXT NOT NULL REFERENCES rooms (room_id) ON DELETE CASCADE,
    platformid TEXT NOT NULL,
    nickname   TEXT NOT NULL,
    PRIMARY KEY (room_id, platformid)
);
CREATE INDEX members_by_user ON members (platformid, room_id);

-- Every event as it was saved.
CREATE TABLE events (
    room_id TEXT NOT NULL,
    epoch   TEXT NOT NULL,
    seq     BIGINT NOT NULL,
    ts      BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (room_id, epoch, seq)
);
CREATE INDEX events_by_time ON events (room_id, ts, seq);

-- The newest message, edit and deletion of each message id, each with its (ts, seq); -1 = none yet.
-- Parts arrive in any order: an edit is held until its message comes, a deletion stays as a tombstone.
CREATE TABLE messages (
    room_id  TEXT NOT NULL,
    id       TEXT NOT NULL,
    ts       BIGINT NOT NULL DEFAULT -1,
    seq      BIGINT NOT NULL DEFAULT -1,
    body     TEXT,
    edit_ts  BIGINT NOT NULL DEFAULT -1,
    edit_seq BIGINT NOT NULL DEFAULT -1,
    edit     TEXT, -- the fields an edit replaces, as a JSON object
    del_ts   BIGINT NOT NULL DEFAULT -1,
    del_seq  BIGINT NOT NULL DEFAULT -1,
    shown    BIGINT GENERATED ALWAYS AS (
        CASE WHEN ts >= 0 AND (ts > del_ts OR (ts = del_ts AND seq > del_seq)) THEN 1 ELSE 0 END
    ) STORED,
    PRIMARY KEY (room_id, id)
);
CREATE INDEX messages_shown ON messages (room_id, ts, seq) WHERE shown = 1;
