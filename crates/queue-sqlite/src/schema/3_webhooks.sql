-- Webhooks and their delivery state. hook_state: 0 pending, 1 delivered, 2 given up.
CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    url TEXT NOT NULL,
    secret BLOB NOT NULL,
    hook_state INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    hook_error TEXT
) STRICT;
CREATE INDEX webhooks_waiting ON webhooks (next_at) WHERE hook_state = 0;
