-- +goose Up
-- Events that a person has put to work again, and indexes for finding orders
-- and counting them. Old code beside this goes on as before: it leaves
-- replay_id alone, and a replayed event that it applies is noted without the
-- name of who asked for it. Building the indexes keeps writers of orders
-- waiting, a few seconds for each million of orders.

CREATE TABLE replays (
  id       uuid PRIMARY KEY,      -- v7: in the order of time
  inbox_id uuid NOT NULL REFERENCES inbox,
  at       timestamptz NOT NULL,
  actor    text NOT NULL,         -- admin:NAME
  note     text NOT NULL DEFAULT '', -- why
  was      text NOT NULL,         -- the event's state before
  CONSTRAINT what_is_applied_is_not_replayed CHECK (was IN ('received','ignored','parked','quarantined','dead','refused')),
  CONSTRAINT releasing_a_refused_event_has_a_reason CHECK (was <> 'refused' OR note <> '')
);
CREATE INDEX replays_by_event ON replays (inbox_id, id);
CREATE TRIGGER replays_are_append_only BEFORE UPDATE OR DELETE ON replays
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER replays_are_never_emptied BEFORE TRUNCATE ON replays
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE inbox_open ADD COLUMN replay_id uuid REFERENCES replays; -- the latest; NULL: nobody asked

-- Statistics: what was earned in a period.
CREATE INDEX orders_by_payment_time ON orders (paid_at) WHERE paid_at IS NOT NULL;

-- Search: by beginnings of the words of a customer's name and address, of the
-- order's id, and by whole transactions and tracking numbers. Nothing that is
-- not in every Postgres is needed. What is no letter and no digit parts words,
-- as in orders/search.go.
CREATE FUNCTION words_of(email text, name text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN to_tsvector('simple'::regconfig, translate(email || ' ' || name, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)));
CREATE INDEX orders_by_words ON orders USING gin (words_of(customer_email, customer_name));
CREATE INDEX orders_by_id_prefix ON orders (lower(id) text_pattern_ops);
CREATE INDEX payments_by_reused_transaction ON payments (upper(tx_hash)) WHERE counted = 'reused'; -- a_transaction_counts_once has the others
CREATE INDEX shipments_by_tracking_number ON shipments (upper(tracking_number)) WHERE tracking_number <> '';
