package devstack

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// scratchName is the pattern of directories that go with the process that made them.
const scratchName = "quayside-test-*"

// scratchDir is a temporary directory. One whose process died is removed by the next newScratchDir.
type scratchDir struct {
	path string
	lock *lock
}

func newScratchDir() (*scratchDir, error) {
	sweepScratch(os.TempDir())
	path, err := os.MkdirTemp("", scratchName)
	if err != nil {
		return nil, err
	}
	l, err := lockDir(path, nil)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return &scratchDir{path: path, lock: l}, nil
}

func (s *scratchDir) remove() error {
	return errors.Join(os.RemoveAll(s.path), s.lock.release())
}

// sweepScratch removes the scratch directories of processes that have died. What it may not touch it leaves.
func sweepScratch(in string) {
	dirs, _ := filepath.Glob(filepath.Join(in, scratchName)) // the pattern is fine
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && abandoned(dir, info.ModTime()) {
			_ = os.RemoveAll(dir)
		}
	}
}

// abandoned is whether nobody holds the lock of dir and no server runs in it.
func abandoned(dir string, changed time.Time) bool {
	// A directory this young may not have been locked by its maker yet.
	if time.Since(changed) < 5*time.Second {
		return false
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDONLY|noFollow, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = f.Close() }()
	if free, err := tryLock(f); err != nil || !free {
		return false
	}
	clusters, _ := filepath.Glob(filepath.Join(dir, "pg*"))
	for _, data := range clusters {
		if pm := readPostmaster(data); pm.runs(data) {
			_ = sendSignal(pm.pid, immediateShutdown) // its guard was killed too; the directory goes next time
			return false
		}
	}
	return true
}
