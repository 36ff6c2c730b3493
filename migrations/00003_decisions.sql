-- +goose Up
-- What people decide about money and goods, and the ledger of what goes back.
-- Old code beside this: it leaves the new columns of inbox NULL, so the report
-- misses money that is parked meanwhile until its order comes; it never writes
-- the others, so nothing decided by new code is undone.

ALTER TABLE orders
  ADD COLUMN accepted amount,                   -- what a person took as full payment; NULL: the total counts
  ADD COLUMN given_up amount NOT NULL DEFAULT 0, -- price of the lines that were not to be had
  ADD COLUMN reopenings integer NOT NULL DEFAULT 0,
  DROP CONSTRAINT a_paid_order_has_a_payment,
  ADD CONSTRAINT a_paid_order_has_a_payment CHECK (status NOT IN ('paid','fulfilled')
    OR (payment_id IS NOT NULL AND paid_at IS NOT NULL AND (got > 0 OR COALESCE(accepted = 0, false)))),
  ADD CONSTRAINT no_more_is_given_up_than_was_ordered CHECK (given_up <= total),
  ADD CONSTRAINT no_more_is_accepted_than_asked CHECK (accepted <= total);

ALTER TABLE order_items
  ADD COLUMN given_up boolean NOT NULL DEFAULT false; -- the goods were not to be had: its price is due back

-- A payment without an order is one of which a person decided that it belongs to none.
ALTER TABLE payments
  ALTER COLUMN order_id DROP NOT NULL,
  ADD COLUMN attached_by text,                  -- who linked it, whatever order its events name; NULL: PayQI did
  ADD COLUMN refunded amount NOT NULL DEFAULT 0, -- refunded and kept: sums of its refunds that count
  ADD COLUMN kept     amount NOT NULL DEFAULT 0,
  ADD COLUMN outlived boolean NOT NULL DEFAULT false, -- it had failed or expired when the order was reopened
  ADD CONSTRAINT no_more_goes_back_than_came CHECK (refunded + kept <= COALESCE(amount, 0)),
  ADD CONSTRAINT only_a_decided_payment_has_no_order CHECK (order_id IS NOT NULL
    OR (attached_by IS NOT NULL AND counted IN ('unmatched','reused')));

-- What goes back, or was decided to stay, payment by payment. Quayside sends
-- nothing by itself: a person sends, and tells by which transaction.
CREATE TABLE refunds (
  id              uuid PRIMARY KEY,
  payment_id      text NOT NULL REFERENCES payments,
  order_id        text REFERENCES orders,  -- NULL: the payment belongs to none
  currency        text NOT NULL,
  amount          amount NOT NULL,
  state           text NOT NULL,
  address         text,                    -- where to, once known
  destination_tag bigint,
  tx_hash         text,                    -- of the transaction that sent it
  note            text NOT NULL DEFAULT '', -- why
  decided_by      text NOT NULL,           -- admin:NAME
  decided_at      timestamptz NOT NULL,
  sent_at         timestamptz,
  confirmed_at    timestamptz,
  withdrawn_at    timestamptz,
  CONSTRAINT a_refund_is_positive CHECK (amount > 0),
  CONSTRAINT refund_state_is_known CHECK (state IN ('approved','sent','confirmed','waived','withdrawn')),
  CONSTRAINT a_sent_refund_says_where_and_how CHECK ((state IN ('sent','confirmed')) = (tx_hash IS NOT NULL)
    AND (tx_hash IS NULL OR (address IS NOT NULL AND sent_at IS NOT NULL))),
  CONSTRAINT a_confirmed_refund_has_its_time CHECK ((state = 'confirmed') = (confirmed_at IS NOT NULL)),
  CONSTRAINT a_withdrawn_refund_has_its_time CHECK ((state = 'withdrawn') = (withdrawn_at IS NOT NULL)),
  CONSTRAINT what_is_kept_has_a_reason CHECK (state <> 'waived' OR note <> ''),
  CONSTRAINT a_refund_goes_to_a_uint32_tag CHECK (destination_tag BETWEEN 0 AND 4294967295)
);
CREATE INDEX refunds_by_payment ON refunds (payment_id);
CREATE INDEX refunds_by_order ON refunds (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX refunds_by_transaction ON refunds (upper(tx_hash)) WHERE tx_hash IS NOT NULL;
CREATE INDEX refunds_to_do ON refunds (id) WHERE state IN ('approved','sent');

-- +goose StatementBegin
CREATE FUNCTION refuse_other_money() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'refund % is written: its money stays, and it is never deleted', OLD.id
    USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
END $$;
-- +goose StatementEnd
CREATE TRIGGER a_refund_keeps_its_money BEFORE UPDATE ON refunds FOR EACH ROW
  WHEN ((NEW.payment_id, NEW.order_id, NEW.currency, NEW.amount) IS DISTINCT FROM (OLD.payment_id, OLD.order_id, OLD.currency, OLD.amount)
    OR OLD.state IN ('confirmed','withdrawn') OR (OLD.state = 'sent' AND NEW.state NOT IN ('sent','confirmed'))
    OR (OLD.state = 'waived' AND NEW.state NOT IN ('waived','withdrawn')))
  EXECUTE FUNCTION refuse_other_money();
CREATE TRIGGER a_refund_is_never_deleted BEFORE DELETE ON refunds FOR EACH ROW EXECUTE FUNCTION refuse_other_money();
CREATE TRIGGER the_refunds_are_never_emptied BEFORE TRUNCATE ON refunds FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a completed event says of money, so that the report can count what
-- waits for its order. NULL when it says nothing readable.
ALTER TABLE inbox
  ADD COLUMN amount   amount,
  ADD COLUMN currency text,
  ADD COLUMN tx_hash  text;
