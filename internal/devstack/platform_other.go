//go:build !unix

package devstack

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

type signal = syscall.Signal

const (
	fastShutdown      = syscall.SIGINT
	immediateShutdown = syscall.SIGQUIT
	kill              = syscall.SIGKILL
	freeze            = syscall.Signal(0)
	thaw              = syscall.Signal(0)

	noFollow = 0
)

var errUnsupported = errors.New("no server can be started on " + runtime.GOOS +
	": run one yourself and set DATABASE_URL and REDIS_URL, or work inside WSL")

func supported() error                         { return errUnsupported }
func ownSession(*account) *syscall.SysProcAttr { return nil }
func alive(int) bool                           { return false }
func sendSignal(int, signal) error             { return errUnsupported }
func tryLock(*os.File) (bool, error)           { return false, errUnsupported }
func ownerOf(fs.FileInfo) (uid, gid int)       { return 0, 0 }
