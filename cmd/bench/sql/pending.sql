-- {n} orders that wait for their money, of {skus} products, two units each, as
-- Book.Open leaves them behind, with the first letter sent. Numbers from 0.
INSERT INTO products (sku, name, on_hand, reserved, created_at, updated_at)
  SELECT '{set}-' || i % {skus}, 'Bench', 10 * count(*), 2 * count(*), now(), now() FROM generate_series(0, {n} - 1) i GROUP BY 1;
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, cause, effect_key, at)
  SELECT gen_random_uuid(), sku, 'initial', on_hand, 0, 'admin:bench', 'initial/' || sku, now() FROM products WHERE sku LIKE '{set}-%';
INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, customer_email, customer_name,
    status_token, stock, reservation, timeline_length, deadline, created_at, updated_at)
  SELECT '{set}-' || lpad(i::text, 7, '0'), 'pending', 'unpaid', 'none', 'XRP', 10, 'customer' || i || '@customers.example', 'Ada Lovelace',
    '{set}-' || md5(i::text), 'reserved', 1, 1, now() + interval '1 day', now(), now() FROM generate_series(0, {n} - 1) i;
INSERT INTO order_items (order_id, line, sku, name, quantity, unit_price)
  SELECT '{set}-' || lpad(i::text, 7, '0'), 1, '{set}-' || i % {skus}, 'Bench', 2, 5 FROM generate_series(0, {n} - 1) i;
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, order_id, cause, effect_key, at)
  SELECT gen_random_uuid(), '{set}-' || i % {skus}, 'reserve', 0, 2, o, 'admin:bench', 'order/' || o || '/1/reserve/{set}-' || i % {skus}, now()
  FROM generate_series(0, {n} - 1) i, LATERAL (SELECT '{set}-' || lpad(i::text, 7, '0') AS o) AS x;
INSERT INTO timeline (order_id, seq, at, kind, cause, became, note)
  SELECT '{set}-' || lpad(i::text, 7, '0'), 1, now(), 'opened', 'admin:bench', 'pending', 'order over 10.00 XRP opened, stock reserved'
  FROM generate_series(0, {n} - 1) i;
INSERT INTO letters (id, order_id, kind, address, facts, state, attempts, not_before, rung_at, message_id, subject, text, html, posted_at, started_at, sent_at)
  SELECT gen_random_uuid(), '{set}-' || lpad(i::text, 7, '0'), 'order_received', 'customer' || i || '@customers.example', '{}', 'sent', 1,
    now(), now(), 'bench-{set}-' || i, 'Your order', 'Thank you.', '<p>Thank you.', now(), now(), now() FROM generate_series(0, {n} - 1) i;
ANALYZE; -- as autovacuum does within a minute of a shop beginning to sell
