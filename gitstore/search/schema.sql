-- The search index. Everything here is derived from the first-parent chain of main, and nothing is ever changed
-- but resources.version and .deleted, and versions.purged once, so a state of the record is "all versions up to a commit".
-- A type is its number in gitstore.fhir.definitions.RESOURCE_TYPES.

CREATE TABLE commits (
  sequence     INTEGER PRIMARY KEY,  -- place in the chain, from 1
  id           BLOB NOT NULL,        -- 20 bytes
  last_updated INTEGER NOT NULL,     -- microseconds since 1970 UTC, increasing
  interaction  TEXT NOT NULL,
  author       INTEGER NOT NULL REFERENCES authors,
  request_id   TEXT,
  idempotency  TEXT,                 -- the client's key, a space, and a digest of what was sent
  versions     INTEGER NOT NULL      -- how many versions this commit and all before it made
) STRICT;

CREATE UNIQUE INDEX commits_by_time ON commits (last_updated);

-- Only imports are asked for by request id: "was this file imported before?"
CREATE INDEX commits_by_import ON commits (request_id) WHERE request_id GLOB 'import-*';

CREATE INDEX commits_by_idempotency ON commits (idempotency) WHERE idempotency IS NOT NULL;

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
  version INTEGER NOT NULL,          -- the newest; 0 where others refer to it and it never was
  deleted INTEGER NOT NULL,          -- 1 where the newest is a deletion, or there never was one
  sequence INTEGER NOT NULL,         -- the commit of the newest, 0 where there never was one
  UNIQUE (type, id)
) STRICT;

CREATE INDEX resources_by_type ON resources (type, key) WHERE deleted = 0;
CREATE INDEX resources_by_time ON resources (type, sequence, key) WHERE deleted = 0;

CREATE TABLE versions (
  resource INTEGER NOT NULL REFERENCES resources,
  version  INTEGER NOT NULL,
  sequence INTEGER NOT NULL REFERENCES commits,
  position INTEGER NOT NULL,         -- among the versions of its commit, from 0
  type     INTEGER NOT NULL,
  author   INTEGER NOT NULL REFERENCES authors,  -- that of the commit
  ordinal  INTEGER NOT NULL,         -- this is the n-th version of its type
  authored INTEGER NOT NULL,         -- and the n-th of its type by its author
  known    INTEGER NOT NULL,         -- so many resources of its type have had a version by now,
  present  INTEGER NOT NULL,         -- and so many of them are there
  verb     INTEGER NOT NULL,         -- 0 POST, 1 PUT, 2 DELETE
  created  INTEGER NOT NULL,         -- 1 where nothing current was there before
  blob     BLOB,                     -- 20 bytes; NULL for a deletion, and for what was purged
  purged   INTEGER,                  -- the sequence of the commit that says so, 0 where none does; NULL for most.
                                     -- Such a version counts in neither `ordinal`, `authored` nor commits.versions
  PRIMARY KEY (resource, version)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX versions_by_type ON versions (type, sequence, position);
CREATE UNIQUE INDEX versions_by_author ON versions (author, type, sequence, position);
CREATE INDEX versions_purged ON versions (resource, version) WHERE purged IS NOT NULL;
CREATE UNIQUE INDEX versions_by_commit ON versions (sequence, position);

-- Search. https://hl7.org/fhir/R4/search.html The rows of a resource are those of its newest version, and there are
-- none once it is deleted. `resource` is a key of resources, or that of a contained resource, which is negative; the
-- parameter's key is negated then, so that no search meets contained resources by chance. `element` numbers the
-- elements of a composite parameter, and is 0 elsewhere.

CREATE TABLE parameters (
  key     INTEGER PRIMARY KEY,
  type    TEXT NOT NULL,
  code    TEXT NOT NULL,
  variant TEXT NOT NULL,             -- '', text, identifier, of-type, or the number of a component
  UNIQUE (type, code, variant)
) STRICT;

CREATE TABLE facts (
  name  TEXT PRIMARY KEY,            -- registry: what the parameters were made of
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- SearchParameters of the record that are in effect: those that were active when this index was made.
CREATE TABLE stored_parameters (
  url      TEXT PRIMARY KEY,
  resource TEXT NOT NULL             -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE contained (
  key       INTEGER PRIMARY KEY,     -- below 0
  container INTEGER NOT NULL REFERENCES resources,
  type      INTEGER NOT NULL,
  id        TEXT NOT NULL
) STRICT;

CREATE INDEX contained_by_container ON contained (container);
CREATE INDEX contained_by_type ON contained (type, key);

CREATE TABLE systems (
  key            INTEGER PRIMARY KEY,
  system         TEXT NOT NULL UNIQUE,  -- '' for none, `text` for display texts
  case_sensitive INTEGER NOT NULL       -- 0: its codes stand folded in terms
) STRICT;

CREATE TABLE terms (
  key    INTEGER PRIMARY KEY,
  system INTEGER NOT NULL REFERENCES systems,
  code   TEXT NOT NULL,
  UNIQUE (code, system)
) STRICT;

CREATE INDEX terms_by_system ON terms (system);

CREATE TABLE tokens (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  term      INTEGER NOT NULL REFERENCES terms,
  element   INTEGER NOT NULL,
  PRIMARY KEY (resource, parameter, term, element)
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_term ON tokens (parameter, term, resource);

CREATE TABLE strings (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  value     TEXT NOT NULL,           -- folded; a uri as it is
  exact     INTEGER NOT NULL,        -- tells texts apart that fold alike
  element   INTEGER NOT NULL,
  PRIMARY KEY (resource, parameter, value, exact, element)
) STRICT, WITHOUT ROWID;

CREATE INDEX strings_by_value ON strings (parameter, value, resource);

CREATE TABLE dates (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  low       INTEGER NOT NULL,        -- microseconds since 1970 UTC, half-open
  high      INTEGER NOT NULL,
  span      INTEGER NOT NULL,        -- class of its length: see gitstore/search/rows.py
  element   INTEGER NOT NULL,
  PRIMARY KEY (resource, parameter, low, high, element)
) STRICT, WITHOUT ROWID;

CREATE INDEX dates_by_time ON dates (parameter, span, low, high, resource);

CREATE TABLE units (
  key    INTEGER PRIMARY KEY,
  system TEXT NOT NULL,
  code   TEXT NOT NULL,
  UNIQUE (code, system)
) STRICT;

CREATE TABLE quantities (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  unit      INTEGER NOT NULL REFERENCES units,
  low       BLOB NOT NULL,           -- numbers whose bytes order as they do; low = high but for ranges
  high      BLOB NOT NULL,
  element   INTEGER NOT NULL,
  PRIMARY KEY (resource, parameter, unit, low, high, element)
) STRICT, WITHOUT ROWID;

CREATE INDEX quantities_by_amount ON quantities (parameter, unit, low, high, resource);

-- Few are ranges, and what reaches above a number can begin anywhere below it.
CREATE INDEX quantities_ranges ON quantities (parameter, unit, high) WHERE low <> high;

CREATE TABLE urls (
  key INTEGER PRIMARY KEY,
  url TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE refs (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  target    INTEGER NOT NULL,        -- a key of resources; below 0 that of a URL, negated
  version   TEXT NOT NULL,           -- '' for none
  element   INTEGER NOT NULL,
  PRIMARY KEY (resource, parameter, target, version, element)
) STRICT, WITHOUT ROWID;

CREATE INDEX refs_by_target ON refs (parameter, target, resource);

CREATE TABLE positions (
  resource  INTEGER NOT NULL,
  parameter INTEGER NOT NULL,
  latitude  REAL NOT NULL,           -- degrees
  longitude REAL NOT NULL,
  PRIMARY KEY (resource, parameter, latitude, longitude)
) STRICT, WITHOUT ROWID;

CREATE INDEX positions_by_latitude ON positions (parameter, latitude, longitude, resource);

-- Words of the narrative and of all text. Nothing is ever taken out of `words`; what `texts` doesn't lead to is past.
CREATE TABLE texts (
  key      INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, as `words` keeps what is past
  resource INTEGER NOT NULL UNIQUE,
  digest   INTEGER NOT NULL          -- of both texts
) STRICT;

CREATE VIRTUAL TABLE words USING fts5 (
  narrative, content, content = '', columnsize = 0, detail = column, tokenize = 'unicode61 remove_diacritics 2'
);
