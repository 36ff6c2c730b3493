//go:build !linux

// Command bench needs Linux: it reads in /proc who uses the machine.
package main

import "os"

func main() {
	_, _ = os.Stderr.WriteString("bench: it needs Linux, whose /proc says who uses the machine\n")
	os.Exit(1)
}
