package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"quayside/internal/orders"
)

// The words of an order's state, as --expect takes them.
var (
	statusWords = []string{
		string(orders.Pending), string(orders.Paid), string(orders.PaymentFailed), string(orders.Expired), string(orders.Cancelled), string(orders.Fulfilled),
	}
	paymentWords = []string{
		string(orders.Unpaid), string(orders.AwaitingConfirmation), string(orders.Underpaid), string(orders.PaidUp), string(orders.Overpaid), string(orders.RefundDue),
	}
	fulfilmentWords = []string{
		string(orders.NotYet), string(orders.OnHold), string(orders.InQueue), string(orders.Partial), string(orders.AllShipped),
	}
)

// isStatus reports whether an expectation is about the HTTP answer.
func isStatus(expectation string) bool {
	n, err := strconv.Atoi(expectation)
	return err == nil && n >= 100 && n <= 599
}

// checkExpectation refuses what could never be.
func checkExpectation(e string) error {
	if isStatus(e) {
		return nil
	}
	parts := strings.Split(e, "/")
	for i, words := range [][]string{statusWords, paymentWords, fulfilmentWords} {
		if i < len(parts) && !slices.Contains(words, parts[i]) {
			return fmt.Errorf("--expect %q: %q is none of %s", e, parts[i], strings.Join(words, ", "))
		}
	}
	if len(parts) > 3 {
		return fmt.Errorf("--expect %q has more than three parts; write for instance 400, paid or paid/paid/queued", e)
	}
	return nil
}

// wrongStatus says which answers were not as expected.
func wrongStatus(expectations []string, answers []answer) (wrong []string) {
	for _, e := range expectations {
		if !isStatus(e) {
			continue
		}
		if slices.ContainsFunc(answers, func(a answer) bool { return strconv.Itoa(a.Status) != e }) {
			wrong = append(wrong, fmt.Sprintf("expected every answer to be %s, but it was %s", e, tally(answers)))
		}
	}
	return wrong
}
