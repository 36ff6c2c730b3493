package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"quayside/internal/fault"
)

// speakOurWay makes huma answer with [Problem] and in our words. These are
// settings of huma's packages: they must be made before an operation is
// registered, and only once.
var speakOurWay = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(context.Background(), status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(ctx.Context(), status, msg, errs)
	}
	huma.ErrorFormatter = formatMessage
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
	for message, mend := range mends {
		*message = mend
	}
})

const (
	notAField    = "is not a field of this request; leave it out"
	notAParam    = "is not a parameter of this request; leave it out"
	missingField = "missing: " // and the field's name, which belongs into the location
)

// mends replace huma's messages by what would be right. An error that huma
// appends (%v) is left out, it may quote the value: see formatMessage.
var mends = map[*string]string{
	&validation.MsgUnexpectedProperty:                notAField,
	&validation.MsgExpectedRFC3339DateTime:           "must be a time such as 2026-01-31T15:04:05Z (RFC 3339)",
	&validation.MsgExpectedRFC3339Date:               "must be a date such as 2026-01-31",
	&validation.MsgExpectedRFC5322Email:              "must be an e-mail address such as ann@example.com",
	&validation.MsgExpectedRFC3986URI:                "must be an address such as https://example.com/path",
	&validation.MsgExpectedRFC4122UUID:               "must be a UUID",
	&validation.MsgExpectedDuration:                  "must be a duration such as 30m",
	&validation.MsgExpectedBoolean:                   "must be true or false",
	&validation.MsgExpectedNumber:                    "must be a number",
	&validation.MsgExpectedInteger:                   "must be a whole number, written in digits only",
	&validation.MsgExpectedString:                    "must be a string",
	&validation.MsgExpectedArray:                     "must be an array",
	&validation.MsgExpectedObject:                    "must be an object",
	&validation.MsgExpectedArrayItemsUnique:          "must not hold an item twice",
	&validation.MsgExpectedOneOf:                     `must be one of "%s"`,
	&validation.MsgExpectedMinimumNumber:             "must be %v or more",
	&validation.MsgExpectedExclusiveMinimumNumber:    "must be more than %v",
	&validation.MsgExpectedMaximumNumber:             "must be %v or less",
	&validation.MsgExpectedExclusiveMaximumNumber:    "must be less than %v",
	&validation.MsgExpectedNumberBeMultipleOf:        "must be a multiple of %v",
	&validation.MsgExpectedMinLength:                 "must have %d characters or more",
	&validation.MsgExpectedMaxLength:                 "must have %d characters or fewer",
	&validation.MsgExpectedBePattern:                 "must be %s",
	&validation.MsgExpectedMatchPattern:              "must match %s",
	&validation.MsgExpectedMinItems:                  "must have %d items or more",
	&validation.MsgExpectedMaxItems:                  "must have %d items or fewer",
	&validation.MsgExpectedMinProperties:             "must have %d entries or more",
	&validation.MsgExpectedMaxProperties:             "must have %d entries or fewer",
	&validation.MsgExpectedRequiredProperty:          missingField + "%s",
	&validation.MsgExpectedDependentRequiredProperty: missingField + "%s (goes with %s)",
}

func formatMessage(format string, args ...any) string {
	for _, arg := range args {
		if _, ok := arg.(error); ok {
			format, _, _ = strings.Cut(format, ": %v")
			return format
		}
	}
	return fmt.Sprintf(format, args...)
}

// humaProblem is how huma's refusals, and errors that handlers return to it,
// become problems. ctx is nil when huma has none at hand.
func humaProblem(ctx context.Context, status int, msg string, errs []error) *Problem {
	all := errors.Join(errs...)
	if f, ok := errors.AsType[*fault.Error](all); ok && f.Kind != fault.Internal {
		return problemOf(ctx, all)
	}
	switch {
	case status >= 500 && all == nil:
		p := Refuse(status, codeOf(status), "%s", titleOf(status))
		p.cause = errors.New(msg)
		return p
	case status >= 500:
		return problemOf(ctx, all)
	case msg == validationFailed:
		return invalidRequest(errs)
	}
	p := Refuse(status, codeOf(status), "%s", msg)
	for _, err := range errs {
		if _, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			field, _ := fieldError(err)
			p.Errors = append(p.Errors, field)
		}
	}
	return p
}

const validationFailed = "validation failed" // what huma says of everything it checks itself

// The order in which one answer is chosen when several things are wrong.
const (
	brokenRule   = iota // 422: it has the right form and breaks a rule
	wrongType           // 400: another JSON type than the field has
	badParameter        // 400: a parameter that cannot be read
	unknownField        // 400
	wrongWhole          // 400: the body as a whole is not what it should be
)

// maxFieldErrors bounds the answer to a body that is wrong in every place.
const maxFieldErrors = 50

func invalidRequest(errs []error) *Problem {
	var fields []FieldError
	worst := brokenRule
	for _, err := range errs {
		field, what := fieldError(err)
		fields, worst = append(fields, field), max(worst, what)
	}
	slices.SortStableFunc(fields, func(a, b FieldError) int { return strings.Compare(a.Location, b.Location) })
	fields = fields[:min(len(fields), maxFieldErrors)]

	var p *Problem
	switch worst {
	case wrongWhole:
		p = Refuse(http.StatusBadRequest, "malformed_json", "The body has another form than this request needs.")
	case unknownField:
		p = Refuse(http.StatusBadRequest, "unknown_field", "The body has fields this request does not know.")
	case badParameter:
		p = Refuse(http.StatusBadRequest, "invalid_parameter", "A parameter cannot be read.")
	case wrongType:
		p = Refuse(http.StatusBadRequest, "invalid_type", "A field has another JSON type than it needs.")
	default:
		p = Refuse(http.StatusUnprocessableEntity, "invalid_request", "The request breaks a rule; errors says where.")
	}
	p.Errors = fields
	return p
}

// fieldError reads one of huma's error details. Its value is never used.
func fieldError(err error) (FieldError, int) {
	d, ok := errors.AsType[*huma.ErrorDetail](err)
	if !ok {
		return FieldError{Location: "body", Message: "is not valid"}, brokenRule
	}
	location, message := d.Location, d.Message
	at, said, decoding := cutMark(message)
	if decoding {
		location, message = strings.TrimSuffix("body."+at, "."), said
	}
	if name, ok := strings.CutPrefix(message, missingField); ok {
		name, rest, _ := strings.Cut(name, " ")
		location, message = location+"."+name, strings.TrimSpace("is required "+rest)
	}
	param := strings.HasPrefix(location, "query.") || strings.HasPrefix(location, "path.") || strings.HasPrefix(location, "header.")
	what := brokenRule
	switch {
	case message == notAField:
		what = unknownField
	case isTypeMessage(message) && location == "body":
		what = wrongWhole
	case isTypeMessage(message), decoding:
		what = wrongType
	case param && strings.HasPrefix(message, "required "):
		message = "is required"
	case param && strings.HasPrefix(message, "invalid "):
		message, what = unreadable(message), badParameter
	}
	return FieldError{Location: short(strings.TrimPrefix(location, "body.")), Message: message}, what
}

func isTypeMessage(m string) bool {
	switch m {
	case validation.MsgExpectedBoolean, validation.MsgExpectedNumber, validation.MsgExpectedInteger,
		validation.MsgExpectedString, validation.MsgExpectedArray, validation.MsgExpectedObject, otherForm:
		return true
	}
	return false
}

// unreadable says what a parameter should have been, from what huma says of
// its parsing.
func unreadable(m string) string {
	switch {
	case strings.HasPrefix(m, "invalid integer"):
		return validation.MsgExpectedInteger
	case strings.HasPrefix(m, "invalid float"):
		return validation.MsgExpectedNumber
	case strings.HasPrefix(m, "invalid boolean"):
		return validation.MsgExpectedBoolean
	case strings.HasPrefix(m, "invalid date/time"):
		return validation.MsgExpectedRFC3339DateTime
	}
	return otherForm
}

// short keeps a field name that somebody made up from filling the answer.
func short(location string) string {
	const limit = 120
	if r := []rune(location); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return location
}
