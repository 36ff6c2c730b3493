package access

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/google/uuid"

	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// Keys is all keys of the admin API. It remembers those that came lately for a
// few seconds, so that a request costs no statement of its own.
type Keys struct {
	db  *database.DB
	now func() time.Time

	mu    sync.Mutex
	known map[string]remembered // by digest
}

type remembered struct {
	caller *web.Caller
	until  time.Time
}

const (
	// memory is how long a revoked or expired key may still open the door of
	// another process.
	memory  = 3 * time.Second
	maxKept = 1000
)

// NewKeys returns the keys in db.
func NewKeys(db *database.DB) *Keys {
	return &Keys{db: db, now: time.Now, known: map[string]remembered{}}
}

// Find returns whose key secret is, nil for one that is unknown, revoked or
// expired. It notes the use, to the minute. Errors: Unavailable when the
// database does not answer.
func (k *Keys) Find(ctx context.Context, secret string) (*web.Caller, error) {
	if !wellFormed(secret) {
		return nil, nil
	}
	digest := digestOf(secret)
	if c := k.recall(digest); c != nil {
		return c, nil
	}
	var rows []Key
	err := k.db.Read(ctx).Raw(`WITH found AS (SELECT * FROM api_keys WHERE digest = @digest AND revoked_at IS NULL AND expires_at > now()),
		noted AS (UPDATE api_keys k SET last_used_at = now() FROM found f WHERE k.id = f.id AND (f.last_used_at IS NULL OR f.last_used_at < now() - interval '1 minute'))
		SELECT * FROM found`, map[string]any{"digest": digest}).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("look up an API key: %w", database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, nil
	}
	c := &web.Caller{Name: "admin:" + rows[0].Name, ID: rows[0].ID.String(), Scopes: rows[0].Scopes, Limited: true}
	k.remember(digest, c)
	return c, nil
}

func (k *Keys) recall(digest string) *web.Caller {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok := k.known[digest]; ok && k.now().Before(r.until) {
		return r.caller
	}
	return nil
}

func (k *Keys) remember(digest string, c *web.Caller) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) >= maxKept {
		clear(k.known)
	}
	k.known[digest] = remembered{c, k.now().Add(memory)}
}

func (k *Keys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.known)
}

// Draft is a key as somebody asks for it.
type Draft struct {
	Name      string    // 1 to 64 letters, digits, dots, underscores or hyphens
	Scopes    []string  // scopes and roles
	ExpiresAt time.Time // zero: in a year
}

// MaxAge is the longest that a key lives: keys that never end are forgotten
// in places nobody remembers.
const MaxAge = 365 * 24 * time.Hour

var keyName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Create makes a key and returns its row and the key itself, which is written
// nowhere else. Errors: Unprocessable naming the field; Conflict when a living
// key has that name.
func Create(tx database.Tx, d Draft, by string) (*Key, string, error) {
	scopes, err := expand(d.Scopes)
	if err != nil {
		return nil, "", err
	}
	if !keyName.MatchString(d.Name) || d.Name == "bootstrap" {
		return nil, "", invalid("name", "must be 1 to 64 letters, digits, dots, underscores or hyphens, and not bootstrap")
	}
	if d.ExpiresAt.IsZero() {
		d.ExpiresAt = tx.Now.Add(MaxAge)
	}
	if !d.ExpiresAt.After(tx.Now) || d.ExpiresAt.After(tx.Now.Add(MaxAge+time.Minute)) {
		return nil, "", invalid("expires_at", "must lie in the future, at most 365 days from now")
	}
	secret := newSecret()
	k := Key{
		ID: uuid.Must(uuid.NewV7()), Name: d.Name, Prefix: secret[:prefixLength], Digest: digestOf(secret), Scopes: scopes,
		CreatedAt: tx.Now, CreatedBy: by, ExpiresAt: d.ExpiresAt.UTC().Truncate(time.Microsecond),
	}
	n, err := database.InsertCount(tx, "api_keys", "id, name, prefix, digest, scopes, created_at, created_by, expires_at", []Key{k},
		"ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING")
	if err != nil {
		return nil, "", fmt.Errorf("create key %s: %w", d.Name, err)
	}
	if n == 0 {
		return nil, "", fault.New(fault.Conflict, "key_exists", "there is a key %s already: revoke it, or take another name", d.Name)
	}
	return &k, secret, nil
}

// List returns all keys, the newest first.
func List(ctx context.Context, db *database.DB) ([]Key, error) {
	var rows []Key
	if err := db.Read(ctx).Order("id DESC").Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list keys: %w", database.Classify(err))
	}
	return rows, nil
}

// Revoke ends a key, within seconds everywhere. which is its id or the name of
// a living one. Errors: NotFound; Conflict when it was revoked before.
func Revoke(tx database.Tx, which, by string) (*Key, error) {
	var rows []Key
	q := tx.Raw(`SELECT * FROM api_keys WHERE name = ? AND revoked_at IS NULL FOR UPDATE`, which)
	if id, err := uuid.Parse(which); err == nil {
		q = tx.Raw(`SELECT * FROM api_keys WHERE id = ? FOR UPDATE`, id)
	}
	if err := q.Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("find key: %w", err)
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "key_not_found", "there is no such key")
	}
	k := rows[0]
	if k.RevokedAt != nil {
		return nil, fault.New(fault.Conflict, "key_revoked", "key %s was revoked on %s", k.Name, k.RevokedAt.UTC().Format(time.RFC3339))
	}
	k.RevokedAt, k.RevokedBy = &tx.Now, &by
	return &k, database.Update(tx, "api_keys", "revoked_at, revoked_by", []Key{k})
}
