package main

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// The criteria: berth's time as a multiple of the floor's.
const (
	mostMedian   = 1.5 // of start and kill
	mostStartP95 = 3.0
)

// series are times of one kind.
type series []time.Duration

// at returns the least value that a share p of the series does not exceed (nearest rank); 0 for an empty series.
func (s series) at(p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// quantiles are a series in short, in seconds.
type quantiles struct {
	N      int     `json:"n"`
	Median float64 `json:"median_seconds"`
	P95    float64 `json:"p95_seconds"`
}

func (s series) quantiles() quantiles {
	return quantiles{N: len(s), Median: s.at(.5).Seconds(), P95: s.at(.95).Seconds()}
}

// comparison is berth beside the floor.
type comparison struct {
	Floor       quantiles `json:"floor"`
	Berth       quantiles `json:"berth"`
	MedianRatio float64   `json:"median_ratio"`
	P95Ratio    float64   `json:"p95_ratio"`
}

func compare(floor, berth series) comparison {
	c := comparison{Floor: floor.quantiles(), Berth: berth.quantiles()}
	c.MedianRatio, c.P95Ratio = c.Berth.Median/c.Floor.Median, c.Berth.P95/c.Floor.P95
	return c
}

// result is what a run has measured.
type result struct {
	Machine machine    `json:"machine"`
	Berths  []measured `json:"berths"`
	// Disk is a bare fdatasync of as many bytes as the ledger's of one target.
	Disk quantiles `json:"bare_fdatasync"`
	Met  bool      `json:"met"`
}

// measured is what one program has measured beside the floor.
type measured struct {
	Program    string     `json:"program"`
	Start      comparison `json:"start"` // Docker's start event to the arrival of RegisterTargets
	Kill       comparison `json:"kill"`  // Docker's kill event to the arrival of DeregisterTargets
	LedgerSync meanOf     `json:"ledger_fdatasync"`
}

type machine struct {
	CPUs       int     `json:"cpus"`
	Kernel     string  `json:"kernel"`
	Engine     string  `json:"engine"`
	Go         string  `json:"go"`
	LoadBefore float64 `json:"load_before"`
	LoadAfter  float64 `json:"load_after"`
}

type meanOf struct {
	N    int     `json:"n"`
	Mean float64 `json:"mean_seconds"`
}

// judge fills Met in: whether every program meets the criteria.
func (r *result) judge() {
	r.Met = true
	for _, m := range r.Berths {
		r.Met = r.Met && m.Start.MedianRatio <= mostMedian && m.Start.P95Ratio <= mostStartP95 && m.Kill.MedianRatio <= mostMedian
	}
}

// print writes the result as a table, as docs/performance.md has it.
func (r *result) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(cells ...string) { fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	line("", "n", "floor: median", "p95", "berth: median", "p95", "ratio of medians", "of p95")
	line("---", "---", "---", "---", "---", "---", "---", "---")
	for _, m := range r.Berths {
		for _, row := range []struct {
			name, most string
			c          comparison
		}{{"start → RegisterTargets", fmt.Sprintf(" (at most %.1f)", mostStartP95), m.Start}, {"kill → DeregisterTargets", "", m.Kill}} {
			c := row.c
			if len(r.Berths) > 1 {
				row.name = m.Program + ": " + row.name
			}
			line(row.name, fmt.Sprint(c.Berth.N), ms(c.Floor.Median), ms(c.Floor.P95), ms(c.Berth.Median), ms(c.Berth.P95),
				fmt.Sprintf("%.2f (at most %.1f)", c.MedianRatio, mostMedian), fmt.Sprintf("%.2f%s", c.P95Ratio, row.most))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, m := range r.Berths {
		fmt.Fprintf(w, "fdatasync of the ledger: %s (mean of %d)\n", ms(m.LedgerSync.Mean), m.LedgerSync.N)
	}
	verdict := "met"
	if !r.Met {
		verdict = "not met"
	}
	_, err := fmt.Fprintf(w, `a bare one beside it: %s (median of %d), p95 %s
%d CPUs, Linux %s, Docker %s, %s; load %.1f before, %.1f after
criteria: %s
`, ms(r.Disk.Median), r.Disk.N, ms(r.Disk.P95),
		r.Machine.CPUs, r.Machine.Kernel, r.Machine.Engine, r.Machine.Go, r.Machine.LoadBefore, r.Machine.LoadAfter, verdict)
	return err
}

// ms writes seconds as "1.23 ms".
func ms(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1000) }

var sample = regexp.MustCompile(`(?m)^berth_ledger_sync_duration_seconds_(sum|count) (\S+)$`)

// ledgerSync reads the mean of the ledger's fdatasync from /metrics.
func ledgerSync(metrics string) (meanOf, error) {
	values := map[string]float64{}
	for _, m := range sample.FindAllStringSubmatch(metrics, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return meanOf{}, fmt.Errorf("read berth_ledger_sync_duration_seconds: %w", err)
		}
		values[m[1]] = v
	}
	if values["count"] == 0 {
		return meanOf{}, fmt.Errorf("berth's metrics have no berth_ledger_sync_duration_seconds")
	}
	return meanOf{N: int(values["count"]), Mean: values["sum"] / values["count"]}, nil
}
