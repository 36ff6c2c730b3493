package main

import (
	"context"
	"fmt"
	"os"
	"os/user"

	"quayside/internal/web"
)

// shell is the key of who acts without one: whoever may reach the database.
const shell = "shell"

// byShell names who acts through a command.
func byShell() string {
	if u, err := user.Current(); err == nil {
		return shell + ":" + u.Username
	}
	return fmt.Sprintf("%s:%d", shell, os.Getuid())
}

// asShell is ctx of a command, which does what operation of the admin API does
// and may do everything.
func asShell(ctx context.Context, command, operation string) context.Context {
	ctx = web.As(ctx, &web.Caller{Name: byShell(), ID: shell, Scopes: []string{web.AllScopes}})
	return web.By(ctx, web.Request{Operation: operation, Method: shell, Path: "quayside " + command})
}
