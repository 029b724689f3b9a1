package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
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
// for a person to look at, and reported: the error wraps ErrCorrupt.
func (f *DrainFile) Load() ([]Drain, error) {
	drains, bad, err := f.read()
	if bad != nil {
		aside, err := f.setAside("corrupt")
		if err != nil {
			return nil, fmt.Errorf("read drains %s: %w (and it %w)", f.path, bad, err)
		}
		return nil, fmt.Errorf("read drains %s, set aside as %s: %w: %w", f.path, filepath.Base(aside), ErrCorrupt, bad)
	}
	return drains, err
}

// SetAside renames a file that cannot be read to drains.json.unread-TIME.
func (f *DrainFile) SetAside() (string, error) { return f.setAside("unread") }

// Peek reads the drains as Load does, and leaves a file that cannot be understood where it is: it may be called beside a
// running agent.
func (f *DrainFile) Peek() ([]Drain, error) {
	drains, bad, err := f.read()
	if bad != nil {
		return nil, fmt.Errorf("read drains %s: %w: %w", f.path, ErrCorrupt, bad)
	}
	return drains, err
}

// read reads the drains. bad is why the file cannot be understood, err why it cannot be read.
func (f *DrainFile) read() (drains []Drain, bad, err error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read drains: %w", err)
	}
	if info.Size() > maxDrainFile {
		return nil, fmt.Errorf("the file has %d bytes, at most %d are read", info.Size(), maxDrainFile), nil
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return nil, nil, fmt.Errorf("read drains: %w", err)
	}
	var doc drainDocument
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err, nil
	}
	drains = make([]Drain, 0, len(doc.Drains))
	for _, d := range doc.Drains {
		if d.ID != "" && d.Cause != "" {
			drains = append(drains, d)
		}
	}
	return drains, nil, nil
}

func (f *DrainFile) setAside(why string) (string, error) {
	aside := f.path + "." + why + "-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(f.path, aside); err != nil {
		return "", fmt.Errorf("cannot be set aside: %w", err)
	}
	return aside, nil
}

// Save replaces the drains on disk. Root makes the file the directory's owner's, as it does the ledger: what an agent that
// was run by hand leaves behind, the service can read.
func (f *DrainFile) Save(drains []Drain) error {
	if drains == nil {
		drains = []Drain{}
	}
	b, err := json.MarshalIndent(drainDocument{Version: drainFileVersion, Drains: drains}, "", "  ")
	if err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	dir := filepath.Dir(f.path)
	if err := f.replace(dir, append(b, '\n')); err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("save drains: %w", err)
	}
	return nil
}

// replace puts a file of this content, made in dir, in place of the present one.
func (f *DrainFile) replace(dir string, content []byte) error {
	file, err := renameio.NewPendingFile(f.path, renameio.WithTempDir(dir), renameio.WithPermissions(0o600), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer file.Cleanup() //nolint:errcheck // what was made for nothing
	if err := giveTo(file.File, dir); err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// giveTo makes root's file that of dir's owner and group. Others own what they make.
func giveTo(file *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}

// syncDir makes a renaming in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
