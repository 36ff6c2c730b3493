package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"quayside/internal/notify"
	"quayside/internal/queue"
)

const nothingLost = "; nothing is lost, workers find their work in Postgres, but more slowly"

// examineRedis looks at the bell.
func (d *doctor) examineRedis(ctx context.Context, r *report) (learn func()) {
	if !d.usable(r, "REDIS_URL", d.cfg.RedisURL.reveal()) {
		return nil
	}
	rdb, err := queue.Open(d.cfg.RedisURL.reveal())
	if err != nil {
		r.wrong("REDIS_URL", err.Error(), "configs/example.env shows how it is written")
		return nil
	}
	defer func() { _ = rdb.Close() }()
	at := hostOf(d.cfg.RedisURL.reveal())
	h, err := queue.Examine(ctx, rdb, d.now)
	if err != nil {
		what, mend := whyNoRedis(ctx, at, strings.HasPrefix(d.cfg.RedisURL.reveal(), "rediss:"), err)
		r.wrong("REDIS_URL", what+nothingLost, mend)
		return nil
	}
	r.fine("REDIS_URL", "%s answers", at)
	judgeRedis(r, h, d.isDev())
	workers, err := queue.Workers(rdb)
	return func() {
		d.redisAhead = &h.Ahead
		if err == nil {
			d.workers = &workers
		}
	}
}

// hostOf is the host:port of an address, without what is secret.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the server"
	}
	return u.Host
}

func whyNoRedis(ctx context.Context, at string, withTLS bool, err error) (what, mend string) {
	switch queue.ObstacleOf(err) {
	case queue.NoLogin:
		return fmt.Sprintf("%s refuses the login (%s)", at, short(err)), "write user and password as redis://user:password@host:6379/0; with requirepass alone as redis://:password@host:6379/0"
	case queue.NoTLS:
		return fmt.Sprintf("%s and we do not agree on TLS (%s)", at, short(err)), "rediss:// is with TLS and redis:// without; the certificate must be good for that host name"
	case queue.NotRedis:
		return at + " answers, but is not Redis (it may be a web server)", "is that the port of Redis (6379 by default)?"
	case queue.NotReady:
		return fmt.Sprintf("%s is not ready (%s)", at, short(err)), "wait until it has loaded its data, or has a master again"
	case queue.NoAnswer, queue.Unexplained:
		switch {
		case !listens(ctx, at):
		case withTLS:
			return at + " takes connections and says nothing", "it hangs, or speaks without TLS: then write redis:// instead of rediss://"
		default:
			return fmt.Sprintf("%s takes connections and does not answer (%s)", at, short(err)), "it hangs, wants TLS (then write rediss://), or is not Redis (6379 by default)"
		}
	}
	return fmt.Sprintf("%s does not answer (%s)", at, short(err)), "is Redis running there, is it the right port, does `bind` name that interface, and does no firewall stand between?"
}

func judgeRedis(r *report, h queue.Health, isDev bool) {
	switch {
	case h.Version == "" && isDev:
		r.fine("version", "the store of `quayside dev`")
	case h.Version == "":
		r.warn("version", "it does not tell", "see to it that it is "+queue.MinVersion+" or newer")
	case h.Old():
		r.wrong("version", "Redis "+h.Version+" lacks commands that the queue needs", "install "+queue.MinVersion+" or newer")
	default:
		r.fine("version", "Redis %s", h.Version)
	}
	switch {
	case h.Policy == "noeviction":
		r.fine("maxmemory-policy", "noeviction: no job is thrown away")
	case h.Policy != "":
		r.wrong("maxmemory-policy", "is "+h.Policy+": when memory is short Redis throws jobs away; the sweep finds their work again, late", "and make it last in redis.conf or with CONFIG REWRITE:",
			"redis-cli CONFIG SET maxmemory-policy noeviction")
	case !isDev:
		r.warn("maxmemory-policy", "it does not tell", "see to it that it is noeviction, in the provider's settings")
	}
	if h.MaxBytes > 0 {
		full := h.UsedBytes * 100 / h.MaxBytes
		found := fmt.Sprintf("%d of %d MB are used (%d %%)", h.UsedBytes>>20, h.MaxBytes>>20, full)
		if full >= 90 {
			r.warn("memory", found+"; when it is full, bells are lost until the sweep", "give it more, or look for what else lives there:", "redis-cli --bigkeys")
		} else {
			r.fine("memory", "%s", found)
		}
	}
	if h.Replica {
		r.wrong("role", "it is a replica, which takes no jobs", "name the master, or use redis-sentinel://host:26379/0?master=NAME")
	}
	if h.NoScripts != nil {
		r.wrong("scripts", "it refuses them ("+short(h.NoScripts)+"), and the queue is made of them", "let the user run commands and scripts on all keys:", "redis-cli ACL SETUSER NAME +@all -@dangerous +info +keys ~* &*")
	}
}

// certificateSoon is how early a certificate that ends is told of: renewals
// usually happen 30 days before.
const certificateSoon = 14 * 24 * time.Hour

// examineMail goes as far as a letter would, less the letter.
func (d *doctor) examineMail(ctx context.Context, r *report) (learn func()) {
	if !d.usable(r, "SMTP_URL", d.cfg.SMTPURL.reveal()) || !d.usable(r, "MAIL_FROM", d.cfg.MailFrom) {
		return nil
	}
	smtp, err := notify.NewSMTP(d.cfg.SMTPURL.reveal())
	if err != nil {
		r.wrong("SMTP_URL", err.Error(), "write it as "+smtpForm+"; in a password @ is %40 and : is %3A")
		return nil
	}
	way, result := smtp.Examine(ctx, d.cfg.MailFrom)
	if result.Err != nil {
		what, mend := whyNoMail(way.Server, d.cfg.MailFrom, result)
		r.wrong("SMTP_URL", what+"; letters wait and are tried again", mend)
		return nil
	}
	r.fine("SMTP_URL", "%s takes letters from %s%s", way.Server, d.cfg.MailFrom, map[bool]string{true: ", after login"}[way.LoggedIn])
	d.judgeMailTLS(r, way)
	if d.mailTo != "" {
		d.sendTestMail(ctx, r, smtp)
	}
	return nil
}

func whyNoMail(server, from string, result notify.Result) (what, mend string) {
	said := fmt.Sprintf("%s: %s", server, short(result.Err))
	if isCertificate(result.Err) {
		return "the certificate of " + said, "write the host name that it is made out to, or install a certificate that this machine trusts"
	}
	switch result.Refused() {
	case "login":
		return said, "is the login right (in an address @ is %40)? It goes over TLS only: the server must offer STARTTLS on that port, or use smtps://host:465"
	case "sender":
		return said, "it will not send for " + from + ": let MAIL_FROM belong to the login, or have the provider verify its domain"
	case "greeting":
		return said, "it answered, but would not go on: port 587 wants smtp:// (STARTTLS), 465 wants smtps://"
	}
	return said, "is host and port right (587 with smtp://, 465 with smtps://)? Many providers of servers block port 25"
}

func isCertificate(err error) bool {
	_, host := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return host || invalid || unknown
}

func (d *doctor) judgeMailTLS(r *report, way notify.Way) {
	switch {
	case way.TLS == nil && nearby(way.Server):
		r.fine("TLS", "none, on this machine or in its own network")
	case way.TLS == nil:
		r.warn("TLS", "customers' addresses and orders go to "+way.Server+" in plain text", "use the server's port 587 with STARTTLS, or smtps://host:465")
	case way.Unproven != nil && !nearby(way.Server):
		r.warn("TLS", "the certificate of "+way.Server+" proves nothing: "+short(way.Unproven), "write the host name that it is made out to; with smtps:// or a login it would be refused")
	default:
		left := way.TLS.PeerCertificates[0].NotAfter.Sub(d.now())
		if left < certificateSoon {
			r.warn("TLS", "the certificate of "+way.Server+" ends in "+days(left), "have it renewed")
			return
		}
		r.fine("TLS", "encrypted; the certificate is good for %s", days(left))
	}
}

func days(left time.Duration) string { return plural(int(left.Hours()/24), "day") }

func (d *doctor) sendTestMail(ctx context.Context, r *report, smtp *notify.SMTP) {
	text := "This is the test letter that `quayside doctor --mail-to` was asked for.\n\nLook whether it arrived in the inbox or among the spam, and from whom it says it is.\n"
	result := smtp.Send(ctx, notify.Message{
		From: d.cfg.MailFrom, FromName: d.cfg.ShopName, To: d.mailTo, MessageID: "doctor-" + randomHex(12) + "@quayside",
		Subject: "Test letter of " + d.cfg.ShopName, Text: text, HTML: "<p>This is the test letter that <code>quayside doctor --mail-to</code> was asked for.</p><p>Look whether it arrived in the inbox or among the spam, and from whom it says it is.</p>",
	})
	if result.Outcome != notify.Accepted {
		r.wrong("test letter", fmt.Sprintf("to %s: %s, %s", d.mailTo, result.Outcome, short(result.Err)), "the mail server's answer says why; is the address right, and is relaying allowed for this login?")
		return
	}
	r.fine("test letter", "taken by the mail server for %s; see that it arrives, and not among the spam", d.mailTo)
}
