package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/notify"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	role, mailTo  string
	probe, asJSON bool
}

func newDoctorCommand(a *app) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine an installation: what is wrong, and the mend",
		Long: `Examine an installation: settings, database, Redis, mail server, clock,
secrets, public address, proxies and what has come in so far. Each finding
comes with its mend. Run it where quayside runs, with the same settings.

It looks and changes nothing, except that --mail-to sends a letter and --probe
sends a signed event through the public address, which is stored and ignored.

Exit codes: 0 nothing is wrong (there may be warnings), 1 something is wrong,
2 wrong usage, or the file of --config cannot be read.`,
		Example: `  quayside doctor --config quayside.env
  quayside doctor --config quayside.env --mail-to me@example.com --probe
  quayside doctor --config work.env --role work     settings of a worker alone`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := noArguments(cmd, args); err != nil {
				return err
			}
			if o.role != "all" && roles[o.role].must == nil {
				return fmt.Errorf("--role %q is none of all, serve, work, migrate", o.role)
			}
			if o.mailTo != "" {
				if err := notify.ValidAddress(o.mailTo); err != nil {
					return fmt.Errorf("--mail-to: %w", err)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.role, "role", "all", "the `ROLE` these settings are for: all, serve, work or migrate")
	f.StringVar(&o.mailTo, "mail-to", "", "send a test letter to `ADDRESS`")
	f.BoolVar(&o.probe, "probe", false, "send a signed event through the public address and see that it arrives as it was sent")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// roles are the commands that run for good, and migrate.
var roles = map[string]needs{"serve": forServe, "work": forWork, "migrate": forMigrate}

func (a *app) doctor(ctx context.Context, o doctorOptions) error {
	d, err := a.newDoctor(o)
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what it has to say is on stdout
	found := d.examine(ctx)
	if err := found.print(a.stdout, o.asJSON); err != nil {
		return err
	}
	if found.count(isWrong) > 0 {
		return errSaid
	}
	return nil
}

// doctor examines one installation. The world it looks at is in its fields, so
// that tests can move the clock and name a host.
type doctor struct {
	doctorOptions
	cfg        config
	mistakes   mistakes
	configFile string
	sources    []func(string) (string, bool)

	now      func() time.Time
	patience time.Duration // for each examination; they run side by side
	resolve  func(ctx context.Context, host string) ([]netip.Addr, error)
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	roots    *x509.CertPool // nil: the system's

	facts
}

// facts are what one examination learns and another needs. Nil is unknown.
type facts struct {
	databaseAhead, redisAhead *time.Duration
	workers                   *int
	metrics                   *metrics
	traffic                   *traffic
	httpsRefused              bool // the public address is https, and serve takes it for plain text
}

// newDoctor reads the settings, and goes on with what can be read of them.
// Errors: mistakes, when --config cannot be read at all.
func (a *app) newDoctor(o doctorOptions) (*doctor, error) {
	file, wrong := readEnvFile(a.configFile)
	if file == nil && len(wrong) > 0 {
		return nil, wrong
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second}
	d := &doctor{
		doctorOptions: o, configFile: a.configFile,
		sources: []func(string) (string, bool){a.lookup, func(name string) (string, bool) { v, ok := file[name]; return v, ok }},
		now:     time.Now, patience: 12 * time.Second, dial: dialer.DialContext,
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
	var more mistakes
	d.cfg, more = parseConfig(needs{tls: o.role == "all" || o.role == "serve"}, d.sources...)
	d.mistakes = slices.Concat(wrong, more)
	return d, nil
}

// examine looks at everything: first the settings, then the servers side by
// side, then at what follows from all of it.
func (d *doctor) examine(ctx context.Context) diagnoses {
	byGroup := map[string]diagnoses{}
	for _, r := range d.sideBySide(ctx, []exam{
		{"database", d.examineDatabase},
		{"redis", d.examineRedis},
		{"mail", d.examineMail},
		{"public address", d.examineFront},
		{"traffic", d.readTraffic},
	}) {
		byGroup[r.group] = r.findings
	}
	for group, think := range map[string]func(*report){
		"settings": d.judgeSettings, "clock": d.judgeClock, "secrets": d.judgeSecrets, "proxies": d.judgeProxies, "traffic": d.judgeTraffic,
	} {
		r := &report{group: group}
		think(r)
		byGroup[group] = append(r.findings, byGroup[group]...)
	}
	var all diagnoses
	for _, group := range []string{"settings", "database", "redis", "mail", "clock", "secrets", "public address", "proxies", "traffic"} {
		all = append(all, byGroup[group]...)
	}
	return all
}

// exam looks at one thing of the world. What it learns for others it returns
// as a function, so that an exam that is given up on writes nothing.
type exam struct {
	group string
	run   func(ctx context.Context, r *report) (learn func())
}

// sideBySide runs exams at once. One that does not end in time, whatever it
// hangs on, is a finding by itself.
func (d *doctor) sideBySide(ctx context.Context, exams []exam) []report {
	type result struct {
		report report
		learn  func()
	}
	limited, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	results := make([]chan result, len(exams))
	for i, e := range exams {
		results[i] = make(chan result, 1)
		go func() {
			r := report{group: e.group}
			learn := e.run(limited, &r)
			results[i] <- result{r, learn}
		}()
	}
	late, stop := context.WithTimeout(ctx, d.patience+time.Second) // who obeys its context has ended by then
	defer stop()
	reports := make([]report, len(exams))
	for i, e := range exams {
		var got result
		select {
		case got = <-results[i]:
		case <-late.Done():
			select {
			case got = <-results[i]:
			default:
				got.report.group = e.group
				got.report.wrong("answer", fmt.Sprintf("no answer within %s", d.patience), "is that host alive, and does a firewall drop packets?")
			}
		}
		reports[i] = got.report
		if got.learn != nil {
			got.learn()
		}
	}
	return reports
}

// mistaken reports whether a setting cannot be used as it stands.
func (d *doctor) mistaken(name string) bool {
	for _, m := range d.mistakes {
		if of, _, _ := strings.Cut(m, ":"); of == name || of == name+"_FILE" {
			return true
		}
	}
	return false
}

// usable reports whether a setting is there and right; if not, the settings
// have said so, and r says that its server was not looked at.
func (d *doctor) usable(r *report, name, value string) bool {
	switch {
	case d.mistaken(name):
		r.warn("not looked at", name+" is not right (see settings)", "")
	case value == "" && d.role != "all" && !slices.Contains(roles[d.role].must, name):
		return false // it does without
	case value == "":
		r.warn("not looked at", name+" is not set (see settings)", "")
	default:
		return true
	}
	return false
}

// isDev reports whether these are the settings of `quayside dev`: on this
// machine only, with a secret or key that dev makes up.
func (d *doctor) isDev() bool {
	if !loopback(d.cfg.PublicURL) {
		return false
	}
	for _, s := range d.cfg.PayQIWebhookSecrets {
		if strings.HasPrefix(s.reveal(), devSecretPrefix) {
			return true
		}
	}
	return strings.HasPrefix(d.cfg.AdminAPIKey.reveal(), devKeyPrefix)
}

// listens reports whether somebody takes connections at host:port, of several
// the last.
func listens(ctx context.Context, addr string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr[strings.LastIndexByte(addr, ',')+1:])
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// short is a network error without what the user knows already.
func short(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return strings.TrimSpace(err.Error())
}
