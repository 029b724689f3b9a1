package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// DrainFile is the DrainStore in a file, drains.json of the state directory. It is replaced as a whole and synced, so
// that a crash leaves the old drains or the new ones.
type DrainFile struct{ path string }

// NewDrainFile makes a store of the file drains.json in dir, which has to exist by the time of the first Save.
func NewDrainFile(dir string) *DrainFile {
	return &DrainFile{path: filepath.Join(dir, "drains.json")}
}

// drainFileVersion is written to the file. A file of a later version is read as far as it is understood: what a drain
// holds, and for how long, keep their names.
const drainFileVersion = 1

// maxDrainFile bounds what is read: some 20,000 drains.
const maxDrainFile = 8 << 20

type drainDocument struct {
	Version int     `json:"version"`
	Drains  []Drain `json:"drains"`
}

// Load reads the drains; a missing file holds none. A file that cannot be understood is set aside under a dated name,
// for a person to look at, and reported.
func (f *DrainFile) Load() ([]Drain, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read drains: %w", err)
	}
	if info.Size() > maxDrainFile {
		return nil, f.setAside(fmt.Errorf("the file has %d bytes, at most %d are read", info.Size(), maxDrainFile))
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("read drains: %w", err)
	}
	var doc drainDocument
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, f.setAside(err)
	}
	drains := make([]Drain, 0, len(doc.Drains))
	for _, d := range doc.Drains {
		if d.ID != "" && d.Cause != "" {
			drains = append(drains, d)
		}
	}
	return drains, nil
}

func (f *DrainFile) setAside(cause error) error {
	aside := f.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(f.path, aside); err != nil {
		return fmt.Errorf("read drains %s: %w (and it cannot be set aside: %w)", f.path, cause, err)
	}
	return fmt.Errorf("read drains %s, set aside as %s: %w", f.path, filepath.Base(aside), cause)
}

// Save replaces the drains on disk.
func (f *DrainFile) Save(drains []Drain) error {
	if drains == nil {
		drains = []Drain{}
	}
	b, err := json.MarshalIndent(drainDocument{Version: drainFileVersion, Drains: drains}, "", "  ")
	if err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	dir := filepath.Dir(f.path)
	if err := renameio.WriteFile(f.path, append(b, '\n'), 0o600, renameio.WithTempDir(dir)); err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	return nil
}

// syncDir makes a renaming in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
