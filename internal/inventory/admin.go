package inventory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"gorm.io/gorm"

	"quayside/internal/access"
	"quayside/internal/database"
	"quayside/internal/fault"
	"quayside/internal/web"
)

// Admin serves the catalogue and the stock ledger under /api/v1/products.
type Admin struct{ DB *database.DB }

type productView struct {
	SKU       string    `json:"sku" example:"mug-blue" doc:"The shop's own name of it, unique"`
	Name      string    `json:"name" example:"Blue mug" doc:"What customers read"`
	OnHand    int64     `json:"on_hand" doc:"Units in the warehouse"`
	Reserved  int64     `json:"reserved" doc:"Of these, promised to unpaid orders"`
	Available int64     `json:"available" doc:"Units that can still be promised"`
	CreatedAt time.Time `json:"created_at" doc:"When it was added"`
	UpdatedAt time.Time `json:"updated_at" doc:"When it or its stock changed last"`

	LowStockThreshold int64      `json:"low_stock_threshold" doc:"It runs low when no more than this are available; 0: never"`
	LowStock          bool       `json:"low_stock" doc:"It runs low: time to buy more"`
	ArchivedAt        *time.Time `json:"archived_at" doc:"Since when it cannot be ordered; null: it can"`
}

func viewOf(p Product) productView {
	v := productView{
		SKU: p.SKU, Name: p.Name, OnHand: p.OnHand, Reserved: p.Reserved, Available: p.Available(),
		CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC(), LowStockThreshold: p.LowStockThreshold, LowStock: p.Low(),
	}
	if p.ArchivedAt != nil {
		at := p.ArchivedAt.UTC()
		v.ArchivedAt = &at
	}
	return v
}

type movementView struct {
	ID            string    `json:"id" doc:"Of this entry; in the order of time"`
	SKU           string    `json:"sku" doc:"The product"`
	Kind          Kind      `json:"kind" enum:"initial,adjust,correct,reserve,release,commit,return" doc:"initial, adjust: by people; correct: the ledger had drifted from the levels, which stay; reserve: an order was opened; release: it was not paid; commit: it was; return: it was cancelled after that"`
	OnHandDelta   int64     `json:"on_hand_delta" doc:"By how much on_hand changed"`
	ReservedDelta int64     `json:"reserved_delta" doc:"By how much reserved changed"`
	OrderID       *string   `json:"order_id" doc:"The order it was for; null for initial, adjust and correct"`
	Cause         string    `json:"cause" doc:"event:EVENT, admin:NAME, sweep:deadline or cli:check"`
	Reason        string    `json:"reason" doc:"Why, as a person gave it; empty for what orders do"`
	At            time.Time `json:"at" doc:"When"`
}

func viewOfMovement(m Movement) movementView {
	return movementView{
		ID: m.ID.String(), SKU: m.SKU, Kind: m.Kind, OnHandDelta: m.OnHandDelta, ReservedDelta: m.ReservedDelta,
		OrderID: m.OrderID, Cause: m.Cause, Reason: m.Reason, At: m.At.UTC(),
	}
}

type productOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Names this state of the product, for If-Match and If-None-Match"`
	Body   productView
}

// output is the answer that shows p.
func output(p Product, status int) (*productOutput, error) {
	v := viewOf(p)
	etag, err := web.ETag(v)
	return &productOutput{Status: status, ETag: etag, Body: v}, err
}

// SKUPath names a product in a path. Huma fills exported embedded types only.
type SKUPath struct {
	SKU string `path:"sku" maxLength:"64" doc:"The product's SKU"`
}

// Register adds the operations to api.
func (a Admin) Register(api huma.API) {
	tags := web.Tag(api, "Stock", "Products, how many there are, and every change of that")
	huma.Register(api, huma.Operation{
		OperationID: "create-product", Security: web.Needs("stock:write"), Method: http.MethodPost, Path: "/api/v1/products", DefaultStatus: http.StatusCreated,
		Summary: "Add a product", Tags: tags, Errors: []int{http.StatusConflict},
		Description: "409 product_exists: there is one with this SKU. What is on hand becomes the first entry of its ledger.",
	}, a.create)
	huma.Register(api, huma.Operation{
		OperationID: "list-products", Security: web.Needs("stock:read"), Method: http.MethodGet, Path: "/api/v1/products", Summary: "List products by SKU", Tags: tags,
		Description: "All of them, page by page, also archived ones. Filters add up.",
	}, a.list)
	huma.Register(api, huma.Operation{
		OperationID: "show-product", Security: web.Needs("stock:read"), Method: http.MethodGet, Path: "/api/v1/products/{sku}", Summary: "Show a product", Tags: tags,
		Errors:      []int{http.StatusNotFound},
		Description: "available is what new orders may still reserve. With If-None-Match the answer is 304 as long as nothing has changed.",
	}, a.show)
	huma.Register(api, huma.Operation{
		OperationID: "edit-product", Security: web.Needs("stock:write"), Method: http.MethodPatch, Path: "/api/v1/products/{sku}", DefaultStatus: http.StatusOK,
		Summary: "Edit a product, archive it, or take it back", Tags: tags, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
		Description: "Changes what the body names. An archived product cannot be ordered; orders that have it go on. " +
			"With If-Match nothing changes when the product, or its stock, is not as you read it: 412 precondition_failed.",
	}, a.edit)
	huma.Register(api, huma.Operation{
		OperationID: "adjust-stock", Security: web.Needs("stock:write"), Method: http.MethodPost, Path: "/api/v1/products/{sku}/adjustments", DefaultStatus: http.StatusCreated,
		Summary: "Change what is on hand", Tags: tags, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Description: "For goods that came in, broke or were counted anew. 409 insufficient_stock: fewer would be left than are reserved for orders; too_much_stock: more than there can be.",
	}, a.adjust)
	huma.Register(api, huma.Operation{
		OperationID: "list-movements", Security: web.Needs("stock:read"), Method: http.MethodGet, Path: "/api/v1/products/{sku}/movements",
		Summary: "Show a product's ledger, newest first", Tags: tags, Errors: []int{http.StatusNotFound},
		Description: "Every change of a product's stock. What is on hand and what is reserved are always the sums of these.",
	}, a.movements)
}

// NewProduct is the body of POST /products.
type NewProduct struct {
	SKU    string `json:"sku" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"letters, digits, dots, underscores or hyphens" doc:"The shop's own name of it, unique" example:"mug-blue"`
	Name   string `json:"name" minLength:"1" maxLength:"200" doc:"What customers read" example:"Blue mug"`
	OnHand int64  `json:"on_hand" minimum:"0" maximum:"1000000000000" doc:"Units in the warehouse"`

	LowStockThreshold int64 `json:"low_stock_threshold,omitempty" minimum:"0" maximum:"1000000000000" doc:"It runs low when no more than this are available; never when 0 or absent"`
}

// Product is what b asks for, ready for [Add].
func (b NewProduct) Product() Product {
	return Product{SKU: b.SKU, Name: b.Name, OnHand: b.OnHand, LowStockThreshold: b.LowStockThreshold}
}

func (a Admin) create(ctx context.Context, in *struct{ Body NewProduct }) (*productOutput, error) {
	return access.Once(ctx, a.DB, func(ctx context.Context, tx database.Tx) (*productOutput, error) {
		p, err := Add(tx, in.Body.Product(), web.Actor(ctx))
		if err != nil {
			return nil, err
		}
		access.Changed(ctx, "product/"+p.SKU, nil, viewOf(*p))
		return output(*p, http.StatusCreated)
	})
}

// ProductEdit is the body of PATCH /products/{sku}.
type ProductEdit struct {
	Name              *string `json:"name,omitempty" minLength:"1" maxLength:"200" doc:"What customers read; orders keep the name they were opened with"`
	LowStockThreshold *int64  `json:"low_stock_threshold,omitempty" minimum:"0" maximum:"1000000000000" doc:"It runs low when no more than this are available; 0: never"`
	Archived          *bool   `json:"archived,omitempty" doc:"true: it cannot be ordered any more; false: it can again"`
}

type editInput struct {
	SKUPath
	web.IfMatch
	Body ProductEdit
}

func (a Admin) edit(ctx context.Context, in *editInput) (*productOutput, error) {
	return access.Once(ctx, a.DB, func(ctx context.Context, tx database.Tx) (*productOutput, error) {
		var was productView
		p, err := Edit(in.Body).Apply(tx, in.SKU, func(p Product) error {
			was = viewOf(p)
			etag, err := web.ETag(was)
			if err != nil {
				return err
			}
			return in.Check(etag)
		})
		if err != nil {
			return nil, err
		}
		access.Changed(ctx, "product/"+p.SKU, was, viewOf(*p))
		return output(*p, http.StatusOK)
	})
}

type productsInput struct {
	web.PageParams
	Archived string `query:"archived" enum:"true,false" doc:"Only archived products, or only those that can be ordered"`
	LowStock string `query:"low_stock" enum:"true,false" doc:"Only products that run low, or only those that do not"`
}

const runsLow = "(low_stock_threshold > 0 AND on_hand - reserved <= low_stock_threshold)"

func (a Admin) list(ctx context.Context, in *productsInput) (*struct{ Body web.Page[productView] }, error) {
	after, err := web.DecodeCursor(in.After, 1)
	if err != nil {
		return nil, err
	}
	q := a.DB.Read(ctx).Order("sku").Limit(in.Limit + 1)
	if after != nil {
		q = q.Where("sku > ?", after[0])
	}
	if in.Archived != "" {
		q = q.Where("(archived_at IS NOT NULL) = ?", in.Archived == "true")
	}
	if in.LowStock != "" {
		q = q.Where(runsLow+" = ?", in.LowStock == "true")
	}
	var rows []Product
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list products: %w", database.Classify(err))
	}
	return &struct{ Body web.Page[productView] }{web.NewPage(views(rows, viewOf), in.Limit, func(p productView) string { return web.EncodeCursor(p.SKU) })}, nil
}

func views[R, V any](rows []R, view func(R) V) []V {
	vs := make([]V, len(rows))
	for i, r := range rows {
		vs[i] = view(r)
	}
	return vs
}

type showInput struct {
	SKUPath
	web.IfNoneMatch
}

func (a Admin) show(ctx context.Context, in *showInput) (*productOutput, error) {
	p, err := a.find(ctx, in.SKU)
	if err != nil {
		return nil, err
	}
	o, err := output(*p, http.StatusOK)
	if err == nil && in.Known(o.ETag) {
		o.Status = http.StatusNotModified
	}
	return o, err
}

func (a Admin) find(ctx context.Context, sku string) (*Product, error) {
	var p Product
	err := a.DB.Read(ctx).Where("sku = ?", sku).Take(&p).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, fault.New(fault.NotFound, "product_not_found", "no product %s", sku)
	}
	if err != nil {
		return nil, fmt.Errorf("product %s: %w", sku, database.Classify(err))
	}
	return &p, nil
}

// Adjustment is the body of POST /products/{sku}/adjustments.
type Adjustment struct {
	Delta  int64  `json:"delta" minimum:"-1000000000000" maximum:"1000000000000" doc:"Units to add, or with a minus to take away" example:"-3"`
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why; kept in the ledger" example:"broken in transport"`
}

// Apply changes what is on hand of one product. Errors: Unprocessable; those of [Change].
func (b Adjustment) Apply(tx database.Tx, sku, actor string) (*Movement, error) {
	if b.Delta == 0 {
		return nil, fault.New(fault.Unprocessable, "invalid_adjustment", "an adjustment changes something").
			With(fault.Field{Location: "delta", Message: "must not be 0"})
	}
	return Change(tx, sku, b.Delta, actor, b.Reason)
}

type adjustInput struct {
	SKUPath
	Body Adjustment
}

func (a Admin) adjust(ctx context.Context, in *adjustInput) (*movementOutput, error) {
	return access.Once(ctx, a.DB, func(ctx context.Context, tx database.Tx) (*movementOutput, error) {
		shelf, err := Load(tx, []string{in.SKU})
		if err != nil {
			return nil, err
		}
		m, err := in.Body.Apply(tx, in.SKU, web.Actor(ctx))
		if err != nil {
			return nil, err
		}
		p, err := a.find(ctx, in.SKU)
		if err != nil {
			return nil, err
		}
		out := &movementOutput{viewOfMovement(*m)}
		access.Changed(ctx, "product/"+in.SKU, viewOf(*shelf.Product(in.SKU)), adjusted{viewOf(*p), out.Body})
		return out, nil
	})
}

// adjusted is a product after its stock was changed, and why.
type adjusted struct {
	productView
	Movement movementView `json:"movement"`
}

type movementOutput struct{ Body movementView }

type movementsInput struct {
	SKUPath
	web.PageParams
}

func (a Admin) movements(ctx context.Context, in *movementsInput) (*struct{ Body web.Page[movementView] }, error) {
	if _, err := a.find(ctx, in.SKU); err != nil {
		return nil, err
	}
	after, err := web.AfterID(in.After)
	if err != nil {
		return nil, err
	}
	q := a.DB.Read(ctx).Where("sku = ?", in.SKU).Order("id DESC").Limit(in.Limit + 1)
	if after != nil {
		q = q.Where("id < ?", *after)
	}
	var rows []Movement
	if err := q.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("movements of %s: %w", in.SKU, database.Classify(err))
	}
	page := web.NewPage(views(rows, viewOfMovement), in.Limit, func(m movementView) string { return web.EncodeCursor(m.ID) })
	return &struct{ Body web.Page[movementView] }{page}, nil
}
