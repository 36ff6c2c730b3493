package notify

import (
	"strings"
	"unicode/utf8"
)

// textWidth is how many columns the plain text of a letter fills.
const textWidth = 68

// rule is a line across the text.
func rule(indent string) string { return indent + strings.Repeat("-", textWidth-len(indent)) }

// row sets left and right at the two edges of the text. A left that is too
// long goes on below, further in, and right stands beside its last line.
func row(left, right string) string {
	const indent, further = "  ", "    "
	room := max(textWidth-utf8.RuneCountInString(right)-1, len(further)+10)
	lines := fold(left, indent, further, room)
	last := lines[len(lines)-1]
	lines[len(lines)-1] = last + strings.Repeat(" ", max(1, room+1-utf8.RuneCountInString(last))) + right
	return strings.Join(lines, "\n")
}

// fold breaks s between words into lines of at most width runes, the first
// begun with indent, the others with further. A word that is too long for a
// line, such as a link, stays whole.
func fold(s, indent, further string, width int) (lines []string) {
	line := indent
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = further + word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// tidy breaks long lines and leaves one empty line where templates made several.
func tidy(s string) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimRight(line, " ")
		switch {
		case line == "" && (len(out) == 0 || out[len(out)-1] == ""):
		case utf8.RuneCountInString(line) <= textWidth:
			out = append(out, line)
		default:
			text := strings.TrimLeft(line, " ")
			indent := line[:len(line)-len(text)]
			further := indent
			if indent != "" {
				further += "  "
			}
			out = append(out, fold(text, indent, further, textWidth)...)
		}
	}
	return strings.TrimRight(strings.Join(out, "\n"), "\n") + "\n"
}
