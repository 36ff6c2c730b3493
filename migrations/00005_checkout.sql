-- +goose Up
-- Payments that Quayside creates at PayQI, and those it asks PayQI about.
-- Old code beside this knows neither table: it goes on hearing events, and its
-- orders that expire with an open payment are not asked about.

-- One row for each payment that PayQI was asked to create, written before it is
-- asked: whoever comes after a crash asks with the same key.
CREATE TABLE checkouts (
  order_id        text NOT NULL REFERENCES orders,
  number          integer NOT NULL,      -- of the order's checkouts, from 1
  idempotency_key uuid NOT NULL,         -- the same on every try
  amount          amount NOT NULL,       -- what was still owed, in currency
  currency        text NOT NULL,
  state           text NOT NULL,         -- asking, linked, refused or abandoned
  leased_until    timestamptz NOT NULL,  -- while asking: nobody else asks before
  payment_id      text REFERENCES payments,
  checkout_url    text NOT NULL DEFAULT '', -- a page of PayQI's; may be empty
  asked_by        text NOT NULL,         -- admin:NAME
  asked_at        timestamptz NOT NULL,
  PRIMARY KEY (order_id, number),
  CONSTRAINT a_key_asks_for_one_payment UNIQUE (idempotency_key),
  CONSTRAINT a_payment_comes_from_one_checkout UNIQUE (payment_id),
  CONSTRAINT checkout_state_is_known CHECK (state IN ('asking','linked','refused','abandoned')),
  CONSTRAINT a_linked_checkout_has_its_payment CHECK ((state = 'linked') = (payment_id IS NOT NULL)),
  CONSTRAINT what_is_asked_for_is_positive CHECK (amount > 0)
);
CREATE UNIQUE INDEX an_order_asks_for_one_payment_at_a_time ON checkouts (order_id) WHERE state = 'asking';

-- Payments that were still open when their order's deadline had passed: PayQI
-- is asked about them until it says how they ended, or long enough.
CREATE TABLE inquiries (
  payment_id text PRIMARY KEY REFERENCES payments,
  state      text NOT NULL,          -- open or over
  since      timestamptz NOT NULL,   -- when it was first found silent
  asks       integer NOT NULL DEFAULT 0,
  ask_at     timestamptz NOT NULL,   -- the next time, or the end of the lease of one under way
  ask_until  timestamptz NOT NULL,   -- then it is over, whatever PayQI says
  asked_at   timestamptz,            -- the last time
  answer     text NOT NULL DEFAULT '', -- to the last one: PayQI's word, or why it could not be used
  amount     amount,                 -- amount and currency of an answer that it completed
  currency   text,
  CONSTRAINT inquiry_state_is_known CHECK (state IN ('open','over')),
  CONSTRAINT money_that_was_answered_has_its_currency CHECK ((amount IS NULL) = (currency IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX inquiries_waiting ON inquiries (ask_at) WHERE state = 'open';
CREATE INDEX inquiries_by_silence ON inquiries (since);
CREATE INDEX inquiries_by_time ON inquiries (asked_at) WHERE asked_at IS NOT NULL;
