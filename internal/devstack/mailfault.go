package devstack

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/emersion/go-smtp"
)

// Fault is a way in which a mail server goes wrong.
type Fault int

// The faults of a MailCatcher.
const (
	None              Fault = iota
	RefuseConnections       // nobody listens
	Greylist                // 451 to every recipient: try again later
	Reject                  // 550 to every recipient: never
	DropAfterDot            // takes and keeps the mail, then closes the connection instead of saying so
	Silent                  // accepts connections and never says a word
)

// NoMailbox is a domain in which no mailbox exists: each is answered 550, with
// or without a Fault.
const NoMailbox = "no-mailbox.example"

// refusal is what the fault answers to a recipient, nil when it lets one pass.
func (f Fault) refusal() error {
	switch f {
	case Greylist:
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Greylisted, try again later"}
	case Reject:
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	default:
		return nil
	}
}

// gate is the catcher's listener. It can stop listening and start again on the same port, and it
// can keep connections from the SMTP server.
type gate struct {
	addr net.Addr

	mu       sync.Mutex
	fault    Fault
	listener net.Listener // nil under RefuseConnections
	conns    map[*gateConn]struct{}
	closed   bool
	changed  chan struct{} // closed, and replaced, when any of these changes
}

func openGate(ctx context.Context, addr string) (*gate, error) {
	l, err := listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &gate{
		addr: l.Addr(), listener: l,
		conns: map[*gateConn]struct{}{}, changed: make(chan struct{}),
	}, nil
}

// Accept waits for a connection that the SMTP server is to serve.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		l, changed, closed := g.listener, g.changed, g.closed
		g.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if l == nil {
			<-changed
			continue
		}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c, serve := g.admit(conn); serve {
			return c, nil
		}
	}
}

// admit notes a new connection and says whether anybody is to serve it.
func (g *gate) admit(conn net.Conn) (net.Conn, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.fault == RefuseConnections {
		_ = conn.Close()
		return nil, false
	}
	c := &gateConn{Conn: conn, gate: g}
	g.conns[c] = struct{}{}
	return c, g.fault != Silent
}

// Addr is the same before, under and after RefuseConnections.
func (g *gate) Addr() net.Addr { return g.addr }

// Close ends Accept and breaks off all connections. It may be called twice: smtp.Server closes its listener too.
func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	err := g.shut()
	g.renew()
	return err
}

func (g *gate) now() Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fault
}

func (g *gate) set(f Fault) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	defer g.renew()
	if f == RefuseConnections {
		g.fault = f
		return g.shut()
	}
	if g.listener == nil {
		l, err := net.Listen("tcp", g.addr.String())
		if err != nil {
			return err
		}
		g.listener = l
	}
	g.fault = f
	return nil
}

// shut stops listening. The lock is held.
func (g *gate) shut() error {
	if g.listener == nil {
		return nil
	}
	err := g.listener.Close()
	g.listener = nil
	return err
}

// renew wakes Accept and breaks off all connections. The lock is held.
func (g *gate) renew() {
	close(g.changed)
	g.changed = make(chan struct{})
	for c := range g.conns {
		_ = c.Conn.Close()
	}
	clear(g.conns)
}

// gateConn leaves the gate's list when it is closed.
type gateConn struct {
	net.Conn
	gate *gate
}

func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
