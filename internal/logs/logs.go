// Package logs makes the logger of agent and commands. Whatever becomes of what it is written to, nobody who logs waits.
//
//	logs.go     New: the logger; TakeStandard: the standard library's, too
//	writer.go   Writer: a bounded buffer, and one goroutine that writes
//	journal.go  priorities for systemd's journal
package logs

import (
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// New returns a logger that writes to w: nothing is sampled away, and nothing waits for w. A *Writer is taken as it is;
// another writer gets one. What that has to drop is said in the log when it can be written again. Format auto is console on
// a terminal and JSON elsewhere; in systemd's journal lines have priorities. The level can be changed while it is in use.
// Sync waits for what was logged to be written, a second at most.
func New(w io.Writer, level, format string) (*zap.Logger, zap.AtomicLevel, error) {
	at, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, at, fmt.Errorf("log.level: %w", err)
	}
	terminal := false
	if f, ok := under(w).(*os.File); ok {
		terminal = term.IsTerminal(int(f.Fd()))
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch {
	case format == "console", format == "auto" && terminal:
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		if terminal && os.Getenv("NO_COLOR") == "" {
			enc.EncodeLevel = zapcore.CapitalColorLevelEncoder
		}
		encoder = zapcore.NewConsoleEncoder(enc)
	case format == "json", format == "auto":
		encoder = zapcore.NewJSONEncoder(enc)
	default:
		return nil, at, fmt.Errorf("log.format: %q: must be auto, json or console", format)
	}
	if IsJournal(w) {
		encoder = journalEncoder{encoder}
	}
	out, ok := w.(*Writer)
	if !ok {
		out = NewWriter(w)
	}
	out.saying(func(dropped uint64) []byte {
		line, err := encoder.Clone().EncodeEntry(
			zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), LoggerName: "logs", Message: "log lines dropped: nobody took them"},
			[]zapcore.Field{zap.Uint64("lines", dropped)},
		)
		if err != nil {
			return nil // it has no field that could fail
		}
		defer line.Free()
		return append([]byte(nil), line.Bytes()...)
	})
	return zap.New(zapcore.NewCore(encoder, out, at)), at, nil
}

// TakeStandard has what the standard library logs of itself (net/http of connections, for one) go to log, at warn, until
// restore is called: its own logger writes to standard error in the caller's goroutine, and waits for whoever reads that.
func TakeStandard(log *zap.Logger) (restore func()) {
	restore, err := zap.RedirectStdLogAt(log.Named("std"), zapcore.WarnLevel)
	if err != nil {
		return func() {} // there is no such error at this level
	}
	return restore
}
