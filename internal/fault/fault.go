// Package fault gives an error a kind, so that HTTP and the queue can each
// decide what to do with it without knowing where it came from.
//
//	kind           HTTP   queue
//	Invalid        400    settle: the input will not improve
//	Unauthorized   401    settle
//	NotFound       404    settle
//	Conflict       409    settle: the present state forbids it
//	Unprocessable  422    settle: it parses, but breaks a rule
//	NotImplemented 501    settle: this installation is not set up for it
//	Unavailable    503    try again with backoff
//	Internal       500    try again with backoff
//
// Internal is the zero kind: an error nobody classified is a bug or an outage,
// its text goes to the log and never to a client.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what the receiver of an error can do about it.
type Kind int

// The kinds; the table in the package comment says what each one means.
const (
	Internal Kind = iota
	Invalid
	Unauthorized
	NotFound
	Conflict
	Unprocessable
	NotImplemented
	Unavailable
)

// Field is what is wrong with one part of a request.
type Field struct {
	Location string // where, as a path: "items[0].quantity"
	Message  string // what is wrong and what would be right
}

// Error carries a kind and a sentence that is safe to show to the caller.
type Error struct {
	Kind    Kind
	Code    string // stable and snake_case, for programs: "insufficient_stock"
	Message string // for people
	Fields  []Field
	cause   error
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// New returns an error of the given kind with no cause.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Wrap gives cause a kind and a public message.
func Wrap(kind Kind, code string, cause error, message string) *Error {
	return &Error{Kind: kind, Code: code, Message: message, cause: cause}
}

// With adds what is wrong with single fields and returns e.
func (e *Error) With(fields ...Field) *Error {
	e.Fields = append(e.Fields, fields...)
	return e
}

// KindOf returns the kind nearest the surface, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Message returns the sentence for the client.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != Internal {
		return e.Message
	}
	return "internal error"
}

// Permanent reports whether trying the same thing again is pointless.
func Permanent(err error) bool {
	kind := KindOf(err)
	return kind != Internal && kind != Unavailable
}
