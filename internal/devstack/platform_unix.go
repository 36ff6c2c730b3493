//go:build unix

package devstack

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

type signal = syscall.Signal

// What the servers make of a signal: https://www.postgresql.org/docs/current/server-shutdown.html
const (
	fastShutdown      = syscall.SIGINT  // breaks connections off, keeps the data in order
	immediateShutdown = syscall.SIGQUIT // the next start recovers
	kill              = syscall.SIGKILL
	freeze            = syscall.SIGSTOP
	thaw              = syscall.SIGCONT
)

// noFollow keeps root from writing through a link that the owner of the directory put there.
const noFollow = syscall.O_NOFOLLOW

func supported() error { return nil }

func ownSession(as *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if as != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	return attr
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

func sendSignal(pid int, s signal) error { return syscall.Kill(pid, s) }

// tryLock locks an open file until it is closed or this process ends; false when somebody else has it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t) //nolint:errcheck // which is what os.Stat gives on Unix
	return int(st.Uid), int(st.Gid)
}
