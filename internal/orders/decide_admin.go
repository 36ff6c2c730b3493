package orders

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// decisionRoutes adds to api what people decide: cases, refunds, reopening.
func (b *Book) decisionRoutes(api huma.API) {
	cases, orders := []string{"Cases"}, []string{"Orders"}
	both := []int{http.StatusNotFound, http.StatusConflict}
	huma.Register(api, huma.Operation{
		OperationID: "show-case", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/cases/{id}",
		Summary: "Show a case with the actions it offers", Tags: cases, Errors: []int{http.StatusNotFound},
		Description: "Also a closed one, with who decided what.",
	}, b.showCase)
	huma.Register(api, huma.Operation{
		OperationID: "resolve-case", Security: web.Needs("cases:resolve"), Method: http.MethodPost, Path: "/api/v1/cases/{id}/resolutions", DefaultStatus: http.StatusCreated,
		Summary: "Decide a case", Tags: cases, Errors: both,
		Description: "Carries out one of the actions that the case offers, and closes it (`wait` leaves it open). The order's timeline says who decided what, and why.",
	}, b.resolve)
	huma.Register(api, huma.Operation{
		OperationID: "reopen-order", Security: web.Needs("orders:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/reopening", DefaultStatus: http.StatusOK,
		Summary: "Take a cancelled or expired order up again", Tags: orders, Errors: both,
		Description: "It gets a new deadline from now and its stock is reserved, or nothing changes. Money that came for it counts.",
	}, b.reopenOrder)
	b.refundRoutes(api)
}

// refundRoutes adds what becomes of money that is due back.
func (b *Book) refundRoutes(api huma.API) {
	refunds := web.Tag(api, "Refunds", "Money that goes back, or was decided to stay. Quayside sends none: a person does, and says so")
	both := []int{http.StatusNotFound, http.StatusConflict}
	huma.Register(api, huma.Operation{
		OperationID: "approve-refund", Security: web.Needs("refunds:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/refunds", DefaultStatus: http.StatusCreated,
		Summary: "Decide that money due back goes back", Tags: refunds, Errors: both,
		Description: "Writes a refund for each payment it comes from. Quayside sends no money: send it, and report the transaction with POST /refunds/{id}/dispatch.",
	}, b.approveRefund)
	huma.Register(api, huma.Operation{
		OperationID: "waive-refund", Security: web.Needs("refunds:write"), Method: http.MethodPost, Path: "/api/v1/orders/{id}/waivers", DefaultStatus: http.StatusCreated,
		Summary: "Decide that money due back is kept, for a reason", Tags: refunds, Errors: both,
		Description: "The order's books then count the money as kept. The note says why.",
	}, b.waiveRefund)
	huma.Register(api, huma.Operation{
		OperationID: "list-refunds", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/refunds", Summary: "List refunds, newest first", Tags: refunds,
		Description: "Filters add up. What is due and not decided about is no refund yet: list orders with payment_status refund_due or overpaid.",
	}, b.listRefunds)
	huma.Register(api, huma.Operation{
		OperationID: "show-refund", Security: web.Needs("orders:read"), Method: http.MethodGet, Path: "/api/v1/refunds/{id}", Summary: "Show a refund", Tags: refunds, Errors: []int{http.StatusNotFound},
		Description: "Where it goes, and how far it is.",
	}, b.showRefund)
	huma.Register(api, huma.Operation{
		OperationID: "address-refund", Security: web.Needs("refunds:write"), Method: http.MethodPut, Path: "/api/v1/refunds/{id}/destination",
		Summary: "Say where an approved refund goes", Tags: refunds, Errors: both,
		Description: "Until it was sent it may be changed.",
	}, b.addressRefund)
	huma.Register(api, huma.Operation{
		OperationID: "dispatch-refund", Security: web.Needs("refunds:write"), Method: http.MethodPost, Path: "/api/v1/refunds/{id}/dispatch", DefaultStatus: http.StatusOK,
		Summary: "Report by which transaction a refund was sent", Tags: refunds, Errors: both,
		Description: "A transaction sends one refund of a payment. One that brought money in, or refunded another order, is refused.",
	}, b.dispatchRefund)
	huma.Register(api, huma.Operation{
		OperationID: "confirm-refund", Security: web.Needs("refunds:write"), Method: http.MethodPost, Path: "/api/v1/refunds/{id}/confirmation", DefaultStatus: http.StatusOK,
		Summary: "Report that the transaction of a refund is final", Tags: refunds, Errors: both,
		Description: "Nothing can change after that.",
	}, b.confirmRefund)
	huma.Register(api, huma.Operation{
		OperationID: "withdraw-refund", Security: web.Needs("refunds:write"), Method: http.MethodPost, Path: "/api/v1/refunds/{id}/withdrawal", DefaultStatus: http.StatusOK,
		Summary: "Take back a decision of which nothing was sent", Tags: refunds, Errors: both,
		Description: "The money is due again, or waits for a decision as before.",
	}, b.withdrawRefund)
	huma.Register(api, huma.Operation{
		OperationID: "report-money", Security: web.Needs("reports:read"), Method: http.MethodGet, Path: "/api/v1/reports/money", Tags: web.Tag(api, "Reports", "Where the money is"),
		Summary: "Account for every amount received in a period",
		Description: "Per currency: received = applied + refund_due + refunded + kept + unmatched, to the last digit. " +
			"A payment belongs to the period in which Quayside learnt that it completed; where its money is, is as of now.",
	}, b.reportMoney)
}

// Resolution is the body of POST /cases/{id}/resolutions.
type Resolution struct {
	Action         string `json:"action" maxLength:"40" doc:"One of the case's actions" example:"accept"`
	Note           string `json:"note,omitempty" maxLength:"500" doc:"Why; needed where the action gives something up" example:"Two cents short: a friend of the house"`
	OrderID        string `json:"order_id,omitempty" maxLength:"64" doc:"Of attach: the order the payment is for"`
	Address        string `json:"address,omitempty" maxLength:"254" doc:"Of refund: where the money goes, if known; of readdress: the customer's right e-mail address"`
	DestinationTag *int64 `json:"destination_tag,omitempty" minimum:"0" maximum:"4294967295" doc:"Of refund: the tag that goes with the address"`
}

func destination(address string, tag *int64) *Destination {
	if address == "" && tag == nil {
		return nil
	}
	return &Destination{Address: address, Tag: tag}
}

// pathID reads the id of a path. Whatever is not one of ours names nothing.
func pathID(id, what string) (uuid.UUID, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return u, fault.New(fault.NotFound, what+"_not_found", "no %s %s", what, id)
	}
	return u, nil
}

// CasePath names a case in a path.
type CasePath struct {
	ID string `path:"id" maxLength:"64" doc:"The case's id"`
}

type caseOutput struct{ Body CaseView }

type resolveInput struct {
	CasePath
	Body Resolution
}

func (b *Book) showCase(ctx context.Context, in *CasePath) (*caseOutput, error) {
	id, err := pathID(in.ID, "case")
	if err != nil {
		return nil, err
	}
	var rows []Case
	if err := b.db.Read(ctx).Raw(`SELECT * FROM cases WHERE id = ?`, id).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("case %s: %w", id, database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "case_not_found", "no case %s", id)
	}
	vs, err := b.viewCases(ctx, rows)
	if err != nil {
		return nil, err
	}
	return &caseOutput{vs[0]}, nil
}

func (b *Book) resolve(ctx context.Context, in *resolveInput) (*caseOutput, error) {
	id, err := pathID(in.ID, "case")
	if err != nil {
		return nil, err
	}
	what := Decision{Action: in.Body.Action, Note: in.Body.Note, OrderID: in.Body.OrderID, To: destination(in.Body.Address, in.Body.DestinationTag)}
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (*caseOutput, error) {
		before, err := b.showCase(ctx, &in.CasePath)
		if err != nil {
			return nil, err
		}
		c, err := b.Resolve(tx, id, web.Actor(ctx), what)
		if err != nil {
			return nil, err
		}
		out := &caseOutput{viewOfCase(*c)}
		access.Changed(ctx, "case/"+out.Body.ID, before.Body, out.Body)
		return out, nil
	})
}

// Reopening is the body of POST /orders/{id}/reopening.
type Reopening struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" example:"The customer paid a day late and still wants it" doc:"Why; the timeline keeps it"`
}

type reopenInput struct {
	OrderPath
	Body Reopening
}

func (b *Book) reopenOrder(ctx context.Context, in *reopenInput) (*orderOutput, error) {
	if err := checkNote("reason", in.Body.Reason); err != nil {
		return nil, err
	}
	return b.change(ctx, in.ID, func(tx database.Tx) (string, error) {
		_, err := b.Reopen(tx, in.ID, web.Actor(ctx), in.Body.Reason)
		return in.ID, err
	})
}

func checkNote(field, note string) error {
	if plain(note, 500) {
		return nil
	}
	return fault.New(fault.Unprocessable, "invalid_"+field, "the %s breaks a rule", field).
		With(fault.Field{Location: field, Message: "must be at most 500 characters without control characters"})
}

// RefundView is a refund as the admin API promises it.
type RefundView struct {
	ID             string      `json:"id" doc:"Ours"`
	OrderID        *string     `json:"order_id" doc:"Null when the payment belongs to no order"`
	PaymentID      string      `json:"payment_id" doc:"Whose money it is"`
	Amount         web.Money   `json:"amount" doc:"What goes back or stays"`
	Currency       string      `json:"currency" doc:"Of the amount"`
	State          RefundState `json:"state" enum:"approved,sent,confirmed,waived,withdrawn" doc:"approved: somebody must send it; waived: it stays; withdrawn: the decision was taken back"`
	Address        *string     `json:"address" doc:"Where it goes; null until somebody says so"`
	DestinationTag *string     `json:"destination_tag" doc:"The tag that goes with the address"`
	TxHash         *string     `json:"tx_hash" doc:"Of the transaction that sent it"`
	Note           string      `json:"note" doc:"Why"`
	DecidedBy      string      `json:"decided_by" doc:"Who decided"`
	DecidedAt      time.Time   `json:"decided_at" doc:"When it was decided"`
	SentAt         *time.Time  `json:"sent_at" doc:"When somebody said that it was sent"`
	ConfirmedAt    *time.Time  `json:"confirmed_at" doc:"When somebody said that it is final"`
	WithdrawnAt    *time.Time  `json:"withdrawn_at" doc:"When the decision was taken back"`
}

func viewOfRefund(r Refund) RefundView {
	v := RefundView{
		ID: r.ID.String(), OrderID: r.OrderID, PaymentID: r.PaymentID, Amount: web.Money{Decimal: r.Amount}, Currency: r.Currency,
		State: r.State, Address: r.Address, TxHash: r.TxHash, Note: r.Note, DecidedBy: r.DecidedBy, DecidedAt: r.DecidedAt.UTC(),
		SentAt: utc(r.SentAt), ConfirmedAt: utc(r.ConfirmedAt), WithdrawnAt: utc(r.WithdrawnAt),
	}
	if r.DestinationTag != nil {
		tag := fmt.Sprint(*r.DestinationTag)
		v.DestinationTag = &tag
	}
	return v
}

// RefundList is the answer to a decision about money: a refund for each
// payment it comes from.
type RefundList struct {
	Data []RefundView `json:"data" doc:"The newest payment first"`
}

type refundsOutput struct{ Body RefundList }

// NewRefund is the body of POST /orders/{id}/refunds.
type NewRefund struct {
	Amount         *web.Money `json:"amount,omitempty" doc:"All that is due back when absent"`
	Address        string     `json:"address,omitempty" maxLength:"128" doc:"Where it goes, if known"`
	DestinationTag *int64     `json:"destination_tag,omitempty" minimum:"0" maximum:"4294967295" doc:"The tag that goes with the address"`
	Note           string     `json:"note,omitempty" maxLength:"500" doc:"Why; the timeline keeps it"`
}

type approveInput struct {
	OrderPath
	Body NewRefund
}

func (b *Book) approveRefund(ctx context.Context, in *approveInput) (*refundsOutput, error) {
	return b.settleRefund(ctx, in.ID, in.Body.Amount, Settlement{To: destination(in.Body.Address, in.Body.DestinationTag), Note: in.Body.Note})
}

// NewWaiver is the body of POST /orders/{id}/waivers.
type NewWaiver struct {
	Amount *web.Money `json:"amount,omitempty" doc:"All that is due back when absent"`
	Note   string     `json:"note" minLength:"1" maxLength:"500" doc:"Why it is kept" example:"The customer gave it as a tip"`
}

type waiveInput struct {
	OrderPath
	Body NewWaiver
}

func (b *Book) waiveRefund(ctx context.Context, in *waiveInput) (*refundsOutput, error) {
	return b.settleRefund(ctx, in.ID, in.Body.Amount, Settlement{Keep: true, Note: in.Body.Note})
}

func (b *Book) settleRefund(ctx context.Context, order string, amount *web.Money, what Settlement) (*refundsOutput, error) {
	if err := checkNote("note", what.Note); err != nil {
		return nil, err
	}
	if amount != nil {
		if what.Amount = amount.Decimal; !what.Amount.IsPositive() {
			return nil, fault.New(fault.Unprocessable, "invalid_amount", "the amount breaks a rule").
				With(fault.Field{Location: "amount", Message: "must be more than zero"})
		}
	}
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (*refundsOutput, error) {
		list := RefundList{Data: []RefundView{}}
		err := b.audited(ctx, tx, order, func() (string, error) {
			refunds, err := b.Settle(tx, order, web.Actor(ctx), what)
			for _, r := range refunds {
				list.Data = append(list.Data, viewOfRefund(*r))
			}
			return order, err
		})
		return &refundsOutput{list}, err
	})
}

type refundsInput struct {
	web.PageParams
	State   string `query:"state" enum:"approved,sent,confirmed,waived,withdrawn" doc:"Those in this state"`
	OrderID string `query:"order_id" maxLength:"64" doc:"Those of this order"`
}

func (b *Book) listRefunds(ctx context.Context, in *refundsInput) (*struct{ Body web.Page[RefundView] }, error) {
	q := b.db.Read(ctx).Order("id DESC").Limit(in.Limit + 1)
	for column, want := range map[string]string{"state": in.State, "order_id": in.OrderID} {
		if want != "" {
			q = q.Where(column+" = ?", want)
		}
	}
	after, err := web.AfterID(in.After)
	if err != nil {
		return nil, err
	}
	if after != nil {
		q = q.Where("id < ?", *after)
	}
	var rows []Refund
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list refunds: %w", database.Classify(err))
	}
	vs := make([]RefundView, len(rows))
	for i, r := range rows {
		vs[i] = viewOfRefund(r)
	}
	page := web.NewPage(vs, in.Limit, func(r RefundView) string { return web.EncodeCursor(r.ID) })
	return &struct{ Body web.Page[RefundView] }{page}, nil
}

// RefundPath names a refund in a path.
type RefundPath struct {
	ID string `path:"id" maxLength:"64" doc:"The refund's id"`
}

type refundOutput struct{ Body RefundView }

func (b *Book) showRefund(ctx context.Context, in *RefundPath) (*refundOutput, error) {
	id, err := pathID(in.ID, "refund")
	if err != nil {
		return nil, err
	}
	var rows []Refund
	if err := b.db.Read(ctx).Raw(`SELECT * FROM refunds WHERE id = ?`, id).Scan(&rows).Error; err != nil {
		return nil, fmt.Errorf("refund %s: %w", id, database.Classify(err))
	}
	if len(rows) == 0 {
		return nil, fault.New(fault.NotFound, "refund_not_found", "no refund %s", id)
	}
	return &refundOutput{viewOfRefund(rows[0])}, nil
}

// RefundDestination is the body of PUT /refunds/{id}/destination.
type RefundDestination struct {
	Address        string `json:"address" minLength:"8" maxLength:"128" doc:"The account, wallet or bank address"`
	DestinationTag *int64 `json:"destination_tag,omitempty" minimum:"0" maximum:"4294967295" doc:"The tag that goes with the address"`
}

type addressInput struct {
	RefundPath
	Body RefundDestination
}

func (b *Book) addressRefund(ctx context.Context, in *addressInput) (*refundOutput, error) {
	return b.changeRefund(ctx, in.ID, func(tx database.Tx, id uuid.UUID) (*Refund, error) {
		return b.Address(tx, id, web.Actor(ctx), Destination{Address: in.Body.Address, Tag: in.Body.DestinationTag})
	})
}

// RefundDispatch is the body of POST /refunds/{id}/dispatch.
type RefundDispatch struct {
	TxHash         string `json:"tx_hash" minLength:"8" maxLength:"128" doc:"Of the transaction that sent it"`
	Address        string `json:"address,omitempty" maxLength:"128" doc:"Where it went, if the refund does not say so"`
	DestinationTag *int64 `json:"destination_tag,omitempty" minimum:"0" maximum:"4294967295" doc:"The tag that goes with the address"`
}

type dispatchInput struct {
	RefundPath
	Body RefundDispatch
}

func (b *Book) dispatchRefund(ctx context.Context, in *dispatchInput) (*refundOutput, error) {
	return b.changeRefund(ctx, in.ID, func(tx database.Tx, id uuid.UUID) (*Refund, error) {
		return b.Send(tx, id, web.Actor(ctx), Dispatched{TxHash: in.Body.TxHash, To: destination(in.Body.Address, in.Body.DestinationTag)})
	})
}

func (b *Book) confirmRefund(ctx context.Context, in *RefundPath) (*refundOutput, error) {
	return b.changeRefund(ctx, in.ID, func(tx database.Tx, id uuid.UUID) (*Refund, error) {
		return b.Confirm(tx, id, web.Actor(ctx))
	})
}

// RefundWithdrawal is the body of POST /refunds/{id}/withdrawal.
type RefundWithdrawal struct {
	Note string `json:"note,omitempty" maxLength:"500" doc:"Why; the timeline keeps it"`
}

type withdrawInput struct {
	RefundPath
	Body RefundWithdrawal
}

func (b *Book) withdrawRefund(ctx context.Context, in *withdrawInput) (*refundOutput, error) {
	if err := checkNote("note", in.Body.Note); err != nil {
		return nil, err
	}
	return b.changeRefund(ctx, in.ID, func(tx database.Tx, id uuid.UUID) (*Refund, error) {
		return b.Withdraw(tx, id, web.Actor(ctx), in.Body.Note)
	})
}

func (b *Book) changeRefund(ctx context.Context, path string, change func(database.Tx, uuid.UUID) (*Refund, error)) (*refundOutput, error) {
	id, err := pathID(path, "refund")
	if err != nil {
		return nil, err
	}
	return access.Once(ctx, b.db, func(ctx context.Context, tx database.Tx) (*refundOutput, error) {
		_, _, was, err := b.refund(tx, id) // with the locks of change
		if err != nil {
			return nil, err
		}
		r, err := change(tx, id)
		if err != nil {
			return nil, err
		}
		out := &refundOutput{viewOfRefund(*r)}
		access.Changed(ctx, "refund/"+out.Body.ID, viewOfRefund(*was), out.Body)
		return out, nil
	})
}

type moneyInput struct {
	From time.Time `query:"from" doc:"At or after this time (RFC 3339); from the beginning when absent"`
	To   time.Time `query:"to" doc:"Before this time (RFC 3339); until now when absent"`
}

// MoneyReport is the answer to GET /reports/money.
type MoneyReport struct {
	Data []MoneyView `json:"data" doc:"One row for each currency"`
}

// MoneyView says where the money of one currency is.
type MoneyView struct {
	Currency  string    `json:"currency" doc:"Of the amounts"`
	Received  web.Money `json:"received" doc:"By completed payments, each transaction once"`
	Applied   web.Money `json:"applied" doc:"Stands against goods"`
	RefundDue web.Money `json:"refund_due" doc:"Is due back, and nobody has decided about it yet"`
	Refunded  web.Money `json:"refunded" doc:"Was sent back, or is decided to be"`
	Kept      web.Money `json:"kept" doc:"A person decided that it stays"`
	Unmatched web.Money `json:"unmatched" doc:"Waits for its order, or for a person to say what it is for"`
	Balanced  bool      `json:"balanced" doc:"Whether received is the sum of the others. If not, run quayside check"`
}

func (b *Book) reportMoney(ctx context.Context, in *moneyInput) (*struct{ Body MoneyReport }, error) {
	if !in.To.IsZero() && !in.From.Before(in.To) {
		return nil, fault.New(fault.Unprocessable, "invalid_period", "the period is empty").
			With(fault.Field{Location: "query.to", Message: "must be after from"})
	}
	var rows []Money
	err := b.db.InSnapshot(ctx, func(tx database.Tx) (err error) {
		rows, err = Account(tx, in.From, in.To)
		return err
	})
	if err != nil {
		return nil, err
	}
	report := MoneyReport{Data: []MoneyView{}}
	for _, m := range rows {
		of := func(d decimal.Decimal) web.Money { return web.Money{Decimal: d} }
		report.Data = append(report.Data, MoneyView{
			Currency: m.Currency, Received: of(m.Received), Applied: of(m.Applied), RefundDue: of(m.RefundDue),
			Refunded: of(m.Refunded), Kept: of(m.Kept), Unmatched: of(m.Unmatched), Balanced: m.Balanced(),
		})
	}
	return &struct{ Body MoneyReport }{report}, nil
}
