package elb

import (
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

const (
	// ClockFar is how far this host's clock may be from that of AWS before it is said.
	ClockFar = time.Minute
	// clockRefused is a little less than how far it may be before AWS refuses its signatures: 5 min.
	clockRefused = 5*time.Minute - 5*time.Second
	// ClockNear is how near it must have come for that to be over, and how much it must have moved to be said anew.
	ClockNear = ClockFar / 2
	// ClockChange says what to change about a clock that is far off.
	ClockChange = "start chronyd or systemd-timesyncd, and see that it reaches its source (chronyc sources)"
)

// dates tells somebody, once there is one, how far this host's clock is ahead of that of AWS, by the date of each reply.
type dates struct {
	mu    sync.Mutex // guards all below, and is held while tell is called: replies come on any goroutine
	tell  func(ahead time.Duration)
	ahead time.Duration // as of the last reply
}

// unsigned reports whether the clock is so far off that a signature made by it is refused. The SDK makes up for it with the
// next call.
func (d *dates) unsigned() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ahead.Abs() > clockRefused
}

// dated looks at the date of each reply.
type dated struct {
	of    elasticloadbalancingv2.HTTPClient
	dates *dates
}

// Do is elasticloadbalancingv2.HTTPClient's.
func (d dated) Do(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := d.of.Do(r)
	if err != nil {
		return resp, err
	}
	at, bad := http.ParseTime(resp.Header.Get("Date"))
	if bad != nil || resp.Header.Get("Age") != "" { // a proxy's old answer has an old date
		return resp, nil
	}
	// The date is of some moment between request and reply, cut to the second.
	middle := begun.Add(time.Since(begun) / 2)
	d.dates.mu.Lock()
	defer d.dates.mu.Unlock()
	d.dates.ahead = middle.Sub(at.Add(time.Second / 2))
	if d.dates.tell != nil {
		d.dates.tell(d.dates.ahead)
	}
	return resp, nil
}

// onDate has f told of each reply how far this host's clock is ahead of that of AWS, one reply at a time.
func (c *sdkClient) onDate(f func(ahead time.Duration)) {
	c.dates.mu.Lock()
	defer c.dates.mu.Unlock()
	c.dates.tell = f
}
