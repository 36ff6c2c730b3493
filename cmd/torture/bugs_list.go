//go:build linux

package main

// bugs are the mistakes that the torture must catch.
var bugs = []bug{
	{
		name: "answer-before-commit", about: "200 is answered as soon as the event is in the queue of the writers",
		changes: []change{
			{"internal/webhooks/inbox.go", `	t := time.NewTimer(keepTimeout)
`, `	if d.stale == "" {
		return stored, nil
	}
	t := time.NewTimer(keepTimeout)
`},
		},
		blows: []blow{{Fault: "postgres-kill", HoldMS: 2000, RestMS: 500}},
	},
	{
		name: "swallowed-error", about: "what could not be stored is answered 200",
		changes: []change{
			{"internal/webhooks/keep.go", `d.done <- outcome{notStored, err}`, `d.done <- outcome{stored, nil}`},
		},
		blows: []blow{{Fault: "postgres-fast", HoldMS: 2000, RestMS: 500}},
	},
	{
		name: "enqueue-instead-of-store", about: "what cannot be stored now is answered 200 and kept in memory until it can",
		changes: []change{
			{"internal/webhooks/keep.go", `	if err != nil {
		fail(fresh, err)
		return nil
	}
	return known
`, `	if err != nil {
		later := slices.Clone(fresh)
		for _, d := range later {
			d.done <- outcome{answer: stored}
			d.done = make(chan outcome, 1)
		}
		go func() {
			for err != nil {
				time.Sleep(time.Second)
				_, err = in.insert(context.Background(), later)
			}
		}()
		return nil
	}
	return known
`},
		},
		blows: []blow{{Fault: "serve-kill-blind", Target: "serve1", HoldMS: 2000, RestMS: 500}, {Fault: "serve-kill-blind", Target: "serve2", HoldMS: 2000, RestMS: 500}},
	},
	{
		name: "dedupe-removed", about: "an event that comes again is stored again",
		changes: []change{
			{"internal/webhooks/keep.go", `	slices.SortStableFunc(batch, func(a, b *delivery) int { return strings.Compare(a.Key, b.Key) }) // writers never deadlock
`, `	for _, d := range batch {
		d.Key += "~" + uuid.NewString()
	}
`},
		},
	},
	{
		name: "synchronous-commit-off", about: "the writers of the intake do not wait for the disk",
		changes: []change{
			{"internal/database/database.go", `	set("timezone", "UTC")
`, `	set("timezone", "UTC")
	if o.Name == "intake" {
		set("synchronous_commit", "off")
	}
`},
		},
		blows: []blow{{Fault: "postgres-kill-unapplied", HoldMS: 0, RestMS: 500}, {Fault: "postgres-kill-unapplied", HoldMS: 0, RestMS: 500}},
	},
	{
		name: "no-signature-check", about: "whoever sends 64 hex digits is PayQI",
		changes: []change{
			{"internal/webhooks/signature.go", `if hmac.Equal(given[:], want[:]) {`, `if hmac.Equal(given[:], want[:]) || len(given) > 0 {`},
		},
	},
	{
		name: "float-amounts", about: "amounts go through a float64",
		changes: []change{
			{"internal/payqi/payment.go", `	d, err := decimal.NewFromString(text)
	switch {
	case err != nil:
		return decimal.Zero, errors.New("is not a decimal number")`, `	f, err := strconv.ParseFloat(text, 64)
	d := decimal.NewFromFloat(f)
	switch {
	case err != nil:
		return decimal.Zero, errors.New("is not a decimal number")`},
		},
	},
	{
		name: "empty-order-id", about: "an event that names no order is applied to some order",
		changes: []change{
			{"internal/orders/desk.go", `	payments, err := d.follow(tx, news)
`, `	for i := range news {
		if news[i].OrderRef == "" && news[i].Trouble == nil {
			tx.Raw("SELECT id FROM orders WHERE status = 'pending' LIMIT 1").Scan(&news[i].OrderRef)
		}
	}
	payments, err := d.follow(tx, news)
`},
		},
	},
	{
		name: "no-amount-check", about: "any money pays an order",
		changes: []change{
			{"internal/orders/file.go", `return f.Got.IsPositive() && f.Got.GreaterThanOrEqual(f.owed().Sub(f.terms.Tolerance))`, `return f.Got.IsPositive()`},
		},
	},
	{
		name: "other-currency-counts", about: "money counts in whatever currency it comes",
		changes: []change{
			{"internal/orders/file.go", `	case n.Currency != f.Currency:
		p.Counted`, `	case n.Currency == "":
		p.Counted`},
		},
	},
	{
		name: "transaction-counts-twice", about: "nobody asks whether a transaction counts already",
		changes: []change{
			{"internal/orders/file.go", `case n.TxHash != "" && taken && other != p.ID:
		p.Counted`, `case n.TxHash == "" && taken && other != p.ID:
		p.Counted`},
		},
	},
	{
		name: "last-writer-wins", about: "the latest event says where the order stands",
		changes: []change{
			{"internal/orders/file.go", `	f.become(f.derive(d.now), c, d)
`, `	s := f.derive(d.now)
	if latest, said := map[string]Status{"payment.failed": PaymentFailed, "payment.expired": Expired, "payment.created": Pending}[c.kind]; said {
		s = latest
	}
	f.become(s, c, d)
`},
		},
	},
	{
		name: "late-money-dropped", about: "money that comes after the deadline does not count",
		changes: []change{
			{"internal/orders/file.go", `	case f.funded():
		return Paid
`, `	case f.funded() && !late:
		return Paid
`},
		},
	},
	{
		name: "refund-not-booked", about: "what was got beyond the total is nowhere due back",
		changes: []change{
			{"internal/orders/follow.go", `	f.RefundDue = f.Got.Sub(applied)
`, `	f.RefundDue = applied.Sub(applied)
`},
		},
	},
	{
		name: "case-not-opened", about: "money in another currency is set aside, and nobody is told",
		changes: []change{
			{"internal/orders/file.go", `		f.raise(about, d.now)
		return about.summary
`, `		return about.summary
`},
		},
	},
	{
		name: "stock-not-released", about: "an order that expires keeps its stock",
		changes: []change{
			{"internal/orders/follow.go", `		d.shelf.Release(f.ID, f.Reservation, lines, cause)
`, ``},
		},
	},
	{
		name: "stock-read-then-write", about: "stock is read, added up and written back, without a lock",
		changes: []change{
			{"internal/inventory/shelf.go", "WHERE sku = ANY(?) ORDER BY sku FOR NO KEY UPDATE`", "WHERE sku = ANY(?) ORDER BY sku`"},
			{"internal/inventory/shelf.go", `SET on_hand = p.on_hand + d.on_hand, reserved = p.reserved + d.reserved,`, `SET on_hand = d.on_hand, reserved = d.reserved,`},
			{"internal/inventory/shelf.go", `OnHand: p.OnHand - was.OnHand, Reserved: p.Reserved - was.Reserved}`, `OnHand: p.OnHand, Reserved: p.Reserved}`},
		},
		blows: []blow{{Fault: "storm-orders", HoldMS: 0, RestMS: 500}},
	},
	{
		name: "no-row-lock", about: "orders and payments are read without a lock",
		changes: []change{
			{"internal/orders/desk.go", "ORDER BY id FOR NO KEY UPDATE`, database.Array(ids)).Scan(&rows)", "ORDER BY id`, database.Array(ids)).Scan(&rows)"},
			{"internal/orders/desk.go", "\t\tORDER BY id FOR NO KEY UPDATE`,\n", "\t\tORDER BY id`,\n"},
		},
		blows: []blow{{Fault: "storm-orders", HoldMS: 0, RestMS: 500}},
	},
	{
		name: "two-transactions", about: "the effects of events commit first, and that they are settled afterwards",
		changes: []change{
			{"internal/webhooks/apply_job.go", `	return done, note(tx, done)
}

// verdict is`, `	return done, nil
}

// verdict is`},
			{"internal/webhooks/apply_job.go", `		done, err = in.carryOut(tx, ids)
		return err
	})
`, `		done, err = in.carryOut(tx, ids)
		return err
	})
	if err == nil {
		err = in.db.InTx(ctx, func(tx database.Tx) error { return note(tx, done) })
	}
`},
		},
		blows: []blow{{Fault: "postgres-latency", Target: "work", HoldMS: 5000, RestMS: 500}},
	},
	{
		name: "no-sweep", about: "an event whose bell was lost is never looked for",
		changes: []change{
			{"internal/webhooks/sweep.go", `(ids []uuid.UUID, err error) {
	err = in.db.InTx`, `(ids []uuid.UUID, err error) {
	if in.db != nil {
		return nil, nil
	}
	err = in.db.InTx`},
		},
		blows: []blow{{Fault: "redis-flush-unworked", Target: "work", HoldMS: 1000, RestMS: 500}},
	},
	{
		name: "cursor-sweep", about: "the sweep goes on where it stopped, and does not look back",
		changes: []change{
			{"internal/webhooks/sweep.go", `	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	return ids, nil
`, `	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	ids = slices.DeleteFunc(ids, func(id uuid.UUID) bool { return slices.Compare(id[:], last[:]) <= 0 })
	if len(ids) > 0 {
		last = ids[len(ids)-1]
	}
	return ids, nil
`},
			{"internal/webhooks/sweep.go", `// tendParked wakes`, `var last uuid.UUID

// tendParked wakes`},
		},
		blows: []blow{{Fault: "postgres-reply-lost", Target: "work", HoldMS: 6000, RestMS: 2000}, {Fault: "postgres-reply-lost", Target: "work", HoldMS: 6000, RestMS: 2000}},
	},
	{
		name: "parked-forgotten", about: "an event that came before its order is never taken up",
		changes: []change{
			{"internal/webhooks/sweep.go", `AND (EXISTS (SELECT 1 FROM orders WHERE orders.id = i.order_ref)
`, `AND (EXISTS (SELECT 1 FROM orders WHERE false)
`},
			{"internal/webhooks/sweep.go", `	queue.RingAfter(tx, in.bell, wakeJob.With(wakeArgs{OrderID: orderID}))
`, `	_ = orderID
	_ = tx
`},
		},
	},
	{
		name: "fixed-task-id", about: "a job has the same id in Redis each time it is rung for",
		changes: []change{
			{"internal/queue/job.go", `asynq.Queue(j.Queue), asynq.MaxRetry(0),`, `asynq.TaskID(j.Name + string(payload)), asynq.Queue(j.Queue), asynq.MaxRetry(0),`},
		},
		blows: []blow{{Fault: "postgres-locks", With: "works-kill", HoldMS: 500, RestMS: 500}, {Fault: "postgres-locks", With: "works-kill", HoldMS: 500, RestMS: 500}},
	},
	{
		name: "mail-sent-again-on-any-error", about: "a letter whose fate is unknown is sent again at once",
		changes: []change{
			{"internal/notify/smtp.go", `	case stage == atDot:
		r.Outcome = Ambiguous
`, `	case stage == atDot:
		r.Outcome = NotSent
`},
		},
		blows: []blow{{Fault: "mail-dropped", HoldMS: 3000, RestMS: 500}},
	},
	{
		name: "mail-given-up-too-soon", about: "a letter that takes more than a second is taken up by the next worker",
		changes: []change{
			{"internal/notify/outbox.go", `state = 'sending' AND started_at < now() - interval '15 minutes'`, `state = 'sending' AND started_at < now() - interval '1 second'`},
			{"internal/notify/outbox.go", `SET state = 'unknown', not_before = GREATEST(not_before, started_at + interval '30 minutes')`, `SET state = 'queued', not_before = now()`},
		},
		blows: []blow{{Fault: "mail-slow", HoldMS: 5000, RestMS: 500}},
	},
	{
		name: "mail-forgotten", about: "what the mail server said is not written down",
		changes: []change{
			{"internal/notify/send_job.go", `v.lastError, v.forGood, v.wait.Seconds(), v.state == Sent, l.ID).Error; err != nil {`, `v.lastError, v.forGood, v.wait.Seconds(), v.state == Sent, l.OrderID).Error; err != nil && false {`},
		},
	},
	{
		name: "idempotency-key-ignored", about: "a request of the shop that is repeated is carried out again",
		changes: []change{
			{"internal/access/once.go", `	once := web.OnceOf(ctx)
	replayed := false
`, `	once := web.OnceOf(ctx)
	once = nil
	replayed := false
`},
		},
	},
	{
		name: "committed-and-not-shipped", about: "a paid order is not put up for shipment",
		changes: []change{
			{"internal/orders/follow.go", `if f.Status != Paid || f.Stock != StockCommitted || f.held() {`, `if f.Status == Paid || f.Stock != StockCommitted || f.held() {`},
		},
	},
	{
		name: "sweep-too-rarely", about: "a lost bell is made good after 40 seconds",
		changes: []change{
			{"internal/queue/job.go", `const RingAgain = 1500 * time.Millisecond`, `const RingAgain = 40 * time.Second`},
		},
		blows: []blow{{Fault: "redis-flush-unworked", Target: "work", HoldMS: 1000, RestMS: 500}},
	},
	{
		name: "address-in-log", about: "the log says to whom a letter went",
		changes: []change{
			{"internal/notify/send_job.go", `slog.Int("attempt", l.Attempts),`, `slog.Int("attempt", l.Attempts), slog.String("to", l.Address),`},
		},
	},
}
