package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// IsJournal reports whether what is written to w goes to systemd's journal: JOURNAL_STREAM names its device and inode.
// https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24JOURNAL_STREAM
func IsJournal(w io.Writer) bool {
	f, ok := under(w).(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// under is what a Writer writes to; another writer itself.
func under(w io.Writer) io.Writer {
	if own, ok := w.(*Writer); ok {
		return own.to
	}
	return w
}

// priority is what the journal takes at the beginning of a line for its level.
// https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html
func priority(l zapcore.Level) string {
	switch l {
	case zapcore.DebugLevel:
		return "<7>"
	case zapcore.InfoLevel:
		return "<6>"
	case zapcore.WarnLevel:
		return "<4>"
	case zapcore.ErrorLevel:
		return "<3>"
	default:
		return "<2>"
	}
}

// Lines returns w, where the journal, if that is what w writes to, has each line at the given level. It is for one
// goroutine.
func Lines(w io.Writer, l zapcore.Level) io.Writer {
	if !IsJournal(w) {
		return w
	}
	return &prioritized{to: w, prefix: priority(l)}
}

type prioritized struct {
	to     io.Writer
	prefix string
	within bool // a line that has begun is not at its end
}

func (p *prioritized) Write(b []byte) (int, error) {
	out := prefixed(b, p.prefix)
	if p.within {
		out = out[min(len(p.prefix), len(out)):]
	}
	if _, err := p.to.Write(out); err != nil {
		return 0, err
	}
	if len(b) > 0 {
		p.within = b[len(b)-1] != '\n'
	}
	return len(b), nil
}

// prefixed puts a prefix before every line.
func prefixed(b []byte, prefix string) []byte {
	out := make([]byte, 0, len(b)+len(prefix)*int(lines(b)))
	for line := range bytes.Lines(b) {
		out = append(append(out, prefix...), line...)
	}
	return out
}

// journalEncoder puts the priority before each line of an entry.
type journalEncoder struct{ zapcore.Encoder }

var buffers = buffer.NewPool()

// Clone implements zapcore.Encoder.
func (e journalEncoder) Clone() zapcore.Encoder { return journalEncoder{e.Encoder.Clone()} }

// EncodeEntry implements zapcore.Encoder.
func (e journalEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := e.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	defer line.Free()
	out := buffers.Get()
	_, err = out.Write(prefixed(line.Bytes(), priority(entry.Level)))
	return out, err
}
