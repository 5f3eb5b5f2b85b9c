-- How far a key reaches, when it ends by itself, and about when it was used last.
ALTER TABLE keys ADD COLUMN ceiling TEXT NOT NULL DEFAULT '{}';
ALTER TABLE keys ADD COLUMN expires_at INTEGER;
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
