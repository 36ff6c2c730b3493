// Command quayside is the whole service in one binary; `quayside --help` lists
// what it can do. This file is the process: arguments, signals, exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// commands makes the subcommands, in the order of the help.
var commands = []func(*app) *cobra.Command{
	newDevCommand,
	newServeCommand,
	newWorkCommand,
	newTriggerCommand,
	newVerifySignatureCommand,
	newCheckCommand,
	newDoctorCommand,
	newImportCommand,
	newExportCommand,
	newKeysCommand,
	newMigrateCommand,
	newVersionCommand,
}

// What the process tells the shell.
const (
	exitDone  = 0
	exitFail  = 1 // it failed, or it found something
	exitUsage = 2 // unknown command, flag or argument, or a bad setting
)

func main() {
	cobra.EnableCommandSorting = false // the help lists what to try first at the top
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals // whoever asks twice does not want to wait
		os.Exit(exitFail)
	}()
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}

// app is what every command is given of the world.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookup         func(name string) (value string, set bool) // the environment
	configFile     string                                     // --config, may be empty

	began bool // a command's own code has started, so its errors are no longer about usage
}

// errSaid is returned by a command that has said on its own output what it
// found: exit code 1 and not another word.
var errSaid = errors.New("said already")

// misuse is an argument that cannot be followed, found out only after the
// command has begun: exit code 2.
type misuse string

func (m misuse) Error() string { return string(m) }

// run is main without the process: tests call it with their own arguments,
// environment and streams. It returns the exit code.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, lookup: lookup}
	root := newRootCommand(a)
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would read the process's own
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errSaid):
		return exitFail
	case !a.began || isMisuse(err):
		_, _ = fmt.Fprintf(stderr, "quayside: %s; see '%s --help'\n", oneLine(err), cmd.CommandPath())
		return exitUsage
	}
	_, _ = fmt.Fprintf(stderr, "quayside: %v\n", err)
	if _, bad := errors.AsType[mistakes](err); bad {
		return exitUsage
	}
	return exitFail
}

func isMisuse(err error) bool {
	_, is := errors.AsType[misuse](err)
	return is
}

// oneLine is cobra's message without the paragraphs of its suggestions.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n\nDid you mean this?\n\t", ", did you mean ")
	return strings.ReplaceAll(strings.TrimSpace(text), "\n\t", " or ")
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "quayside",
		Short: "Turn PayQI's webhooks into paid orders, booked stock and letters",
		Long: `Quayside stands between PayQI and a shop. It takes PayQI's webhooks, finds the
order each payment belongs to, keeps its status and the stock in step, and
writes to the customer. Money that does not fit is put before a person.

Try it first; nothing needs to be set up:

  quayside dev --demo

For real, with the settings that configs/example.env explains:

  quayside migrate    bring the database up to date
  quayside serve      answer HTTP: webhooks, admin API, status pages
  quayside work       apply events, expire orders, send letters

Exit codes: 0 done, 1 it failed or found something, 2 wrong usage or settings.`,
		SilenceErrors: true, // run prints them, once
		SilenceUsage:  true,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&a.configFile, "config", "",
		"read settings from `FILE`, lines of NAME=value; the environment wins over it")
	for _, command := range commands {
		root.AddCommand(command(a))
	}
	for _, cmd := range root.Commands() {
		a.strict(cmd)
	}
	return root
}

// strict makes cmd and those below it refuse arguments that they do not ask
// for, and notes when one of them starts.
func (a *app) strict(cmd *cobra.Command) {
	if cmd.Args == nil {
		cmd.Args = noArguments
	}
	work := cmd.RunE
	if work == nil { // a group, such as keys: cobra would answer any argument with help and success
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	} else {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.began = true
			return work(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		a.strict(sub)
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return fmt.Errorf("unexpected argument %q: %s takes none", args[0], cmd.CommandPath())
}
