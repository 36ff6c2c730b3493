package orders

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"quayside/internal/notify"
)

// Details is what a step of the timeline wrote besides its order, and of a
// decision what was decided. Stock needs none: its movements name their cause.
type Details struct {
	Letters  []uuid.UUID `json:"letters,omitempty"`  // put up for sending
	Opened   []string    `json:"opened,omitempty"`   // cases, by key, also those that came back
	Closed   []string    `json:"closed,omitempty"`   // cases, by key
	Requests []uuid.UUID `json:"requests,omitempty"` // shipment requests
	Refunds  []uuid.UUID `json:"refunds,omitempty"`  // decided, or moved on
	Decision *Decided    `json:"decision,omitempty"` // of a step decided
	Deadline *time.Time  `json:"deadline,omitempty"` // of a step opened: the first, which later ones overwrite in the order
}

// Decided is what a person decided about a case.
type Decided struct {
	Case    string `json:"case"` // its key
	Action  string `json:"action"`
	Note    string `json:"note,omitempty"`
	OrderID string `json:"order_id,omitempty"` // of attach
}

// letterKey is what makes a letter one letter.
type letterKey struct {
	order, about string
	kind         notify.Kind
}

func keyOf(l notify.Letter) letterKey {
	return letterKey{order: l.OrderID, kind: l.Kind, about: l.About}
}

// attribute says of the latest step that it wrote what was written since it
// was noted, or since the one before.
func (f *File) attribute() {
	s := &f.steps[len(f.steps)-1]
	if s.Details == nil {
		s.Details = &Details{}
	}
	s.Details.Opened = append(s.Details.Opened, f.since.Opened...)
	s.Details.Closed = append(s.Details.Closed, f.since.Closed...)
	s.Details.Requests = append(s.Details.Requests, f.since.Requests...)
	s.Details.Refunds = append(s.Details.Refunds, f.since.Refunds...)
	if f.since.Decision != nil {
		s.Details.Decision = f.since.Decision
	}
	if f.since.Deadline != nil {
		s.Details.Deadline = f.since.Deadline
	}
	s.wrote = append(s.wrote, f.wrote...)
	f.since, f.wrote = Details{}, nil
}

// credit says of each step which of the letters it wrote were posted: not those
// that the customer has been told before, nor those outgrown at once.
func credit(steps []Step, posted []notify.Letter) {
	ids := map[letterKey]uuid.UUID{}
	for _, l := range posted {
		ids[keyOf(l)] = l.ID
	}
	for i := range steps {
		for _, k := range steps[i].wrote {
			if id, ok := ids[k]; ok {
				steps[i].Details.Letters = append(steps[i].Details.Letters, id)
				delete(ids, k)
			}
		}
	}
}

// MarshalJSON leaves details out that say nothing.
func (s Step) MarshalJSON() ([]byte, error) {
	type row Step
	if s.Details != nil {
		if body, err := json.Marshal(s.Details); err != nil || string(body) == "{}" {
			s.Details = nil
		}
	}
	return json.Marshal(row(s))
}
