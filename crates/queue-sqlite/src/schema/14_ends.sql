-- Finds expired sessions without a scan.
CREATE INDEX sessions_by_end ON sessions (until);
