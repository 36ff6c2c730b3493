package devstack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const lockFile = "lock"

// lock keeps a directory to one process. The kernel drops it when that process ends, in whatever
// way; its children do not inherit it.
type lock struct{ file *os.File }

// lockDir locks dir for this process, or says with ErrInUse which process has it.
func lockDir(dir string, as *account) (*lock, error) {
	f, err := openOwned(filepath.Join(dir, lockFile), 0, as)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w: it may belong to another user; choose a directory of your own", dir, err)
	}
	got, err := tryLock(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	if !got {
		b, _ := io.ReadAll(f) // the owner's name is only for the message
		_ = f.Close()
		return nil, fmt.Errorf("%s is %w by %s: stop that one first, or choose another directory", dir, ErrInUse, ownerName(string(b)))
	}
	me := fmt.Sprintf("process %d (%s)", os.Getpid(), filepath.Base(os.Args[0]))
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(me), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return &lock{file: f}, nil
}

func ownerName(content string) string {
	if content = strings.TrimSpace(content); content == "" {
		return "another process"
	}
	return content
}

func (l *lock) release() error {
	_ = l.file.Truncate(0) // nobody is misled by an old name
	return l.file.Close()
}
