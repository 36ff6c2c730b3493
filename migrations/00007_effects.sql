-- +goose Up
-- What each step of an order's timeline wrote besides: letters, cases opened
-- and closed, shipment requests, refunds; and of a decision what was decided,
-- so that it can be carried out again. Old code beside this writes steps
-- without it: of those an event's effects show the step, its stock and the
-- cases about the event, no more. Adding the column rewrites nothing; building
-- the index keeps writers of cases waiting, a few seconds for each million.

ALTER TABLE timeline ADD COLUMN details jsonb; -- NULL: nothing besides, or written by older code
CREATE INDEX cases_by_event ON cases (inbox_id) WHERE inbox_id IS NOT NULL;
