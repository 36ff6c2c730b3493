package orders

import (
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// Think is what one event costs where nothing is read or written: from pending
// to paid, with its stock, letter and request for shipment.
func BenchmarkThink(b *testing.B) {
	n := News{
		InboxID: uuid.New(), Key: "evt_1", Type: PaymentCompletedEvent, Created: 1767225600, PaymentID: "pay_1", OrderRef: "1001",
		Amount: decimal.NewNullDecimal(decimal.NewFromInt(10)), Currency: "XRP", TxHash: "HASH",
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c := newCounter(5, Terms{})
		b.StartTimer()
		if v := c.hear(n); v.State != Applied || c.Status != Paid {
			b.Fatalf("%+v, %s", v, c.Status)
		}
	}
}
