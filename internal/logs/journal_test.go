package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// journal is a file that JOURNAL_STREAM names, as systemd sets it for a service's standard error.
func journal(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Each level is the journal's own; of a line and of every line of an entry with several.
func TestNew_journal(t *testing.T) {
	f := journal(t)
	for _, format := range []string{"auto", "console"} {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		log, _, err := New(f, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		log = log.With(zap.String("of", "all")).Named("test")
		log.Debug("a")
		log.Info("b")
		log.Warn("c")
		log.Error("d", zap.String("why", "x\ny"))
		log.DPanic("e")
		log.Error("f\ng")
		written(log.Sync)
		want := []string{"<7>", "<6>", "<4>", "<3>", "<2>", "<3>"}
		if format == "console" {
			want = append(want, "<3>")
		}
		got := strings.Split(strings.TrimSuffix(content(t, f), "\n"), "\n")
		if len(got) != len(want) {
			t.Fatalf("%s: %d lines; want %d:\n%s", format, len(got), len(want), content(t, f))
		}
		for i := range want {
			rest, ok := strings.CutPrefix(got[i], want[i])
			if !ok || format == "auto" && !strings.HasPrefix(rest, `{"level":`) {
				t.Errorf("%s: %s; want %s and the entry", format, got[i], want[i])
			}
		}
	}
}

// What is no journal gets no priorities: neither a file beside it, as when only the one stream is redirected, nor
// anything where no journal is.
func TestIsJournal(t *testing.T) {
	f := journal(t)
	if !IsJournal(f) || !IsJournal(NewWriter(f)) {
		t.Error("the journal is not known")
	}
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if IsJournal(other) || IsJournal(&strings.Builder{}) || IsJournal(NewWriter(&strings.Builder{})) {
		t.Error("another writer is taken for the journal")
	}
	t.Setenv("JOURNAL_STREAM", "")
	if IsJournal(f) {
		t.Error("a journal where there is none")
	}
	if w := Lines(f, zapcore.ErrorLevel); w != f {
		t.Errorf("Lines: got %v; want the file itself", w)
	}
}

// Lines has a priority for each line, however it is written.
func TestLines(t *testing.T) {
	f := journal(t)
	w := Lines(f, zapcore.InfoLevel)
	for _, part := range []string{"one\ntwo\n", "th", "", "ree", "\n", "four\nfi", "ve\n"} {
		if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatalf("Write(%q): %d, %v", part, n, err)
		}
	}
	fmt.Fprintln(Lines(f, zapcore.ErrorLevel), "six")
	if got, want := content(t, f), "<6>one\n<6>two\n<6>three\n<6>four\n<6>five\n<3>six\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
