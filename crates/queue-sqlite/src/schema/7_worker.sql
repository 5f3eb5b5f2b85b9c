-- The only worker that may lease a job, if its requester chose one.
ALTER TABLE jobs ADD COLUMN worker TEXT;
