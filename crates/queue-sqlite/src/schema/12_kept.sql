-- Bytes of a job that count against its account: request, answer, and what was written to its
-- query.
ALTER TABLE jobs ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET kept = 1024 + iif(is_erased, 0, bytes)
    + iif(finished_at IS NULL, 0,
        coalesce((SELECT sum(length(line) + 64) FROM lines WHERE lines.seq = jobs.seq), 0))
    + coalesce((SELECT coalesce(length(draft), 0)
        + coalesce((SELECT sum(length(text)) FROM query_logs
            WHERE query_logs.query = queries.query), 0)
        FROM queries WHERE queries.seq = jobs.seq), 0);

-- Large data is erased in parts and must be found until all of it is gone.
UPDATE jobs SET fetched_at = NULL WHERE is_erased = 1;
DROP INDEX jobs_by_fetch;
CREATE INDEX jobs_by_fetch ON jobs (fetched_at) WHERE fetched_at IS NOT NULL;
