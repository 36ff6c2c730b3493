'use strict';
// The peer of the benchmark: PayQI's guide in Node ("Create Webhook Endpoint",
// "Complete Handler Example", "Best Practices" 1 to 8), as a team would build it
// that knows its tools: raw bodies, constant-time comparison, idempotency by a
// primary key, prepared statements, a pool, answers before the work, one
// transaction for each event, many jobs at once.
//
//   node peer.js web|work PROCESSES
//
// DATABASE_URL, REDIS_URL, PORT and PAYQI_WEBHOOK_SECRET say the rest.

const cluster = require('node:cluster');
const crypto = require('node:crypto');
const express = require('express');
const pg = require('pg');
const IORedis = require('ioredis');
const { Queue, Worker } = require('bullmq');

const [role, processes] = [process.argv[2], Number(process.argv[3] || 1)];
const { DATABASE_URL, REDIS_URL, PORT, PAYQI_WEBHOOK_SECRET } = process.env;
const QUEUE = 'events';
const POOL = 20; // connections of each process; more gained nothing
const JOBS = 20; // at once in each process

const pool = () => new pg.Pool({ connectionString: DATABASE_URL, max: POOL, min: POOL });
const redis = () => new IORedis(REDIS_URL, { maxRetriesPerRequest: null, enableAutoPipelining: true });

function verify(body, signature) {
  const want = crypto.createHmac('sha256', PAYQI_WEBHOOK_SECRET).update(body).digest();
  const given = Buffer.from(signature || '', 'hex');
  if (given.length !== want.length || !crypto.timingSafeEqual(given, want)) {
    throw new Error('Invalid signature');
  }
  return JSON.parse(body);
}

const fresh = (timestamp) => !timestamp || Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300;

function web() {
  const db = pool();
  const queue = new Queue(QUEUE, {
    connection: redis(),
    defaultJobOptions: { removeOnComplete: true, removeOnFail: 1000, attempts: 5, backoff: { type: 'exponential', delay: 1000 } },
  });
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.get('/healthz', (req, res) => res.send('alive'));
  app.post('/webhooks/payqi', express.raw({ type: 'application/json', limit: '256kb' }), async (req, res) => {
    if (!fresh(req.headers['x-payqi-timestamp'])) return res.status(400).send('Request too old');
    let event;
    try {
      event = verify(req.body, req.headers['x-payqi-signature']);
    } catch {
      return res.status(400).send('Invalid signature');
    }
    try {
      const stored = await db.query({
        name: 'store',
        text: 'INSERT INTO events (id, type, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING',
        values: [event.id, event.type, req.body.toString()],
      });
      if (stored.rowCount === 0) return res.send('Already processed');
      await queue.add(event.type, event);
      return res.send('OK');
    } catch (err) {
      console.error(err);
      return res.status(500).send('Error');
    }
  });
  app.listen(Number(PORT), '127.0.0.1', 1024);
}

// The stock comes last, so that a popular product is locked as shortly as can be.
const steps = [
  { name: 'order', text: 'SELECT status, customer_email FROM orders WHERE id = $1 FOR UPDATE', of: (e) => [e.data.metadata.order_id] },
  {
    name: 'payment',
    text: 'INSERT INTO payments (id, order_id, amount, currency, tx_hash) VALUES ($1, $2, $3, $4, $5)',
    of: (e) => [e.data.id, e.data.metadata.order_id, e.data.amount, e.data.currency, e.data.tx_hash],
  },
  {
    name: 'pay',
    text: "UPDATE orders SET status = 'paid', payment_id = $2, tx_hash = $3, updated_at = now() WHERE id = $1",
    of: (e) => [e.data.metadata.order_id, e.data.id, e.data.tx_hash],
  },
  {
    name: 'letter',
    text: "INSERT INTO outbox (order_id, kind, address) SELECT id, 'payment_confirmed', customer_email FROM orders WHERE id = $1",
    of: (e) => [e.data.metadata.order_id],
  },
  {
    name: 'ledger',
    text: 'INSERT INTO stock_movements (sku, order_id, delta) SELECT sku, order_id, -quantity FROM order_items WHERE order_id = $1 ORDER BY sku',
    of: (e) => [e.data.metadata.order_id],
  },
  {
    name: 'stock',
    text: 'UPDATE products p SET on_hand = p.on_hand - i.quantity FROM order_items i WHERE i.order_id = $1 AND p.sku = i.sku',
    of: (e) => [e.data.metadata.order_id],
  },
];

async function apply(db, event) {
  const c = await db.connect();
  try {
    await c.query('BEGIN');
    const claimed = await c.query({
      name: 'claim', text: 'UPDATE events SET processed_at = now() WHERE id = $1 AND processed_at IS NULL', values: [event.id],
    });
    if (claimed.rowCount === 1 && event.type === 'payment.completed') {
      for (const s of steps) await c.query({ name: s.name, text: s.text, values: s.of(event) });
    }
    await c.query('COMMIT');
  } catch (err) {
    await c.query('ROLLBACK');
    throw err;
  } finally {
    c.release();
  }
}

function work() {
  const db = pool();
  const worker = new Worker(QUEUE, (job) => apply(db, job.data), { connection: redis(), concurrency: JOBS });
  worker.on('error', (err) => console.error(err));
  worker.on('failed', (job, err) => console.error(err));
}

const run = { web, work }[role];
if (!run) {
  console.error('usage: node peer.js web|work PROCESSES');
  process.exit(2);
}
if (processes > 1 && cluster.isPrimary) {
  for (let i = 0; i < processes; i++) cluster.fork();
  cluster.on('exit', () => process.exit(1));
} else {
  run();
}
