-- Idempotency keys: a repeat finds the job for as long as it is kept.
CREATE TABLE submissions (
    seq INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    UNIQUE (account, key)
) STRICT;

-- An account's jobs by age, from any point in time.
DROP INDEX jobs_by_account;
CREATE INDEX jobs_by_account ON jobs (account, created_at);
