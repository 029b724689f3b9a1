package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// disk measures what a commit of the ledger costs at least: as many bytes, appended to a file that is written already,
// and fdatasync.
type disk struct {
	file *os.File
	used int64
	took series
}

const (
	diskRoom   = 1 << 20
	diskCommit = 900 // about what one entry takes
)

func newDisk(path string) (*disk, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	d := &disk{file: f}
	if _, err := f.Write(make([]byte, diskRoom)); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return d, f.Sync()
}

func (d *disk) measure() error {
	line := make([]byte, diskCommit)
	begun := time.Now()
	if _, err := d.file.WriteAt(line, d.used); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(d.file.Fd())); err != nil {
		return fmt.Errorf("fdatasync %s: %w", d.file.Name(), err)
	}
	d.took = append(d.took, time.Since(begun))
	d.used = (d.used + diskCommit) % (diskRoom - diskCommit)
	return nil
}
