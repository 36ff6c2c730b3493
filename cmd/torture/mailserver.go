//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// mailFault is a way in which the mail server goes wrong.
type mailFault string

// The faults of the mail server; being away is done by its proxy.
const (
	mailWell    mailFault = ""
	mailLater   mailFault = "451 to every recipient"
	mailNever   mailFault = "550 to every recipient"
	mailDropped mailFault = "takes the letter and hangs up instead of saying so"
	mailSlow    mailFault = "takes three seconds over every letter"
	mailSilent  mailFault = "never says a word"
	mailBusy    mailFault = "421 as greeting"
)

// taken is one letter that the mail server took.
type taken struct {
	messageID, orderID string
	at                 time.Time
	told               bool // the sender was answered 250
}

// mailServer speaks just enough SMTP, and keeps count.
type mailServer struct {
	listener net.Listener
	mu       sync.Mutex
	fault    mailFault
	faulted  int // conversations that met the fault
	letters  []taken
	conns    map[net.Conn]bool
	closed   bool
	serving  sync.WaitGroup
}

func startMailServer(ctx context.Context) (*mailServer, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mailServer{listener: l, conns: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			m.mu.Lock()
			if m.closed {
				m.mu.Unlock()
				_ = conn.Close()
				return
			}
			m.conns[conn] = true
			m.serving.Go(func() { m.serve(conn) })
			m.mu.Unlock()
		}
	}()
	return m, nil
}

func (m *mailServer) addr() string { return m.listener.Addr().String() }

// set makes the server go wrong from its next answer on, and forgets how often
// it did before.
func (m *mailServer) set(f mailFault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.faulted = f, 0
}

// met counts conversations that met the fault since it was set.
func (m *mailServer) met() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faulted
}

// has reports whether the server suffers from f just now, and counts it.
func (m *mailServer) has(f mailFault) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != f {
		return false
	}
	m.faulted++
	return true
}

// all are the letters taken so far.
func (m *mailServer) all() []taken {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]taken(nil), m.letters...)
}

func (m *mailServer) close() {
	_ = m.listener.Close()
	m.mu.Lock()
	m.closed = true
	for c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.serving.Wait()
}

func (m *mailServer) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		m.mu.Lock()
		delete(m.conns, conn)
		m.mu.Unlock()
	}()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if m.has(mailSilent) {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	r := textproto.NewReader(bufio.NewReader(conn))
	say := func(text string) { _, _ = fmt.Fprintf(conn, "%s\r\n", text) } // whoever has gone reads nothing
	if m.has(mailBusy) {
		say("421 too busy")
		return
	}
	say("220 torture ESMTP")
	for {
		command, err := r.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(command), " ")
		switch {
		case verb == "QUIT":
			say("221 bye")
			return
		case verb == "RCPT" && m.has(mailLater):
			say("451 4.7.1 try again later")
		case verb == "RCPT" && m.has(mailNever):
			say("550 5.1.1 no such mailbox")
		case verb == "DATA":
			say("354 go on")
			if !m.take(r, say) {
				return
			}
		default:
			say("250 fine")
		}
	}
}

// take reads one letter and answers it; false when the server hangs up.
func (m *mailServer) take(r *textproto.Reader, say func(string)) bool {
	letter, err := mail.ReadMessage(r.DotReader())
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, letter.Body); err != nil {
		return false // broken off before the final dot: nothing was taken
	}
	t := taken{
		messageID: strings.Trim(letter.Header.Get("Message-ID"), "<>"), orderID: letter.Header.Get("X-Order-ID"),
		at: time.Now(), told: !m.has(mailDropped),
	}
	if m.has(mailSlow) {
		time.Sleep(3 * time.Second)
	}
	m.mu.Lock()
	m.letters = append(m.letters, t)
	m.mu.Unlock()
	if t.told {
		say("250 taken")
	}
	return t.told
}
