package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"berth/internal/statedir"
	"berth/pkg/registrar/elb"
	"berth/pkg/target"
)

const (
	ledgerInstance = "i-0123456789abcdef0"
	ledgerARN      = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web-prod/0123456789abcdef"
)

var ledgerSelf = elb.Self{InstanceID: ledgerInstance, Region: "eu-west-1", Account: "123456789012"}

// ledgerEntry returns an entry with every field set.
func ledgerEntry(port uint16, run string) Entry {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	return Entry{
		Group: elb.Group{Key: "web", Name: "web-prod", Ownership: elb.OwnLedger, Source: "/etc/berth/berth.yaml:12"},
		Facts: elb.Facts{
			ARN: ledgerARN, Name: "web-prod", TargetType: "instance", Protocol: "HTTP", IPAddressType: "ipv4",
			VPC: "vpc-0a1b2c3d", Port: 80,
			LoadBalancers: []string{"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/web/50dc6c495c0c9188"},
		},
		Target: target.Target{ID: ledgerInstance, Port: port},
		Run:    target.Run{ID: fmt.Sprintf("%064s", run), Name: "web-" + run, StartedAt: at},
		Phase:  Intended, Intended: at.Add(time.Second), BootID: "boot-1",
	}
}

// openLedger opens a ledger on the operating system's file system, and closes it at the end of the test.
func openLedger(t *testing.T, dir, bootID string, opts Options) *Ledger {
	t.Helper()
	l, err := Open(dir, bootID, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func closeLedger(t *testing.T, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustIntend(t *testing.T, l *Ledger, entries ...Entry) {
	t.Helper()
	if err := l.Intend(context.Background(), entries); err != nil {
		t.Fatal(err)
	}
}

func wantEntries(t *testing.T, l *Ledger, want ...Entry) {
	t.Helper()
	if diff := cmp.Diff(append([]Entry{}, want...), l.Entries()); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestLedger_survivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state") // made by the ledger
	l := openLedger(t, dir, "boot-1", Options{})
	if got := l.Claim(ledgerSelf); len(got) != 0 {
		t.Fatalf("a new ledger holds %v", got)
	}
	a, b, c := ledgerEntry(32768, "a"), ledgerEntry(32769, "b"), ledgerEntry(32770, "c")
	mustIntend(t, l, c, a)
	mustIntend(t, l, b)
	l.Note(ledgerARN, []target.Target{a.Target}, Registered)
	l.Note(ledgerARN, []target.Target{b.Target}, Removing)
	l.Note(ledgerARN, []target.Target{c.Target}, Absent)
	before := l.Entries()
	if len(before) != 2 || before[0].Phase != Registered || before[0].Confirmed.IsZero() ||
		before[1].Phase != Removing || before[1].Removed.IsZero() {
		t.Fatalf("entries after the notes: %+v", before)
	}
	closeLedger(t, l)

	again := openLedger(t, dir, "boot-2", Options{})
	wantEntries(t, again, before...)
	if diff := cmp.Diff(before, again.Claim(ledgerSelf)); diff != "" {
		t.Errorf("claimed (-want +got):\n%s", diff)
	}
}

func TestLedger_durableWithoutClose(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	e := ledgerEntry(32768, "a")
	mustIntend(t, l, e)
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	content, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if r := content.records[claim{ledgerARN, e.Target}]; r == nil || !cmp.Equal(r.Entry, e) {
		t.Errorf("file holds %+v; want %+v", r, e)
	}
	if h := content.header; h.Schema != schema || h.InstanceID != ledgerInstance || h.BootID != "boot-1" {
		t.Errorf("header %+v", h)
	}
}

func TestLedger_locked(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{Holder: "4242 berth run --target-group web"})
	_, err := Open(dir, "boot-1", Options{})
	var locked *statedir.LockedError
	if !errors.Is(err, statedir.ErrLocked) || !errors.As(err, &locked) {
		t.Fatalf("second ledger: %v; want ErrLocked", err)
	}
	want := statedir.LockedError{Path: filepath.Join(dir, lockName), PID: 4242, Command: "berth run --target-group web"}
	if *locked != want {
		t.Errorf("got %+v; want %+v", *locked, want)
	}
	closeLedger(t, l)
	openLedger(t, dir, "boot-1", Options{})
}

func TestLedger_anotherInstance(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, "boot-1", Options{})
	l.Claim(ledgerSelf)
	mustIntend(t, l, ledgerEntry(32768, "a"))
	closeLedger(t, l)

	core, logs := observer.New(zap.InfoLevel)
	l = openLedger(t, dir, "boot-1", Options{Log: zap.New(core)})
	if got := l.Claim(elb.Self{InstanceID: "i-0fedcba9876543210", Region: "eu-west-1"}); len(got) != 0 {
		t.Errorf("claimed %v of another instance", got)
	}
	if n := logs.FilterMessage("ledger entries of another instance discarded").Len(); n != 1 {
		t.Errorf("said so %d times; want once", n)
	}
	closeLedger(t, l)
	wantEntries(t, openLedger(t, dir, "boot-1", Options{}))
}
