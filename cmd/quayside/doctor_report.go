package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// grade is the verdict of the doctor on one thing.
type grade string

const (
	isFine    grade = "ok"
	isWarning grade = "warning" // it works, but somebody should know
	isWrong   grade = "wrong"   // something does not work, or money or data are in danger
)

var signs = map[grade]string{isFine: "✓", isWarning: "!", isWrong: "✗"}

// diagnosis is one thing that was looked at.
type diagnosis struct {
	Group    string   `json:"group"`
	Check    string   `json:"check"`
	Verdict  grade    `json:"verdict"`
	Finding  string   `json:"finding"`
	Mend     string   `json:"mend,omitempty"`
	Commands []string `json:"commands,omitempty"` // to copy, one each
}

type diagnoses []diagnosis

// report collects the findings of one group.
type report struct {
	group    string
	findings diagnoses
}

func (r *report) fine(check, format string, args ...any) {
	r.findings = append(r.findings, diagnosis{Group: r.group, Check: check, Verdict: isFine, Finding: fmt.Sprintf(format, args...)})
}

func (r *report) warn(check, finding, mend string, commands ...string) {
	r.findings = append(r.findings, diagnosis{r.group, check, isWarning, finding, mend, commands})
}

func (r *report) wrong(check, finding, mend string, commands ...string) {
	r.findings = append(r.findings, diagnosis{r.group, check, isWrong, finding, mend, commands})
}

func (f diagnoses) count(v grade) (n int) {
	for _, one := range f {
		if one.Verdict == v {
			n++
		}
	}
	return n
}

func (f diagnoses) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false) // people read it as well
		return enc.Encode(struct {
			Wrong    int       `json:"wrong"`
			Warnings int       `json:"warnings"`
			Fine     int       `json:"fine"`
			Findings diagnoses `json:"findings"`
		}{f.count(isWrong), f.count(isWarning), f.count(isFine), f})
	}
	var b strings.Builder
	group, width := "", widthOf(w)
	for _, one := range f {
		if one.Group != group {
			if group != "" {
				b.WriteString("\n")
			}
			group = one.Group
			b.WriteString(group + "\n")
		}
		wrap(&b, width, "  "+signs[one.Verdict]+" ", "    ", one.Check+": "+one.Finding)
		if one.Mend != "" {
			wrap(&b, width, "    → ", "      ", one.Mend)
		}
		for _, c := range one.Commands {
			b.WriteString("        " + c + "\n") // whole, so that it can be copied
		}
	}
	fmt.Fprintf(&b, "\n%s\n", f.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

func (f diagnoses) summary() string {
	bad, warnings, good := f.count(isWrong), f.count(isWarning), f.count(isFine)
	counts := fmt.Sprintf("%d wrong, %s, %d fine.", bad, plural(warnings, "warning"), good)
	if bad == 0 {
		counts += " Whether the books add up says `quayside check`."
	}
	return counts
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// widthOf is how wide lines may be: the terminal's width within reason.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 100
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 100
	}
	return max(50, min(width, 110))
}

// wrap writes text with its first line after first and others after rest.
// What stands in one word, such as an address, is never broken.
func wrap(b *strings.Builder, width int, first, rest, text string) {
	line, begun := first, false
	for word := range strings.FieldsSeq(text) {
		if begun && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			b.WriteString(line + "\n")
			line, begun = rest, false
		}
		if begun {
			line += " "
		}
		line, begun = line+word, true
	}
	b.WriteString(line + "\n")
}
