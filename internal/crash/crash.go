// Package crash names the places at which a process may die, so that a sweep
// can make it die at each. A normal build has none of it: At is empty there and
// costs nothing. With the build tag crashpoints the environment says which
// place is struck and how; see docs/reliability.md.
package crash
