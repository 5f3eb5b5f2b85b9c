-- Failed jobs are a small fraction, and operators search for them.
CREATE INDEX jobs_failed ON jobs (seq) WHERE state = 3;
