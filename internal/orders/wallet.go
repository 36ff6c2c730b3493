package orders

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/shopspring/decimal"
)

// What wallets and explorers outside understand.

var (
	classicAddress = regexp.MustCompile(`^r[1-9A-HJ-NP-Za-km-z]{24,34}$`) // of the XRP Ledger, in its base 58
	coinAddress    = regexp.MustCompile(`^[0-9A-Za-z]{14,90}$`)
	ledgerHash     = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)
)

// bip21 is who follows BIP 21: scheme:ADDRESS?amount=DECIMAL.
var bip21 = map[string]string{"BTC": "bitcoin", "LTC": "litecoin", "DOGE": "dogecoin"}

// payURI is one address that opens a wallet with receiver, amount and tag
// filled in; "" when there is none that wallets are known to read. For XRP it is
// the form that Xaman registers and documents for every wallet to claim, with
// the parameters of XLS-2 (https://xls.xrpl.org/xls/XLS-0002-destination-information.html);
// amounts are in XRP, not in drops.
func payURI(currency, address, tag string, amount decimal.Decimal) string {
	if !amount.IsPositive() {
		return ""
	}
	q := "?amount=" + url.QueryEscape(amount.String()) // the shortest form: some wallets refuse 10.00
	switch {
	case currency == "XRP" && classicAddress.MatchString(address):
		switch tag {
		case "":
		case "0":
			return "" // Xaman would send it without a tag, and nobody could tell whose money it is
		default:
			q += "&dt=" + url.QueryEscape(tag)
		}
		return "xrpl:" + address + q
	case bip21[currency] != "" && tag == "" && coinAddress.MatchString(address):
		return bip21[currency] + ":" + address + q
	}
	return ""
}

// explorerURL is where anybody can look a transaction up; "" for what is none
// of the XRP Ledger's.
func explorerURL(currency, txHash string) string {
	if currency != "XRP" || !ledgerHash.MatchString(txHash) {
		return ""
	}
	return "https://livenet.xrpl.org/transactions/" + strings.ToUpper(txHash)
}
