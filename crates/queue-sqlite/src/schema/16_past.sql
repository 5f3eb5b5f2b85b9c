-- Idempotency keys whose job is erased. They are kept for so long that a late repeat makes no
-- second job.
CREATE TABLE past_submissions (
    account TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    id BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX past_submissions_by_end ON past_submissions (until);
