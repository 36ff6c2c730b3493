-- What PayQI's guide leads to (docs/payqi-webhook-guide.txt, "Complete Handler
-- Example", "Idempotency"): the tables of the peer, and of naive Go.
CREATE TABLE events (
  id           text PRIMARY KEY,
  type         text NOT NULL,
  body         jsonb NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT now(),
  processed_at timestamptz
);
CREATE TABLE products (
  sku     text PRIMARY KEY,
  on_hand bigint NOT NULL CHECK (on_hand >= 0)
) WITH (fillfactor = 50);
CREATE TABLE orders (
  id             text PRIMARY KEY,
  status         text NOT NULL DEFAULT 'pending',
  customer_email text NOT NULL,
  payment_id     text,
  tx_hash        text,
  updated_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE TABLE order_items (
  order_id text NOT NULL REFERENCES orders,
  sku      text NOT NULL REFERENCES products,
  quantity bigint NOT NULL,
  PRIMARY KEY (order_id, sku)
);
CREATE TABLE payments (
  id       text PRIMARY KEY,
  order_id text NOT NULL REFERENCES orders,
  amount   numeric NOT NULL,
  currency text NOT NULL,
  tx_hash  text UNIQUE,
  paid_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE stock_movements (
  id       bigserial PRIMARY KEY,
  sku      text NOT NULL REFERENCES products,
  order_id text NOT NULL REFERENCES orders,
  delta    bigint NOT NULL,
  at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (order_id, sku)
);
CREATE TABLE outbox (
  id       bigserial PRIMARY KEY,
  order_id text NOT NULL REFERENCES orders,
  kind     text NOT NULL,
  address  text NOT NULL,
  at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (order_id, kind)
);
