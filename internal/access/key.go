// Package access says who may use the admin API, and for what: keys with their
// scopes. Package web asks it at the door.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Key is a row of api_keys. The key itself is nowhere: only its digest is.
type Key struct {
	ID         uuid.UUID  `json:"id"`
	Name       string     `json:"name"`   // admin:NAME is who acts
	Prefix     string     `json:"prefix"` // the key's first characters
	Digest     string     `json:"digest"` // SHA-256 in hex
	Scopes     []string   `json:"scopes" gorm:"serializer:json"`
	CreatedAt  time.Time  `json:"created_at"`
	CreatedBy  string     `json:"created_by"` // admin:NAME, shell:USER
	ExpiresAt  time.Time  `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"` // to the minute; nil: never
	RevokedAt  *time.Time `json:"revoked_at"`
	RevokedBy  *string    `json:"revoked_by"`
}

// The form of a key: qs_live_ and 43 letters and digits that say 32 random
// bytes, and 6 that say the CRC-32 (IEEE) of all before. Scanners for leaked
// secrets can tell one from chance without asking us.
const (
	marker       = "qs_live_"
	randomChars  = 43
	checkChars   = 6
	keyLength    = len(marker) + randomChars + checkChars
	prefixLength = 12
	alphabet     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// newSecret makes a key up.
func newSecret() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	body := marker + base62(new(big.Int).SetBytes(random), randomChars)
	return body + checksum(body)
}

func checksum(body string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checkChars)
}

// base62 writes n with at least width digits.
func base62(n *big.Int, width int) string {
	digits := make([]byte, width)
	base, digit := big.NewInt(int64(len(alphabet))), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n, digit = new(big.Int).DivMod(n, base, digit)
		digits[i] = alphabet[digit.Int64()]
	}
	return string(digits)
}

// wellFormed reports whether s may be a key of ours. Whatever else is sent
// never reaches the database.
func wellFormed(s string) bool {
	if len(s) != keyLength || !strings.HasPrefix(s, marker) {
		return false
	}
	body := s[:keyLength-checkChars]
	return s[keyLength-checkChars:] == checksum(body)
}

func digestOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// TableName names the table of keys for GORM.
func (Key) TableName() string { return "api_keys" }
