-- Sessions that are over are found without looking at those that are not.
CREATE INDEX sessions_by_end ON sessions (until);
