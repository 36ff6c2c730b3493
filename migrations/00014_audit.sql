-- +goose Up
-- Who did what through the admin API and the shell. Old code beside this writes
-- none of it, and old workers seal nothing.

-- An entry stands in the transaction of what it tells. It is never changed but
-- in one way: what was before and after may be blanked, when a person's data is
-- erased. The chain of seals holds change_digest in its place, and the salt goes
-- with the content, so that nobody can try addresses until one fits.
CREATE TABLE audit_log (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at            timestamptz NOT NULL,
  actor         text NOT NULL,             -- admin:NAME, shell:USER
  key_id        text NOT NULL,             -- of the API key; bootstrap, shell
  operation     text NOT NULL,             -- of the OpenAPI document: create-key
  method        text NOT NULL,             -- of the request; shell
  path          text NOT NULL,             -- of the request; the command
  subject       text NOT NULL,             -- what it was done to: order/1001, key/ID
  request_id    text NOT NULL,             -- X-Request-Id; '' from the shell
  before        jsonb,                     -- what the effect has changed of it, NULL when it was not there
  after         jsonb,
  salt          bytea,
  change_digest bytea NOT NULL,            -- SHA-256 of salt, before and after
  erased_at     timestamptz,
  CONSTRAINT an_entry_says_who_did_what CHECK (actor <> '' AND key_id <> '' AND operation <> '' AND method <> '' AND path <> '' AND subject <> ''),
  CONSTRAINT a_digest_of_a_change_is_a_sha256 CHECK (octet_length(change_digest) = 32),
  CONSTRAINT an_erased_entry_has_nothing_left CHECK (CASE WHEN erased_at IS NULL THEN salt IS NOT NULL
    ELSE num_nonnulls(salt, before, after) = 0 END)
);
CREATE INDEX audit_log_by_time ON audit_log (at);
CREATE INDEX audit_log_by_actor ON audit_log (actor, id);
CREATE INDEX audit_log_by_operation ON audit_log (operation, id);
CREATE INDEX audit_log_by_subject ON audit_log (subject, id);
CREATE INDEX audit_log_by_request ON audit_log (request_id) WHERE request_id <> '';

-- +goose StatementBegin
CREATE FUNCTION refuse_all_but_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL
    AND to_jsonb(NEW) - '{before,after,salt,erased_at}'::text[] = to_jsonb(OLD) - '{before,after,salt,erased_at}'::text[] THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER the_audit_log_only_loses_content BEFORE UPDATE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_all_but_erasure();
CREATE TRIGGER the_audit_log_is_append_only BEFORE DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER the_audit_log_is_never_emptied BEFORE TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Entries that wait for their seal, written with them. Transactions commit in
-- another order than that of their entries' ids, so that no highest id would tell.
CREATE TABLE audit_unsealed (
  entry_id bigint PRIMARY KEY REFERENCES audit_log
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- The chain: each seal's hash is SHA-256 of the hash before it and of its entry.
CREATE TABLE audit_seals (
  number    bigint PRIMARY KEY,            -- from 1, without a gap
  entry_id  bigint NOT NULL REFERENCES audit_log,
  hash      bytea NOT NULL,
  sealed_at timestamptz NOT NULL,
  CONSTRAINT an_entry_is_sealed_once UNIQUE (entry_id),
  CONSTRAINT seals_are_counted_from_one CHECK (number > 0),
  CONSTRAINT a_seal_is_a_sha256 CHECK (octet_length(hash) = 32)
);
CREATE TRIGGER the_seals_are_append_only BEFORE UPDATE OR DELETE ON audit_seals
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER the_seals_are_never_emptied BEFORE TRUNCATE ON audit_seals
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
