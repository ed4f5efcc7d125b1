"""The access journal: who looked at what, as lines that are chained by their hashes (docs/audit-journal.md)."""
