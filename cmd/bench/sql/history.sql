-- Orders {from} to {to} - 1 that were paid long ago, as quayside leaves them
-- behind: opened, paid by one event, put up for shipment, both letters sent.
-- What refers to what is right by construction (`quayside check` looks), so
-- foreign keys are not asked row by row.
SET LOCAL session_replication_role = replica;
SET LOCAL synchronous_commit = off;

CREATE TEMP TABLE h ON COMMIT DROP AS
  SELECT i, 'h-' || lpad(i::text, 7, '0') AS o, 'pay_h-' || lpad(i::text, 7, '0') AS pay, 'evt_h-' || lpad(i::text, 7, '0') AS key,
    'h{from}-' || i % {skus} AS sku, at, upper(encode(sha256(('evt_h-' || lpad(i::text, 7, '0'))::bytea), 'hex')) AS tx,
    ('customer' || i || '@customers.example') AS email,
    (substr(ms, 1, 8) || '-' || substr(ms, 9, 4) || '-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid AS id
  FROM (SELECT i, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS ms
    FROM (SELECT i, date_trunc('second', now()) - interval '400 days' + i * interval '6 seconds' AS at FROM generate_series({from}, {to} - 1) i) t) t;

INSERT INTO products (sku, name, on_hand, reserved, created_at, updated_at)
  SELECT sku, 'Bench', 8 * count(*), 0, min(at), max(at) FROM h GROUP BY 1;
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, cause, effect_key, at)
  SELECT gen_random_uuid(), sku, 'initial', 10 * count(*), 0, 'admin:bench', 'initial/' || sku, min(at) FROM h GROUP BY sku;
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, order_id, cause, effect_key, at)
  SELECT overlay(id::text PLACING '1' FROM 20)::uuid, sku, 'reserve', 0, 2, o, 'admin:bench', 'order/' || o || '/1/reserve/' || sku, at FROM h ORDER BY i;
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, order_id, cause, effect_key, at)
  SELECT overlay(id::text PLACING '2' FROM 20)::uuid, sku, 'commit', -2, -2, o, 'event:' || key, 'order/' || o || '/1/commit/' || sku, at FROM h ORDER BY i;

INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, got, payment_id, tx_hash, pay_address, destination_tag,
    customer_email, customer_name, status_token, stock, reservation, timeline_length, deadline, created_at, updated_at, paid_at)
  SELECT o, 'paid', 'paid', 'queued', 'XRP', 10, 10, pay, tx, 'rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH', i,
    email, 'Ada Lovelace', md5(o), 'committed', 1, 2, at + interval '30 minutes', at, at, at FROM h ORDER BY i;
INSERT INTO order_items (order_id, line, sku, name, quantity, unit_price) SELECT o, 1, sku, 'Bench', 2, 5 FROM h ORDER BY i;
INSERT INTO timeline (order_id, seq, at, kind, cause, was, became, note, inbox_id)
  SELECT o, s, at, CASE s WHEN 1 THEN 'opened' ELSE 'payment.completed' END, CASE s WHEN 1 THEN 'admin:bench' ELSE 'event:' || key END,
    CASE s WHEN 2 THEN 'pending' END, CASE s WHEN 1 THEN 'pending' ELSE 'paid' END,
    CASE s WHEN 1 THEN 'order over 10.00 XRP opened, stock reserved' ELSE '10.00 XRP arrived' END, CASE s WHEN 2 THEN id END
  FROM h, generate_series(1, 2) s ORDER BY i, s;
INSERT INTO payments (id, order_id, completed_seen, amount, currency, tx_hash, pay_address, destination_tag, counted, first_seen_at, completed_at)
  SELECT pay, o, {created}, 10, 'XRP', tx, 'rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH', i, 'matched', at, at FROM h ORDER BY i;

-- The body is byte for byte that of load.go, so that a delivery of it is a duplicate.
INSERT INTO inbox (id, key, event_id, type, payment_id, order_ref, body, digest, meaning, secret_label, amount, currency, tx_hash, received_at, last_seen_at, outcome, settled_at)
  SELECT id, key, key, 'payment.completed', pay, o, body, sha256(body), sha256(meaning::bytea), '{label}', 10, 'XRP', tx, at, at, 'applied', at
  FROM (SELECT *, format('{"id":"%s","type":"payment.completed","created":%s,"data":{"id":"%s","amount":10.00,"currency":"XRP","status":"completed","pay_address":"rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH","destination_tag":"%s","tx_hash":"%s","metadata":{"order_id":"%s"}}}',
      key, {created}, pay, i, tx, o)::bytea AS body,
    format('17:payment.completed,%s:%s,2:10,3:XRP,9:completed,34:rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH,%s:%s,64:%s,%s:%s,', length(pay), pay, length(i::text), i, tx, length(o), o) AS meaning
    FROM h) AS t ORDER BY i;

INSERT INTO letters (id, order_id, kind, about, address, facts, state, attempts, not_before, rung_at, message_id, subject, text, html, posted_at, started_at, sent_at)
  SELECT overlay(id::text PLACING s::text FROM 20)::uuid, o, CASE s WHEN 1 THEN 'order_received' ELSE 'payment_confirmed' END, CASE s WHEN 1 THEN '' ELSE pay END,
    email, '{}', 'sent', 1, at, at, 'bench-' || s || '-' || o, 'Your order ' || o, 'Thank you.', '<p>Thank you.', at, at, at
  FROM h, generate_series(1, 2) s ORDER BY i, s;
INSERT INTO shipment_requests (id, order_id, provider, state, attempts, not_before, rung_at, created_at, handed_at)
  SELECT id, o, 'manual', 'handed_over', 1, at, at, at, at FROM h ORDER BY i;
INSERT INTO shipment_request_lines (order_id, line, request_id) SELECT o, 1, id FROM h ORDER BY i;
