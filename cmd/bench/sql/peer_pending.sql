-- The same orders for the peer and for naive Go, in tables that are otherwise empty.
TRUNCATE events, products, orders, order_items, payments, stock_movements, outbox;
INSERT INTO products (sku, on_hand)
  SELECT '{set}-' || i % {skus}, 10 * count(*) FROM generate_series(0, {n} - 1) i GROUP BY 1;
INSERT INTO orders (id, customer_email)
  SELECT '{set}-' || lpad(i::text, 7, '0'), 'customer' || i || '@customers.example' FROM generate_series(0, {n} - 1) i;
INSERT INTO order_items (order_id, sku, quantity)
  SELECT '{set}-' || lpad(i::text, 7, '0'), '{set}-' || i % {skus}, 2 FROM generate_series(0, {n} - 1) i;
ANALYZE products, orders, order_items;
