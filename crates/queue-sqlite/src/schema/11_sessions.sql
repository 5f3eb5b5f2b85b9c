-- What a login opens: all tokens that were made of each other. `renewal` names the one that renews it.
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    user INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    renewal BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_user ON sessions (user, number);
