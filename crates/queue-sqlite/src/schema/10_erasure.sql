-- Prompt and answer of fetched jobs are erased early.
ALTER TABLE jobs ADD COLUMN fetched_at INTEGER;
ALTER TABLE jobs ADD COLUMN is_erased INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_fetch ON jobs (fetched_at) WHERE fetched_at IS NOT NULL AND is_erased = 0;
