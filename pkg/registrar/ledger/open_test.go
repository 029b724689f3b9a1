package ledger

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"berth/internal/statedir"
	"berth/pkg/registrar/elb"
	"berth/pkg/target"
	"berth/test/memdisk"
)

// A file that is no ledger any more is kept under a dated name, an empty one begins, and a person is told.
func TestOpen_corrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := ledgerEntry(1, "a"), ledgerEntry(2, "b")
		data := encodeLedger(t, 1, []Entry{a}, []Entry{b})
		data[len(ledgerLines(ledgerHeader1))+100] ^= 1
		d := memdisk.New()
		aside := memPath + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
		for _, name := range []string{aside, aside + "-2"} { // the second within one second needs another name
			d.Put(memPath, data)
			core, logs := observer.New(zap.InfoLevel)
			l := openOn(t, d, Options{Log: zap.New(core)})
			wantEntries(t, l)
			if got := d.Content(name); string(got) != string(data) {
				t.Errorf("%s holds %d bytes; want the %d of before", name, len(got), len(data))
			}
			said := logs.FilterLevelExact(zapcore.ErrorLevel).All()
			if len(said) != 1 {
				t.Fatalf("%d errors logged; want 1", len(said))
			}
			text := fmt.Sprint(said[0].ContextMap())
			for _, want := range []string{name, b.Target.String(), "line 2", "berth prune", "readable_entries:1"} {
				if !strings.Contains(text, want) {
					t.Errorf("the log does not say %q: %s", want, text)
				}
			}
			mustIntend(t, l, a)
			wantOnDisk(t, d, a)
			closeLedger(t, l)
		}
	})
}

// The unreadable file is not written over while it cannot be set aside.
func TestOpen_corrupt_renameFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		d.Put(memPath, []byte("not a ledger\n"))
		d.On(func(op, _ string) error {
			if op == "rename" {
				return syscall.EROFS
			}
			return nil
		})
		l := openOn(t, d, Options{})
		if err := l.Intend(t.Context(), []Entry{ledgerEntry(1, "a")}); !errors.Is(err, ErrDegraded) {
			t.Errorf("got %v; want ErrDegraded", err)
		}
		if got := d.Content(memPath); string(got) != "not a ledger\n" {
			t.Errorf("written over: %q", got)
		}
		d.On(nil)
		time.Sleep(time.Minute)
		wantOnDisk(t, d, ledgerEntry(1, "a"))
		if !slices.ContainsFunc(d.List(), func(name string) bool { return strings.Contains(name, ".corrupt-") }) {
			t.Errorf("the unreadable file is gone: %q", d.List())
		}
	})
}

// A disk that does not show the file for a moment costs nothing, one that never does sets it aside.
func TestOpen_readFails(t *testing.T) {
	for _, tt := range []struct {
		fails int
		err   error
		want  int
		fatal bool
	}{{2, syscall.EIO, 1, false}, {100, syscall.EIO, 0, false}, {100, syscall.EMFILE, 0, true}, {100, os.ErrPermission, 0, true}} {
		d := memdisk.New()
		d.Put(memPath, encodeLedger(t, 1, []Entry{ledgerEntry(1, "a")}))
		fails := tt.fails
		d.On(func(op, _ string) error {
			if op == "read" && fails > 0 {
				fails--
				return tt.err
			}
			return nil
		})
		l, err := Open(MemDir, "boot-1", Options{FS: d})
		if tt.fatal {
			if !errors.Is(err, tt.err) {
				t.Errorf("got %v; want %v", err, tt.err)
			}
			if got := d.Content(memPath); got == nil || d.Locked[filepath.Join(MemDir, lockName)] {
				t.Error("a refused start moved the ledger or kept the lock")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := len(l.Entries()); got != tt.want {
			t.Errorf("%v %d times: %d entries; want %d", tt.err, tt.fails, got, tt.want)
		}
		closeLedger(t, l)
	}
}

// Opening and closing writes nothing: a command that only looks leaves the ledger as it is.
func TestOpen_writesNothing(t *testing.T) {
	d := memdisk.New()
	data := encodeLedger(t, 7, []Entry{ledgerEntry(1, "a")})
	d.Put(memPath, data)
	l, err := Open(MemDir, "boot-2", Options{FS: d})
	if err != nil {
		t.Fatal(err)
	}
	closeLedger(t, l)
	if got := d.Content(memPath); string(got) != string(data) || d.Count("create") != 0 {
		t.Errorf("%d files made, content %q", d.Count("create"), got)
	}
}

func TestPeek(t *testing.T) {
	dir := t.TempDir()
	peek := func(want ...Entry) {
		t.Helper()
		l, err := Peek(dir)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries(t, l, want...)
		// What is done to it stays in memory.
		l.Claim(ledgerSelf)
		mustIntend(t, l, ledgerEntry(9, "z"))
		closeLedger(t, l)
	}
	peek() // there is none
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	b, a := ledgerEntry(2, "b"), ledgerEntry(1, "a")
	mustIntend(t, l, b, a)
	peek(a, b) // beside its agent
	peek(a, b)
	closeLedger(t, l)
	for name, data := range map[string]string{"nonsense": "nonsense\n", "empty": ""} {
		path := filepath.Join(dir, fileName)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Peek(dir); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v; want an error that names the line", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != data {
			t.Errorf("peeking changed the file: %q, %v", got, err)
		}
	}
}

func TestLedger_Claim(t *testing.T) {
	entry := func(id, more string) string {
		return fmt.Sprintf(`{"group_arn":"arn:1","id":%q,"port":1%s}`, id, more)
	}
	const header = `"header":{"schema":1,"instance_id":%q,"boot_id":"b"}`
	self := elb.Self{InstanceID: "i-1", Region: "eu-west-1", Address4: netip.MustParseAddr("10.0.0.1")}
	for _, tt := range []struct {
		name, instance string
		entries        []string
		self           elb.Self
		want           []string
	}{
		{"ours", "i-1", []string{entry("i-1", ""), entry("10.0.0.9", "")}, self, []string{"10.0.0.9", "i-1"}},
		{"another's", "i-2", []string{entry("i-2", ""), entry("10.0.0.1", ""), entry("i-1", "")}, self, nil},
		{
			"mixed: an entry's own word counts", "i-2",
			[]string{entry("i-1", `,"instance_id":"i-1"`), entry("10.0.0.1", `,"instance_id":"i-1"`), entry("10.0.0.2", `,"instance_id":"i-2"`)},
			self,
			[]string{"10.0.0.1", "i-1"},
		},
		{"an instance's id that is not ours", "i-1", []string{entry("i-2", ""), entry("i-1", "")}, self, []string{"i-1"}},
		{"nobody's", "", []string{entry("i-1", ""), entry("i-2", ""), entry("10.0.0.1", ""), entry("10.0.0.2", "")}, self, []string{"10.0.0.1", "i-1"}},
		{"not known who we are", "i-2", []string{entry("i-2", "")}, elb.Self{}, []string{"i-2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := memdisk.New()
			d.Put(memPath, ledgerLines(fmt.Sprintf(header, tt.instance), `"entries":[`+strings.Join(tt.entries, ",")+`]`))
			l := openLedger(t, MemDir, "boot-2", Options{FS: d})
			var got []string
			for _, e := range l.Claim(tt.self) {
				got = append(got, e.Target.ID)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			closeLedger(t, l)
			content, err := parse(d.Content(memPath))
			if err != nil || len(content.records) != len(tt.want) {
				t.Fatalf("on disk: %v, %v", content, err)
			}
			if h := content.header; tt.self.InstanceID != "" && (h.InstanceID != "i-1" || h.BootID != "boot-2" || h.Schema != schema) {
				t.Errorf("header %+v", h)
			}
		})
	}
}

func TestLedger_Intend_invalid(t *testing.T) {
	l := NewMemory()
	good := ledgerEntry(1, "a")
	for name, breakIt := range map[string]func(*Entry){
		"port":  func(e *Entry) { e.Target.Port = 0 },
		"id":    func(e *Entry) { e.Target.ID = "" },
		"ARN":   func(e *Entry) { e.Facts.ARN = "" },
		"phase": func(e *Entry) { e.Phase = Absent },
	} {
		bad := ledgerEntry(2, "b")
		breakIt(&bad)
		if err := l.Intend(t.Context(), []Entry{good, bad}); err == nil || errors.Is(err, ErrDegraded) {
			t.Errorf("%s: got %v; want an error of its own", name, err)
		}
		l.Record([]Entry{bad})
	}
	wantEntries(t, l)
}

func TestNewMemoryLedger(t *testing.T) {
	l := NewMemory()
	l.Claim(ledgerSelf)
	b, a := ledgerEntry(2, "b"), ledgerEntry(1, "a")
	other := ledgerEntry(1, "o")
	other.Facts.ARN = "arn:aws:a"
	mustIntend(t, l, b, other)
	mustIntend(t, l, a)
	wantEntries(t, l, other, a, b)
	l.Note(ledgerARN, []target.Target{a.Target}, Absent)
	wantEntries(t, l, other, b)
	e := Entry{Group: elb.Group{ARN: "arn:z"}, Target: target.Target{ID: "i", Port: 9}}
	mustIntend(t, l, e)
	if got := l.Entries()[2]; got.Phase != Intended || got.Intended.IsZero() || got.Facts.ARN != "arn:z" {
		t.Errorf("filled in: %+v", got)
	}
	if err := l.Err(); err != nil {
		t.Error(err)
	}
	closeLedger(t, l)
}

func TestLockedError(t *testing.T) {
	for content, want := range map[string]string{
		"":                       "lock /s/lock: held by another process",
		"\x00\x00\x00":           "lock /s/lock: held by another process",
		"12":                     "lock /s/lock: held by process 12",
		"12 berth run --x \n":    "lock /s/lock: held by process 12 (berth run --x)",
		"-3 berth":               "lock /s/lock: held by another process",
		"99999999999999999999 x": "lock /s/lock: held by another process",
	} {
		err := error(statedir.ParseHolder("/s/lock", content))
		if err.Error() != want || !errors.Is(err, statedir.ErrLocked) {
			t.Errorf("%q: %q; want %q", content, err, want)
		}
	}
}

// What lies in the state directory and is not the agent's own is refused, and left as it is.
func TestOpen_unsafe(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for _, name := range []string{fileName, lockName} {
		for what, make := range map[string]func(path string) error{
			"a symbolic link": func(path string) error {
				return errors.Join(os.WriteFile(elsewhere, []byte("keep"), 0o600), os.Symlink(elsewhere, path))
			},
			"no regular file":      func(path string) error { return unix.Mkfifo(path, 0o600) },
			"no regular file (d":   func(path string) error { return os.Mkdir(path, 0o700) },
			"owned by uid 4242, i": foreignFile,
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, name)
				if err := make(path); errors.Is(err, os.ErrPermission) {
					t.Skip("needs root")
				} else if err != nil {
					t.Fatal(err)
				}
				_, err := Open(dir, "boot-1", Options{})
				if err == nil {
					t.Fatal("opened")
				}
				isDir := strings.HasSuffix(what, "(d")
				if (!errors.Is(err, statedir.ErrUnsafe) || !strings.Contains(err.Error(), what)) && (!isDir || name != lockName) {
					t.Errorf("got %v; want ErrUnsafe with %q", err, what)
				}
				if !strings.Contains(err.Error(), path) {
					t.Errorf("%v does not name %s", err, path)
				}
				if data, err := os.ReadFile(elsewhere); err == nil && string(data) != "keep" {
					t.Errorf("wrote through the link: %q", data)
				}
			})
		}
	}
}

// foreignFile makes a file of somebody who is neither this process nor the directory's owner.
func foreignFile(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Chown(path, 4242, 4242)
}

// A command that root runs leaves nothing behind that the agent, another user, could not use.
func TestOpen_rootForAnother(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chown(dir, 4242, 4343); err != nil {
		t.Skip("needs root")
	}
	for range 2 {
		l := openLedger(t, dir, "boot-1", Options{})
		l.Claim(ledgerSelf)
		mustIntend(t, l, ledgerEntry(1, "a"))
		closeLedger(t, l)
		for _, name := range []string{fileName, lockName} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if uid, gid := statedir.OwnerOf(info); uid != 4242 || gid != 4343 || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("%s belongs to %d:%d, mode %v", name, uid, gid, info.Mode())
			}
		}
	}
}

// A symbolic link as the directory itself is how systemd's DynamicUser looks.
func TestOpen_linkedDirectory(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	l := openLedger(t, link, "boot-1", Options{})
	l.Claim(ledgerSelf)
	mustIntend(t, l, ledgerEntry(1, "a"))
	if _, err := Open(dir, "boot-1", Options{}); !errors.Is(err, statedir.ErrLocked) {
		t.Errorf("by its other name: %v; want ErrLocked", err)
	}
	closeLedger(t, l)
	wantEntries(t, openLedger(t, dir, "boot-1", Options{}), ledgerEntry(1, "a"))
}

// On a real disk, too: what is removed under a running agent is made again, lock included.
func TestLedger_removedUnderneath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	a, b, c := ledgerEntry(1, "a"), ledgerEntry(2, "b"), ledgerEntry(3, "c")
	mustIntend(t, l, a)
	if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	mustIntend(t, l, b)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	mustIntend(t, l, c)
	if _, err := Open(dir, "boot-1", Options{}); !errors.Is(err, statedir.ErrLocked) {
		t.Errorf("second ledger: %v; want ErrLocked", err)
	}
	closeLedger(t, l)
	wantEntries(t, openLedger(t, dir, "boot-1", Options{}), a, b, c)
}

// The file's blocks are there before they are needed: an append neither grows it nor leaves a hole.
func TestLedger_prewritten(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	size := func() (bytes, blocks int64) {
		info, err := os.Stat(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size(), info.Sys().(*syscall.Stat_t).Blocks
	}
	mustIntend(t, l, ledgerEntry(1, "a"))
	bytes, blocks := size()
	if bytes < defaultRoom || blocks*512 < defaultRoom {
		t.Errorf("%d bytes in %d blocks; want %d pre-written", bytes, blocks, defaultRoom)
	}
	for i := range 100 {
		mustIntend(t, l, ledgerEntry(uint16(2+i), "b"))
	}
	if b, n := size(); b != bytes || n != blocks {
		t.Errorf("100 commits changed %d bytes in %d blocks to %d in %d", bytes, blocks, b, n)
	}
}

func TestOpen_manyEntries(t *testing.T) {
	d := memdisk.New()
	lines := []string{ledgerHeader1}
	for i := range 100 {
		entries := make([]string, 1000)
		for j := range entries {
			entries[j] = fmt.Sprintf(`{"group_arn":"arn:%d","id":"i-1","port":%d}`, i%10, 1+i/10*1000+j)
		}
		lines = append(lines, `"entries":[`+strings.Join(entries, ",")+`]`)
	}
	d.Put(memPath, ledgerLines(lines...))
	l, err := Open(MemDir, "boot-1", Options{FS: d})
	if err != nil {
		t.Fatal(err)
	}
	got := l.Entries()
	if len(got) != 100_000 || !slices.IsSortedFunc(got, Entry.Compare) {
		t.Errorf("%d entries, sorted: %v", len(got), slices.IsSortedFunc(got, Entry.Compare))
	}
	closeLedger(t, l)
}
