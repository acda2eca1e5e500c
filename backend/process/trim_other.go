//go:build !linux

package process

import (
	"fmt"
	"os"
)

// Trim empties a file that is larger than max bytes: this system cannot free a
// part of it.
func Trim(path string, max int64) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	if st.Size() <= max {
		return nil
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	return nil
}

func seekData(*os.File, int64) (int64, bool) { return 0, false }
