package web

import (
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func counted(t *testing.T, believed string) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "quayside_forwarded_total" && m.GetLabel()[0].GetValue() == believed {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter of those believed: %s", believed)
	return 0
}

// Forwarding headers are counted by whether they are believed, and a proxy that
// nobody named is told of once; a stranger who makes them up is not.
func TestForwardingIsNoted(t *testing.T) {
	for _, c := range []struct {
		name, peer, header string
		believed, refused  float64
		told               bool
	}{
		{"a proxy", "10.0.0.1:5", "X-Forwarded-For", 2, 0, false},
		{"its neighbour", "10.0.0.2:5", "X-Forwarded-For", 0, 2, true},
		{"a local one", "127.0.0.1:5", "X-Forwarded-Proto", 0, 2, true},
		{"a stranger", "203.0.113.1:5", "X-Forwarded-For", 0, 2, false},
		{"nobody", "10.0.0.2:5", "X-Other", 0, 0, false},
	} {
		s := newToy(t, func(o *Options) { o.TrustedProxies = []string{"10.0.0.1"} })
		yes, no := counted(t, "yes"), counted(t, "no")
		for range 2 {
			s.send(t, request{method: "GET", target: "/o/x", header: http.Header{c.header: {"1.2.3.4"}}, change: func(r *http.Request) { r.RemoteAddr = c.peer }})
		}
		if yes, no = counted(t, "yes")-yes, counted(t, "no")-no; yes != c.believed || no != c.refused {
			t.Errorf("%s: %v believed and %v not", c.name, yes, no)
		}
		told := 0
		for _, l := range s.log.all(t) {
			if l["peer"] != nil {
				told++
			}
		}
		if want := map[bool]int{true: 1}[c.told]; told != want {
			t.Errorf("%s: told %d times, want %d", c.name, told, want)
		}
	}
}

// Whoever sets up a proxy asks for debug and sees whom the service takes the
// client for. TestLogLine shows that nobody else does.
func TestClientIsLoggedWhenAskedFor(t *testing.T) {
	s := newToy(t, func(o *Options) { o.TrustedProxies = []string{"10.0.0.1"} })
	s.send(t, request{method: "GET", target: "/o/x", header: http.Header{"X-Forwarded-For": {"1.2.3.4"}}, change: func(r *http.Request) { r.RemoteAddr = "10.0.0.1:5" }})
	if l := s.log.only(t); l["client"] != "1.2.3.4" {
		t.Errorf("%v", l)
	}
}
