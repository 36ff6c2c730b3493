package web

import (
	"context"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Read reads data as the admin API reads the body of a request of type T: one
// JSON object, strictly, by the rules in T's tags. Its errors are the [Problem]
// that the request would have been answered with. It is for the lines of a file,
// so that they have no rules of their own.
func Read[T any](data []byte) (*T, error) {
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	var parsed any
	if err := decodeJSON(data, &parsed); err != nil {
		return nil, undecodable(err)
	}
	r := rulesOf(reflect.TypeFor[T]())
	place, result := huma.NewPathBuffer(nil, 0), &huma.ValidateResult{}
	place.Push("body")
	huma.Validate(r.registry, r.schema, place, huma.ModeWriteToServer, parsed, result)
	if len(result.Errors) > 0 {
		return nil, invalidRequest(result.Errors)
	}
	v := new(T)
	if err := decodeJSON(data, v); err != nil {
		return nil, undecodable(err)
	}
	return v, nil
}

// undecodable is an error of decodeJSON as huma passes it on.
func undecodable(err error) error {
	return invalidRequest([]error{&huma.ErrorDetail{Location: "body", Message: err.Error()}})
}

// rules are the schema of a type, made once.
type rules struct {
	registry huma.Registry
	schema   *huma.Schema
}

var known sync.Map // reflect.Type → rules

func rulesOf(t reflect.Type) rules {
	if r, ok := known.Load(t); ok {
		return r.(rules) //nolint:errcheck,forcetypeassert // nothing else is stored
	}
	speakOurWay() // messages are made with the schema
	registry := huma.NewMapRegistry("#/components/schemas/", schemaName)
	r, _ := known.LoadOrStore(t, rules{registry, registry.Schema(t, true, t.Name())})
	return r.(rules) //nolint:errcheck,forcetypeassert // nothing else is stored
}

// Explain says err as the API would answer it: its code, its sentence and its
// fields; an internal one without what it is about.
func Explain(err error) *Problem { return problemOf(context.Background(), err) }
