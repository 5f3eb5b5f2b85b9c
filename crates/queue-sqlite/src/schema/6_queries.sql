-- What the query service keeps with a job. AUTOINCREMENT: numbers are never reused.
CREATE TABLE queries (
    query INTEGER PRIMARY KEY AUTOINCREMENT,
    seq INTEGER NOT NULL UNIQUE REFERENCES jobs ON DELETE CASCADE,
    project INTEGER NOT NULL,
    user INTEGER,
    claimed_by TEXT,
    claimed_attempt INTEGER,
    claimed_at INTEGER,
    draft BLOB
) STRICT;

CREATE TABLE query_logs (
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    query INTEGER NOT NULL REFERENCES queries ON DELETE CASCADE,
    text BLOB NOT NULL,
    written_at INTEGER NOT NULL
) STRICT;
CREATE INDEX query_logs_by_query ON query_logs (query);
