package devstack

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// account is the user that a server runs as when we are root; nil stands for ourselves.
type account struct {
	name     string
	uid, gid int
}

// settle makes dir and says whom the server in it runs as. Root's own directories are closed to
// everybody else (/root is 0700), so for root it may answer with one below /var/lib.
func settle(dir string) (string, *account, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	if os.Geteuid() != 0 {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, fmt.Errorf("postgres directory: %w: choose one that you may write to", err)
		}
		return dir, nil, nil
	}
	tries := []string{dir, elsewhere(dir)}
	if exists(tries[1]) {
		tries = tries[1:] // the data is there; a later chmod of the first must not hide it
	}
	var as *account
	for _, d := range tries {
		if as, err = accountFor(d); err != nil {
			return "", nil, err
		}
		if err = openWay(d, as); err == nil {
			return d, as, nil
		}
	}
	return "", nil, fmt.Errorf("postgres does not run as root, and user %s cannot reach %s (%w): choose a directory outside /root, or run as an ordinary user",
		as.name, strings.Join(tries, " or "), err)
}

// elsewhere is the directory that stands in for one that only root can reach.
func elsewhere(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("/var/lib/quayside/%s-%x", filepath.Base(dir), sum[:4])
}

// accountFor is nil unless we are root. Root acts for the owner of dir, or of the directory that
// dir will be made in, so that they can go on without root; where root owns that too, for
// postgres or nobody.
func accountFor(dir string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		uid, gid := ownerOf(info)
		if uid == 0 {
			break
		}
		name := "number " + strconv.Itoa(uid)
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			name = u.Username
		}
		return &account{name: name, uid: uid, gid: gid}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.Atoi(u.Uid)
			gid, err2 := strconv.Atoi(u.Gid)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("user %s: %w", name, err)
			}
			return &account{name: name, uid: uid, gid: gid}, nil
		}
	}
	return nil, errors.New("postgres does not run as root, and there is no user postgres or nobody to run it as: run as an ordinary user")
}

// openWay makes dir for the account, and those above it as far as they are missing.
func openWay(dir string, as *account) error {
	var missing []string
	for d := dir; !exists(d); d = filepath.Dir(d) {
		missing = append(missing, d)
	}
	if err := mayEnter(filepath.Dir(dir), as); err != nil {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil {
			return err
		}
		if err := os.Chmod(missing[i], 0o755); err != nil { // whatever the umask
			return err
		}
		if err := chown(missing[i], as); err != nil {
			return err
		}
	}
	return handOver(dir, as)
}

// mayEnter is an error unless the account can go through dir and all above it, as far as they exist.
func mayEnter(dir string, as *account) error {
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err == nil {
			uid, gid := ownerOf(info)
			bit := fs.FileMode(0o001)
			switch {
			case uid == as.uid:
				bit = 0o100
			case gid == as.gid:
				bit = 0o010
			}
			if info.Mode()&bit == 0 {
				return fmt.Errorf("%s is closed to it", d)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// handOver gives a directory to the account and closes it to all others.
func handOver(dir string, as *account) error {
	if err := chown(dir, as); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

func chown(path string, as *account) error {
	if as == nil {
		return nil
	}
	return os.Chown(path, as.uid, as.gid)
}

// own writes a small file that the account can read, whole or not at all.
func own(path, content string, as *account) error {
	f, err := openOwned(path+".new", os.O_TRUNC, as)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".new", path)
}

// openOwned opens a file for writing and gives it to the account.
func openOwned(path string, flag int, as *account) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|noFollow|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if as != nil {
		if err := f.Chown(as.uid, as.gid); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}
