package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quayside/internal/webhooks"
)

// verifyOptions are the flags of verify-signature.
type verifyOptions struct {
	body, signature, timestamp, headers, at string
	secretFiles, oldSecretFiles             []string
	asJSON                                  bool
}

func newVerifySignatureCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify-signature",
		Short: "Say what is wrong with the signature of a captured webhook",
		Long: `Judge a captured webhook as this version would, with the same code: accepted or
refused, and when refused, why and what to do. It tries what goes wrong in
practice: prefixes, base64, a line break in the secret, a secret that was
decoded, a body that was parsed and written anew, another digest, milliseconds.

The body comes from --body, from --headers when that file holds a whole request,
or from standard input. --headers takes a request as nc saw it, the output of
curl -v, or header lines alone. Nothing is sent and nothing is stored.

Exit codes: 0 it would be accepted, 1 it would not, 2 wrong usage.

Settings used: PAYQI_WEBHOOK_SECRET unless --secret-file is given, PAYQI_TIMESTAMP.`,
		Example: `  quayside verify-signature --headers request.txt
  quayside verify-signature --body body.json --signature 5f3a… --timestamp 1735689600
  quayside verify-signature --headers request.txt --at 2026-01-31T12:00:00Z`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return errors.New("name the files with --body and --headers; a secret is never an argument")
			case o.headers == "" && o.signature == "":
				return errors.New("give the signature with --signature VALUE, or the captured headers with --headers FILE")
			case o.headers == "-" && o.body == "-":
				return errors.New("only one of --headers and --body can be standard input")
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return a.verifySignature(o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.headers, "headers", "", "the captured headers, or the whole request, in `FILE` (- for standard input)")
	f.StringVar(&o.body, "body", "", "the body, to the byte, in `FILE` (- for standard input)")
	f.StringVar(&o.signature, "signature", "", "the value of X-PayQI-Signature (instead of --headers' own)")
	f.StringVar(&o.timestamp, "timestamp", "", "the value of X-PayQI-Timestamp (instead of --headers' own)")
	f.StringArrayVar(&o.secretFiles, "secret-file", nil, "take the webhook secret from `FILE` instead of PAYQI_WEBHOOK_SECRET; may be repeated")
	f.StringArrayVar(&o.oldSecretFiles, "old-secret-file", nil, "also try the secret in `FILE`, which is no longer in use")
	f.StringVar(&o.at, "at", "", "judge as of then: RFC 3339, Unix seconds, or -1h (default now)")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) verifySignature(o verifyOptions) error {
	now, err := moment(o.at)
	if err != nil {
		return err
	}
	secrets, old, mode, err := a.secretsFor(o)
	if err != nil {
		return err
	}
	c, err := a.captured(o)
	if err != nil {
		return err
	}
	verifier, err := webhooks.NewVerifier(secrets...)
	if err != nil {
		return misuse(err.Error() + "; copy it whole from PayQI's dashboard, Settings > Webhooks")
	}
	in := webhooks.Options{Verifier: verifier, Timestamp: mode, Clock: func() time.Time { return now }}
	v := judge(in, c, inquiry{secrets: secrets, old: old, timing: timing{now, mode}})
	if o.asJSON {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(a.stdout, "%s\n", b)
	} else {
		v.print(a.stdout, a.paint())
	}
	return said(v.Accepted)
}

// moment reads --at.
func moment(text string) (time.Time, error) {
	if d, relative := offset(text); relative {
		return time.Now().Add(d), nil
	}
	if text == "" {
		return time.Now(), nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, misuse(fmt.Sprintf("--at %q is no time; write for instance 2026-01-31T12:00:00Z, 1769860800 or -1h", text))
	}
	return t, nil
}

// secretsFor are the secrets that count, and those that once did.
func (a *app) secretsFor(o verifyOptions) (secrets, old []string, mode webhooks.TimestampMode, err error) {
	n := needs{examples: true}
	if len(o.secretFiles) == 0 {
		n.must = []string{"PAYQI_WEBHOOK_SECRET"}
	}
	cfg, err := a.settings(n)
	if err != nil {
		return nil, nil, "", err
	}
	for _, s := range cfg.PayQIWebhookSecrets {
		secrets = append(secrets, s.reveal())
	}
	var wrong mistakes
	read := func(paths []string) (list []string) {
		for _, path := range paths {
			list = append(list, readSecret("secret", path, &wrong))
		}
		return list
	}
	if len(o.secretFiles) > 0 {
		secrets = read(o.secretFiles)
	}
	old = read(o.oldSecretFiles)
	if len(wrong) > 0 {
		_, why, _ := strings.Cut(wrong[0], ": ") // behind the name of the setting that it is not
		return nil, nil, "", misuse("--secret-file: " + why)
	}
	return secrets, old, webhooks.TimestampMode(cfg.PayQITimestamp), nil
}

// captured reads the request from wherever the flags say it is.
func (a *app) captured(o verifyOptions) (capture, error) {
	c := capture{header: http.Header{}}
	if o.headers != "" {
		text, err := a.read(o.headers)
		if err != nil {
			return c, misuse("--headers: " + err.Error() + "; name a file that can be read, or - for standard input")
		}
		c = parseCapture(text)
		if len(c.header) == 0 {
			return c, misuse("--headers: no line there looks like a header (Name: value)")
		}
	}
	if o.signature != "" {
		c.header.Set(signatureHeader, o.signature)
	}
	if o.timestamp != "" {
		c.header.Set(timestampHeader, o.timestamp)
	}
	if o.body != "" || c.body == nil && o.headers != "-" {
		from := o.body
		if from == "" {
			from = "-"
		}
		body, err := a.read(from)
		if err != nil {
			return c, misuse("--body: " + err.Error() + "; name a file that can be read, or - for standard input")
		}
		c.body, c.notes = body, nil
	}
	if c.body == nil {
		return c, misuse("--headers holds no body: give it with --body FILE")
	}
	return c, nil
}

func (a *app) read(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.stdin)
	}
	return os.ReadFile(path) //nolint:gosec // the operator's own path
}
