// Package memdisk is a disk in memory for tests of what is kept on one: it fails, hangs, fills up, and loses at a crash what was
// not synced.
package memdisk

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"berth/internal/statedir"
)

// Disk is a disk in memory that behaves as a journalling file system does: what was written counts only when it was
// synced, names change in order and count only when their directory was synced. Faults are put in by a hook; a crash
// keeps any part of what was not synced.
type Disk struct {
	// hook is called before each operation, with no lock held: it may fail, or block for as long as it likes. With
	// ErrShort a write takes half of its bytes first.
	hook func(op, path string) error

	Mu      sync.Mutex
	Space   int64                // how many bytes the files may have together; 0: any number
	names   map[string]*memInode // as programs see them
	synced  map[string]*memInode // as a crash leaves them, at least
	moves   []func(map[string]*memInode)
	Locked  map[string]bool
	ops     map[string]int
	Crashed bool
}

type memInode struct {
	data, synced []byte
	writes       []memWrite // since the last sync
}

type memWrite struct {
	at    int64
	bytes []byte
}

// ErrShort makes a write take half of its bytes first.
var ErrShort = errors.New("short write")

var errCrashed = errors.New("the machine is down")

// New returns an empty disk.
func New() *Disk {
	return &Disk{
		names: map[string]*memInode{}, synced: map[string]*memInode{}, Locked: map[string]bool{}, ops: map[string]int{},
	}
}

// do counts an operation and lets the hook have its say.
func (d *Disk) do(op, path string) error {
	d.Mu.Lock()
	d.ops[op]++
	hook, crashed := d.hook, d.Crashed
	d.Mu.Unlock()
	if crashed {
		return errCrashed
	}
	if hook == nil {
		return nil
	}
	if err := hook(op, path); err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// On sets the hook.
func (d *Disk) On(hook func(op, path string) error) {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	d.hook = hook
}

// Count returns how often op was asked for.
func (d *Disk) Count(op string) int {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	return d.ops[op]
}

// Content returns what a file holds, as programs see it.
func (d *Disk) Content(path string) []byte {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	if inode := d.names[path]; inode != nil {
		return append([]byte{}, inode.data...)
	}
	return nil
}

// Put makes a file, synced.
func (d *Disk) Put(path string, data []byte) {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	inode := &memInode{data: append([]byte{}, data...), synced: append([]byte{}, data...)}
	d.names[path], d.synced[path] = inode, inode
}

// RemoveAll takes away everything below dir, as rm -r does.
func (d *Disk) RemoveAll(dir string) {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	for path := range d.names {
		if strings.HasPrefix(path, dir) {
			delete(d.names, path)
			delete(d.synced, path)
		}
	}
}

// List returns the names of all files.
func (d *Disk) List() []string {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	var out []string
	for path := range d.names {
		out = append(out, filepath.Base(path))
	}
	return out
}

// Crash stops the disk and returns what a machine finds after its next start.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	d.Crashed = true
	after := New()
	kept := map[*memInode]*memInode{}
	for path, inode := range d.synced {
		after.synced[path] = inode
	}
	for _, move := range d.moves[:rng.IntN(len(d.moves)+1)] {
		move(after.synced)
	}
	for path, inode := range after.synced {
		if kept[inode] == nil {
			kept[inode] = inode.crash(rng)
		}
		after.synced[path], after.names[path] = kept[inode], kept[inode]
	}
	return after
}

// crash keeps any sectors of the writes that were not synced, whatever a sector is.
func (i *memInode) crash(rng *rand.Rand) *memInode {
	data := append([]byte{}, i.synced...)
	sector := []int64{1, 16, 512, 4096}[rng.IntN(4)]
	chance := rng.Float64()
	for _, w := range i.writes {
		for at := w.at; at < w.at+int64(len(w.bytes)); {
			end := min((at/sector+1)*sector, w.at+int64(len(w.bytes)))
			if rng.Float64() < chance {
				data = writeAt(data, w.bytes[at-w.at:end-w.at], at)
			}
			at = end
		}
	}
	return &memInode{data: data, synced: append([]byte{}, data...)}
}

// Survives returns the disk as a process finds it after another was killed: the machine went on.
func (d *Disk) Survives() *Disk {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	after := New()
	for path, inode := range d.names {
		after.Put(path, inode.data)
	}
	return after
}

func writeAt(data, b []byte, at int64) []byte {
	if grow := at + int64(len(b)) - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[at:], b)
	return data
}

// MkdirAll is statedir.Disk's.
func (d *Disk) MkdirAll(dir string) error { return d.do("mkdir", dir) }

// Lock is statedir.Disk's.
func (d *Disk) Lock(path, holder string) (statedir.HeldLock, error) {
	if err := d.do("lock", path); err != nil {
		return nil, err
	}
	d.Mu.Lock()
	defer d.Mu.Unlock()
	inode := d.names[path]
	if inode == nil {
		inode = &memInode{}
		d.names[path], d.synced[path] = inode, inode
	}
	if d.Locked[path] && inode.data != nil {
		return nil, statedir.ParseHolder(path, string(inode.data))
	}
	d.Locked[path], inode.data = true, []byte(holder)
	return &memFile{d: d, inode: inode, lock: path}, nil
}

// ReadFile is statedir.Disk's.
func (d *Disk) ReadFile(path string) ([]byte, error) {
	if err := d.do("read", path); err != nil {
		return nil, err
	}
	if data := d.Content(path); data != nil {
		return data, nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

// Create is statedir.Disk's.
func (d *Disk) Create(path string) (statedir.File, error) {
	if err := d.do("create", path); err != nil {
		return nil, err
	}
	d.Mu.Lock()
	defer d.Mu.Unlock()
	inode := &memInode{data: []byte{}}
	d.names[path] = inode
	d.moves = append(d.moves, func(m map[string]*memInode) { m[path] = inode })
	return &memFile{d: d, inode: inode}, nil
}

// Rename is statedir.Disk's.
func (d *Disk) Rename(from, to string) error {
	if err := d.do("rename", to); err != nil {
		return err
	}
	d.Mu.Lock()
	defer d.Mu.Unlock()
	inode := d.names[from]
	if inode == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	move := func(m map[string]*memInode) {
		m[to] = inode
		delete(m, from)
	}
	move(d.names)
	d.moves = append(d.moves, move)
	return nil
}

// Exists is statedir.Disk's.
func (d *Disk) Exists(path string) (bool, error) {
	if err := d.do("exists", path); err != nil {
		return false, err
	}
	return d.Content(path) != nil, nil
}

// Remove is statedir.Disk's.
func (d *Disk) Remove(path string) error {
	if err := d.do("remove", path); err != nil {
		return err
	}
	d.Mu.Lock()
	defer d.Mu.Unlock()
	if d.names[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	delete(d.names, path)
	d.moves = append(d.moves, func(m map[string]*memInode) { delete(m, path) })
	return nil
}

// SyncDir is statedir.Disk's.
func (d *Disk) SyncDir(dir string) error {
	if err := d.do("syncdir", dir); err != nil {
		return err
	}
	d.Mu.Lock()
	defer d.Mu.Unlock()
	for _, move := range d.moves {
		move(d.synced)
	}
	d.moves = nil
	return nil
}

// memFile is an open file of a Disk.
type memFile struct {
	d     *Disk
	inode *memInode
	lock  string // the path that it locks; empty: none
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	err := f.d.do("write", "")
	f.d.Mu.Lock()
	defer f.d.Mu.Unlock()
	if errors.Is(err, ErrShort) {
		b = b[:len(b)/2]
	} else if err != nil {
		return 0, err
	}
	if d := f.d; d.Space > 0 {
		free := d.Space
		for _, inode := range d.names {
			free -= int64(len(inode.data))
		}
		if need := at + int64(len(b)) - int64(len(f.inode.data)); need > max(0, free) {
			b, err = b[:max(0, int64(len(b))-need+free)], syscall.ENOSPC
		}
	}
	f.inode.data = writeAt(f.inode.data, b, at)
	f.inode.writes = append(f.inode.writes, memWrite{at, append([]byte{}, b...)})
	return len(b), err
}

// Truncate is made durable at once: nothing here depends on when it is.
func (f *memFile) Truncate(size int64) error {
	if err := f.d.do("truncate", ""); err != nil {
		return err
	}
	f.d.Mu.Lock()
	defer f.d.Mu.Unlock()
	f.inode.data = f.inode.data[:min(size, int64(len(f.inode.data)))]
	f.inode.synced = f.inode.synced[:min(size, int64(len(f.inode.synced)))]
	for i, w := range f.inode.writes {
		f.inode.writes[i].bytes = w.bytes[:max(0, min(int64(len(w.bytes)), size-w.at))]
	}
	return nil
}

func (f *memFile) sync(op string) error {
	// What was written before the call counts when it returns; what comes during it does not.
	f.d.Mu.Lock()
	n := len(f.inode.writes)
	f.d.Mu.Unlock()
	if err := f.d.do(op, ""); err != nil {
		return err
	}
	f.d.Mu.Lock()
	defer f.d.Mu.Unlock()
	if f.d.Crashed {
		return errCrashed
	}
	for _, w := range f.inode.writes[:n] {
		f.inode.synced = writeAt(f.inode.synced, w.bytes, w.at)
	}
	f.inode.writes = f.inode.writes[n:]
	return nil
}

func (f *memFile) Sync() error     { return f.sync("sync") }
func (f *memFile) Datasync() error { return f.sync("datasync") }

func (f *memFile) Named(path string) (bool, error) {
	if err := f.d.do("named", path); err != nil {
		return false, err
	}
	f.d.Mu.Lock()
	defer f.d.Mu.Unlock()
	return f.d.names[path] == f.inode, nil
}

func (f *memFile) Close() error {
	f.d.Mu.Lock()
	defer f.d.Mu.Unlock()
	if f.lock != "" && f.d.names[f.lock] == f.inode {
		f.d.Locked[f.lock] = false
	}
	return nil
}
