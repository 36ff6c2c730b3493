-- +goose Up
-- What becomes of goods after they left: parcels arrive, goods come back.
-- Old code beside this: it shows a delivered or returned order as fulfilled when
-- it changes it, and works out what is due back without the returns; new code
-- puts both right with the next change, and nothing that was recorded is lost.

ALTER TABLE shipments
  ADD COLUMN delivered_at timestamptz,
  ADD COLUMN delivered_by text,
  ADD CONSTRAINT a_delivery_says_who_reported_it CHECK ((delivered_at IS NULL) = (delivered_by IS NULL));

-- Goods that came back. refund is how much less the order costs for it.
CREATE TABLE returns (
  id          uuid PRIMARY KEY,
  order_id    text NOT NULL REFERENCES orders,
  restocked   boolean NOT NULL,  -- false: written off
  refund      amount NOT NULL,   -- in the order's currency
  reason      text NOT NULL,
  returned_at timestamptz NOT NULL,
  returned_by text NOT NULL,
  CONSTRAINT a_return_has_a_reason CHECK (reason <> '')
);
CREATE INDEX returns_by_order ON returns (order_id);
CREATE TABLE return_lines (
  order_id  text NOT NULL,
  line      integer NOT NULL,
  return_id uuid NOT NULL REFERENCES returns,
  CONSTRAINT a_line_comes_back_once PRIMARY KEY (order_id, line),
  CONSTRAINT only_what_was_shipped_comes_back FOREIGN KEY (order_id, line) REFERENCES shipment_lines
);

ALTER TABLE orders
  ADD COLUMN returned amount NOT NULL DEFAULT 0, -- how much less it costs for goods that came back
  DROP CONSTRAINT a_paid_order_has_a_payment,
  ADD CONSTRAINT a_paid_order_has_a_payment CHECK (status NOT IN ('paid','fulfilled')
    OR (payment_id IS NOT NULL AND paid_at IS NOT NULL AND (got > 0 OR COALESCE(accepted = 0, false) OR returned > 0))),
  DROP CONSTRAINT no_more_is_given_up_than_was_ordered,
  ADD CONSTRAINT no_more_is_taken_off_than_was_ordered CHECK (given_up + returned <= total);
