-- +goose Up
-- Keys of the admin API. A key is 256 random bits, so its plain SHA-256 gives
-- nothing away and needs no pepper that could be lost.
-- Old code beside this knows ADMIN_API_KEY alone, and answers 401 to these.

CREATE TABLE api_keys (
  id           uuid PRIMARY KEY,
  name         text NOT NULL,
  prefix       text NOT NULL,        -- its first 12 characters, to know it by
  digest       text NOT NULL,        -- SHA-256 of the whole key, in hex
  scopes       jsonb NOT NULL,       -- a list of words
  created_at   timestamptz NOT NULL,
  created_by   text NOT NULL,        -- admin:NAME, or shell for quayside keys
  expires_at   timestamptz NOT NULL,
  last_used_at timestamptz,          -- to the minute
  revoked_at   timestamptz,
  revoked_by   text,
  CONSTRAINT a_key_is_one_of_its_kind UNIQUE (digest),
  CONSTRAINT a_digest_is_a_sha256 CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT a_key_name_is_a_plain_word CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
  CONSTRAINT a_key_may_do_something CHECK (jsonb_array_length(scopes) > 0),
  CONSTRAINT a_key_expires CHECK (expires_at > created_at),
  CONSTRAINT a_revoked_key_says_by_whom CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE UNIQUE INDEX a_name_means_one_key ON api_keys (name) WHERE revoked_at IS NULL;
