package access

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"quayside/internal/database"
	"quayside/internal/web"
)

// AdminRoutes adds the operations on keys, and those that tell what was done with them, to api.
func (k *Keys) AdminRoutes(api huma.API) {
	tags := web.Tag(api, "Keys", "Who may use this API, and for what")
	huma.Register(api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: "/api/v1/keys", DefaultStatus: http.StatusCreated, Security: web.Needs("keys:admin"),
		Summary: "Create a key", Tags: tags, Errors: []int{http.StatusConflict},
		Description: "The answer shows the key, this once: only its digest is kept. A key creates none that may do more than itself. 409 key_exists.",
	}, k.create)
	huma.Register(api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: "/api/v1/keys", Security: web.Needs("keys:admin"),
		Summary: "List keys, newest first", Tags: tags, Description: "Also those that are revoked or have expired. ADMIN_API_KEY is not among them.",
	}, k.list)
	huma.Register(api, huma.Operation{
		OperationID: "revoke-key", Method: http.MethodDelete, Path: "/api/v1/keys/{id}", DefaultStatus: http.StatusOK, Security: web.Needs("keys:admin"),
		Summary: "Revoke a key", Tags: tags, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Description: "It opens nothing any more, in every process within seconds.",
	}, k.revoke)
	k.auditRoutes(api)
}

// KeyView is a key as the admin API promises it. It is exported because huma
// documents the fields of exported embedded types only.
type KeyView struct {
	ID         string     `json:"id" doc:"Ours"`
	Name       string     `json:"name" doc:"Who acts with it is admin:NAME" example:"warehouse"`
	Prefix     string     `json:"prefix" doc:"Its first characters, to know it by" example:"qs_live_3fTa"`
	Scopes     []string   `json:"scopes" doc:"What it may do; roles are written out"`
	State      string     `json:"state" enum:"active,expired,revoked" doc:"Only an active one opens anything"`
	CreatedAt  time.Time  `json:"created_at" doc:"When it was created"`
	CreatedBy  string     `json:"created_by" doc:"By whom"`
	ExpiresAt  time.Time  `json:"expires_at" doc:"Until when it opens anything"`
	LastUsedAt *time.Time `json:"last_used_at" doc:"To the minute; null: never"`
	RevokedAt  *time.Time `json:"revoked_at" doc:"When it was revoked"`
	RevokedBy  *string    `json:"revoked_by" doc:"By whom"`
}

// State is whether the key opens anything at the time now: active, expired or revoked.
func (k Key) State(now time.Time) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case !now.Before(k.ExpiresAt):
		return "expired"
	}
	return "active"
}

func (k Key) view(now time.Time) KeyView {
	return KeyView{
		ID: k.ID.String(), Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, State: k.State(now), CreatedAt: k.CreatedAt.UTC(), CreatedBy: k.CreatedBy,
		ExpiresAt: k.ExpiresAt.UTC(), LastUsedAt: utc(k.LastUsedAt), RevokedAt: utc(k.RevokedAt), RevokedBy: k.RevokedBy,
	}
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// NewKey is the body of POST /keys.
type NewKey struct {
	Name      string    `json:"name" minLength:"1" maxLength:"64" doc:"Unique among living keys" example:"warehouse"`
	Scopes    []string  `json:"scopes" minItems:"1" maxItems:"50" doc:"Scopes, or the roles viewer, operator, admin" example:"[\"operator\"]"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"At most 365 days from now; that when absent"`
}

// CreatedKey is a KeyView with the key itself.
type CreatedKey struct {
	KeyView
	Key string `json:"key" doc:"The key: keep it, it is not shown again; empty in the answer to a repeat"`
}

func (k *Keys) create(ctx context.Context, in *struct{ Body NewKey }) (*createOutput, error) {
	if err := mayGrant(ctx, in.Body.Scopes); err != nil {
		return nil, err
	}
	var secret string // stays out of what is kept, so a repeat has none
	out, err := Once(ctx, k.db, func(ctx context.Context, tx database.Tx) (*createOutput, error) {
		key, made, err := Create(tx, Draft{Name: in.Body.Name, Scopes: in.Body.Scopes, ExpiresAt: in.Body.ExpiresAt}, web.Actor(ctx))
		if err != nil {
			return nil, err
		}
		secret = made
		v := key.view(tx.Now)
		Changed(ctx, "key/"+v.ID, nil, v)
		return &createOutput{CreatedKey{KeyView: v}}, nil
	})
	if err != nil {
		return nil, err
	}
	out.Body.Key = secret
	return out, nil
}

// New creates a key by the request of ctx (see [Once]). Errors: those of
// [Create]; 403 when it may do more than who acts.
func (k *Keys) New(ctx context.Context, n NewKey) (*CreatedKey, error) {
	out, err := k.create(ctx, &struct{ Body NewKey }{n})
	if err != nil {
		return nil, err
	}
	return &out.Body, nil
}

type createOutput struct{ Body CreatedKey }

// mayGrant refuses a key that may do more than the one that creates it.
func mayGrant(ctx context.Context, words []string) error {
	scopes, err := expand(words)
	if err != nil {
		return err
	}
	for _, s := range scopes {
		if !web.Allowed(ctx, s) {
			return web.Refuse(http.StatusForbidden, "missing_scope", "Your key may not grant %s: it does not have that scope itself.", s)
		}
	}
	return nil
}

// KeyList is all keys.
type KeyList struct {
	Data []KeyView `json:"data" doc:"The newest first"`
}

func (k *Keys) list(ctx context.Context, _ *struct{}) (*struct{ Body KeyList }, error) {
	now, err := k.db.Now(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := List(ctx, k.db)
	if err != nil {
		return nil, err
	}
	list := KeyList{Data: []KeyView{}}
	for _, row := range rows {
		list.Data = append(list.Data, row.view(now))
	}
	return &struct{ Body KeyList }{list}, nil
}

// KeyPath names a key in a path.
type KeyPath struct {
	ID string `path:"id" maxLength:"64" doc:"The key's id, or the name of a living one"`
}

func (k *Keys) revoke(ctx context.Context, in *KeyPath) (*revokeOutput, error) {
	out, err := Once(ctx, k.db, func(ctx context.Context, tx database.Tx) (*revokeOutput, error) {
		key, err := Revoke(tx, in.ID, web.Actor(ctx))
		if err != nil {
			return nil, err
		}
		was := *key
		was.RevokedAt, was.RevokedBy = nil, nil
		v := key.view(tx.Now)
		Changed(ctx, "key/"+v.ID, was.view(tx.Now), v)
		return &revokeOutput{v}, nil
	})
	if err != nil {
		return nil, err
	}
	k.forget()
	return out, nil
}

// End revokes a key by the request of ctx (see [Once]). Errors: those of [Revoke].
func (k *Keys) End(ctx context.Context, which string) (*KeyView, error) {
	out, err := k.revoke(ctx, &KeyPath{ID: which})
	if err != nil {
		return nil, err
	}
	return &out.Body, nil
}

type revokeOutput struct{ Body KeyView }
