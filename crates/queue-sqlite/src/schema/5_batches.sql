-- Files in parts, so that writing a large one does not block the writer for long.
CREATE TABLE files (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX files_by_account ON files (account);
CREATE INDEX files_by_end ON files (expires_at);

CREATE TABLE file_parts (
    id TEXT NOT NULL,
    n INTEGER NOT NULL,
    part BLOB NOT NULL,
    PRIMARY KEY (id, n)
) STRICT;

CREATE TABLE batches (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    input TEXT NOT NULL,
    is_over INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX batches_by_account ON batches (account);
CREATE INDEX batches_by_input ON batches (input);

-- Results of the lines of unfinished batches.
CREATE TABLE batch_lines (
    batch TEXT NOT NULL,
    n INTEGER NOT NULL,
    is_error INTEGER NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (batch, n)
) STRICT;
