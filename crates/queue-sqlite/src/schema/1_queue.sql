-- Layout 1. `seq` is the order in which jobs were accepted.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    account TEXT NOT NULL,
    who TEXT NOT NULL,
    op TEXT NOT NULL,
    model TEXT NOT NULL,
    priority INTEGER NOT NULL,
    dialect TEXT NOT NULL,
    deadline INTEGER,
    attended INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    not_before INTEGER,
    lease_until INTEGER,
    lease_ms INTEGER,
    cancelled INTEGER NOT NULL,
    finished_at INTEGER,
    error TEXT
) STRICT;
-- Ids are random, so each index entry would touch its own page. Unfinished jobs are found in
-- memory.
CREATE UNIQUE INDEX jobs_by_id ON jobs (id) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_account ON jobs (account);
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Separate table, so that a change of state does not rewrite a large request.
CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    body BLOB NOT NULL
) STRICT;

-- The lines of each job's latest attempt.
CREATE TABLE lines (
    seq INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    n INTEGER NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (seq, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    account TEXT NOT NULL,
    scopes TEXT NOT NULL,
    serve TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked_at IS NULL;
