package access

import (
	"slices"
	"strings"

	"quayside/internal/fault"
)

// Scopes are what a key may be allowed, each with what it means.
var Scopes = map[string]string{
	"orders:read":   "orders, their timelines, cases and refunds",
	"orders:write":  "open, cancel, ship and take back orders",
	"stock:read":    "products and their ledger",
	"stock:write":   "add products, change stock",
	"events:read":   "what PayQI sent, with raw bodies",
	"events:replay": "have events applied again",
	"cases:resolve": "decide cases",
	"refunds:write": "decide about money that is due back, and report that it was sent",
	"emails:read":   "the log of e-mails; what they say needs pii:read too",
	"emails:send":   "send e-mails again",
	"imports:read":  "imports, how far they are and what was wrong with their lines",
	"imports:write": "send and cancel imports; each needs stock:write or orders:write too, for what it writes",
	"reports:read":  "statistics and the money report",
	"pii:read":      "customers' addresses and names; without it they are masked",
	"audit:read":    "who did what; what it has changed needs pii:read too",
	"keys:admin":    "create and revoke keys, for no more than one's own key may",
}

// Roles are names for sets of scopes.
var Roles = map[string][]string{
	"viewer":   {"orders:read", "stock:read", "events:read", "emails:read", "imports:read", "reports:read"},
	"operator": {"orders:read", "stock:read", "events:read", "emails:read", "imports:read", "reports:read", "pii:read", "orders:write", "stock:write", "events:replay", "cases:resolve", "refunds:write", "emails:send", "imports:write"},
	"admin":    everything(),
}

func everything() (all []string) {
	for s := range Scopes {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// expand replaces roles by their scopes. Errors: Unprocessable for a word that
// is neither.
func expand(words []string) ([]string, error) {
	var scopes []string
	for _, w := range words {
		_, known := Scopes[w]
		switch {
		case Roles[w] != nil:
			scopes = append(scopes, Roles[w]...)
		case known:
			scopes = append(scopes, w)
		default:
			return nil, invalid("scopes", "must be roles (viewer, operator, admin) or scopes ("+strings.Join(everything(), ", ")+")")
		}
	}
	if scopes == nil {
		return nil, invalid("scopes", "must name at least one role or scope")
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), nil
}

func invalid(field, message string) error {
	return fault.New(fault.Unprocessable, "invalid_key", "the key breaks a rule").With(fault.Field{Location: field, Message: message})
}
