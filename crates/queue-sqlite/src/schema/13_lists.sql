-- Finds and counts an account's queries without reading those of others.
ALTER TABLE queries ADD COLUMN account TEXT NOT NULL DEFAULT '';
UPDATE queries SET account = (SELECT account FROM jobs WHERE jobs.seq = queries.seq);
CREATE INDEX queries_by_account ON queries (account, query);
