-- Files and batches whose pieces are being erased, in many small transactions: parts of files
-- (kind 0) and results of batches (kind 1).
CREATE TABLE erasures (
    seq INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    -- Number of bytes of the first piece that are overwritten already.
    overwritten INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, id)
) STRICT;
