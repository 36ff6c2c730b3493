package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/migrations"
)

// programRights are what serve and work do with each table. A test runs both as
// a role that may do this and no more.
var programRights = map[string]string{
	"products":               "SELECT, INSERT, UPDATE",
	"stock_movements":        "SELECT, INSERT",
	"stock_checkpoints":      "SELECT, INSERT",
	"orders":                 "SELECT, INSERT, UPDATE",
	"order_items":            "SELECT, INSERT, UPDATE",
	"timeline":               "SELECT, INSERT",
	"payments":               "SELECT, INSERT, UPDATE",
	"inbox":                  "SELECT, INSERT, UPDATE",
	"inbox_open":             "SELECT, INSERT, UPDATE, DELETE",
	"inbox_spellings":        "SELECT, INSERT",
	"replays":                "SELECT, INSERT",
	"events":                 "SELECT",
	"cases":                  "SELECT, INSERT, UPDATE",
	"shipment_requests":      "SELECT, INSERT, UPDATE",
	"shipment_request_lines": "SELECT, INSERT, DELETE",
	"shipments":              "SELECT, INSERT, UPDATE",
	"returns":                "SELECT, INSERT",
	"return_lines":           "SELECT, INSERT",
	"shipment_lines":         "SELECT, INSERT",
	"letters":                "SELECT, INSERT, UPDATE",
	"refunds":                "SELECT, INSERT, UPDATE",
	"api_keys":               "SELECT, INSERT, UPDATE",
	"idempotency_keys":       "SELECT, INSERT, UPDATE, DELETE",
	"audit_log":              "SELECT, INSERT",
	"audit_unsealed":         "SELECT, INSERT, DELETE",
	"audit_seals":            "SELECT, INSERT",
	"checkouts":              "SELECT, INSERT, UPDATE",
	"inquiries":              "SELECT, INSERT, UPDATE",
	"imports":                "SELECT, INSERT, UPDATE",
	"import_batches":         "SELECT, INSERT, DELETE",
	"import_errors":          "SELECT, INSERT",
	"goose_db_version":       "SELECT",
}

const connsPerProcess = poolConns + intakeConns

// examineDatabase connects as serve and work do and asks for everything that
// would stop them, or lose what they store.
func (d *doctor) examineDatabase(ctx context.Context, r *report) (learn func()) {
	if !d.usable(r, "DATABASE_URL", d.cfg.DatabaseURL.reveal()) {
		if d.cfg.MigrateDatabaseURL != d.cfg.DatabaseURL && !d.mistaken("MIGRATE_DATABASE_URL") {
			d.examineMigrate(ctx, r) // a migrate of its own has no other
		}
		return nil
	}
	db, line, ok := d.connect(ctx, r, "DATABASE_URL", d.cfg.DatabaseURL)
	if !ok {
		return nil
	}
	defer func() { _ = db.Close() }()
	role := database.User(d.cfg.DatabaseURL.reveal())
	d.judgeLine(r, line)
	d.judgeFlaws(ctx, r, db)
	if d.judgeRights(ctx, r, db, role) {
		d.judgeSchema(ctx, r, db)
	}
	d.judgePower(ctx, r, db, role)
	if !line.Pooled {
		d.judgeRoom(ctx, r, db, role)
	}
	d.judgeDisk(ctx, r, db)
	if d.cfg.MigrateDatabaseURL != d.cfg.DatabaseURL && !d.mistaken("MIGRATE_DATABASE_URL") {
		d.examineMigrate(ctx, r)
	} else if line.Pooled {
		r.warn("migrate", "goes through the pooler, where its lock over the whole session does not hold", "give it the server's own address:", "MIGRATE_DATABASE_URL=postgres://…")
	}
	return func() { d.databaseAhead = &line.Ahead }
}

// connect opens a pool and tells whether it works.
func (d *doctor) connect(ctx context.Context, r *report, name string, address secret) (*database.DB, database.Line, bool) {
	db, err := database.Open(address.reveal(), database.Options{Name: "doctor", MaxConns: 2})
	if err != nil {
		r.wrong(name, err.Error(), "write it as "+postgresForm)
		return nil, database.Line{}, false
	}
	line, err := db.Line(ctx, d.now)
	if err != nil {
		_ = db.Close()
		what, mend, commands := whyNoDatabase(ctx, name, address.reveal(), err)
		r.wrong(name, what, mend, commands...)
		return nil, line, false
	}
	r.fine(name, "%s answers as role %s", database.Target(address.reveal()), database.User(address.reveal()))
	return db, line, true
}

// whyNoDatabase explains a connection that did not come about.
func whyNoDatabase(ctx context.Context, name, address string, err error) (what, mend string, commands []string) {
	at, role := database.Target(address), database.User(address)
	obstacle, detail := database.ObstacleOf(err)
	said := fmt.Sprintf("%s: %s", at, detail)
	switch obstacle {
	case database.NoHost:
		return said, "is the host in " + name + " spelt right, and does this machine's DNS know it?", nil
	case database.NoAnswer:
		if server, _, _ := strings.Cut(at, "/"); listens(ctx, server) {
			return at + " takes connections and says nothing", "it hangs, or it is something else: is that the port of Postgres (5432 by default)?", nil
		}
		return said, "is Postgres running there, is it the right port, does listen_addresses name that interface, and does no firewall stand between?", nil
	case database.NoTLS:
		return said, "with a server that has no TLS end the address with ?sslmode=disable (in one house only); with one that insists, ?sslmode=verify-full, and name its certificate authority in sslrootcert", nil
	case database.NoLogin:
		return said, "is the password right (in an address @ is %40, : is %3A, / is %2F, # is %23), and does pg_hba.conf let the role in from here? To set it anew:",
			[]string{fmt.Sprintf(`psql -c "ALTER ROLE %s PASSWORD '…'"`, role)}
	case database.NoDatabase:
		return said, "make the database, or let the role in:", []string{
			fmt.Sprintf("createdb --owner %s --encoding UTF8 --template template0 %s", role, at[strings.LastIndexByte(at, '/')+1:]),
		}
	case database.NoRoom:
		return said, fmt.Sprintf("each process of ours takes up to %d connections: raise max_connections (needs a restart), run fewer, or put PgBouncer in between", connsPerProcess),
			[]string{"ALTER SYSTEM SET max_connections = 200;"}
	case database.NoParameter:
		return "a pooler such as PgBouncer answers, and refuses our settings: " + detail, "let it pass over them, in pgbouncer.ini, and bound the role in Postgres instead:", append([]string{
			"ignore_startup_parameters = extra_float_digits,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,random_page_cost",
		}, boundRole(role)...)
	case database.NotReady:
		return said, "wait until it has started; its log says what it is doing", nil
	case database.Unexplained:
	}
	return said, "the server's log says more", nil
}

// boundRole gives a role the limits that a connection would have brought.
func boundRole(role string) []string {
	return []string{
		fmt.Sprintf("ALTER ROLE %s SET statement_timeout = '5s';", role),
		fmt.Sprintf("ALTER ROLE %s SET lock_timeout = '2s';", role),
		fmt.Sprintf("ALTER ROLE %s SET idle_in_transaction_session_timeout = '10s';", role),
	}
}

func (d *doctor) judgeLine(r *report, line database.Line) {
	switch near := nearby(line.Peer); {
	case line.Encrypted:
		r.fine("TLS", "the connection is encrypted")
	case near:
		r.fine("TLS", "none, on this machine or in its own network")
	default:
		r.warn("TLS", "customers' addresses cross the network to "+line.Peer+" in plain text", "end DATABASE_URL with:", "?sslmode=verify-full")
	}
	if !line.Pooled {
		return
	}
	role := database.User(d.cfg.DatabaseURL.reveal())
	if line.Bounded {
		r.fine("pooler", "one such as PgBouncer is in between; pool_mode = session, or PgBouncer 1.21 with max_prepared_statements")
		return
	}
	r.warn("pooler", "one such as PgBouncer is in between, and keeps our time limits from the server: a stuck statement would hold a webhook", "bound the role in Postgres:", boundRole(role)...)
}

// nearby reports whether host:port is this machine or a private network.
func nearby(peer string) bool {
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		return true // a unix socket
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsPrivate())
}

func (d *doctor) judgeFlaws(ctx context.Context, r *report, db *database.DB) {
	flaws, err := db.Flaws(ctx)
	if err != nil {
		r.wrong("safety", short(err), "the server's log says more")
		return
	}
	for _, f := range flaws {
		if statement, ok := strings.CutPrefix(f.Mend, "ALTER SYSTEM"); ok {
			first, more, _ := strings.Cut("ALTER SYSTEM"+statement, ",")
			r.wrong("safety", f.What, strings.TrimSpace("as a superuser"+more+":"), first+";", "SELECT pg_reload_conf();")
			continue
		}
		r.wrong("safety", f.What, f.Mend)
	}
	var s struct{ Version, Throwaway, Isolation, ReadOnly string }
	err = db.Read(ctx).Raw(`SELECT current_setting('server_version') AS version, COALESCE(current_setting('quayside.throwaway', true), '') AS throwaway,
		current_setting('default_transaction_isolation') AS isolation, current_setting('default_transaction_read_only') AS read_only`).Scan(&s).Error
	if err != nil {
		r.wrong("safety", short(database.Classify(err)), "the server's log says more")
		return
	}
	version, _, _ := strings.Cut(s.Version, " ")
	switch {
	case s.Throwaway == "on":
		r.warn("safety", "PostgreSQL "+version+" runs as a throw-away server of the tests: nothing on it is kept", "use another for anything that matters")
	case len(flaws) == 0:
		r.fine("safety", "PostgreSQL %s; fsync, synchronous_commit and full_page_writes keep what was committed", version)
	}
	d.judgeDefaults(r, s.Isolation, s.ReadOnly)
}

func (d *doctor) judgeDefaults(r *report, isolation, readOnly string) {
	role := database.User(d.cfg.DatabaseURL.reveal())
	if isolation != "read committed" {
		r.wrong("default_transaction_isolation", "is "+isolation+": workers that meet would undo each other's work again and again", "set it back, for the role:",
			fmt.Sprintf("ALTER ROLE %s SET default_transaction_isolation = 'read committed';", role))
	}
	if readOnly == "on" {
		r.wrong("default_transaction_read_only", "is on: no webhook could be stored", "set it back, for the role and where it comes from:",
			fmt.Sprintf("ALTER ROLE %s SET default_transaction_read_only = off;", role))
	}
}

// judgeRights looks, table by table, for what the role may not do. It reports
// whether the schema's version can be asked for.
func (d *doctor) judgeRights(ctx context.Context, r *report, db *database.DB, role string) (readable bool) {
	var where []struct {
		Schema string
		Usage  bool
	}
	err := db.Read(ctx).Raw(`SELECT n.nspname AS schema, has_schema_privilege(n.oid, 'USAGE') AS usage
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'goose_db_version' LIMIT 1`).Scan(&where).Error
	if err != nil {
		r.wrong("rights", short(database.Classify(err)), "the server's log says more")
		return false
	}
	if len(where) == 0 {
		return true // no schema yet, which judgeSchema says
	}
	if !where[0].Usage {
		r.wrong("rights", "role "+role+" may not use the schema "+where[0].Schema, "as the owner of the tables:", fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", where[0].Schema, role))
		return false
	}
	var missing []struct{ Name, Right string }
	var names, rights []string
	for name, list := range programRights {
		for right := range strings.SplitSeq(list, ", ") {
			names, rights = append(names, name), append(rights, right)
		}
	}
	err = db.Read(ctx).Raw(`SELECT w.name, w.wanted AS right FROM unnest(?::text[], ?::text[]) w(name, wanted)
		JOIN pg_class c ON c.relname = w.name JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = ?
		WHERE NOT has_table_privilege(c.oid, w.wanted) ORDER BY 1, 2`, database.Array(names), database.Array(rights), where[0].Schema).Scan(&missing).Error
	if err != nil {
		r.wrong("rights", short(database.Classify(err)), "the server's log says more")
		return false
	}
	byRight := map[string][]string{}
	lacks := map[string][]string{}
	readable = true
	for _, m := range missing {
		byRight[m.Right] = append(byRight[m.Right], m.Name)
		lacks[m.Name] = append(lacks[m.Name], m.Right)
		readable = readable && m.Name != "goose_db_version"
	}
	if len(missing) == 0 {
		r.fine("rights", "role %s may do what it needs to on all %d tables", role, len(programRights))
		return true
	}
	var told, grants []string
	for _, name := range slices.Sorted(maps.Keys(lacks)) {
		told = append(told, fmt.Sprintf("%s on %s", strings.Join(lacks[name], "/"), name))
	}
	for _, right := range slices.Sorted(maps.Keys(byRight)) {
		grants = append(grants, fmt.Sprintf("GRANT %s ON %s TO %s;", right, strings.Join(byRight[right], ", "), role))
	}
	r.wrong("rights", fmt.Sprintf("role %s lacks %s", role, strings.Join(told, ", ")), "as the owner of the tables:", grants...)
	return readable
}

func (d *doctor) judgeSchema(ctx context.Context, r *report, db *database.DB) {
	err := db.SchemaKnown(ctx, migrations.FS)
	known, _ := errors.AsType[*fault.Error](err)
	switch {
	case err == nil:
		r.fine("schema", "is the one this version knows")
	case known != nil && known.Code == "schema_new":
		r.wrong("schema", known.Message, "install the quayside that made it, or a newer one")
	case known != nil && strings.HasPrefix(known.Code, "schema_"):
		what, _, _ := strings.Cut(known.Message, ": run")
		r.wrong("schema", what, "bring it up to date; it is safe while others run:", d.command("migrate"))
	default:
		r.wrong("schema", short(err), "the server's log says more")
	}
}

// command is a line to copy that runs quayside with the same settings.
func (d *doctor) command(args string) string {
	if d.configFile != "" {
		args += " --config " + d.configFile
	}
	return programName() + " " + args
}

// judgePower looks at what the role could do by mistake, or in other hands.
func (d *doctor) judgePower(ctx context.Context, r *report, db *database.DB, role string) {
	var s struct{ Super, Owner bool }
	err := db.Read(ctx).Raw(`SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super,
		EXISTS (SELECT FROM pg_class WHERE relname = 'stock_movements' AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')) AS owner`).Scan(&s).Error
	switch {
	case err != nil:
		r.wrong("role", short(database.Classify(err)), "the server's log says more")
	case d.isDev():
	case s.Super:
		r.warn("role", role+" is a superuser: whoever gets hold of DATABASE_URL has the whole server", "give quayside a role of its own, which owns nothing; migrate goes on with this one:", ownRole()...)
	case s.Owner:
		r.fine("role", "%s owns the tables. Safer: MIGRATE_DATABASE_URL for the owner, and for DATABASE_URL a role that cannot switch off the triggers that keep the books append-only", role)
	default:
		r.fine("role", "%s owns nothing: the triggers that keep the books append-only are out of its reach", role)
	}
}

// ownRole makes a role with the rights that serve and work need.
func ownRole() []string {
	lines := []string{"CREATE ROLE quayside_app LOGIN PASSWORD '…';", "GRANT USAGE ON SCHEMA public TO quayside_app;"}
	byRights := map[string][]string{}
	for name, rights := range programRights {
		byRights[rights] = append(byRights[rights], name)
	}
	for _, rights := range slices.Sorted(maps.Keys(byRights)) {
		slices.Sort(byRights[rights])
		lines = append(lines, fmt.Sprintf("GRANT %s ON %s TO quayside_app;", rights, strings.Join(byRights[rights], ", ")))
	}
	return lines
}

// judgeRoom compares what our processes may open with what the server allows.
func (d *doctor) judgeRoom(ctx context.Context, r *report, db *database.DB, role string) {
	var s struct{ Server, Role, Database, Others int }
	err := db.Read(ctx).Raw(`SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS server,
		(SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role,
		(SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name NOT LIKE 'quayside %') AS others`).Scan(&s).Error
	if err != nil {
		r.wrong("connections", short(database.Classify(err)), "the server's log says more")
		return
	}
	room, from, mend := s.Server-s.Others, fmt.Sprintf("max_connections allows %d, others use %d", s.Server, s.Others), "ALTER SYSTEM SET max_connections = 200;   -- then restart Postgres"
	if s.Role >= 0 && s.Role < room {
		room, from, mend = s.Role, fmt.Sprintf("role %s may have %d", role, s.Role), fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT -1;", role)
	}
	if s.Database >= 0 && s.Database < room {
		room, from, mend = s.Database, fmt.Sprintf("the database takes %d", s.Database), "ALTER DATABASE … CONNECTION LIMIT -1;"
	}
	fit := room / connsPerProcess
	found := fmt.Sprintf("%s: enough for %d of our processes, at up to %d connections each", from, max(fit, 0), connsPerProcess)
	switch {
	case fit < 1:
		r.wrong("connections", found, "raise it:", mend)
	case fit < 2:
		r.warn("connections", found, "serve and work are two; raise it, or run one `serve --with-worker`:", mend)
	default:
		r.fine("connections", "%s", found)
	}
}

// judgeDisk looks for what quietly fills the server's disk.
func (d *doctor) judgeDisk(ctx context.Context, r *report, db *database.DB) {
	var s struct {
		Archiving   bool
		Slot        string
		SlotBehind  int64
		LastFailure *time.Time
	}
	err := db.Read(ctx).Raw(`SELECT (SELECT last_failed_time > COALESCE(last_archived_time, '-infinity') FROM pg_stat_archiver) AS archiving,
		(SELECT last_failed_time FROM pg_stat_archiver) AS last_failure, COALESCE(s.slot_name, '') AS slot, COALESCE(s.behind, 0) AS slot_behind
		FROM (SELECT 1) one LEFT JOIN (SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS behind
			FROM pg_replication_slots WHERE NOT active AND NOT pg_is_in_recovery() ORDER BY 2 DESC NULLS LAST LIMIT 1) s ON true`).Scan(&s).Error
	if err != nil {
		return // a server that keeps this to itself
	}
	if s.Archiving && s.LastFailure != nil {
		r.warn("disk", "archiving the write-ahead log fails, last "+ago(d.now().Sub(*s.LastFailure))+": the log grows until the disk is full, and there is no backup to that moment", "see archive_command and the server's log")
	}
	if s.SlotBehind > 1<<30 {
		r.warn("disk", fmt.Sprintf("nobody reads the replication slot %s, and it keeps %d GB of the write-ahead log", s.Slot, s.SlotBehind>>30), "if nobody will:", fmt.Sprintf("SELECT pg_drop_replication_slot('%s');", s.Slot))
	}
}

// examineMigrate looks at the address that migrate alone uses.
func (d *doctor) examineMigrate(ctx context.Context, r *report) {
	db, line, ok := d.connect(ctx, r, "MIGRATE_DATABASE_URL", d.cfg.MigrateDatabaseURL)
	if !ok {
		return
	}
	defer func() { _ = db.Close() }()
	role := database.User(d.cfg.MigrateDatabaseURL.reveal())
	if line.Pooled {
		r.wrong("migrate", "MIGRATE_DATABASE_URL leads to a pooler, where its lock over the whole session does not hold", "name the server's own port")
	}
	var may bool
	err := db.Read(ctx).Raw(`SELECT has_schema_privilege(current_schema(), 'CREATE')
		AND NOT EXISTS (SELECT FROM pg_class WHERE relname = 'goose_db_version' AND NOT pg_has_role(relowner, 'USAGE'))`).Scan(&may).Error
	switch {
	case err != nil:
		r.wrong("migrate", short(database.Classify(err)), "the server's log says more")
	case !may:
		r.wrong("migrate", "role "+role+" may not change the tables", "name the role that owns them, or as their owner:", fmt.Sprintf("GRANT CREATE ON SCHEMA public TO %s;", role))
	}
}

// ago is how long something has been, in words.
func ago(since time.Duration) string {
	switch since = max(since, 0); {
	case since < time.Minute:
		return fmt.Sprintf("%d s ago", int(since.Seconds()))
	case since < time.Hour:
		return fmt.Sprintf("%d min ago", int(since.Minutes()))
	case since < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(since.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(since.Hours()/24))
}

// judgeClock compares our clock with those of Postgres and Redis.
func (d *doctor) judgeClock(r *report) {
	for _, c := range []struct {
		name  string
		ahead *time.Duration
	}{{"Postgres", d.databaseAhead}, {"Redis", d.redisAhead}} {
		if c.ahead == nil {
			continue
		}
		apart := c.ahead.Abs().Round(time.Millisecond)
		direction := cmp.Or(map[bool]string{true: "behind"}[*c.ahead > 0], "ahead of")
		found := fmt.Sprintf("this machine's clock is %s %s that of %s", apart.Round(100*time.Millisecond), direction, c.name)
		mend := "let both machines follow a time server (chrony or systemd-timesyncd), and see:"
		switch {
		case apart > time.Minute:
			r.wrong(c.name, found+"; events are refused as too old at 5 min (guide, \"Replay Attacks\")", mend, "timedatectl status")
		case apart > 2*time.Second:
			r.warn(c.name, found, mend, "timedatectl status")
		default:
			r.fine(c.name, "the clocks agree to %d ms", apart.Milliseconds())
		}
	}
	if d.databaseAhead == nil && d.redisAhead == nil {
		r.warn("not compared", "neither Postgres nor Redis could be asked for the time", "")
	}
}
