package dock

import (
	"bufio"
	"strings"
	"unicode/utf8"
)

// formula reports whether a spreadsheet might calculate a cell that begins
// like s. The full-width signs count: some programs fold them.
func formula(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", r)
}

// shield puts an apostrophe before text that a spreadsheet might calculate.
// Text that would be read as shielded gets one as well, so that unshield gives
// each text back as it was.
func shield(s string) string {
	if formula(strings.TrimLeft(s, "'")) {
		return "'" + s
	}
	return s
}

// unshield takes away the apostrophe of shield.
func unshield(s string) string {
	if rest, ok := strings.CutPrefix(s, "'"); ok && formula(strings.TrimLeft(rest, "'")) {
		return rest
	}
	return s
}

// writeText writes a cell of text that may be anybody's: always in quotes, so
// that a program which takes another separator cuts nothing out of it.
func writeText(out *bufio.Writer, s string) {
	_ = out.WriteByte('"') // a bufio.Writer keeps its first error for Flush
	_, _ = out.WriteString(strings.ReplaceAll(shield(s), `"`, `""`))
	_ = out.WriteByte('"')
}
