package main

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// readEnvFile reads the file of --config, "" for none, and looks for names that
// were meant for us but mistyped: nobody would read those.
func readEnvFile(path string) (values map[string]string, wrong mistakes) {
	if path == "" {
		return nil, nil
	}
	body, err := os.ReadFile(path) //nolint:gosec // the operator's own path
	if err != nil {
		wrong.add("--config", "%v; name a file with lines of NAME=value", err)
		return nil, wrong
	}
	for _, name := range expanded(body) {
		wrong.add(name, "holds a $, which would be replaced; put the value into 'single quotes'")
	}
	values, err = godotenv.UnmarshalBytes(body)
	if err != nil { // its text may quote the line, and with it a secret
		wrong.add("--config", "%s is not made of lines such as NAME=value", path)
		return nil, wrong
	}
	known := knownNames()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if meant := didYouMean(name, known); meant != "" {
			wrong.add(name, "in %s is not a setting; did you mean %s?", path, meant)
		}
	}
	return values, wrong
}

// knownNames are those parseConfig looks at, less the settings of a later
// version, of which it says so itself.
func knownNames() []string {
	var names []string
	for name, field := range settingsOf(&config{}) {
		names = append(names, name)
		if isSecret(field) {
			names = append(names, name+"_FILE")
		}
	}
	return names
}

// expanded names the settings in whose values godotenv would take $word for a
// variable. Only single quotes keep it from that.
func expanded(body []byte) []string {
	var names []string
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(line, "=")
		name, value = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "export ")), strings.TrimSpace(value)
		value, _, _ = strings.Cut(value, " #")
		if !strings.HasPrefix(name, "#") && !strings.HasPrefix(value, "'") && strings.Contains(value, "$") {
			names = append(names, name)
		}
	}
	return names
}

// didYouMean is the setting that name was probably meant for, "" when name is
// a setting or none of our business.
func didYouMean(name string, known []string) string {
	if slices.Contains(known, name) {
		return ""
	}
	best, least := "", 3 // two slips of the finger
	for _, k := range known {
		if d := distance(strings.ToUpper(name), k); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return best
	}
	// ORDER_TIMEOUT, REDIS_PASSWORD: the family is ours, the name is not.
	family, _, _ := strings.Cut(strings.ToUpper(name), "_")
	for _, k := range known {
		if strings.HasPrefix(k, family+"_") {
			return k
		}
	}
	return ""
}

// distance counts the letters to add, drop or change to get from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
