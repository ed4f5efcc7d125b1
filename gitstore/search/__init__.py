"""The search index: the only room that speaks sqlite3. Derived from git, and rebuilt from it at any time."""
