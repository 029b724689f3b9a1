package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// client asks on a connection for each request, as many different clients would.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the body of a successful answer.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %.200s", url, response.Status, body)
	}
	return body, nil
}

// load sends requests to the load balancers of all groups, in turn, and counts who answers.
type load struct {
	groups    []string
	listeners map[string]string // addresses by group

	mu      sync.Mutex // guards what follows: several goroutines ask
	sent    int
	failed  int
	err     error // of the last that failed
	answers map[string]map[string]int
}

func newLoad(listeners map[string]string) *load {
	l := &load{groups: slices.Sorted(maps.Keys(listeners)), listeners: listeners, answers: map[string]map[string]int{}}
	for _, group := range l.groups {
		l.answers[group] = map[string]int{}
	}
	return l
}

// workers is how many clients there are: enough to be quick, few enough for two cores.
const workers = 4

// send sends n requests and returns when all are answered.
func (l *load) send(ctx context.Context, n int) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && ctx.Err() == nil; i += workers {
				l.ask(ctx, l.groups[i%len(l.groups)])
			}
		})
	}
	wg.Wait()
}

// keep sends some 200 requests a second until ctx ends.
func (l *load) keep(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.send(context.WithoutCancel(ctx), len(l.groups))
		}
	}
}

func (l *load) ask(ctx context.Context, group string) {
	body, err := get(ctx, "http://"+l.listeners[group]+"/")
	var who struct{ Name string }
	if err == nil {
		err = json.Unmarshal(body, &who)
	}
	if err == nil && !strings.HasPrefix(who.Name, group+"-") {
		err = fmt.Errorf("target group %s: container %q answered", group, who.Name)
	}
	if ctx.Err() != nil {
		return // the demo was interrupted: nobody's failure
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed, l.err = l.failed+1, err
		return
	}
	l.answers[group][who.Name]++
}

// count is how many requests were sent so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// summary says for each group who answered how often.
func (l *load) summary() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, group := range l.groups {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(l.answers[group])) {
			parts = append(parts, fmt.Sprintf("%s %d", name, l.answers[group][name]))
		}
		lines = append(lines, fmt.Sprintf("%-8s answered by  %s", group, strings.Join(parts, ",  ")))
	}
	return lines
}
