-- The search index. Everything here is derived from the first-parent chain of main, and nothing is ever changed
-- but resources.version and .deleted, so a state of the record is "all versions up to a commit".
-- A type is its number in gitstore.fhir.definitions.RESOURCE_TYPES.

CREATE TABLE commits (
  sequence     INTEGER PRIMARY KEY,  -- place in the chain, from 1
  id           BLOB NOT NULL,        -- 20 bytes
  last_updated INTEGER NOT NULL,     -- microseconds since 1970 UTC, increasing
  interaction  TEXT NOT NULL,
  author       INTEGER NOT NULL REFERENCES authors,
  request_id   TEXT,
  versions     INTEGER NOT NULL      -- how many versions this commit and all before it made
) STRICT;

CREATE UNIQUE INDEX commits_by_time ON commits (last_updated);

-- Only imports are asked for by request id: "was this file imported before?"
CREATE INDEX commits_by_import ON commits (request_id) WHERE request_id GLOB 'import-*';

CREATE TABLE authors (
  key   INTEGER PRIMARY KEY,
  name  TEXT NOT NULL,
  email TEXT NOT NULL,
  UNIQUE (name, email)
) STRICT;

CREATE TABLE resources (
  key     INTEGER PRIMARY KEY,
  type    INTEGER NOT NULL,
  id      TEXT NOT NULL,
  version INTEGER NOT NULL,          -- the newest
  deleted INTEGER NOT NULL,          -- 1 where the newest is a deletion
  UNIQUE (type, id)
) STRICT;

CREATE TABLE versions (
  resource INTEGER NOT NULL REFERENCES resources,
  version  INTEGER NOT NULL,
  sequence INTEGER NOT NULL REFERENCES commits,
  position INTEGER NOT NULL,         -- among the versions of its commit, from 0
  type     INTEGER NOT NULL,
  ordinal  INTEGER NOT NULL,         -- this is the n-th version of its type
  verb     INTEGER NOT NULL,         -- 0 POST, 1 PUT, 2 DELETE
  created  INTEGER NOT NULL,         -- 1 where nothing current was there before
  blob     BLOB,                     -- 20 bytes; NULL for a deletion
  PRIMARY KEY (resource, version)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX versions_by_type ON versions (type, sequence, position, ordinal);
CREATE UNIQUE INDEX versions_by_commit ON versions (sequence, position);
