-- +goose Up
-- Letters that a person has sent again, and indexes for finding letters. Old
-- code beside this posts letters as before: nothing it writes is a resend.
-- Building the indexes keeps writers of letters waiting, a few seconds for each
-- million of letters.

ALTER TABLE letters
  ADD COLUMN resend_of uuid REFERENCES letters ON DELETE SET NULL, -- the letter it tells again
  ADD COLUMN posted_by text NOT NULL DEFAULT '', -- admin:NAME who asked for a resend
  ADD COLUMN note      text NOT NULL DEFAULT '', -- why
  ADD CONSTRAINT a_resend_says_who_asked_for_it CHECK (resend_of IS NULL OR posted_by <> '');
CREATE INDEX letters_by_address ON letters (lower(address), id);
CREATE INDEX letters_not_sent ON letters (state, id) WHERE state <> 'sent';
