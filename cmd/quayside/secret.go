package main

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// secret is a setting that must not be printed. However it is formatted,
// encoded or logged it shows as [redacted]; only reveal gives the value.
type secret string

func (s secret) reveal() string { return string(s) }

// Format answers every verb of fmt, also %#v and %x.
func (s secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, redacted) }

// String is for those who call it directly.
func (s secret) String() string { return redacted }

// GoString is for those who call it directly.
func (s secret) GoString() string { return redacted }

// MarshalText covers encoders that know text.
func (s secret) MarshalText() ([]byte, error) { return []byte(redacted), nil } //nolint:unparam // encoding.TextMarshaler

// MarshalJSON covers encoding/json.
func (s secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil } //nolint:unparam // json.Marshaler

// LogValue covers slog.
func (s secret) LogValue() slog.Value { return slog.StringValue(redacted) }
