-- +goose Up
-- The spine: stock, orders, payments, the inbox of PayQI's events, letters,
-- shipments and cases. What must hold is a constraint whose name reads as a
-- sentence; the program's rules are stricter, these are the last line.

-- An amount of money: exact, finite, not negative. Postgres sorts NaN above
-- Infinity, so "< Infinity" is what keeps NaN out.
CREATE DOMAIN amount AS numeric(38,18)
  CONSTRAINT an_amount_is_a_finite_number_from_zero CHECK (VALUE >= 0 AND VALUE < 'Infinity');

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd

-- Stock ---------------------------------------------------------------------

CREATE TABLE products (
  sku        text PRIMARY KEY,
  name       text NOT NULL,
  on_hand    bigint NOT NULL,            -- units in the warehouse
  reserved   bigint NOT NULL DEFAULT 0,  -- of these, promised to unpaid orders
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT a_sku_is_a_plain_word CHECK (sku ~ '^[A-Za-z0-9._-]{1,64}$'),
  CONSTRAINT stock_is_never_negative CHECK (on_hand BETWEEN 0 AND 1000000000000),
  CONSTRAINT no_more_is_reserved_than_is_there CHECK (reserved BETWEEN 0 AND on_hand)
) WITH (fillfactor = 50); -- hot rows: leave room for HOT updates

-- The ledger of stock. The levels above are always its sums.
CREATE TABLE stock_movements (
  id             uuid PRIMARY KEY,
  sku            text NOT NULL REFERENCES products,
  kind           text NOT NULL,
  on_hand_delta  bigint NOT NULL,
  reserved_delta bigint NOT NULL,
  order_id       text,            -- NULL for initial and adjust
  cause          text NOT NULL,   -- event:evt_…, admin:NAME, sweep:deadline
  reason         text NOT NULL DEFAULT '',
  effect_key     text NOT NULL,   -- order/RESERVATION NUMBER/kind/sku, or adjust/ID
  at             timestamptz NOT NULL,
  CONSTRAINT an_effect_on_stock_happens_once UNIQUE (effect_key),
  CONSTRAINT deltas_fit_their_kind CHECK (CASE kind
    WHEN 'initial' THEN on_hand_delta >= 0 AND reserved_delta = 0 AND order_id IS NULL
    WHEN 'adjust'  THEN on_hand_delta <> 0 AND reserved_delta = 0 AND order_id IS NULL
    WHEN 'reserve' THEN on_hand_delta = 0 AND reserved_delta > 0 AND order_id IS NOT NULL
    WHEN 'release' THEN on_hand_delta = 0 AND reserved_delta < 0 AND order_id IS NOT NULL
    WHEN 'commit'  THEN on_hand_delta < 0 AND reserved_delta = on_hand_delta AND order_id IS NOT NULL
    WHEN 'return'  THEN on_hand_delta > 0 AND reserved_delta = 0 AND order_id IS NOT NULL
    ELSE false END)
);
CREATE INDEX stock_movements_by_sku ON stock_movements (sku, id);
CREATE INDEX stock_movements_by_order ON stock_movements (order_id) WHERE order_id IS NOT NULL;
CREATE TRIGGER the_ledger_is_append_only BEFORE UPDATE OR DELETE ON stock_movements
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER the_ledger_is_never_emptied BEFORE TRUNCATE ON stock_movements
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Orders --------------------------------------------------------------------

CREATE TABLE orders (
  id                 text PRIMARY KEY,          -- the shop's own, PayQI's metadata.order_id
  status             text NOT NULL,
  payment_status     text NOT NULL,
  fulfillment_status text NOT NULL,
  currency           text NOT NULL,
  total              amount NOT NULL,
  got                amount NOT NULL DEFAULT 0, -- completed, matched payments
  refund_due         amount NOT NULL DEFAULT 0, -- of got, what no goods stand against
  payment_id         text,                      -- of the completed ones the lowest by (created, id)
  tx_hash            text,
  pay_address        text,                      -- where to pay, from the newest open payment
  destination_tag    bigint,
  customer_email     text NOT NULL,
  customer_name      text NOT NULL DEFAULT '',
  metadata           jsonb NOT NULL DEFAULT '{}',
  status_token       text NOT NULL,             -- the customer's unguessable link
  stock              text NOT NULL,             -- what the order holds of it
  reservation        integer NOT NULL,          -- number of the latest reservation, from 1
  timeline_length    integer NOT NULL,
  deadline           timestamptz NOT NULL,      -- when an unpaid order gives its stock back
  grace              boolean NOT NULL DEFAULT false, -- deadline includes the one grace
  created_at         timestamptz NOT NULL,
  updated_at         timestamptz NOT NULL,
  paid_at            timestamptz,
  fulfilled_at       timestamptz,
  cancelled_at       timestamptz,
  CONSTRAINT an_order_id_is_a_plain_word CHECK (id ~ '^[A-Za-z0-9._-]{1,64}$'),
  CONSTRAINT a_status_link_belongs_to_one_order UNIQUE (status_token),
  CONSTRAINT status_is_known CHECK (status IN ('pending','paid','payment_failed','expired','cancelled','fulfilled')),
  CONSTRAINT payment_status_is_known CHECK (payment_status IN
    ('refunded','overpaid','refund_due','paid','underpaid','awaiting_confirmation','unpaid')),
  CONSTRAINT fulfillment_status_is_known CHECK (fulfillment_status IN
    ('none','on_hold','queued','partial','fulfilled','delivered','returned')),
  CONSTRAINT a_total_is_positive CHECK (total > 0),
  CONSTRAINT a_paid_order_has_a_payment CHECK (status NOT IN ('paid','fulfilled')
    OR (payment_id IS NOT NULL AND paid_at IS NOT NULL AND got > 0)),
  CONSTRAINT a_fulfilled_order_has_its_time CHECK ((status = 'fulfilled') = (fulfilled_at IS NOT NULL)),
  CONSTRAINT a_cancelled_order_has_its_time CHECK (status <> 'cancelled' OR cancelled_at IS NOT NULL),
  CONSTRAINT no_more_is_due_back_than_was_got CHECK (refund_due <= got),
  CONSTRAINT stock_follows_status CHECK (CASE status
    WHEN 'pending'        THEN stock = 'reserved'
    WHEN 'payment_failed' THEN stock = 'reserved'
    WHEN 'paid'           THEN stock IN ('committed','none') -- none: STOCK_GONE
    WHEN 'fulfilled'      THEN stock = 'committed'
    ELSE stock = 'none' END),
  CONSTRAINT a_destination_tag_is_a_uint32 CHECK (destination_tag BETWEEN 0 AND 4294967295)
) WITH (fillfactor = 70);
CREATE INDEX orders_waiting_for_money ON orders (deadline) WHERE status IN ('pending','payment_failed');
CREATE INDEX orders_by_time ON orders (created_at DESC, id DESC);
CREATE INDEX orders_by_email ON orders (lower(customer_email), created_at DESC);

-- +goose StatementBegin
CREATE FUNCTION refuse_backward_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status = 'paid' AND NEW.status IN ('fulfilled','cancelled') THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'order % is %, it cannot become %', OLD.id, OLD.status, NEW.status
    USING ERRCODE = 'check_violation', CONSTRAINT = 'a_paid_order_is_never_unpaid';
END $$;
-- +goose StatementEnd
CREATE TRIGGER a_paid_order_is_never_unpaid BEFORE UPDATE ON orders FOR EACH ROW
  WHEN (OLD.status IN ('paid','fulfilled') AND NEW.status <> OLD.status)
  EXECUTE FUNCTION refuse_backward_status();

CREATE TABLE order_items (
  order_id   text NOT NULL REFERENCES orders,
  line       integer NOT NULL,        -- from 1, as the shop listed them
  sku        text NOT NULL REFERENCES products,
  name       text NOT NULL,           -- of the product when it was ordered
  quantity   bigint NOT NULL,
  unit_price amount NOT NULL,
  PRIMARY KEY (order_id, line),
  CONSTRAINT a_quantity_is_one_to_a_million CHECK (quantity BETWEEN 1 AND 1000000)
);

-- What happened to an order, in order.
CREATE TABLE timeline (
  order_id text NOT NULL REFERENCES orders,
  seq      integer NOT NULL,
  at       timestamptz NOT NULL,
  kind     text NOT NULL,             -- payment.completed, order.created, deadline, …
  cause    text NOT NULL,             -- event:evt_…, admin:NAME, sweep:deadline
  was      text,                      -- status before and after, NULL before creation
  became   text NOT NULL,
  note     text NOT NULL,             -- in plain words
  inbox_id uuid,                      -- the event that did it
  CONSTRAINT a_step_of_an_order_is_written_once PRIMARY KEY (order_id, seq)
);
CREATE TRIGGER the_timeline_is_append_only BEFORE UPDATE OR DELETE ON timeline
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER the_timeline_is_never_emptied BEFORE TRUNCATE ON timeline
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Payments ------------------------------------------------------------------

-- One row per PayQI payment. Facts only grow: for each type of event the newest
-- signed "created" ever seen (Unix seconds, 0 when the event named none, NULL
-- when no such event came), and of the first completed one its money.
CREATE TABLE payments (
  id              text PRIMARY KEY,
  order_id        text NOT NULL REFERENCES orders,
  created_seen    bigint,
  pending_seen    bigint,
  failed_seen     bigint,
  expired_seen    bigint,
  completed_seen  bigint,
  amount          amount,
  currency        text,
  tx_hash         text,
  pay_address     text,
  destination_tag bigint,
  counted         text NOT NULL DEFAULT 'no',
  first_seen_at   timestamptz NOT NULL,
  completed_at    timestamptz,           -- when we learnt of it
  CONSTRAINT counted_is_known CHECK (counted IN ('no','matched','unmatched','reused')),
  CONSTRAINT completed_money_is_known CHECK ((completed_seen IS NOT NULL) =
    (amount IS NOT NULL AND currency IS NOT NULL AND completed_at IS NOT NULL AND counted <> 'no')),
  CONSTRAINT completed_money_is_positive CHECK (amount > 0)
) WITH (fillfactor = 80);
CREATE INDEX payments_by_order ON payments (order_id);
ALTER TABLE payments ADD CONSTRAINT payment_ids_are_bounded CHECK (length(id) BETWEEN 1 AND 255);
-- A transaction on the ledger counts once, ever, for whichever payment names it first.
CREATE UNIQUE INDEX a_transaction_counts_once ON payments (upper(tx_hash))
  WHERE tx_hash IS NOT NULL AND counted <> 'reused';

ALTER TABLE orders ADD CONSTRAINT the_payment_of_an_order_exists
  FOREIGN KEY (payment_id) REFERENCES payments DEFERRABLE INITIALLY DEFERRED;

-- The inbox -----------------------------------------------------------------

-- Every authentic event, once, byte for byte. outcome is NULL while the event
-- waits; what it waits for is its row in inbox_open.
CREATE TABLE inbox (
  id           uuid PRIMARY KEY,        -- v7: in the order of arrival
  key          text NOT NULL,           -- the event's id; sha256:HEX without one; KEY#HEX for a contradiction
  event_id     text,
  type         text,                    -- NULL when unreadable
  payment_id   text,
  order_ref    text,                    -- metadata.order_id
  body         bytea NOT NULL,          -- exactly as signed
  digest       bytea NOT NULL,          -- SHA-256 of body
  meaning      bytea,                   -- SHA-256 of the fields that count; NULL when unreadable
  contradicts  uuid REFERENCES inbox,   -- same event id, other content: the first stands
  secret_label text NOT NULL,           -- which secret signed it, never its value
  received_at  timestamptz NOT NULL,
  deliveries   integer NOT NULL DEFAULT 1,
  last_seen_at timestamptz NOT NULL,
  outcome      text,
  reason       text NOT NULL DEFAULT '',
  settled_at   timestamptz,
  CONSTRAINT an_event_is_stored_once UNIQUE (key),
  CONSTRAINT outcome_is_known CHECK (outcome IN ('applied','ignored')),
  CONSTRAINT a_settled_event_has_its_time CHECK ((outcome IS NULL) = (settled_at IS NULL))
) WITH (fillfactor = 85);
CREATE INDEX inbox_by_payment ON inbox (payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX inbox_by_order ON inbox (order_ref) WHERE order_ref IS NOT NULL;

-- The events that wait: for a worker (received), for their order (parked), for
-- a person (quarantined, dead) or for a delivery in time (refused). Narrow, and
-- deleted when settled, so that finding work stays cheap however long the inbox is.
CREATE TABLE inbox_open (
  inbox_id   uuid PRIMARY KEY REFERENCES inbox,
  state      text NOT NULL,
  attempts   integer NOT NULL DEFAULT 0, -- counted before each try, so a crash counts
  not_before timestamptz NOT NULL,       -- backoff after a recorded failure
  rung_at    timestamptz NOT NULL,       -- when a bell was last rung for it
  order_ref  text,                       -- the order a parked one waits for
  reason     text NOT NULL DEFAULT '',
  CONSTRAINT state_is_known CHECK (state IN ('received','parked','quarantined','dead','refused')),
  CONSTRAINT attempts_are_counted CHECK (attempts BETWEEN 0 AND 1000)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX inbox_parked ON inbox_open (order_ref) WHERE state = 'parked';

-- Deliveries of a stored event whose bytes differ but whose meaning does not.
CREATE TABLE inbox_spellings (
  inbox_id      uuid NOT NULL REFERENCES inbox,
  digest        bytea NOT NULL,
  first_seen_at timestamptz NOT NULL,
  PRIMARY KEY (inbox_id, digest)
);

CREATE VIEW events AS
  SELECT i.id, i.key, i.event_id, i.type, i.payment_id, i.order_ref, i.body, i.digest, i.contradicts,
         i.secret_label, i.received_at, i.deliveries, i.last_seen_at, i.settled_at,
         COALESCE(o.state, i.outcome, 'lost') AS state, -- lost: check finds it
         COALESCE(NULLIF(o.reason, ''), i.reason) AS reason, COALESCE(o.attempts, 0) AS attempts, o.not_before
  FROM inbox i LEFT JOIN inbox_open o ON o.inbox_id = i.id;

-- Cases ---------------------------------------------------------------------

-- What a person must decide. An open case with blocks set is a hold on its order.
CREATE TABLE cases (
  id         uuid PRIMARY KEY,
  code       text NOT NULL,
  key        text NOT NULL,       -- what it is about: one case per key, reopened rather than doubled
  severity   text NOT NULL,
  blocks     boolean NOT NULL,
  state      text NOT NULL,
  order_id   text,                -- no reference: the order may not exist
  payment_id text,
  inbox_id   uuid REFERENCES inbox,
  summary    text NOT NULL,       -- one plain sentence
  facts      jsonb NOT NULL,      -- expected, received, …; what may be done about it follows from the code
  opened_at  timestamptz NOT NULL,
  closed_at  timestamptz,
  closed_by  text,
  resolution text,
  CONSTRAINT one_case_per_matter UNIQUE (key),
  CONSTRAINT severity_is_known CHECK (severity IN ('info','warning','critical')),
  CONSTRAINT case_state_is_known CHECK (state IN ('open','closed')),
  CONSTRAINT a_closed_case_says_by_whom CHECK ((state = 'closed') = (closed_at IS NOT NULL AND closed_by IS NOT NULL))
);
CREATE INDEX cases_open_by_order ON cases (order_id) WHERE state = 'open';
CREATE INDEX cases_by_order ON cases (order_id) WHERE order_id IS NOT NULL;

-- Shipments -----------------------------------------------------------------

-- What a fulfilment provider was asked to ship. Its id is the idempotency key of that request.
CREATE TABLE shipment_requests (
  id         uuid PRIMARY KEY,
  order_id   text NOT NULL REFERENCES orders,
  provider   text NOT NULL,
  state      text NOT NULL,
  attempts   integer NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL,
  rung_at    timestamptz NOT NULL,
  last_error text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL,
  handed_at  timestamptz,
  CONSTRAINT request_state_is_known CHECK (state IN ('queued','handed_over','withdrawn','dead'))
);
CREATE INDEX shipment_requests_waiting ON shipment_requests (not_before) WHERE state = 'queued';
CREATE INDEX shipment_requests_by_order ON shipment_requests (order_id);
CREATE TABLE shipment_request_lines (
  order_id   text NOT NULL,
  line       integer NOT NULL,
  request_id uuid NOT NULL REFERENCES shipment_requests,
  CONSTRAINT a_line_is_requested_once PRIMARY KEY (order_id, line),
  FOREIGN KEY (order_id, line) REFERENCES order_items
);

-- What left the warehouse.
CREATE TABLE shipments (
  id              uuid PRIMARY KEY,
  order_id        text NOT NULL REFERENCES orders,
  carrier         text NOT NULL DEFAULT '',
  tracking_number text NOT NULL DEFAULT '',
  shipped_at      timestamptz NOT NULL,
  shipped_by      text NOT NULL
);
CREATE INDEX shipments_by_order ON shipments (order_id);
CREATE TABLE shipment_lines (
  order_id    text NOT NULL,
  line        integer NOT NULL,
  shipment_id uuid NOT NULL REFERENCES shipments,
  CONSTRAINT a_line_ships_once PRIMARY KEY (order_id, line),
  FOREIGN KEY (order_id, line) REFERENCES order_items
);

-- Letters -------------------------------------------------------------------

CREATE TABLE letters (
  id         uuid PRIMARY KEY,
  order_id   text NOT NULL,
  kind       text NOT NULL,
  about      text NOT NULL DEFAULT '', -- the payment, shipment or resend it is about
  address    text NOT NULL,
  facts      jsonb NOT NULL,           -- what the template may use, as it was when posted
  state      text NOT NULL,
  attempts   integer NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL,
  rung_at    timestamptz NOT NULL,
  message_id text NOT NULL,            -- stable over every attempt
  subject    text NOT NULL DEFAULT '', -- subject, text and html: the rendered copy
  text       text NOT NULL DEFAULT '',
  html       text NOT NULL DEFAULT '',
  last_error text NOT NULL DEFAULT '',
  posted_at  timestamptz NOT NULL,
  started_at timestamptz,              -- of the attempt under way
  sent_at    timestamptz,
  CONSTRAINT a_customer_is_told_once UNIQUE (order_id, kind, about),
  CONSTRAINT letter_state_is_known CHECK (state IN ('queued','sending','sent','failed','unknown','dropped')),
  CONSTRAINT a_sent_letter_has_its_time CHECK ((state = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX letters_waiting ON letters (not_before) WHERE state IN ('queued','sending','unknown');
