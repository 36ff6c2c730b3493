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
