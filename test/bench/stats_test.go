package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ascending(n int) series {
	s := make(series, n)
	for i := range s {
		s[n-1-i] = time.Duration(i+1) * time.Millisecond // in no particular order
	}
	return s
}

func TestSeries_at(t *testing.T) {
	for _, tt := range []struct {
		s    series
		p    float64
		want time.Duration
	}{
		{ascending(1), .5, time.Millisecond},
		{ascending(1), .95, time.Millisecond},
		{ascending(2), .5, time.Millisecond},
		{ascending(3), .5, 2 * time.Millisecond},
		{ascending(100), .5, 50 * time.Millisecond},
		{ascending(100), .95, 95 * time.Millisecond},
		{ascending(300), .95, 285 * time.Millisecond},
		{ascending(10), 1, 10 * time.Millisecond},
		{nil, .5, 0},
	} {
		if got := tt.s.at(tt.p); got != tt.want {
			t.Errorf("%g of %d = %v; want %v", tt.p, len(tt.s), got, tt.want)
		}
	}
}

func TestResult_judge(t *testing.T) {
	for name, tt := range map[string]struct {
		start, p95, kill float64
		met              bool
	}{
		"all met":        {1.5, 3, 1.5, true},
		"start too slow": {1.51, 1, 1, false},
		"start's tail":   {1, 3.01, 1, false},
		"kill too slow":  {1, 1, 1.51, false},
	} {
		good := measured{Start: comparison{MedianRatio: 1, P95Ratio: 1}, Kill: comparison{MedianRatio: 1, P95Ratio: 1}}
		r := result{Berths: []measured{
			good, {Start: comparison{MedianRatio: tt.start, P95Ratio: tt.p95}, Kill: comparison{MedianRatio: tt.kill, P95Ratio: 100}}, good,
		}}
		if r.judge(); r.Met != tt.met {
			t.Errorf("%s: met is %t", name, r.Met)
		}
	}
}

func TestResult_print(t *testing.T) {
	r := result{
		Berths: []measured{{
			Start: compare(series{2 * time.Millisecond}, series{3 * time.Millisecond}),
			Kill:  compare(series{time.Millisecond}, series{2 * time.Millisecond}),
		}},
		Disk: series{500 * time.Microsecond}.quantiles(),
	}
	r.judge()
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.50 (at most 1.5)", "2.00 (at most 1.5)", "0.50 ms (median of 1)", "criteria: not met"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestLedgerSync(t *testing.T) {
	got, err := ledgerSync("# TYPE berth_ledger_sync_duration_seconds histogram\n" +
		"berth_ledger_sync_duration_seconds_bucket{le=\"+Inf\"} 4\nberth_ledger_sync_duration_seconds_sum 0.002\nberth_ledger_sync_duration_seconds_count 4\n")
	if diff := cmp.Diff(meanOf{N: 4, Mean: .0005}, got); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if got, err := ledgerSync("berth_ready 1\n"); err == nil {
		t.Errorf("got %+v of metrics that do not say", got)
	}
}
