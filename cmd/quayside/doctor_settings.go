package main

import (
	"fmt"
	"io/fs"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// judgeSettings tells every mistake at once, what each command would lack, and
// what is read from where.
func (d *doctor) judgeSettings(r *report) {
	if !d.tellSources(r) {
		return
	}
	for _, m := range d.mistakes {
		name, text, _ := strings.Cut(m, ": ")
		if isKey(name) {
			continue // told among the secrets
		}
		what, mend := halves(text)
		r.wrong(name, what, mend)
	}
	told := map[string]bool{}
	for _, role := range []string{"serve", "work", "migrate"} {
		if d.role == "all" || d.role == role {
			d.judgeRole(r, role, told)
		}
	}
	if d.cfg.PayQITimestamp == timestampOff {
		r.warn("PAYQI_TIMESTAMP", "is off: events of any age are taken (an event that was stored once is still never applied twice)",
			"set it to what the guide asks for under \"Replay Attacks\":", "PAYQI_TIMESTAMP=if-present")
	}
	if from, err := mail.ParseAddress(d.cfg.MailFrom); err == nil && !d.isDev() && exampleHost(from.Address[strings.LastIndexByte(from.Address, '@')+1:]) {
		r.warn("MAIL_FROM", from.Address+" is an example: nobody can answer to it, and mail servers refuse such senders", "set it to an address of your shop")
	}
}

func isKey(name string) bool {
	name = strings.TrimSuffix(name, "_FILE")
	return name == "PAYQI_WEBHOOK_SECRET" || name == "PAYQI_API_KEY" || name == "ADMIN_API_KEY"
}

// halves are what is wrong and what to do about it.
func halves(text string) (what, mend string) {
	i := strings.LastIndex(text, "; ")
	if i < 0 {
		return text, "configs/example.env shows how it is written"
	}
	return text[:i], text[i+2:]
}

// tellSources says where the settings come from; false when there are none.
func (d *doctor) tellSources(r *report) bool {
	inFile, inEnv := 0, 0
	for _, name := range knownNames() {
		env, _ := d.sources[0](name)
		file, _ := d.sources[1](name)
		if env != "" {
			inEnv++
		}
		if file != "" {
			inFile++
		}
		if env != "" && file != "" && env != file {
			r.warn(name, fmt.Sprintf("is set in the environment and, differently, in %s; the environment wins", d.configFile), "keep one of them:", "unset "+name)
		}
	}
	switch {
	case inFile+inEnv == 0:
		r.wrong("source", "there are no settings", "name their file, or run this with the environment of the service; `quayside dev` writes .quayside/dev.env:", programName()+" doctor --config FILE")
		return false
	case d.configFile == "":
		r.fine("source", "the environment, %s; no --config", plural(inEnv, "setting"))
	case inEnv == 0:
		r.fine("source", "%s, %s; none from the environment", d.configFile, plural(inFile, "setting"))
	default:
		r.fine("source", "%s, %s, and the environment, %s", d.configFile, plural(inFile, "setting"), plural(inEnv, "setting"))
	}
	return true
}

// judgeRole says whether a command could start with these settings. What is
// missing is explained the first time it is told.
func (d *doctor) judgeRole(r *report, role string, told map[string]bool) {
	var lacks, lines []string
	for _, name := range d.cfg.missing(roles[role]) {
		if d.mistaken(name) {
			continue // told already
		}
		lacks = append(lacks, name)
		if !told[name] {
			lines, told[name] = append(lines, name+"=…   # "+advice[name]), true
		}
	}
	if len(lacks) == 0 {
		r.fine(role, "has what it needs")
		return
	}
	mend := "set, in the environment or in the file of --config:"
	if d.role == "all" && role != "migrate" {
		mend = "set these, or say with --role for which command the settings are:"
	}
	r.wrong(role, "would not start: it lacks "+strings.Join(lacks, ", "), mend, lines...)
}

// exampleHost reports whether host is reserved for documentation (RFC 2606).
func exampleHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, e := range []string{"example", "example.com", "example.net", "example.org"} {
		if host == e || strings.HasSuffix(host, "."+e) {
			return true
		}
	}
	return false
}

// judgeSecrets looks at the values without ever telling them.
func (d *doctor) judgeSecrets(r *report) {
	for _, m := range d.mistakes {
		if name, text, _ := strings.Cut(m, ": "); isKey(name) {
			what, mend := halves(text)
			r.wrong(name, what, mend)
		}
	}
	for i, s := range d.cfg.PayQIWebhookSecrets {
		name := "PAYQI_WEBHOOK_SECRET"
		if d.mistaken(name) {
			break
		}
		if len(d.cfg.PayQIWebhookSecrets) > 1 {
			name = fmt.Sprintf("%s (number %d)", name, i+1)
		}
		d.judgeSecret(r, name, s, devSecretPrefix, "copy it from PayQI's dashboard, Settings > Webhooks")
	}
	if d.cfg.AdminAPIKey != "" && !d.mistaken("ADMIN_API_KEY") {
		d.judgeSecret(r, "ADMIN_API_KEY", d.cfg.AdminAPIKey, devKeyPrefix, "make one up: openssl rand -base64 32")
	}
	if d.cfg.PayQIAPIKey != "" && !d.mistaken("PAYQI_API_KEY") {
		d.judgeSecret(r, "PAYQI_API_KEY", d.cfg.PayQIAPIKey, devSecretPrefix, "copy it from PayQI's dashboard")
	}
	d.compareSecrets(r)
	d.judgeSecretFiles(r)
	if len(r.findings) == 0 && hold(d.sources...) {
		r.fine("values", "long enough, no examples, all different, and nobody else can read their files")
	}
}

func (d *doctor) judgeSecret(r *report, name string, s secret, devPrefix, mend string) {
	value := s.reveal()
	lower := strings.ToLower(value)
	switch {
	case strings.ContainsAny(value[:1], `"'`) || strings.ContainsAny(value[len(value)-1:], `"'`):
		r.wrong(name, "begins or ends with a quotation mark, which counts as part of it (docker's --env-file and systemd keep what the shell would take away)", "write it without quotation marks")
	case strings.HasPrefix(value, "PAYQI_") || strings.HasPrefix(value, "ADMIN_API_KEY=") || strings.HasPrefix(lower, "bearer "):
		r.wrong(name, "was copied with the words before it", "keep the value alone")
	case strings.HasPrefix(value, devPrefix) && !d.isDev():
		r.wrong(name, "was made up by `quayside dev`, and does not belong on "+d.cfg.PublicURL, mend)
	case distinct(value) < 8:
		r.wrong(name, "repeats a few letters, and can be guessed", mend)
	case !d.isDev() && guessable(lower):
		r.warn(name, "holds a word such as test, dev or secret: is it the real one? PayQI's test mode has a secret of its own, and live events signed with another are refused", mend)
	}
}

func distinct(s string) int {
	seen := map[rune]bool{}
	for _, c := range s {
		seen[c] = true
	}
	return len(seen)
}

// guessable looks for words that stand by themselves, so that random letters
// are not suspected.
func guessable(lower string) bool {
	words := strings.FieldsFunc(lower, func(c rune) bool { return c < 'a' || c > 'z' })
	return slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"test", "dev", "demo", "dummy", "sample", "example", "secret", "password", "staging"}, w)
	})
}

// compareSecrets finds values that are used twice.
func (d *doctor) compareSecrets(r *report) {
	type use struct{ name, value string }
	var uses []use
	for i, s := range d.cfg.PayQIWebhookSecrets {
		for j := range i {
			if d.cfg.PayQIWebhookSecrets[j] == s {
				r.warn("PAYQI_WEBHOOK_SECRET", fmt.Sprintf("numbers %d and %d are the same: PayQI's new secret is not among them", j+1, i+1), "name the old and the new one, with a comma between")
			}
		}
		uses = append(uses, use{"PAYQI_WEBHOOK_SECRET", s.reveal()})
	}
	uses = append(uses, use{"PAYQI_API_KEY", d.cfg.PayQIAPIKey.reveal()}, use{"ADMIN_API_KEY", d.cfg.AdminAPIKey.reveal()})
	for _, server := range []use{{"DATABASE_URL", d.cfg.DatabaseURL.reveal()}, {"REDIS_URL", d.cfg.RedisURL.reveal()}, {"SMTP_URL", d.cfg.SMTPURL.reveal()}} {
		if u, err := url.Parse(server.value); err == nil && u.User != nil {
			password, _ := u.User.Password()
			uses = append(uses, use{"the password in " + server.name, password})
		}
	}
	for i, a := range uses {
		for _, b := range uses[:i] {
			switch {
			case a.value == "" || a.value != b.value || a.name == b.name:
			case a.name == "ADMIN_API_KEY":
				r.wrong(a.name, "is the same as "+b.name+": who may sign events could also ship goods", "make one up for it alone:", "openssl rand -base64 32")
			default:
				r.warn(a.name, "is the same as "+b.name, "give each its own: who learns one of them has both")
			}
		}
	}
}

// judgeSecretFiles looks for files with secrets that every user of this
// machine can read.
func (d *doctor) judgeSecretFiles(r *report) {
	if runtime.GOOS == "windows" {
		return // its mode bits say nothing
	}
	files := map[string]string{"TLS_KEY_FILE": d.cfg.TLSKeyFile}
	if d.configFile != "" && hold(d.sources[1]) {
		files["--config"] = d.configFile
	}
	for name, field := range settingsOf(&config{}) {
		if isSecret(field) {
			files[name+"_FILE"] = d.setting(name + "_FILE")
		}
	}
	for name, path := range files {
		if path == "" || strings.HasPrefix(path, "/run/secrets/") { // a container's own, where there are no others
			continue
		}
		if openToAll(path) {
			r.wrong(name, path+" holds a secret, and every user of this machine can read it", "keep it to the user that quayside runs as:", "chmod 600 "+path)
		}
	}
	slices.SortStableFunc(r.findings, func(a, b diagnosis) int { return strings.Compare(a.Check, b.Check) })
}

// hold reports whether one of sources has the value of a secret.
func hold(sources ...func(string) (string, bool)) bool {
	for name, field := range settingsOf(&config{}) {
		for _, source := range sources {
			if v, _ := source(name); v != "" && isSecret(field) {
				return true
			}
		}
	}
	return false
}

// setting is the value of a name from the source that wins.
func (d *doctor) setting(name string) string {
	for _, source := range d.sources {
		if v, _ := source(name); v != "" {
			return v
		}
	}
	return ""
}

// openToAll reports whether others may read path and pass every folder above it.
func openToAll(path string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode()&0o004 == 0 {
		return false
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&fs.ModePerm&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
