-- +goose Up
-- What was answered to requests that carry an Idempotency-Key, written in the
-- transaction of their effect and kept for a week. Old code beside this takes
-- no notice of the header: a request repeated to it has its effect again.

CREATE TABLE idempotency_keys (
  caller    text NOT NULL,         -- id of the API key, or bootstrap
  operation text NOT NULL,         -- method and path
  key       text NOT NULL,
  digest    text NOT NULL,         -- SHA-256 of the body, in hex
  answer    jsonb,                 -- NULL only inside the transaction that writes it
  at        timestamptz NOT NULL,
  CONSTRAINT a_key_has_one_answer PRIMARY KEY (caller, operation, key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys USING brin (at);
