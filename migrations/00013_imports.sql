-- +goose Up
-- Files that come in: what of each still waits, and what was wrong with its
-- lines. Old code beside this takes none, and leaves those that wait to new code.

CREATE TABLE imports (
  id         uuid PRIMARY KEY,
  kind       text NOT NULL,
  format     text NOT NULL,
  dry_run    boolean NOT NULL,          -- lines are tried and undone
  again      boolean NOT NULL,          -- whoever sent it meant it, though its bytes had come before
  digest     text NOT NULL,             -- SHA-256 of the file, in hex
  layout     jsonb NOT NULL,            -- of CSV: its separator and columns
  lines      integer NOT NULL,
  applied    integer NOT NULL DEFAULT 0,
  failed     integer NOT NULL DEFAULT 0, -- each has a row in import_errors
  next_batch integer NOT NULL DEFAULT 0, -- no earlier one is left: looked for from here, not past all that are gone
  state      text NOT NULL,
  attempts   integer NOT NULL DEFAULT 0, -- at the batch that is next, counted before each try
  not_before timestamptz NOT NULL,       -- backoff after a failure
  rung_at    timestamptz NOT NULL,       -- when a bell was last rung, or a batch done
  reason     text NOT NULL DEFAULT '',   -- of the last failure that was no line's
  created_at timestamptz NOT NULL,
  created_by text NOT NULL,              -- admin:NAME, or shell for quayside import
  ended_at   timestamptz,
  CONSTRAINT import_kind_is_known CHECK (kind IN ('products','stock','orders')),
  CONSTRAINT import_format_is_known CHECK (format IN ('csv','jsonl')),
  CONSTRAINT import_state_is_known CHECK (state IN ('waiting','done','cancelled','stopped')),
  CONSTRAINT a_file_digest_is_a_sha256 CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT an_import_has_lines CHECK (lines BETWEEN 1 AND 1000000),
  CONSTRAINT no_line_counts_twice CHECK (applied >= 0 AND failed >= 0 AND applied + failed <= lines),
  CONSTRAINT a_done_import_left_no_line_out CHECK (state <> 'done' OR applied + failed = lines),
  CONSTRAINT an_ended_import_has_its_time CHECK ((state = 'waiting') = (ended_at IS NULL))
) WITH (fillfactor = 70);
-- The same bytes have their effect once, unless somebody says that they are meant again.
CREATE UNIQUE INDEX a_file_is_imported_once ON imports (kind, digest) WHERE NOT dry_run AND NOT again;
CREATE INDEX imports_waiting ON imports (not_before) WHERE state = 'waiting';

-- Lines that wait, as they came. A batch is deleted in the transaction that
-- applies it.
CREATE TABLE import_batches (
  import_id uuid NOT NULL REFERENCES imports,
  number    integer NOT NULL,           -- in the order of the file
  line      integer NOT NULL,           -- of the file, where body begins, from 1
  lines     integer NOT NULL,           -- that count: blank ones do not
  body      bytea NOT NULL,
  CONSTRAINT a_batch_waits_once PRIMARY KEY (import_id, number),
  CONSTRAINT a_batch_has_lines CHECK (lines > 0 AND line > 0)
);

-- Lines that had no effect, and why.
CREATE TABLE import_errors (
  import_id uuid NOT NULL REFERENCES imports,
  line      integer NOT NULL,           -- of the file, from 1
  code      text NOT NULL,              -- as the API would have refused it
  message   text NOT NULL,
  fields    jsonb NOT NULL,             -- where in the line, and what would be right
  CONSTRAINT a_line_fails_once PRIMARY KEY (import_id, line),
  CONSTRAINT a_line_has_a_number CHECK (line > 0)
);
