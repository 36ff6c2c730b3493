package orders

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quietZone is the white border that scanners need, in modules.
const quietZone = 4

// qrCode is a QR code as a drawing: the black modules as one path in a square
// of Size modules, border included.
type qrCode struct {
	Size int
	Path string
}

// drawQR draws text; nil for none.
func drawQR(text string) (*qrCode, error) {
	if text == "" {
		return nil, nil
	}
	code, err := qr.Encode(text, qr.M) // survives a scratch, and stays coarse enough for a phone's screen
	if err != nil {
		return nil, fmt.Errorf("draw QR code: %w", err)
	}
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", x+quietZone, y+quietZone, run, run)
				x += run
			}
		}
	}
	return &qrCode{Size: code.Size + 2*quietZone, Path: path.String()}, nil
}
