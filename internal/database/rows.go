package database

import (
	"encoding/json"
	"fmt"
	"strings"

	"quayside/internal/crash"
)

// A batch is saved with one statement per table: its rows travel as one JSON
// argument and Postgres reads them with json_populate_recordset. Rows are
// structs whose json tags are column names.

// Insert writes rows into table, naming columns.
func Insert[R any](tx Tx, table, columns string, rows []R) error {
	return InsertOr(tx, table, columns, rows, "")
}

// InsertOr is Insert with a tail: an ON CONFLICT clause.
func InsertOr[R any](tx Tx, table, columns string, rows []R, tail string) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := InsertCount(tx, table, columns, rows, tail)
	return err
}

// InsertCount is InsertOr that says how many rows went in.
func InsertCount[R any](tx Tx, table, columns string, rows []R, tail string) (int64, error) {
	return tx.ExecRows(insert(table, columns, tail), rows)
}

// InsertReturning is InsertOr with a tail that ends in RETURNING: the rows that
// went in or were updated, as far as their columns are named there.
func InsertReturning[R any](tx Tx, table, columns string, rows []R, tail string) (written []R, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	body, err := json.Marshal(rows)
	if err != nil {
		return nil, fmt.Errorf("encode rows: %w", err)
	}
	if crash.Enabled {
		crash.At(tx.Statement.Context, "insert into "+table)
	}
	return written, tx.Raw(insert(table, columns, tail), map[string]any{"rows": string(body)}).Scan(&written).Error
}

func insert(table, columns, tail string) string {
	return fmt.Sprintf(`INSERT INTO %[1]s (%[2]s) SELECT %[2]s FROM json_populate_recordset(NULL::%[1]s, @rows) %[3]s`, table, columns, tail)
}

// Upsert is InsertOr with a DO UPDATE whose WHERE may refuse rows. When it
// refuses one, another transaction was there first: the error is ErrAgain.
func Upsert[R any](tx Tx, table, columns string, rows []R, tail string) error {
	if len(rows) == 0 {
		return nil
	}
	n, err := InsertCount(tx, table, columns, rows, tail)
	if err == nil && n != int64(len(rows)) {
		return fmt.Errorf("%d of %d rows of %s: %w", n, len(rows), table, ErrAgain)
	}
	return err
}

// Update sets columns of the rows of table that have the same id. It is an
// error when one of them is not there: to Postgres that would be none.
func Update[R any](tx Tx, table, columns string, rows []R) error {
	if len(rows) == 0 {
		return nil
	}
	var set []string
	for name := range strings.SplitSeq(columns, ",") {
		name = strings.TrimSpace(name)
		set = append(set, name+" = r."+name)
	}
	n, err := tx.ExecRows(fmt.Sprintf(`UPDATE %[1]s t SET %[2]s FROM json_populate_recordset(NULL::%[1]s, @rows) r WHERE t.id = r.id`,
		table, strings.Join(set, ", ")), rows)
	if err == nil && n != int64(len(rows)) {
		return fmt.Errorf("update %s: %d of %d rows found", table, n, len(rows))
	}
	return err
}

// ExecRows runs a statement that names its rows @rows and, if it likes, the
// transaction's instant @now, and returns how many rows it touched.
func (tx Tx) ExecRows(statement string, rows any) (int64, error) {
	body, err := json.Marshal(rows)
	if err != nil {
		return 0, fmt.Errorf("encode rows: %w", err)
	}
	if crash.Enabled {
		crash.At(tx.Statement.Context, strings.Join(strings.Fields(statement)[:3], " "))
	}
	res := tx.Exec(statement, map[string]any{"rows": string(body), "now": tx.Now})
	return res.RowsAffected, res.Error
}
