-- Models and priority that a key permits, its expiry, and the approximate time of its last use.
ALTER TABLE keys ADD COLUMN ceiling TEXT NOT NULL DEFAULT '{}';
ALTER TABLE keys ADD COLUMN expires_at INTEGER;
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
