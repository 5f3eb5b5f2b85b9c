-- The jobs that failed are few among many, and looked for by their operator.
CREATE INDEX jobs_failed ON jobs (seq) WHERE state = 3;
