-- +goose Up
-- Corrections of the ledger of stock, and checkpoints that save adding it up
-- from the start. Old code beside this goes on as before: its movements get
-- their entry by themselves, and it writes no correction and no checkpoint.
-- Numbering the ledger rewrites it, while stock cannot move: about 10 s for
-- each million of movements.

-- In the order in which the movements of one product were written: each is
-- written under the product's row lock. The ids are made by many clocks.
ALTER TABLE stock_movements
  ADD COLUMN entry bigint GENERATED ALWAYS AS IDENTITY,
  DROP CONSTRAINT deltas_fit_their_kind,
  ADD CONSTRAINT deltas_fit_their_kind CHECK (CASE kind
    WHEN 'initial' THEN on_hand_delta >= 0 AND reserved_delta = 0 AND order_id IS NULL
    WHEN 'adjust'  THEN on_hand_delta <> 0 AND reserved_delta = 0 AND order_id IS NULL
    WHEN 'correct' THEN (on_hand_delta <> 0 OR reserved_delta <> 0) AND order_id IS NULL
    WHEN 'reserve' THEN on_hand_delta = 0 AND reserved_delta > 0 AND order_id IS NOT NULL
    WHEN 'release' THEN on_hand_delta = 0 AND reserved_delta < 0 AND order_id IS NOT NULL
    WHEN 'commit'  THEN on_hand_delta < 0 AND reserved_delta = on_hand_delta AND order_id IS NOT NULL
    WHEN 'return'  THEN on_hand_delta > 0 AND reserved_delta = 0 AND order_id IS NOT NULL
    ELSE false END);
CREATE UNIQUE INDEX stock_movements_by_entry ON stock_movements (sku, entry);

-- What the movements of a product up to an entry add up to.
CREATE TABLE stock_checkpoints (
  sku      text NOT NULL REFERENCES products,
  through  bigint NOT NULL,
  on_hand  bigint NOT NULL,
  reserved bigint NOT NULL,
  at       timestamptz NOT NULL,
  CONSTRAINT a_stretch_of_the_ledger_is_added_up_once PRIMARY KEY (sku, through)
);
CREATE TRIGGER the_checkpoints_are_append_only BEFORE UPDATE OR DELETE ON stock_checkpoints
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER the_checkpoints_are_never_emptied BEFORE TRUNCATE ON stock_checkpoints
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Products that are not sold any more, and when one runs low. Old code beside
-- this shows neither, and still takes orders for an archived product.
ALTER TABLE products
  ADD COLUMN low_stock_threshold bigint NOT NULL DEFAULT 0, -- low when no more than this are available; 0: never
  ADD COLUMN archived_at timestamptz,                       -- since when it cannot be ordered
  ADD CONSTRAINT a_threshold_is_a_number_of_units CHECK (low_stock_threshold BETWEEN 0 AND 1000000000000);
