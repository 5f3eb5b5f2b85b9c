-- The tokens that descend from one login. `renewal` identifies the one that can renew it.
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    user INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    renewal BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_user ON sessions (user, number);
