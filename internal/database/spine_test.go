package database_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"quayside/internal/database/dbtest"
)

// peace is one valid row of everything: o1 waits for money, o2 is paid, o3 is
// on its way to the customer.
const peace = `
INSERT INTO products (sku, name, on_hand, reserved, created_at, updated_at) VALUES ('mug', 'Mug', 10, 2, now(), now());
INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, cause, effect_key, at)
  VALUES (gen_random_uuid(), 'mug', 'initial', 10, 0, 'admin:x', 'initial/mug', now());
INSERT INTO stock_checkpoints VALUES ('mug', 1, 10, 0, now());
INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, customer_email, status_token, stock, reservation,
    timeline_length, deadline, created_at, updated_at)
  VALUES ('o1', 'pending', 'unpaid', 'none', 'XRP', 10, 'a@shop.example', 't1', 'reserved', 1, 1, now(), now(), now());
INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, got, payment_id, paid_at, customer_email, status_token, stock,
    reservation, timeline_length, deadline, created_at, updated_at)
  VALUES ('o2', 'paid', 'paid', 'queued', 'XRP', 10, 10, 'p2', now(), 'a@shop.example', 't2', 'committed', 1, 1, now(), now(), now());
INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, got, payment_id, paid_at, fulfilled_at, customer_email, status_token,
    stock, reservation, timeline_length, deadline, created_at, updated_at)
  VALUES ('o3', 'fulfilled', 'paid', 'fulfilled', 'XRP', 10, 10, 'p3', now(), now(), 'a@shop.example', 't3', 'committed', 1, 1, now(), now(), now());
INSERT INTO order_items VALUES ('o1', 1, 'mug', 'Mug', 2, 5), ('o2', 1, 'mug', 'Mug', 2, 5), ('o3', 1, 'mug', 'Mug', 2, 5);
INSERT INTO timeline (order_id, seq, at, kind, cause, became, note) VALUES ('o1', 1, now(), 'order.created', 'admin:x', 'pending', '');
INSERT INTO payments (id, order_id, first_seen_at) VALUES ('p1', 'o1', now());
INSERT INTO payments (id, order_id, completed_seen, amount, currency, tx_hash, counted, first_seen_at, completed_at)
  VALUES ('p2', 'o2', 1, 10, 'XRP', 'ABCDEF', 'matched', now(), now()), ('p3', 'o3', 1, 10, 'XRP', 'FEDCBA', 'matched', now(), now());
INSERT INTO inbox (id, key, body, digest, secret_label, received_at, last_seen_at)
  VALUES ('00000000-0000-7000-8000-000000000001', 'evt_1', '{}', 'd', 's', now(), now());
INSERT INTO inbox_open (inbox_id, state, not_before, rung_at) VALUES ('00000000-0000-7000-8000-000000000001', 'received', now(), now());
INSERT INTO replays VALUES (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', now(), 'admin:x', '', 'dead');
INSERT INTO cases (id, code, key, severity, blocks, state, summary, facts, opened_at)
  VALUES (gen_random_uuid(), 'UNDERPAID', 'UNDERPAID/o1', 'warning', true, 'open', 's', '{}', now());
INSERT INTO shipment_requests (id, order_id, provider, state, not_before, rung_at, created_at)
  VALUES ('00000000-0000-7000-8000-000000000002', 'o2', 'manual', 'queued', now(), now(), now());
INSERT INTO shipment_request_lines VALUES ('o2', 1, '00000000-0000-7000-8000-000000000002');
INSERT INTO shipments (id, order_id, shipped_at, shipped_by) VALUES ('00000000-0000-7000-8000-000000000003', 'o3', now(), 'admin:x');
INSERT INTO shipment_lines VALUES ('o3', 1, '00000000-0000-7000-8000-000000000003');
INSERT INTO returns VALUES ('00000000-0000-7000-8000-000000000004', 'o3', true, 1, 'x', now(), 'admin:x');
INSERT INTO return_lines VALUES ('o3', 1, '00000000-0000-7000-8000-000000000004');
INSERT INTO checkouts (order_id, number, idempotency_key, amount, currency, state, leased_until, asked_by, asked_at)
  VALUES ('o1', 1, '00000000-0000-4000-8000-000000000004', 10, 'XRP', 'asking', now(), 'admin:x', now());
INSERT INTO checkouts (order_id, number, idempotency_key, amount, currency, state, leased_until, payment_id, asked_by, asked_at)
  VALUES ('o2', 1, '00000000-0000-4000-8000-000000000005', 10, 'XRP', 'linked', now(), 'p2', 'admin:x', now());
INSERT INTO api_keys (id, name, prefix, digest, scopes, created_at, created_by, expires_at)
  VALUES ('00000000-0000-7000-8000-000000000009', 'one', 'qs_live_1234', repeat('a', 64), '["orders:read"]', now(), 'shell', now() + interval '1 day');
INSERT INTO idempotency_keys VALUES ('bootstrap', 'POST /', 'k', 'd', 'null', now());
INSERT INTO imports (id, kind, format, dry_run, again, digest, layout, lines, applied, failed, state, not_before, rung_at, created_at, created_by)
  VALUES ('00000000-0000-7000-8000-00000000000a', 'stock', 'csv', false, false, repeat('a', 64), '{}', 3, 1, 1, 'waiting', now(), now(), now(), 'shell');
INSERT INTO import_batches VALUES ('00000000-0000-7000-8000-00000000000a', 1, 4, 1, 'mug,1,x');
INSERT INTO import_errors VALUES ('00000000-0000-7000-8000-00000000000a', 3, 'product_not_found', 'm', '[]');
INSERT INTO audit_log (at, actor, key_id, operation, method, path, subject, request_id, salt, change_digest)
  SELECT now(), 'admin:x', 'bootstrap', 'create-product', 'POST', '/api/v1/products', 'product/mug', '', '\x00', sha256('a') FROM generate_series(1, 2);
INSERT INTO audit_seals VALUES (1, 1, sha256('b'), now());
INSERT INTO audit_unsealed VALUES (2);
INSERT INTO inquiries (payment_id, state, since, ask_at, ask_until) VALUES ('p1', 'open', now(), now(), now());
INSERT INTO letters (id, order_id, kind, address, facts, state, not_before, rung_at, message_id, posted_at)
  VALUES (gen_random_uuid(), 'o1', 'order_received', 'a@shop.example', '{}', 'queued', now(), now(), 'm1', now());`

// violation breaks one rule. A rule is the name of a constraint, of a unique
// index or of a trigger, or a SQLSTATE where a type itself refuses.
type violation struct{ rule, statement string }

// Shorthands for rows whose other columns are right.
func movement(kind string, onHand, reserved int, order string) string {
	return fmt.Sprintf(`INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, order_id, cause, effect_key, at)
		VALUES (gen_random_uuid(), 'mug', '%s', %d, %d, %s, 'x', 'new/key', now())`, kind, onHand, reserved, order)
}

func payment(id, rest string) string {
	return fmt.Sprintf(`INSERT INTO payments (id, order_id, first_seen_at, completed_seen, amount, currency, completed_at, counted, tx_hash)
		VALUES (%s, 'o1', now(), %s)`, id, rest)
}

var stockViolations = []violation{
	{"a_sku_is_a_plain_word", `UPDATE products SET sku = 'a b'`},
	{"a_sku_is_a_plain_word", `INSERT INTO products VALUES ('', 'x', 1, 0, now(), now())`},
	{"a_sku_is_a_plain_word", `INSERT INTO products VALUES (E'mug\n', 'x', 1, 0, now(), now())`},
	{"no_more_is_reserved_than_is_there", `UPDATE products SET on_hand = -1`},
	{"no_more_is_reserved_than_is_there", `UPDATE products SET on_hand = 1`},
	{"no_more_is_reserved_than_is_there", `UPDATE products SET reserved = 11`},
	{"no_more_is_reserved_than_is_there", `UPDATE products SET reserved = -1`},
	{"stock_is_never_negative", `UPDATE products SET on_hand = 1000000000001`},
	{"a_threshold_is_a_number_of_units", `UPDATE products SET low_stock_threshold = -1`},
	{"22003", `UPDATE products SET on_hand = on_hand + 9223372036854775807`},
	{"an_effect_on_stock_happens_once", `INSERT INTO stock_movements SELECT gen_random_uuid(), sku, kind, on_hand_delta, reserved_delta, order_id, cause, reason, effect_key, at FROM stock_movements`},
	{"deltas_fit_their_kind", movement("theft", -1, 0, "NULL")},
	{"deltas_fit_their_kind", movement("initial", -1, 0, "NULL")},
	{"deltas_fit_their_kind", movement("initial", 1, 1, "NULL")},
	{"deltas_fit_their_kind", movement("adjust", 0, 0, "NULL")},
	{"deltas_fit_their_kind", movement("adjust", 1, 0, "'o1'")},
	{"deltas_fit_their_kind", movement("reserve", 0, -1, "'o1'")},
	{"deltas_fit_their_kind", movement("reserve", 0, 1, "NULL")},
	{"deltas_fit_their_kind", movement("reserve", -1, 1, "'o1'")},
	{"deltas_fit_their_kind", movement("release", 0, 1, "'o1'")},
	{"deltas_fit_their_kind", movement("commit", -1, -2, "'o1'")},
	{"deltas_fit_their_kind", movement("commit", 1, 1, "'o1'")},
	{"deltas_fit_their_kind", movement("return", -1, 0, "'o1'")},
	{"deltas_fit_their_kind", movement("correct", 0, 0, "NULL")},
	{"deltas_fit_their_kind", movement("correct", 1, -1, "'o1'")},
	{"stock_movements_by_entry", `INSERT INTO stock_movements (id, sku, kind, on_hand_delta, reserved_delta, cause, effect_key, at, entry)
		OVERRIDING SYSTEM VALUE SELECT gen_random_uuid(), sku, kind, on_hand_delta, reserved_delta, cause, 'new/key', at, entry FROM stock_movements`},
	{"a_stretch_of_the_ledger_is_added_up_once", `INSERT INTO stock_checkpoints VALUES ('mug', 1, 11, 0, now())`},
	{"the_checkpoints_are_append_only", `UPDATE stock_checkpoints SET on_hand = 11`},
	{"the_checkpoints_are_append_only", `DELETE FROM stock_checkpoints`},
	{"the_checkpoints_are_never_emptied", `TRUNCATE stock_checkpoints`},
	{"the_ledger_is_append_only", `UPDATE stock_movements SET reason = 'x'`},
	{"the_ledger_is_append_only", `DELETE FROM stock_movements`},
	{"the_ledger_is_never_emptied", `TRUNCATE stock_movements`},
	{"the_ledger_is_never_emptied", `TRUNCATE products CASCADE`},
}

var orderViolations = []violation{
	{"an_order_id_is_a_plain_word", strings.ReplaceAll(orderLike("o1"), "'NEW'", "''")},
	{"an_order_id_is_a_plain_word", strings.ReplaceAll(orderLike("o1"), "'NEW'", "'o/1'")},
	{"an_order_id_is_a_plain_word", strings.ReplaceAll(orderLike("o1"), "'NEW'", "repeat('x', 65)")},
	{"orders_pkey", strings.ReplaceAll(orderLike("o1"), "'NEW'", "'o2'")},
	{"a_status_link_belongs_to_one_order", `UPDATE orders SET status_token = 't2' WHERE id = 'o1'`},
	{"status_is_known", `UPDATE orders SET status = 'lost', stock = 'none' WHERE id = 'o1'`},
	{"payment_status_is_known", `UPDATE orders SET payment_status = 'maybe' WHERE id = 'o1'`},
	{"fulfillment_status_is_known", `UPDATE orders SET fulfillment_status = 'maybe' WHERE id = 'o1'`},
	{"a_total_is_positive", `UPDATE orders SET total = 0 WHERE id = 'o1'`},
	{"an_amount_is_a_finite_number_from_zero", `UPDATE orders SET total = -1 WHERE id = 'o1'`},
	{"an_amount_is_a_finite_number_from_zero", `UPDATE orders SET total = 'NaN' WHERE id = 'o1'`},
	{"22003", `UPDATE orders SET total = 'Infinity' WHERE id = 'o1'`},
	{"22003", `UPDATE orders SET total = 1e20 WHERE id = 'o1'`},
	{"a_paid_order_has_a_payment", `UPDATE orders SET status = 'paid', stock = 'committed' WHERE id = 'o1'`},
	{"a_paid_order_has_a_payment", `UPDATE orders SET payment_id = NULL WHERE id = 'o2'`},
	{"a_paid_order_has_a_payment", `UPDATE orders SET paid_at = NULL WHERE id = 'o2'`},
	{"a_paid_order_has_a_payment", `UPDATE orders SET got = 0 WHERE id = 'o2'`},
	{"the_payment_of_an_order_exists", `UPDATE orders SET payment_id = 'nobody' WHERE id = 'o2'`},
	{"a_fulfilled_order_has_its_time", `UPDATE orders SET fulfilled_at = now() WHERE id = 'o2'`},
	{"a_fulfilled_order_has_its_time", `UPDATE orders SET status = 'fulfilled' WHERE id = 'o2'`},
	{"a_cancelled_order_has_its_time", `UPDATE orders SET status = 'cancelled', stock = 'none' WHERE id = 'o1'`},
	{"no_more_is_due_back_than_was_got", `UPDATE orders SET refund_due = 10.000000000000000001 WHERE id = 'o2'`},
	{"stock_follows_status", `UPDATE orders SET stock = 'none' WHERE id = 'o1'`},
	{"stock_follows_status", `UPDATE orders SET status = 'payment_failed', stock = 'none' WHERE id = 'o1'`},
	{"stock_follows_status", `UPDATE orders SET status = 'expired' WHERE id = 'o1'`},
	{"stock_follows_status", `UPDATE orders SET status = 'cancelled', cancelled_at = now() WHERE id = 'o2'`},
	{"stock_follows_status", `UPDATE orders SET stock = 'reserved' WHERE id = 'o2'`},
	{"stock_follows_status", `UPDATE orders SET stock = 'none' WHERE id = 'o3'`},
	{"a_destination_tag_is_a_uint32", `UPDATE orders SET destination_tag = -1 WHERE id = 'o1'`},
	{"a_destination_tag_is_a_uint32", `UPDATE orders SET destination_tag = 4294967296 WHERE id = 'o1'`},
	{"a_paid_order_is_never_unpaid", `UPDATE orders SET status = 'pending', stock = 'reserved' WHERE id = 'o2'`},
	{"a_paid_order_is_never_unpaid", `UPDATE orders SET status = 'payment_failed', stock = 'reserved' WHERE id = 'o2'`},
	{"a_paid_order_is_never_unpaid", `UPDATE orders SET status = 'expired', stock = 'none' WHERE id = 'o2'`},
	{"a_paid_order_is_never_unpaid", `UPDATE orders SET status = 'paid', fulfilled_at = NULL WHERE id = 'o3'`},
	{"a_paid_order_is_never_unpaid", `UPDATE orders SET status = 'cancelled', cancelled_at = now(), fulfilled_at = NULL, stock = 'none' WHERE id = 'o3'`},
	{"a_quantity_is_one_to_a_million", `UPDATE order_items SET quantity = 0`},
	{"a_quantity_is_one_to_a_million", `UPDATE order_items SET quantity = 1000001`},
	{"order_items_order_id_fkey", `DELETE FROM orders WHERE id = 'o1'`},
	{"a_step_of_an_order_is_written_once", `INSERT INTO timeline SELECT * FROM timeline`},
	{"the_timeline_is_append_only", `UPDATE timeline SET note = 'x'`},
	{"the_timeline_is_append_only", `DELETE FROM timeline`},
	{"the_timeline_is_never_emptied", `TRUNCATE timeline`},
	{"the_timeline_is_never_emptied", `TRUNCATE orders CASCADE`},
}

// orderLike copies an order under the id 'NEW'.
func orderLike(id string) string {
	return `INSERT INTO orders (id, status, payment_status, fulfillment_status, currency, total, customer_email, status_token, stock, reservation,
		timeline_length, deadline, created_at, updated_at)
		SELECT 'NEW', status, payment_status, fulfillment_status, currency, total, customer_email, 'other', stock, reservation,
		timeline_length, deadline, created_at, updated_at FROM orders WHERE id = '` + id + `'`
}

var paymentViolations = []violation{
	{"counted_is_known", `UPDATE payments SET counted = 'twice' WHERE id = 'p2'`},
	{"completed_money_is_known", payment(`'p9'`, `1, NULL, 'XRP', now(), 'matched', NULL`)},
	{"completed_money_is_known", payment(`'p9'`, `1, 10, NULL, now(), 'matched', NULL`)},
	{"completed_money_is_known", payment(`'p9'`, `1, 10, 'XRP', NULL, 'matched', NULL`)},
	{"completed_money_is_known", payment(`'p9'`, `1, 10, 'XRP', now(), 'no', NULL`)},
	{"completed_money_is_known", payment(`'p9'`, `NULL, 10, 'XRP', now(), 'matched', NULL`)},
	{"completed_money_is_positive", payment(`'p9'`, `1, 0, 'XRP', now(), 'matched', NULL`)},
	{"an_amount_is_a_finite_number_from_zero", payment(`'p9'`, `1, 'NaN', 'XRP', now(), 'matched', NULL`)},
	{"payment_ids_are_bounded", payment(`''`, `NULL, NULL, NULL, NULL, 'no', NULL`)},
	{"payment_ids_are_bounded", payment(`repeat('x', 256)`, `NULL, NULL, NULL, NULL, 'no', NULL`)},
	{"a_transaction_counts_once", payment(`'p9'`, `1, 10, 'XRP', now(), 'matched', 'ABCDEF'`)},
	{"a_transaction_counts_once", payment(`'p9'`, `1, 10, 'XRP', now(), 'matched', 'abcDEF'`)},
	{"payments_order_id_fkey", `UPDATE payments SET order_id = 'nobody'`},
}

var otherViolations = []violation{
	{"an_event_is_stored_once", `INSERT INTO inbox (id, key, body, digest, secret_label, received_at, last_seen_at) VALUES (gen_random_uuid(), 'evt_1', '', '', '', now(), now())`},
	{"outcome_is_known", `UPDATE inbox SET outcome = 'lost', settled_at = now()`},
	{"a_settled_event_has_its_time", `UPDATE inbox SET outcome = 'applied'`},
	{"a_settled_event_has_its_time", `UPDATE inbox SET settled_at = now()`},
	{"state_is_known", `UPDATE inbox_open SET state = 'lost'`},
	{"attempts_are_counted", `UPDATE inbox_open SET attempts = -1`},
	{"attempts_are_counted", `UPDATE inbox_open SET attempts = 1001`},
	{"what_is_applied_is_not_replayed", replay("applied", "why")},
	{"releasing_a_refused_event_has_a_reason", replay("refused", "")},
	{"replays_inbox_id_fkey", `INSERT INTO replays VALUES (gen_random_uuid(), gen_random_uuid(), now(), 'admin:x', '', 'dead')`},
	{"inbox_open_replay_id_fkey", `UPDATE inbox_open SET replay_id = gen_random_uuid()`},
	{"replays_are_append_only", `UPDATE replays SET note = 'x'`},
	{"replays_are_append_only", `DELETE FROM replays`},
	{"replays_are_never_emptied", `TRUNCATE replays CASCADE`},
	{"one_case_per_matter", `INSERT INTO cases SELECT gen_random_uuid(), code, key, severity, blocks, state, order_id, payment_id, inbox_id, summary, facts, opened_at FROM cases`},
	{"severity_is_known", `UPDATE cases SET severity = 'odd'`},
	{"case_state_is_known", `UPDATE cases SET state = 'odd'`},
	{"a_closed_case_says_by_whom", `UPDATE cases SET state = 'closed'`},
	{"a_closed_case_says_by_whom", `UPDATE cases SET state = 'closed', closed_at = now()`},
	{"a_closed_case_says_by_whom", `UPDATE cases SET closed_at = now(), closed_by = 'x'`},
	{"request_state_is_known", `UPDATE shipment_requests SET state = 'odd'`},
	{"a_line_is_requested_once", `INSERT INTO shipment_request_lines VALUES ('o2', 1, '00000000-0000-7000-8000-000000000002')`},
	{"shipment_request_lines_order_id_line_fkey", `INSERT INTO shipment_request_lines VALUES ('o2', 2, '00000000-0000-7000-8000-000000000002')`},
	{"a_line_ships_once", `INSERT INTO shipment_lines VALUES ('o3', 1, '00000000-0000-7000-8000-000000000003')`},
	{"shipment_lines_order_id_line_fkey", `INSERT INTO shipment_lines VALUES ('o3', 2, '00000000-0000-7000-8000-000000000003')`},
	{"a_delivery_says_who_reported_it", `UPDATE shipments SET delivered_at = now()`},
	{"a_return_has_a_reason", `UPDATE returns SET reason = ''`},
	{"an_amount_is_a_finite_number_from_zero", `UPDATE returns SET refund = -1`},
	{"a_line_comes_back_once", `INSERT INTO return_lines VALUES ('o3', 1, '00000000-0000-7000-8000-000000000004')`},
	{"only_what_was_shipped_comes_back", `INSERT INTO return_lines VALUES ('o2', 1, '00000000-0000-7000-8000-000000000004')`},
	{"no_more_is_taken_off_than_was_ordered", `UPDATE orders SET returned = total + 1`},
	{"a_customer_is_told_once", `INSERT INTO letters SELECT gen_random_uuid(), order_id, kind, about, address, facts, state, attempts, not_before, rung_at, message_id, subject, text, html, last_error, posted_at FROM letters`},
	{"a_resend_says_who_asked_for_it", `UPDATE letters SET resend_of = id`},
	{"letter_state_is_known", `UPDATE letters SET state = 'odd'`},
	{"a_sent_letter_has_its_time", `UPDATE letters SET state = 'sent'`},
	{"a_sent_letter_has_its_time", `UPDATE letters SET sent_at = now()`},
}

// keyLike is a second key; change is its name, digest and scopes.
func keyLike(values string) string {
	return `INSERT INTO api_keys (id, name, digest, scopes, prefix, created_at, created_by, expires_at)
		SELECT gen_random_uuid(), ` + values + `, 'qs_live_1234', now(), 'shell', now() + interval '1 day'`
}

var keyViolations = []violation{
	{"a_name_means_one_key", keyLike(`'one', repeat('b', 64), '["x"]'::jsonb`)},
	{"a_key_is_one_of_its_kind", keyLike(`'two', repeat('a', 64), '["x"]'::jsonb`)},
	{"a_digest_is_a_sha256", keyLike(`'two', 'qs_live_', '["x"]'::jsonb`)},
	{"a_key_may_do_something", keyLike(`'two', repeat('b', 64), '[]'::jsonb`)},
	{"a_key_name_is_a_plain_word", keyLike(`'a b', repeat('b', 64), '["x"]'::jsonb`)},
	{"a_key_expires", `UPDATE api_keys SET expires_at = created_at`},
	{"a_key_has_one_answer", `INSERT INTO idempotency_keys VALUES ('bootstrap', 'POST /', 'k', 'other', 'null', now())`},
	{"a_revoked_key_says_by_whom", `UPDATE api_keys SET revoked_at = now()`},
}

var auditViolations = []violation{
	{"an_entry_says_who_did_what", `INSERT INTO audit_log (at, actor, key_id, operation, method, path, subject, request_id, salt, change_digest)
		SELECT at, '', key_id, operation, method, path, subject, request_id, salt, change_digest FROM audit_log`},
	{"a_digest_of_a_change_is_a_sha256", `INSERT INTO audit_log (at, actor, key_id, operation, method, path, subject, request_id, salt, change_digest)
		SELECT at, actor, key_id, operation, method, path, subject, request_id, salt, 'short' FROM audit_log`},
	{"an_erased_entry_has_nothing_left", `UPDATE audit_log SET erased_at = now(), before = NULL, after = NULL`},
	{"an_erased_entry_has_nothing_left", `UPDATE audit_log SET erased_at = now(), salt = NULL, after = '{}'`},
	{"the_audit_log_only_loses_content", `UPDATE audit_log SET after = '{}'`},
	{"the_audit_log_only_loses_content", `UPDATE audit_log SET salt = NULL`},
	{"the_audit_log_only_loses_content", `UPDATE audit_log SET erased_at = now(), salt = NULL, actor = 'admin:y'`},
	{"the_audit_log_is_append_only", `DELETE FROM audit_log`},
	{"the_audit_log_is_never_emptied", `TRUNCATE audit_log CASCADE`},
	{"an_entry_is_sealed_once", `INSERT INTO audit_seals VALUES (2, 1, sha256('c'), now())`},
	{"seals_are_counted_from_one", `INSERT INTO audit_seals VALUES (0, 2, sha256('c'), now())`},
	{"a_seal_is_a_sha256", `INSERT INTO audit_seals VALUES (2, 2, 'short', now())`},
	{"the_seals_are_append_only", `UPDATE audit_seals SET hash = sha256('c')`},
	{"the_seals_are_append_only", `DELETE FROM audit_seals`},
	{"the_seals_are_never_emptied", `TRUNCATE audit_seals`},
}

var refundViolations = []violation{
	{"a_refund_is_positive", refund(`'p2', 'XRP', 0, 'approved', NULL, NULL, ''`)},
	{"an_amount_is_a_finite_number_from_zero", refund(`'p2', 'XRP', -1, 'approved', NULL, NULL, ''`)},
	{"refund_state_is_known", refund(`'p2', 'XRP', 1, 'odd', NULL, NULL, ''`)},
	{"refunds_payment_id_fkey", refund(`'nobody', 'XRP', 1, 'approved', NULL, NULL, ''`)},
	{"a_sent_refund_says_where_and_how", refund(`'p2', 'XRP', 1, 'sent', NULL, 'ABCDEF01', ''`)},
	{"a_sent_refund_says_where_and_how", refund(`'p2', 'XRP', 1, 'sent', 'rSomewhere', NULL, ''`)},
	{"a_sent_refund_says_where_and_how", refund(`'p2', 'XRP', 1, 'approved', 'rSomewhere', 'ABCDEF01', ''`)},
	{"a_confirmed_refund_has_its_time", `UPDATE refunds SET state = 'confirmed' WHERE state = 'sent'`},
	{"a_withdrawn_refund_has_its_time", `UPDATE refunds SET state = 'withdrawn' WHERE state = 'approved'`},
	{"what_is_kept_has_a_reason", refund(`'p2', 'XRP', 1, 'waived', NULL, NULL, ''`)},
	{"a_refund_goes_to_a_uint32_tag", `UPDATE refunds SET destination_tag = 4294967296 WHERE state = 'approved'`},
	{"a_refund_keeps_its_money", `UPDATE refunds SET amount = amount + 1`},
	{"a_refund_keeps_its_money", `UPDATE refunds SET state = 'approved', tx_hash = NULL WHERE state = 'sent'`},
	{"a_refund_keeps_its_money", `UPDATE refunds SET state = 'approved' WHERE state = 'waived'`},
	{"a_refund_is_never_deleted", `DELETE FROM refunds`},
	{"the_refunds_are_never_emptied", `TRUNCATE refunds`},
	{"no_more_goes_back_than_came", `UPDATE payments SET refunded = 6, kept = 4.000001 WHERE id = 'p2'`},
	{"only_a_decided_payment_has_no_order", `UPDATE payments SET order_id = NULL WHERE id = 'p2'`},
	{"no_more_is_accepted_than_asked", `UPDATE orders SET accepted = total + 1 WHERE id = 'o1'`},
	{"no_more_is_taken_off_than_was_ordered", `UPDATE orders SET given_up = total + 1 WHERE id = 'o1'`},
}

var checkoutViolations = []violation{
	{"a_key_asks_for_one_payment", `UPDATE checkouts SET idempotency_key = '00000000-0000-4000-8000-000000000004'`},
	{"a_payment_comes_from_one_checkout", `UPDATE checkouts SET state = 'linked', payment_id = 'p2'`},
	{"checkout_state_is_known", `UPDATE checkouts SET state = 'maybe' WHERE order_id = 'o1'`},
	{"a_linked_checkout_has_its_payment", `UPDATE checkouts SET state = 'linked' WHERE order_id = 'o1'`},
	{"a_linked_checkout_has_its_payment", `UPDATE checkouts SET payment_id = 'p1' WHERE order_id = 'o1'`},
	{"what_is_asked_for_is_positive", `UPDATE checkouts SET amount = 0`},
	{"an_order_asks_for_one_payment_at_a_time", `INSERT INTO checkouts SELECT order_id, 2, gen_random_uuid(), amount, currency, state, leased_until, payment_id, checkout_url, asked_by, asked_at
		FROM checkouts WHERE order_id = 'o1'`},
	{"import_kind_is_known", `UPDATE imports SET kind = 'customers'`},
	{"import_format_is_known", `UPDATE imports SET format = 'xlsx'`},
	{"import_state_is_known", `UPDATE imports SET state = 'lost', ended_at = now()`},
	{"a_file_digest_is_a_sha256", `UPDATE imports SET digest = 'a'`},
	{"an_import_has_lines", `UPDATE imports SET lines = 0, applied = 0, failed = 0`},
	{"no_line_counts_twice", `UPDATE imports SET applied = 3`},
	{"no_line_counts_twice", `UPDATE imports SET failed = -1`},
	{"a_done_import_left_no_line_out", `UPDATE imports SET state = 'done', ended_at = now()`},
	{"an_ended_import_has_its_time", `UPDATE imports SET state = 'stopped'`},
	{"an_ended_import_has_its_time", `UPDATE imports SET ended_at = now()`},
	{"a_file_is_imported_once", `INSERT INTO imports (id, kind, format, dry_run, again, digest, layout, lines, state, not_before, rung_at, created_at, created_by)
		VALUES (gen_random_uuid(), 'stock', 'csv', false, false, repeat('a', 64), '{}', 3, 'waiting', now(), now(), now(), 'shell')`},
	{"a_batch_waits_once", `INSERT INTO import_batches VALUES ('00000000-0000-7000-8000-00000000000a', 1, 9, 1, 'pot,1,x')`},
	{"a_batch_has_lines", `UPDATE import_batches SET lines = 0`},
	{"a_batch_has_lines", `UPDATE import_batches SET line = 0`},
	{"a_line_fails_once", `INSERT INTO import_errors VALUES ('00000000-0000-7000-8000-00000000000a', 3, 'x', 'm', '[]')`},
	{"a_line_has_a_number", `UPDATE import_errors SET line = 0`},
	{"inquiry_state_is_known", `UPDATE inquiries SET state = 'maybe'`},
	{"money_that_was_answered_has_its_currency", `UPDATE inquiries SET amount = 10`},
}

// refund inserts a refund: payment, currency, amount, state, address, transaction, note.
func refund(values string) string {
	return `INSERT INTO refunds (id, payment_id, currency, amount, state, address, tx_hash, note, decided_by, decided_at, sent_at)
		SELECT gen_random_uuid(), v.*, 'admin:x', now(), now() FROM (VALUES (` + values + `)) v`
}

// replay notes that a person put the event of the peace to work again.
func replay(was, note string) string {
	return fmt.Sprintf(`INSERT INTO replays SELECT gen_random_uuid(), id, now(), 'admin:x', '%s', '%s' FROM inbox`, note, was)
}

// What must hold is refused by Postgres itself, by the rule that says so, and
// leaves everything as it was.
func TestSpineRefuses(t *testing.T) {
	db, _ := dbtest.New(t)
	exec(t, db, peace)
	for _, values := range []string{`'p2', 'XRP', 1, 'approved', NULL, NULL, ''`, `'p2', 'XRP', 1, 'sent', 'rSomewhere', 'ABCDEF02', ''`, `'p2', 'XRP', 1, 'waived', NULL, NULL, 'a tip'`} {
		exec(t, db, refund(values))
	}
	planted := map[string]bool{}
	for _, group := range [][]violation{stockViolations, orderViolations, paymentViolations, refundViolations, checkoutViolations, keyViolations, auditViolations, otherViolations} {
		for _, v := range group {
			planted[v.rule] = true
			_, err := db.Exec(t.Context(), v.statement)
			pg, ok := errors.AsType[*pgconn.PgError](err)
			appendOnly := ok && pg.Code == "23000" && strings.Contains(pg.Message, "append-only") && (strings.HasPrefix(v.rule, "the_") || strings.HasPrefix(v.rule, "replays_are_"))
			if !ok || pg.ConstraintName != v.rule && pg.Code != v.rule && !appendOnly {
				t.Errorf("%s: %v\n  %s", v.rule, err, v.statement)
			}
		}
	}
	named := db.Read(t.Context()).Raw(`
		SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c','u','p','x')
		UNION SELECT indexrelid::regclass::text FROM pg_index WHERE indisunique AND indrelid::regclass::text !~ '^(pg_|goose)' AND indrelid IN
			(SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
		UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1`)
	var names []string
	if err := named.Scan(&names).Error; err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !planted[name] && !strings.HasSuffix(name, "_pkey") {
			t.Errorf("%s: nothing shows that it refuses", name)
		}
	}
	if len(names) < 50 {
		t.Errorf("only %d rules found", len(names))
	}
}

// What the rules are not to stand in the way of.
func TestSpineAllows(t *testing.T) {
	db, _ := dbtest.New(t)
	exec(t, db, peace)
	for _, statement := range []string{
		payment(`'p8'`, `1, 10, 'XRP', now(), 'reused', 'abcdef'`), // the transaction of p2, noted, counting nothing
		payment(`'p9'`, `1, 0.000000000000000001, 'XRP', now(), 'unmatched', NULL`),
		`UPDATE orders SET status = 'expired', stock = 'none' WHERE id = 'o1'`,
		`UPDATE orders SET status = 'pending', stock = 'reserved', destination_tag = 4294967295 WHERE id = 'o1'`,
		`UPDATE orders SET status = 'fulfilled', fulfilled_at = now() WHERE id = 'o2'`,
		`UPDATE products SET on_hand = 2`,
		`UPDATE products SET on_hand = 0, reserved = 0`,
		movement("reserve", 0, 1, "'o1'"),
		replay("dead", ""),
		replay("refused", "why"),
		`UPDATE letters SET state = 'sent', sent_at = now()`,
		`UPDATE cases SET state = 'closed', closed_at = now(), closed_by = 'x'`,
		`UPDATE inbox SET outcome = 'ignored', settled_at = now()`,
		`UPDATE audit_log SET before = NULL, after = NULL, salt = NULL, erased_at = now()`,
	} {
		exec(t, db, statement)
	}
}

// The view says where an event stands: what it waits for, else what became of it.
func TestEventsView(t *testing.T) {
	db, _ := dbtest.New(t)
	exec(t, db, peace)
	state := func() string { return one[string](t, db, `SELECT state FROM events`) }
	if got := state(); got != "received" {
		t.Errorf("waiting: %s", got)
	}
	exec(t, db, `DELETE FROM inbox_open`)
	if got := state(); got != "lost" {
		t.Errorf("neither waiting nor settled: %s", got)
	}
	exec(t, db, `UPDATE inbox SET outcome = 'applied', settled_at = now()`)
	if got := state(); got != "applied" {
		t.Errorf("settled: %s", got)
	}
}
